"""What a model is calibrated with: some of the run's own training images, and prompts of all kinds on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.core.files import digest_of
from lora_sam.core.frame import Frame
from lora_sam.core.predictor import Predictor
from lora_sam.core.seeds import generator_for
from lora_sam.core.structures import Prompts, Sample
from lora_sam.data.contents import digest_of_source
from lora_sam.data.sources import SampleSource
from lora_sam.data.splits import Splits, Subset
from lora_sam.evaluation.scoring import some_objects
from lora_sam.predictors.openvino_predictor import decoder_inputs
from lora_sam.prompts import farthest_pixel, tight_boxes

OBJECTS = 4
"""Objects of an image that the decoder is calibrated with."""

POINTS = 4
"""Points of an object where it gets several; the last one is outside."""


def drawn(source: SampleSource, count: int, purpose: str, seed: int) -> Subset:
    """`count` images of `source` in its own order, or all if there are not as many.

    The draw depends on `purpose`, `seed` and the number of images only.

    Raises:
        DataError: `source` is empty.
    """
    if not len(source):
        raise DataError(f"there is no image for {purpose}: the split is empty; give it an image with an object")
    order = generator_for(seed, purpose).permutation(len(source))
    return Subset(source, tuple(sorted(int(index) for index in order[:count])))


@dataclass(frozen=True)
class EncoderExamples:
    """The encoder's inputs, image by image.

    Attributes:
        images: Labelled images.
        frame: The model's input frame.
    """

    images: SampleSource
    frame: Frame

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, NDArray[np.float32]]:
        """`images`, float32 [1, 3, S, S]."""
        from lora_sam.data.transforms import preprocess

        return {"images": preprocess(self.images[index].image, self.frame).unsqueeze(0).numpy()}


def decoder_examples(
    images: SampleSource, embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]], predictor: Predictor, seed: int
) -> Iterator[dict[str, NDArray[Any]]]:
    """The decoder's inputs for every image, with each kind of prompt in turn.

    Args:
        images: Labelled images.
        embed: Makes the embedding [1, C, S/16, S/16] of an image.
        predictor: Predicts the masks that become mask prompts.
        seed: Draws objects and points.
    """
    for index in range(len(images)):
        sample = images[index]
        embedding = embed(sample.image)
        for prompts in prompts_of_all_kinds(sample, predictor, seed):
            yield {"image_embeddings": embedding, **decoder_inputs(prompts, sample.size, predictor.frame)}


def prompts_of_all_kinds(sample: Sample, predictor: Predictor, seed: int) -> Iterator[Prompts]:
    """Boxes, single points, several points (one of them outside), and boxes with a mask prompt, for some objects.

    Args:
        sample: A labelled image; of its objects at most `OBJECTS` are drawn.
        predictor: Predicts the masks that become mask prompts, from the boxes.
        seed: Draws objects and points.
    """
    draws = generator_for(seed, "calibration", sample.id)
    masks = some_objects(sample, OBJECTS, seed).masks
    boxes = Prompts(boxes=tight_boxes(masks))
    yield boxes
    centres = np.array([[(column + 0.5, row + 0.5)] for row, column in map(farthest_pixel, masks)], np.float32)
    yield Prompts(points=centres, labels=np.ones((len(masks), 1), np.int64))
    several = np.stack([_points(mask, draws) for mask in masks])
    labels = np.tile(np.array([1] * (POINTS - 1) + [0], np.int64), (len(masks), 1))
    yield Prompts(points=several, labels=labels)
    low_res = predictor.predict(sample.image, boxes).low_res_logits
    yield Prompts(boxes=boxes.boxes, mask_inputs=low_res)


def digest(splits: Splits) -> str:
    """SHA-256 that stands for the images that calibrate and that measure: their names, pixels and labels."""
    return digest_of({"train": digest_of_source(splits.train), "val": digest_of_source(splits.val)})


def _points(mask: NDArray[np.bool_], draws: np.random.Generator) -> NDArray[np.float32]:
    """Points (x, y) in the middle of pixels, float32 [POINTS, 2]: all but the last inside the mask."""
    inside, outside = np.flatnonzero(mask), np.flatnonzero(~mask)
    chosen = [*draws.choice(inside, POINTS - 1), draws.choice(outside if len(outside) else inside)]
    rows, columns = np.unravel_index(chosen, mask.shape)
    return np.stack([columns, rows], axis=1).astype(np.float32) + np.float32(0.5)
