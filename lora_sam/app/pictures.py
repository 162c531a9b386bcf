"""The images that can be compared on: test images of a run with their truth, and uploads."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.app.patches import Patch, patch_of
from lora_sam.app.runs import Run, configuration, ranked_images
from lora_sam.app.scene import MAX_OBJECTS, prompts_of
from lora_sam.core.errors import DataError, LoraSamError
from lora_sam.prompts.objects import ObjectPrompts

if TYPE_CHECKING:
    from lora_sam.core.structures import Sample
    from lora_sam.data.sources import SampleSource
    from lora_sam.training.settings import Settings

SHOWN_SIDE = 1536
"""Longest side on which masks are shown; larger images are worked on at this size, and downloads at their own."""

SHOWN_OBJECTS = 12
EXAMPLES = 12
THUMBNAIL = 112


@dataclass(frozen=True)
class Picture:
    """An image ready to be prompted.

    Attributes:
        id: See `Scene.image`.
        name: For people.
        digest: SHA-256 of the pixels.
        original: RGB, uint8 [H, W, 3].
        image: The same with a longest side of at most `SHOWN_SIDE`; `original` itself where it is not larger.
        truth: True masks at the size of `image`.
        boxes: Tight boxes of the truth, XYXY in pixels of `original`, float32 [N, 4].
        objects: Prompts to begin with.
        path: File of the image where it is one of a data set, for the snippet.
        preview: `image` as a data URL.
    """

    id: str
    name: str
    digest: str
    original: NDArray[np.uint8]
    image: NDArray[np.uint8]
    truth: tuple[Patch, ...] = ()
    boxes: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    objects: tuple[ObjectPrompts, ...] = ()
    path: str | None = None
    preview: str = ""

    @property
    def nbytes(self) -> int:
        """What it takes in memory, in bytes."""
        shown = 0 if self.image is self.original else self.image.nbytes
        return self.original.nbytes + shown + len(self.preview) + sum(patch.mask.nbytes for patch in self.truth)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the original."""
        return self.original.shape[0], self.original.shape[1]

    @property
    def shown_size(self) -> tuple[int, int]:
        """(height, width) of `image`."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def scale(self) -> tuple[float, float]:
        """(x, y): pixels of `image` per pixel of the original."""
        return self.image.shape[1] / self.original.shape[1], self.image.shape[0] / self.original.shape[0]


def picture_of(
    id: str, name: str, original: NDArray[np.uint8], sample: Sample | None = None, settings: Settings | None = None
) -> Picture:
    """A picture; with a labelled sample, its truth and the prompts of the evaluation for its largest objects."""
    image = original
    longest = max(original.shape[:2])
    if longest > SHOWN_SIDE:
        width, height = (max(1, round(side * SHOWN_SIDE / longest)) for side in (original.shape[1], original.shape[0]))
        image = np.asarray(Image.fromarray(original).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3))
    digest = hashlib.sha256(repr(original.shape).encode() + original.tobytes()).hexdigest()
    made = Picture(id, name, digest, original, image, preview=data_url(image))
    if sample is None or settings is None:
        return made
    from lora_sam.prompts import tight_boxes

    masks = sample.masks
    if image is not original:
        rows, columns = (
            np.minimum((np.arange(shown) + 0.5) * whole / shown, whole - 1).astype(np.intp)
            for shown, whole in zip(image.shape[:2], original.shape[:2], strict=True)
        )
        masks = masks[:, rows[:, None], columns]
    prompts = prompts_of(settings.prompt.evaluation_prompts(sample, settings.seed))
    largest = np.argsort(-sample.masks.sum(axis=(1, 2)), kind="stable")[:SHOWN_OBJECTS]
    return Picture(
        id,
        name,
        digest,
        original,
        image,
        truth=tuple(patch_of(mask) for mask in masks),
        boxes=tight_boxes(sample.masks),
        objects=tuple(prompts[index] for index in sorted(largest.tolist()))[:MAX_OBJECTS],
        path=_path_of(settings, sample.id),
        preview=made.preview,
    )


@dataclass(frozen=True)
class EvaluatedImages:
    """The images a run was evaluated on.

    Attributes:
        settings: Settings of the run.
        source: The images.
        scores: Mean IoU (base, tuned) of an image by its id, where it was measured.
    """

    settings: Settings
    source: SampleSource
    scores: Mapping[str, tuple[float, float]]

    def order(self) -> list[int]:
        """Indices of the images, the largest gain first; those that were not measured last."""
        gains = [self.scores.get(id, (0.0, -2.0)) for id in self.source.ids]
        return sorted(range(len(gains)), key=lambda index: (gains[index][0] - gains[index][1], index))

    def picture(self, index: int) -> Picture:
        """One of them. Raises `DataError` if it is gone or damaged."""
        if not 0 <= index < len(self.source):
            raise DataError(f"there is no test image {index}, there are {len(self.source)}")
        sample = self.source[index]
        return picture_of(f"test:{index}", sample.id, sample.image, sample, self.settings)

    def thumbnail(self, index: int, side: int = THUMBNAIL) -> dict[str, Any]:
        """Id, name, mean IoU before and after, and a small picture as data URL, ready for JSON."""
        sample = self.source[index]
        return {
            "id": f"test:{index}",
            "name": sample.id,
            "iou": self.scores.get(sample.id),
            "url": data_url(small(sample.image, side)),
        }


def images_of(run: Run) -> EvaluatedImages:
    """The images that `run` was evaluated on.

    Raises:
        DataError: the data are gone, or the run does not say where they are.
    """
    from lora_sam.runs.places import placed
    from lora_sam.runs.resuming import completed
    from lora_sam.training.settings import settings_from

    config = configuration(run)
    if config is None:
        raise DataError(f"{run.name}: config.json is missing, so its test images are not known")
    try:
        settings = settings_from(placed(completed(config)[0], run.directory))
    except LoraSamError as error:
        raise DataError(
            f"{run.name}: config.json is not that of a run of this version, so its test images are not known"
        ) from error
    try:
        splits = settings.open_data()
    except LoraSamError as error:
        raise DataError(f"the test images of {run.name} cannot be read: {error}") from error
    report = run.report
    scores = {} if report is None else {
        image["id"]: (image["base_iou"], image["tuned_iou"]) for image in ranked_images(report)
    }  # fmt: skip
    return EvaluatedImages(settings, splits.test if settings.evaluate_split == "test" else splits.val, scores)


def small(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """An RGB image with a longest side of at most `side` pixels."""
    made = Image.fromarray(image)
    made.thumbnail((side, side))
    return np.asarray(made)


def data_url(image: NDArray[np.uint8]) -> str:
    """An RGB image as a data URL: JPEG at quality 92."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=92, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _path_of(settings: Settings, sample_id: str) -> str | None:
    root = getattr(settings.data, "root", None)
    if not isinstance(root, str):
        return None
    path = Path(root).expanduser() / sample_id
    return str(path) if path.is_file() else None
