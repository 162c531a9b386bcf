"""What a prediction over many images has left, for Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Predicted:
    """What `predict` has written.

    Attributes:
        directory: Where to.
        counts: Objects by the name of the image.
        failures: Why, by the name of each image that could not be used.
        files: What was written of all images together or of each, by the name of the format.
    """

    directory: Path
    counts: Mapping[str, int]
    failures: Mapping[str, str]
    files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def page(self) -> Path:
        """The page that shows it."""
        return self.directory / "predictions.html"

    def coco(self) -> dict[str, Any]:
        """The content of `coco.json`.

        Raises:
            DataError: it was not written, since `coco` was none of the formats, or is damaged.
        """
        from lora_sam.data.reading.annotation_files import parsed_json

        return parsed_json(self.directory / "coco.json", ("images", "annotations"), "what formats=['coco'] writes")
