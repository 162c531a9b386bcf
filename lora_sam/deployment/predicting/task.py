"""What a prediction is to do, decided before the first image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lora_sam.core.files import digest_of
from lora_sam.data.reading.pixel_scale import PixelScale
from lora_sam.deployment.predicting.found import FoundImage
from lora_sam.deployment.predicting.output import Output
from lora_sam.deployment.predicting.prompted import PromptedObject
from lora_sam.deployment.predicting.sources import SourceImage
from lora_sam.deployment.predicting.tiling import NOT_TILED, Tiling
from lora_sam.deployment.predicting.writers.table import FORMATS
from lora_sam.predictors.automatic import AutomaticMasks
from lora_sam.predictors.class_head import ClassHead


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be done.

    Attributes:
        images: The images, in order.
        stems: Path without ending of what is written for each, by its name.
        output: Where to.
        formats: What is written.
        categories: Names by id.
        automatic: How masks are made without prompts.
        prompts: Prompted objects by the name of the image; None for automatic masks.
        multimask: With prompts: the best of the three masks for ambiguous prompts instead of the single one.
        scale: How values of more than 8 bits become grey levels: that of the training.
        max_pixels: Images with more are left out, unless they are cut into tiles.
        tiling: Which images are cut into tiles, and how.
        head: Names the class of a mask; None where what is found has one class, or `named`.
        named: Whether the file of prompts says the classes.
    """

    images: Sequence[SourceImage]
    stems: Mapping[str, str]
    output: Output
    formats: Sequence[str]
    categories: Mapping[int, str]
    automatic: AutomaticMasks
    prompts: Mapping[str, Sequence[PromptedObject]] | None
    multimask: bool
    scale: PixelScale | None
    max_pixels: int
    tiling: Tiling = NOT_TILED
    head: ClassHead | None = None
    named: bool = False

    @cached_property
    def numbering(self) -> str:
        """Digest of the names of the classes in the order that numbers them."""
        return digest_of({"names": [name for _, name in sorted(self.categories.items())]})

    def missing(self, image: FoundImage) -> tuple[str, ...]:
        """Those formats of which an image's files are not all there, or number the classes otherwise."""
        lacking = self.output.whole(image, self.formats)
        return tuple(name for name in self.formats if name in lacking or self.numbered_otherwise(image, name))

    def numbered_otherwise(self, image: FoundImage, name: str) -> bool:
        """Whether an image's files of a format number the classes, and in another order than now."""
        return FORMATS[name].numbers_classes and image.numbering.get(name) != self.numbering
