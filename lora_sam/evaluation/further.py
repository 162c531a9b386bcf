"""What a run is measured for beside its own prompts: without prompts, after clicks, and with kinds it may have lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.groups import clusters_of
from lora_sam.core.scores import Scores
from lora_sam.evaluation.average_precision import EncodedMask, ImageDetections, decode_masks, encode_masks, match_counts
from lora_sam.evaluation.class_precision import ClassPrecision
from lora_sam.evaluation.clicks import clicks_to_reach, iou_after_clicks
from lora_sam.evaluation.comparison import CONFIDENCE, PairedMeans, compare_means, draws_of_clusters
from lora_sam.evaluation.further_rows import CLICKS, MOST_CLICKS, REACHED
from lora_sam.evaluation.metrics import mask_iou
from lora_sam.evaluation.scoring import some_objects

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.core.structures import Prompts, Sample
    from lora_sam.prompts.interface import Kind

LEVELS = tuple(np.round(np.arange(0.5, 0.951, 0.05), 2).tolist())
"""IoU at which masks without a prompt are matched."""

MOST_OBJECTS = 8
"""Objects of an image that are clicked, and prompted in other ways, a fixed draw."""

AT_CLICKS = 3
"""Clicks whose IoU stands for clicks where kinds of prompts are compared."""


FindMasks: TypeAlias = Callable[["Predictor", NDArray[np.uint8], Scores], tuple[NDArray[np.bool_], NDArray[np.float32]]]

TellClasses: TypeAlias = Callable[["Predictor", NDArray[np.uint8], NDArray[np.bool_]], Sequence[str]]
"""Names the class of each of N masks of an image."""


@dataclass
class Further:
    """Measures image by image; `report` sums up. Images are to come while the predictors remember them.

    Attributes:
        predictors: `base` and `tuned`.
        seed: Draws objects and resamples.
        scores: Thresholds of each predictor for masks without a prompt; None measures none.
        clicks: Whether clicks are measured.
        kinds: Prompts of other kinds, by their name.
        find: Finds masks [N, H, W] and what ranks them [N] without a prompt, with the thresholds given.
        points_per_side: Points along each side of an image that it takes.
        most_objects: Objects of an image that are clicked and prompted; None for all.
        tell: Names the classes of tuned masks without a prompt; None where there are not several.
        precision: Average precision of these classes.
    """

    predictors: Mapping[str, Predictor]
    seed: int
    scores: Mapping[str, Scores] | None = None
    clicks: bool = False
    kinds: Mapping[Kind, Callable[[Sample], Prompts]] = field(default_factory=dict)
    find: FindMasks | None = None
    points_per_side: int = 16
    most_objects: int | None = MOST_OBJECTS
    tell: TellClasses | None = None
    precision: ClassPrecision = field(default_factory=ClassPrecision)
    _counts: dict[str, list[NDArray[np.int64]]] = field(default_factory=dict)
    _clicked: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    _iou: dict[tuple[str, str], list[NDArray[np.float64]]] = field(default_factory=dict)
    _found: dict[str, list[tuple[EncodedMask, ...]]] = field(default_factory=dict)
    _groups: list[str | None] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Measure one image."""
        self._groups.append(sample.group)
        chosen = some_objects(sample, self.most_objects, self.seed)
        truth = encode_masks(sample.masks) if self.scores is not None else ()
        for name, predictor in self.predictors.items():
            if self.scores is not None:
                self._counts.setdefault(name, []).append(self._without_prompts(name, predictor, sample, truth))
            if self.clicks:
                # not given up at an IoU: the figure after 8 clicks is that of 8
                found = iou_after_clicks(predictor, chosen, most=MOST_CLICKS, until=max(REACHED))
                self._clicked.setdefault(name, []).append(found)
            for kind, prompts_for in self.kinds.items():
                masks = predictor.predict(chosen.image, prompts_for(chosen)).masks
                self._iou.setdefault((kind, name), []).append(mask_iou(masks, chosen.masks))

    def precision_of_images(self) -> list[tuple[float, float]]:
        """AP at 0.5 without prompts, of base and of tuned, of each image in the order in which they came.

        Empty where it is not measured.
        """
        if not self._counts:
            return []
        base, tuned = (
            [counts[0, 0] / max(1, counts[0].sum()) for counts in self._counts[name]] for name in ("base", "tuned")
        )
        return list(zip(base, tuned, strict=True))

    def found(self, name: str, place: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        """What a predictor found without a prompt on the image that came at `place`, of `size`: bool [N, H, W]."""
        return decode_masks(self._found[name][place], size)

    def report(self, trained: Sequence[Kind], of_images: int, fitted_on: int) -> dict[str, Any]:
        """Parts of `evaluation.json`: `automatic`, `clicks` and `kinds`, those that were measured.

        Args:
            trained: Kinds that the run was trained for.
            of_images: Images of the split.
            fitted_on: Validation images that the thresholds of both were chosen on.
        """
        parts: dict[str, Any] = {}
        kinds: list[dict[str, Any]] = []

        def compared(kind: Kind, figure: str, values: Mapping[str, Any]) -> None:
            kinds.append({"name": kind, "trained": kind in trained, "figure": figure, "compared": values})

        for kind in self.kinds:
            compared(kind, "IoU", _plain(self._means(self._iou[kind, "base"], self._iou[kind, "tuned"])))
        if self._clicked:
            parts["clicks"] = self._clicking(of_images)
            compared("clicks", f"IoU after {AT_CLICKS} clicks", parts["clicks"][f"iou_{AT_CLICKS}"])
        if self._counts:
            assert self.scores is not None
            parts["automatic"] = self._automatic(of_images, fitted_on)
            compared("everything", "AP at 0.5", parts["automatic"]["ap_50"])
        if kinds:
            parts["kinds"] = kinds
        return parts

    def _without_prompts(
        self, name: str, predictor: Predictor, sample: Sample, truth: Sequence[Any]
    ) -> NDArray[np.int64]:
        assert self.scores is not None
        assert self.find is not None
        masks, scores = self.find(predictor, sample.image, self.scores[name])
        found = encode_masks(masks)
        self._found.setdefault(name, []).append(found)
        if self.tell is not None:
            told = self.tell(predictor, sample.image, masks) if name == "tuned" else None
            self.precision.add(name, sample, found, scores, told)
        ignored = None if sample.ignored is None else encode_masks(sample.ignored[None])[0]
        return match_counts(ImageDetections(truth, found, scores, ignored), LEVELS)

    def _automatic(self, of_images: int, fitted_on: int) -> dict[str, Any]:
        assert self.scores is not None
        images, whole = len(self._counts["base"]), clusters_of(self._groups)
        base, tuned = (np.zeros((int(whole.max()) + 1, *self._counts["base"][0].shape)) for _ in range(2))
        for name, counts in (("base", base), ("tuned", tuned)):
            np.add.at(counts, whole, np.stack(self._counts[name]))  # a group is one

        def average(sums: NDArray[np.float64]) -> NDArray[np.float64]:
            """TP / (TP + FP + FN) at each level: [..., levels, 3] gives [..., levels]."""
            share: NDArray[np.float64] = sums[..., 0] / np.maximum(1, sums.sum(axis=-1))
            return share

        figures = {
            "ap_50": lambda sums: average(sums)[..., LEVELS.index(0.5)],
            "ap_75": lambda sums: average(sums)[..., LEVELS.index(0.75)],
            "ap_50_95": lambda sums: average(sums).mean(axis=-1),
            "precision_50": lambda sums: sums[..., 0, 0] / np.maximum(1, sums[..., 0, :2].sum(axis=-1)),
            "recall_50": lambda sums: sums[..., 0, 0] / np.maximum(1, sums[..., 0, ::2].sum(axis=-1)),
        }
        return {
            "images": images,
            "of_images": of_images,
            "objects": int(base[:, 0, 0].sum() + base[:, 0, 2].sum()),
            "fitted_on": fitted_on,
            "points_per_side": self.points_per_side,
            "scores": {name: asdict(scores) for name, scores in self.scores.items()},
            "empty": {name: sum(not found for found in self._found[name]) for name in ("base", "tuned")},
            **{name: _plain(paired_figure(base, tuned, figure, self.seed)) for name, figure in figures.items()},
        }

    def _means(self, base: Sequence[NDArray[Any]], tuned: Sequence[NDArray[Any]]) -> PairedMeans:
        return compare_means(base, tuned, self.seed, self._groups)

    def _clicking(self, of_images: int) -> dict[str, Any]:
        base, tuned = (self._clicked[name] for name in ("base", "tuned"))

        def paired(figure: Callable[[NDArray[np.float64]], NDArray[Any]]) -> dict[str, Any]:
            return _plain(self._means([figure(one) for one in base], [figure(one) for one in tuned]))

        return {
            "images": len(base),
            "of_images": of_images,
            "objects": sum(len(image) for image in base),
            "most": MOST_CLICKS,
            **{f"iou_{count}": paired(lambda iou, place=count - 1: iou[:, place]) for count in CLICKS},  # type: ignore[misc]
            **{
                f"noc_{100 * level:.0f}": paired(lambda iou, level=level: clicks_to_reach(iou, level))  # type: ignore[misc]
                for level in REACHED
            },
        }


def paired_figure(
    base: NDArray[np.float64],
    tuned: NDArray[np.float64],
    figure: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    seed: int,
) -> PairedMeans:
    """Compare a figure of sums over images by the paired bootstrap of `lora_sam.evaluation.metrics`, with its draws.

    Of one image nothing can be drawn: its intervals are all that is possible, 0 to 1 and -1 to 1.

    Args:
        base: Counts of each image, [images, ...].
        tuned: The same of the same images.
        figure: A share, 0 to 1, of sums over images, [..., as the counts of an image] gives [...].
        seed: Draws the resamples.
    """
    of_base, of_tuned = (float(figure(counts.sum(axis=0))) for counts in (base, tuned))
    delta = of_tuned - of_base
    if len(base) == 1:
        return PairedMeans(of_base, of_tuned, delta, (0.0, 1.0), (0.0, 1.0), (-1.0, 1.0), independent=1)
    found: list[list[NDArray[np.float64]]] = [[], []]
    for draws in draws_of_clusters(len(base), seed):
        for part, counts in zip(found, (base, tuned), strict=True):
            part.append(figure(np.tensordot(draws, counts, axes=1)))
    first, second = (np.concatenate(part) for part in found)
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(np.stack([first, second, second - first], axis=1), [tail, 100 - tail], axis=0).tolist()
    intervals = ((one, other) for one, other in zip(low, high, strict=True))
    return PairedMeans(of_base, of_tuned, delta, *intervals, independent=len(base))


def _plain(found: PairedMeans) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(found)))
    return plain
