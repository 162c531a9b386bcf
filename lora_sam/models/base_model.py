"""A SAM ready for a method, and which base it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_sam.core.scores import META, Scores

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


@dataclass(frozen=True)
class BaseModel:
    """A SAM with split projections, and which base it is.

    Attributes:
        sam: Keys as upstream, but `attn.q|k|v` for `attn.qkv`; fp32, `eval()`, nothing requires gradients.
        variant: Name of the architecture.
        image_size: Side S of the square input in pixels.
        sha256: SHA-256 of the checkpoint file, or of the drawn weights when they are random.
        source: Name of the checkpoint file, or `random`.
        tensors: SHA-256 of the weights themselves: equal whatever file, layout or precision holds the same numbers.
            None where the file is the one that was expected, so that nobody has to know.
        scores: From which score on its masks are good.
    """

    sam: Sam
    variant: str
    image_size: int
    sha256: str
    source: str
    tensors: str | None
    scores: Scores = META
