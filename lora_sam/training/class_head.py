"""Fits the head that tells classes apart, on what the tuned model sees under the labelled objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.predictors.class_head import ClassHead, features_of
from lora_sam.training.trained_on import some_images

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.data.sources import SampleSource

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Weights of the L2 term that are tried."""

_Labelled = tuple[NDArray[np.float32], tuple[str, ...]]


def fit_class_head(
    predictor: Predictor,
    train: SampleSource,
    val: SampleSource,
    *,
    seed: int,
    on_image: Callable[[int, int], None] | None = None,
) -> ClassHead | None:
    """A head for the classes of the training images; None where they have fewer than two.

    The penalty is the one with the smallest cross-entropy on the validation images; where these have no object of a
    known class, 0.01.

    Args:
        predictor: The tuned model.
        train: Labelled images; at most `trained_on.MOST_IMAGES` are used, drawn by `seed`.
        val: Labelled images that were not trained on.
        seed: See `train`.
        on_image: Called with (images done, images wanted).
    """
    chosen = some_images(len(train), seed), some_images(len(val), seed)
    count, done = len(chosen[0]) + len(chosen[1]), 0
    sets: list[_Labelled] = []
    for source, places in zip((train, val), chosen, strict=True):
        features: list[NDArray[np.float32]] = []
        labels_seen: list[str] = []
        for place in places.tolist():
            sample = source[place]
            features.append(features_of(predictor.embedding(sample.image), sample.masks, predictor.frame))
            labels_seen += sample.classes
            done += 1
            if on_image is not None:
                on_image(done, count)
        sets.append((np.concatenate(features) if features else np.zeros((0, 1), np.float32), tuple(labels_seen)))
    (seen, labels), held_out = sets
    names = sorted(set(labels))
    if len(names) < 2:
        return None
    target = np.array([names.index(label) for label in labels])
    known = np.array([label in names for label in held_out[1]], np.bool_)
    heads = {penalty: _fitted(seen, target, tuple(names), penalty) for penalty in PENALTIES}
    if not known.any():
        return heads[1e-2]
    rows = np.array([names.index(label) for label in held_out[1] if label in names])
    losses = {
        penalty: -float(np.log(head.of_features(held_out[0][known])[np.arange(len(rows)), rows] + 1e-12).mean())
        for penalty, head in heads.items()
    }
    return heads[min(losses, key=lambda penalty: (losses[penalty], -penalty))]


def _fitted(features: NDArray[np.float32], target: NDArray[np.intp], names: Sequence[str], penalty: float) -> ClassHead:
    """Multinomial logistic regression on standardised features, by L-BFGS; the standardisation is folded in."""
    from scipy.optimize import minimize

    values = features.astype(np.float64)
    mean, spread = values.mean(axis=0), values.std(axis=0)
    spread[spread < 1e-6] = 1.0
    scaled = (values - mean) / spread
    classes, width = len(names), scaled.shape[1]
    wanted = np.eye(classes)[target]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[Any]]:
        weight, bias = flat[:-classes].reshape(classes, width), flat[-classes:]
        logits = scaled @ weight.T + bias
        logits -= logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        value = -float(((logits - log_sum) * wanted).sum()) / len(scaled) + penalty * float((weight**2).sum())
        error = (np.exp(logits - log_sum) - wanted) / len(scaled)
        gradient = error.T @ scaled + 2 * penalty * weight
        return value, np.concatenate([gradient.ravel(), error.sum(axis=0)])

    found = minimize(loss, np.zeros(classes * (width + 1)), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    weight = found.x[:-classes].reshape(classes, width) / spread
    bias = found.x[-classes:] - weight @ mean
    return ClassHead(tuple(names), weight.astype(np.float32), bias.astype(np.float32))
