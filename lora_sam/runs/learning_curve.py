"""`learning_curve.json`: the tuned model against the number of labelled images, and what more of them would bring."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.calling import step_called
from lora_sam.core.errors import AdapterError
from lora_sam.core.files import read_json, write_text
from lora_sam.core.seeds import generator_for
from lora_sam.evaluation.over_seeds import clusters_in, gain_of, mean_over_seeds
from lora_sam.evaluation.power_law import POWER_LAW, Shape, power_law, shapes_for, value_at

FILE = "learning_curve.json"
SCHEMA_VERSION = 1
RESAMPLES = 1000
LEAST_SIZES = 3
"""A curve of fewer sizes is not continued: any three numbers fit a power law."""

_MORE = (5, 10, 20, 50, 100)
_SURE = 0.99
_LEAST_SPREAD = 0.002  # of IoU: draws that happen to agree are not as sure as that

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Size:
    """Trainings on one number of images.

    Attributes:
        shots: Labelled images that were trained on.
        draws: Trainings, each on other images.
        base: Test IoU per object of the base, the same for every size.
        tuned: Mean test IoU per object of the tuned models.
        tuned_interval: 95 % interval of it, over draws and test images; of one draw over test images alone.
        delta: Mean difference of tuned and base.
        delta_interval: 95 % interval of it, over draws and test images; of one draw over test images alone.
        each: Test IoU of every draw.
        further: Means of other figures over the draws, base and tuned, by name.
    """

    shots: int
    draws: int
    base: float
    tuned: float
    tuned_interval: Interval
    delta: float
    delta_interval: Interval
    each: tuple[float, ...]
    further: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class More:
    """What more labelled images would bring, by the curve.

    Attributes:
        images: How many more.
        gain: Change of the test IoU.
        interval: 95 % interval of it, over draws and the shapes that the curve may have.
    """

    images: int
    gain: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """The whole curve.

    Attributes:
        schema_version: Of this file.
        sizes: By rising number of images.
        power_law: (a, b, c) of IoU = a - b n^-c; None where it was not fitted.
        more: What more images would bring; empty where the curve does not tell.
        failed: Jobs that ended with an error: their name and its one line.
        fits: Whether the means lie on a power law as well as means of so few draws do; where not, it is not continued.
    """

    schema_version: int
    sizes: tuple[Size, ...]
    power_law: tuple[float, float, float] | None
    more: tuple[More, ...]
    failed: Mapping[str, str]
    fits: bool = True

    @property
    def useless(self) -> bool:
        """Whether no size was measurably better than the base."""
        return bool(self.sizes) and all(size.delta_interval[0] <= 0.0 for size in self.sizes)

    @property
    def verdict(self) -> str:
        """One sentence that answers how many images are enough."""
        if self.useless:
            return (
                "At none of these sizes the tuned model was measurably better than the base, so the curve says nothing "
                f"of more images: look at the labels with {step_called('check')}, and try other settings first."
            )
        if not self.fits:
            means = ", ".join(f"{np.mean(size.each):.3f} with {size.shots}" for size in self.sizes)
            return (
                f"What more images would bring cannot be told: the figures ({means}) do not lie on a curve that rises "
                "and flattens; train the larger sizes for longer (steps=...) or look at the draws."
            )
        if not self.more:
            return (
                f"What more images would bring cannot be told: a curve needs {LEAST_SIZES} sizes of at least two draws "
                "(the largest may have one)."
            )
        ten = next((one for one in self.more if one.images == 10), self.more[0])
        low, high = ten.interval
        at = self.sizes[-1].shots
        interval = f"95 % interval {low:+.3f} to {high:+.3f}"
        said = f"From {at} images on, {ten.images} more would bring {ten.gain:+.3f} IoU ({interval})"
        if high - low > 0.1:
            return f"{said}: too wide to decide by; more draws or sizes narrow it."
        if high < 0.01:
            many = self.more[-1]
            low, high = many.interval
            if high < 0.02:
                return f"{said}: there is little left to gain by labelling."
            return f"{said}; {many.images} more {many.gain:+.3f} ({low:+.3f} to {high:+.3f})."
        return f"{said}."


def size_of(shots: int, reports: Sequence[Mapping[str, Any]]) -> Size:
    """What several trainings on `shots` images reached, from their `evaluation.json`."""
    tuned = [clusters_in(report["per_image"], itemgetter("tuned_iou")) for report in reports]
    deltas = [clusters_in(report["per_image"], gain_of) for report in reports]
    mean, interval = mean_over_seeds(tuned, 0, least=0.0)
    delta, delta_interval = mean_over_seeds(deltas, 0)
    return Size(
        shots=shots,
        draws=len(reports),
        base=float(reports[0]["base"]["iou"]),
        tuned=mean,
        tuned_interval=interval,
        delta=delta,
        delta_interval=delta_interval,
        each=tuple(float(report["tuned"]["iou"]) for report in reports),
        further=_further(reports),
    )


def _further(reports: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    names = {
        "IoU after 3 clicks": ("clicks", "iou_3"),
        "AP@0.5 without prompts": ("automatic", "ap_50"),
    }
    found = {}
    for name, (group, key) in names.items():
        pairs = [report[group][key] for report in reports if (report.get(group) or {}).get(key)]
        if len(pairs) == len(reports):
            found[name] = tuple(float(np.mean([pair[side] for pair in pairs])) for side in ("base", "tuned"))
    return {name: (pair[0], pair[1]) for name, pair in found.items()}


def curve_of(
    sizes: Sequence[Size], failed: Mapping[str, str] | None = None, images: int | None = None
) -> LearningCurve:
    """The curve through `sizes`, continued where there are enough of them.

    IoU = a - b n^-c with 0 <= a <= 1 and b >= 0, an inverse power law (Figueroa et al., 2012; Hestness et al., 2017),
    by least squares weighted with the number of draws. Its uncertainty is that of curves through means that differ as
    means of so few draws do, and of what nobody knows, the shape: the interval spans those of a power law, of an
    exponential approach and of a logarithm, as far as they fit the means. In simulations with a truth of each of these
    shapes it covers 95 to 100 % of what more images bring; that of the power law alone covered none of a logarithm.

    Args:
        sizes: What was trained.
        failed: See `LearningCurve`.
        images: How many images there were to draw from: draws of most of them share most of their images, and differ
            less than such of new images would; None takes them as they are.
    """
    sizes = tuple(sorted(sizes, key=lambda size: size.shots))
    told = [size for size in sizes if size.draws > 1]
    fitted, more, fits = None, [], True
    if len(sizes) >= LEAST_SIZES and len(told) >= len(sizes) - 1 and len(told) >= 2:
        shots = np.array([size.shots for size in sizes], np.float64)
        weights = np.array([size.draws for size in sizes], np.float64)
        means = np.array([np.mean(size.each) for size in sizes])
        fitted = power_law(shots, means, weights)
        freedom, error = _spread_of_draws(sizes, images)
        fits = _fits(POWER_LAW, shots, means, weights, freedom, error)
        drawn = _resampled_means(means, weights, freedom, error)
        resampled = [
            (shape, shape.nearest(shots, drawn, weights))
            for shape in shapes_for(shots)
            if _fits(shape, shots, means, weights, freedom, error)
        ]
        at = float(shots[-1])
        for further in _MORE if fits else ():
            gain = value_at(fitted, at + further) - value_at(fitted, at)
            ends = [
                np.percentile(shape.heights(curves, at + further) - shape.heights(curves, at), [2.5, 97.5])
                for shape, curves in resampled
            ]
            low, high = float(np.min(ends)), float(np.max(ends))
            more.append(More(images=further, gain=gain, interval=(min(low, gain), max(high, gain))))
    return LearningCurve(
        schema_version=SCHEMA_VERSION,
        sizes=sizes,
        power_law=fitted,
        more=tuple(more),
        failed=dict(failed or {}),
        fits=fits,
    )


def _fits(
    shape: Shape,
    shots: NDArray[np.float64],
    means: NDArray[np.float64],
    weights: NDArray[np.float64],
    freedom: int,
    error: float,
) -> bool:
    """Whether means are no further from a curve than draws of a size from each other: the F test of a lack of fit.

    A curve that falls is nearest to a level one; without this test the spread of draws alone would call that certain.
    """
    curves = shape.nearest(shots, means[None], weights)
    left = len(shots) - shape.free(curves[0])
    if left < 1:
        return True
    misses = means - np.array([shape.heights(curves, each)[0] for each in shots.tolist()])
    ratio = float((weights * misses**2).sum()) / left / error**2
    return ratio <= float(np.quantile(generator_for(0, "lack of fit").f(left, freedom, size=100_000), _SURE))


def _spread_of_draws(sizes: Sequence[Size], images: int | None) -> tuple[int, float]:
    """Degrees of freedom, and the standard deviation of draws of one size, from all sizes together, or a least one.

    n of N images, none put back: the variance is (1 - n/N) of that of new images (Cochran, 1977, section 2.6).
    """
    freedom, squares = 0, 0.0
    for size in sizes:
        share = 0.0 if images is None else min(1.0, size.shots / images)
        if share < 1.0:
            freedom += size.draws - 1
            squares += float(np.sum((np.array(size.each) - np.mean(size.each)) ** 2)) / (1.0 - share)
    return freedom, max(_LEAST_SPREAD, float(np.sqrt(squares / freedom)))


def _resampled_means(
    means: NDArray[np.float64], weights: NDArray[np.float64], freedom: int, error: float
) -> NDArray[np.float64]:
    """Means [RESAMPLES, S] that differ from those found as means of so few draws do.

    Draws of all sizes tell together how far apart draws are; a few of one size would say too little, and drawing again
    among three of them hardly moves their mean. The errors are Student's t with the degrees of freedom of all.
    """
    generator = generator_for(0, "learning curve")
    errors = error / np.sqrt(weights)
    return np.asarray(means + errors * generator.standard_t(freedom, size=(RESAMPLES, len(means))))


def write_curve(directory: Path, curve: LearningCurve) -> None:
    """Write `learning_curve.json`. Raises `TrainingError` if the disk is full."""
    write_text(directory / FILE, json.dumps(asdict(curve), indent=1) + "\n")


def read_curve(directory: Path) -> LearningCurve:
    """The curve of a directory, checked.

    Raises:
        AdapterError: it is missing, damaged, or of another schema version.
    """
    from pydantic import TypeAdapter

    remedy = "give the directory that lora-sam learning-curve has written"
    values = read_json(directory / FILE, remedy)
    try:
        curve: LearningCurve = TypeAdapter(LearningCurve).validate_json(json.dumps(values))
    except ValueError as error:
        raise AdapterError(f"{directory / FILE} is damaged ({' '.join(str(error).split()):.200}); {remedy}") from error
    if curve.schema_version != SCHEMA_VERSION:
        raise AdapterError(f"{directory / FILE}: schema version {curve.schema_version}; this lora_sam reads 1")
    return curve
