"""The objects of one image, without prompts or with them, in tiles where it is large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_sam.deployment.predicting.found import FoundObject, objects_from, objects_of_crops
from lora_sam.deployment.predicting.prompted import PromptedObject
from lora_sam.predictors.tiled_prompts import prompted_in_tiles
from lora_sam.predictors.tiles import Label, automatic_in_tiles
from lora_sam.prompts.objects import batches

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.deployment.predicting.task import Work

_MASK_BYTES = 2**28  # of masks at once


def namer(work: Work, predictor: Predictor) -> Label:
    """Says of masks of an image of which class each is."""
    head, only = work.head, next(iter(work.categories.values()))

    def names(pixels: NDArray[np.uint8], masks: NDArray[np.bool_], told: NDArray[np.float32] | None) -> Sequence[str]:
        if head is None or not len(masks):
            return [only] * len(masks)
        # exported parts tell the classes themselves
        known = told is not None and getattr(predictor, "class_names", None) == head.names
        likely = told if told is not None and known else head.probabilities(predictor, pixels, masks)
        return [head.names[place] for place in likely.argmax(axis=1)]

    return names


def found_objects(
    work: Work, predictor: Predictor, pixels: NDArray[np.uint8]
) -> tuple[list[FoundObject | None], str | None]:
    """Objects without prompts, and where there are none, why and what to change."""
    size = (pixels.shape[0], pixels.shape[1])
    tiles, names = work.tiling.of(size), namer(work, predictor)
    if tiles is None:
        whole = work.automatic.generate(predictor, pixels)
        nothing = [None] * len(whole.scores)
        labels = names(pixels, whole.masks, None)
        objects = objects_from(whole.masks, whole.scores, labels, nothing, whole.stability.tolist())
        return objects, whole.nothing
    found = automatic_in_tiles(work.automatic, predictor, pixels, tile=tiles.tile, halo=tiles.halo, label=names)
    nothing = [None] * len(found.scores)
    objects = objects_of_crops(found.crops, size, found.scores, found.labels, nothing, found.stability.tolist())
    return objects, found.nothing


def prompted_objects(
    work: Work, predictor: Predictor, pixels: NDArray[np.uint8], objects: Sequence[PromptedObject]
) -> list[FoundObject | None]:
    """Objects in the order of their prompts; those that can be decoded together are."""
    size, names = (pixels.shape[0], pixels.shape[1]), namer(work, predictor)
    tiles = work.tiling.of(size)
    most = max(1, _MASK_BYTES // (size[0] * size[1])) if tiles is None else len(objects)
    made: dict[int, FoundObject | None] = {}
    for places, prompts in batches([one.prompts for one in objects]):
        for start in range(0, len(places), most):
            part = places[start : start + most]
            some, given = prompts[slice(start, start + most)], [objects[place].category for place in part]
            ids = [objects[place].id for place in part]
            # what the file of prompts says comes first
            label = None if work.named else names
            if tiles is None:
                masks = predictor.predict(pixels, some, multimask=work.multimask)
                told = given if label is None else label(pixels, masks.masks, masks.class_probabilities)
                found = objects_from(masks.masks, masks.scores, told, ids, [None] * len(part))
            else:
                crops, scores, said = prompted_in_tiles(
                    predictor, pixels, some, tile=tiles.tile, multimask=work.multimask, label=label
                )
                told = given if label is None else said
                found = objects_of_crops(crops, size, scores, told, ids, [None] * len(part))
            made.update(zip(part, found, strict=True))
    return [made[place] for place in range(len(objects))]
