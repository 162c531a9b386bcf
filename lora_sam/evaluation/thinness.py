"""How well thin objects are found: clDice, and outlines with a tolerance that scales with the object's width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt, distance_transform_edt, maximum_filter

from lora_sam.core.wording import plural
from lora_sam.evaluation.comparison import compare_means, too_few
from lora_sam.evaluation.outlines import boundary_f1, window_of_both

if TYPE_CHECKING:
    from lora_sam.core.structures import Sample

THIN_FROM = 10.0
"""Area in squares of its own width from which an object is thin: a band so many times as long as wide."""

WIDTH_SHARE = 0.1
"""Share of its width by which the outline of a thin object may be off, one pixel at least."""

_FIGURES = ("cldice", "boundary_f1")


def skeleton(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Lantuéjoul's morphological skeleton of a mask [H, W] with squares of 3 x 3: bool [H, W].

    It is what is left over by the openings of all erosions, and equals the pixels that are no nearer to the background
    than any of their 8 neighbours, in steps of a king. The soft skeleton of clDice's loss is the same with soft
    minima. It may be two pixels wide and have gaps; outside the mask's window is background.
    """
    depth = distance_transform_cdt(np.pad(mask, 1), metric="chessboard")
    found: NDArray[np.bool_] = (depth > 0) & (depth == maximum_filter(depth, size=3))
    return found[1:-1, 1:-1]


def cldice(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Centreline Dice of two masks [H, W], at least one of them not empty (Shit et al., 2021, equation 2).

    The harmonic mean of the share of the predicted skeleton that lies in the true mask and the reverse. With the
    skeleton of `skeleton`.
    """
    if not (predicted.any() and true.any()):
        return 0.0
    precision = float(true[skeleton(predicted)].mean())
    sensitivity = float(predicted[skeleton(true)].mean())
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def width_of(mask: NDArray[np.bool_]) -> float:
    """Width of a mask [H, W] in pixels: of a long band the one across it, within half a pixel. The mask is not empty.

    Twice the mean distance of the skeleton's pixels from the nearest pixel outside, from centre to centre, which is one
    more than the width where that is odd and the width where it is even.
    """
    distance = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return 2 * float(distance[skeleton(mask)].mean()) - 0.5


@dataclass
class Thinness:
    """Collects how thin objects fare with base and tuned, image by image.

    Attributes:
        objects: Number of all objects.
    """

    objects: int = 0
    _widths: list[float] = field(default_factory=list)
    _scores: dict[str, dict[str, list[NDArray[np.float64]]]] = field(default_factory=dict)
    _groups: list[str | None] = field(default_factory=list)

    def add(self, which: str, sample: Sample, predicted: NDArray[np.bool_]) -> None:
        """One image: the masks that `base` or `tuned` predicts for its N objects, bool [N, H, W]."""
        found: dict[str, list[float]] = {name: [] for name in _FIGURES}
        widths = []
        for mask, true in zip(predicted, sample.masks, strict=True):
            window = window_of_both(mask, true)
            if window is None or not true.any():
                continue
            width = width_of(true[window])
            if np.count_nonzero(true[window]) < THIN_FROM * width**2:
                continue
            widths.append(width)
            found["cldice"].append(cldice(mask[window], true[window]))
            found["boundary_f1"].append(boundary_f1(mask[window], true[window], max(1.0, WIDTH_SHARE * width)))
        if which == "base":
            self.objects += len(predicted)
            self._widths += widths
        if widths:
            if which == "base":
                self._groups.append(sample.group)
            scores = self._scores.setdefault(which, {name: [] for name in _FIGURES})
            for name, values in found.items():
                scores[name].append(np.array(values))

    def report(self, seed: int) -> dict[str, Any] | None:
        """Figures of thin objects for JSON, intervals over images; None where fewer than half of the objects are."""
        if not self._widths or 2 * len(self._widths) < self.objects:
            return None
        return {
            "objects": len(self._widths),
            "of_objects": self.objects,
            "width": float(np.median(self._widths)),
            **{
                name: _paired(self._scores["base"][name], self._scores["tuned"][name], seed, self._groups)
                for name in _FIGURES
            },
        }


def thinness_lines(report: Mapping[str, Any]) -> list[str]:
    """Two sentences about the `thin` of an `evaluation.json`."""
    of_all = plural(report["of_objects"], "object")
    return [
        f"{report['objects']:,} of {of_all} are thin (median width {report['width']:.1f} px): "
        f"clDice {_told(report['cldice'])},",
        f"boundary F1 within a tenth of the width {_told(report['boundary_f1'])}"
        + ("; too few images have them to trust the intervals." if too_few(report["cldice"]) else "."),
    ]


def _told(values: Mapping[str, Any]) -> str:
    low, high = values["delta_interval"]
    return f"{values['base']:.3f} -> {values['tuned']:.3f} ({values['delta']:+.3f} [{low:+.3f}, {high:+.3f}])"


def _paired(
    base: Sequence[NDArray[np.float64]],
    tuned: Sequence[NDArray[np.float64]],
    seed: int,
    groups: Sequence[str | None],
) -> dict[str, Any]:
    compared = asdict(compare_means(base, tuned, seed, groups))
    return {key: list(value) if isinstance(value, tuple) else value for key, value in compared.items()}
