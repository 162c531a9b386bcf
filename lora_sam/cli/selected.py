"""What `select` looks at: images that are labelled, and what is kept of each image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.core.run_directory import RunDirectory
    from lora_sam.data.reading.duplicates import Likeness
    from lora_sam.data.sources import SampleSource
    from lora_sam.data.splits import Subset
    from lora_sam.deployment.predicting.tiling import Tiling
    from lora_sam.training.settings import Settings


def labelled_images(
    run: RunDirectory, settings: Settings, data_root: str | None
) -> tuple[SampleSource, tuple[Subset, ...]]:
    """Images that a run was trained on, and the other labelled ones of its data; whole where it took tiles of them.

    Args:
        run: The run.
        settings: Its settings, with the place of its data.
        data_root: Where it was said that they lie.

    Raises:
        DataError: they cannot be read, or are others than those of the run.
    """
    from lora_sam.data.splits import Subset
    from lora_sam.runs.places import opened

    splits = opened(run, settings, data_root)
    if getattr(settings.data, "tile", None) is not None:
        settings = replace(settings, data=replace(settings.data, tile=None))  # type: ignore[type-var]
        splits = settings.open_data()
    training, seen = splits.train, set(splits.train.ids)
    if settings.trainer.shots is not None:
        splits = replace(settings, trainer=replace(settings.trainer, shots=None)).open_data()
    others = []
    for source in (splits.train, splits.val, splits.test):
        more = tuple(index for index, name in enumerate(source.ids) if name not in seen)
        if more:
            others.append(Subset(source, more))
        seen.update(source.ids)
    return training, tuple(others)


@dataclass(frozen=True)
class Seen:
    """What is kept of an image.

    Attributes:
        features: Of its embedding, [2 C]; of an image in tiles their mean.
        likeness: To compare it with others.
        differs: Disagreement of adapter and base; None where it was not asked for.
        picture: Small, for the sheet, uint8 [h, w, 3].
    """

    features: NDArray[np.float64]
    likeness: Likeness
    differs: float | None
    picture: NDArray[np.uint8]

    @classmethod
    def of(cls, image: NDArray[np.uint8], tuned: Predictor, other: Predictor | None, tiling: Tiling) -> Seen:
        """Look at an image, cut as `predict` cuts it: objects are as large for the model as in training.

        Args:
            image: uint8 [H, W, 3].
            tuned: The model of the run.
            other: Its base, where the disagreement is asked for.
            tiling: How large images are cut.
        """
        from lora_sam.core.tile_grid import tiles_of
        from lora_sam.data.reading.duplicates import likeness

        size = (image.shape[0], image.shape[1])
        tiles = tiling.of(size)
        boxes = [(0, 0, size[1], size[0])] if tiles is None else tiles_of(size, tiles.tile, tiles.halo)
        found = [
            _described(np.ascontiguousarray(image[y:bottom, x:right]), tuned, other) for x, y, right, bottom in boxes
        ]
        differs = None if other is None else round(float(np.mean([one[1] for one in found])), 6)
        step = max(1, max(size) // 256)
        features = np.mean([one[0] for one in found], axis=0)
        return cls(features, likeness(image), differs, image[::step, ::step].copy())


def _described(
    image: NDArray[np.uint8], tuned: Predictor, other: Predictor | None
) -> tuple[NDArray[np.float64], float | None]:
    """Features of what goes through the model as one, and how far adapter and base differ there."""
    from lora_sam.core.structures import Prompts
    from lora_sam.evaluation.choosing import PER_SIDE, described, disagreement
    from lora_sam.predictors.grid import grid_points

    size = (image.shape[0], image.shape[1])
    features = described(tuned.embedding(image), tuned.frame.extent(size), tuned.frame.side)
    if other is None:
        return features, None
    points = grid_points(PER_SIDE, size)[:, None]
    prompts = Prompts(points=points, labels=np.ones(points.shape[:2], np.int64))
    return features, disagreement(tuned.predict(image, prompts).masks, other.predict(image, prompts).masks)
