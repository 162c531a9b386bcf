"""How well masks match the truth, for predictors that are compared on the same images and prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.frame import Frame
from lora_sam.core.structures import Prompts, Sample
from lora_sam.data.sources import SampleSource
from lora_sam.evaluation.metrics import mask_iou
from lora_sam.predictors.openvino_predictor import decoder_inputs

if TYPE_CHECKING:
    import openvino

Predict = Callable[[NDArray[np.uint8], Prompts], NDArray[np.bool_]]
"""Masks [N, H, W] for an RGB image [H, W, 3] and N prompts."""

CHUNK = 16  # prompts decoded at once


@dataclass(frozen=True)
class Validation:
    """Labelled images and their prompts.

    Attributes:
        source: The images.
        prompts_for: One prompt for each object of an image.
    """

    source: SampleSource
    prompts_for: Callable[[Sample], Prompts]

    def iou(self, predict: Predict, indices: Iterable[int] | None = None) -> float:
        """Mean IoU over the objects of the images, or of those at `indices`."""
        wanted = range(len(self.source)) if indices is None else indices
        return float(np.concatenate([self._ious(predict, index) for index in wanted]).mean())

    def _ious(self, predict: Predict, index: int) -> NDArray[np.float64]:
        sample = self.source[index]
        return mask_iou(predict(sample.image, self.prompts_for(sample)), sample.masks)


def embedding_of(encoder: openvino.CompiledModel, image: NDArray[np.uint8], frame: Frame) -> NDArray[np.float32]:
    """The embedding [1, C, S/16, S/16] of an RGB image [H, W, 3]."""
    from lora_sam.data.transforms import preprocess

    pixels = preprocess(image, frame).unsqueeze(0).numpy()
    embedding: NDArray[np.float32] = encoder({"images": pixels})["image_embeddings"].copy()
    return embedding


def masks_of(encoder: openvino.CompiledModel, decoder: openvino.CompiledModel, frame: Frame) -> Predict:
    """Single masks, by an encoder that is in no file."""

    def predict(image: NDArray[np.uint8], prompts: Prompts) -> NDArray[np.bool_]:
        size = image.shape[0], image.shape[1]
        embedding = embedding_of(encoder, image, frame)
        masks: NDArray[np.bool_] = np.empty((len(prompts), *size), np.bool_)
        for rows, part in prompts.kinds():
            for start in range(0, len(rows), CHUNK):
                chunk = slice(start, start + CHUNK)
                inputs = decoder_inputs(part[chunk], size, frame)
                masks[rows[chunk]] = decoder({"image_embeddings": embedding, **inputs})["upscaled_masks"][:, 0] > 0
        return masks

    return predict
