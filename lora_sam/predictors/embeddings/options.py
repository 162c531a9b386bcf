"""What a user may set about the cache of image embeddings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lora_sam.core.files import user_cache


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Where and how what the frozen part of the image encoder makes is kept; shared by all runs on the machine.

    Attributes:
        directory: Where; null takes `$LORA_SAM_EMBEDDINGS`, else `lora_sam/embeddings` under the user's cache
            directory.
        max_gb: Largest size of that directory in GB (10^9 bytes); what was used least recently goes first.
        dtype: How numbers are stored for training and validation: `float16`, or `float32`: then a run with the cache
            gives the same bits as one without. The final evaluation always uses float32.
        views: Where augmentation flips and turns, an image has this many views, drawn once, that are encoded once; each
            epoch takes one of them.
    """

    directory: str | None
    max_gb: Annotated[float, Field(gt=0)]
    dtype: Literal["float16", "float32"]
    views: Annotated[int, Field(ge=1, le=8)]

    def place(self) -> Path:
        """The directory."""
        if self.directory is not None:
            return Path(self.directory).expanduser()
        if own := os.environ.get("LORA_SAM_EMBEDDINGS"):
            return Path(own).expanduser()
        return user_cache() / "embeddings"
