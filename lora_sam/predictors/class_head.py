"""Which class an object is of: a linear head on what the image encoder saw under the object's mask."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import AdapterError
from lora_sam.core.frame import Frame

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor

_NAMES = "names"
_REMEDY = "train again or restore the file"


@dataclass(frozen=True)
class ClassHead:
    """A multinomial logistic regression; a predictor gives it an image embedding, so one head serves all.

    Attributes:
        names: Of the C classes, two or more.
        weight: float32 [C, F]; F is the channels of the embedding and one for the size, see `features_of`.
        bias: float32 [C].
    """

    names: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def probabilities(
        self, predictor: Predictor, image: NDArray[np.uint8], masks: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """How likely each of N masks of an image is of each class.

        Args:
            predictor: The tuned one, whatever computes it: the head was fitted on its embeddings.
            image: RGB, uint8 [H, W, 3].
            masks: bool [N, H, W]; an empty mask is as likely of one class as the bias says.

        Returns:
            float32 [N, C], each row adds up to 1.
        """
        features = features_of(predictor.embedding(image), masks, predictor.frame)
        return self.of_features(features)

    def told(self, predictor: Predictor, image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> list[str]:
        """The most likely class of each of N masks; arguments as those of `probabilities`."""
        return [self.names[place] for place in self.probabilities(predictor, image, masks).argmax(axis=1)]

    def of_features(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """`probabilities` from features [N, F]."""
        logits = features.astype(np.float64) @ self.weight.T.astype(np.float64) + self.bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True)) if len(logits) else logits
        shares: NDArray[np.float32] = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
        return shares

    def save(self, path: Path) -> None:
        """Write it as safetensors, names in the metadata."""
        from safetensors.numpy import save_file

        tensors = {"weight": np.ascontiguousarray(self.weight), "bias": np.ascontiguousarray(self.bias)}
        save_file(tensors, str(path), {_NAMES: json.dumps(list(self.names))})


def load_class_head(path: Path) -> ClassHead:
    """What `ClassHead.save` wrote.

    Raises:
        AdapterError: the file cannot be read, or is no class head.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            names = json.loads((file.metadata() or {}).get(_NAMES, "null"))
            weight, bias = (np.asarray(file.get_tensor(name)) for name in ("weight", "bias"))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise AdapterError(f"{path} cannot be read ({str(error)[:200]}); {_REMEDY}") from error
    told = isinstance(names, list) and len(names) >= 2 and all(isinstance(name, str) for name in names)
    shaped = weight.dtype == bias.dtype == np.float32 and weight.ndim == 2 and bias.shape == weight.shape[:1]
    if (
        not told
        or not shaped
        or len(names) != len(weight)
        or not (np.isfinite(weight).all() and np.isfinite(bias).all())
    ):
        raise AdapterError(f"{path} is no class head (names, finite float32 weight [C, F] and bias [C]); {_REMEDY}")
    return ClassHead(tuple(names), weight, bias)


def features_of(embedding: NDArray[np.float32], masks: NDArray[np.bool_], frame: Frame) -> NDArray[np.float32]:
    """Mean of the image embedding under each mask, and the logarithm of its area in the input frame.

    A cell of the embedding counts by the share of it that the mask covers, so that an object smaller than a cell counts
    as well.

    Args:
        embedding: float32 [1, D, h, w].
        masks: bool [N, H, W] at the image's size.
        frame: The input frame that the embedding covers.

    Returns:
        float32 [N, D + 1]; zeros for an empty mask.
    """
    _, depth, rows, columns = embedding.shape
    size = masks.shape[1], masks.shape[2]
    extent = frame.extent(size)
    down = _overlaps(size[0], extent[0], rows, frame.side)
    across = _overlaps(size[1], extent[1], columns, frame.side)
    cells = embedding[0].reshape(depth, -1).astype(np.float64)
    features = np.zeros((len(masks), depth + 1), np.float32)
    for mask, row in zip(masks, features, strict=True):
        covered = down @ mask.astype(np.float32) @ across.T
        area = float(covered.sum(dtype=np.float64))
        if area > 0:
            row[:depth] = cells @ covered.ravel().astype(np.float64) / area
            row[depth] = np.log(area)
    return features


def _overlaps(length: int, extent: int, cells: int, image_size: int) -> NDArray[np.float32]:
    """Pixels of the input frame that each of `length` pixels of an axis shares with each cell, [cells, length]."""
    pixels = np.arange(length + 1) * (extent / length)
    edges = np.arange(cells + 1) * (image_size / cells)
    ends = np.minimum(pixels[None, 1:], edges[1:, None])
    starts = np.maximum(pixels[None, :-1], edges[:-1, None])
    overlaps: NDArray[np.float32] = np.maximum(0, ends - starts).astype(np.float32)
    return overlaps
