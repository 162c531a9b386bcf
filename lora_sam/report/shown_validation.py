"""The validation of a run as it is shown while it trains, and as `evaluation.json` keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lora_sam.training.parts import Parts, validation_of
from lora_sam.training.tracking import Silent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lora_sam.training.chance import ClusterSums
    from lora_sam.training.state import Progress


class ShownValidation:
    """Measures validation IoU and, at every call, shows the tracker the same few images."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._validation = validation_of(parts)
        source = parts.splits.val
        seen = parts.processes.main and not isinstance(parts.tracker, Silent)
        shown = range(min(parts.settings.trainer.overlays, len(source)) if seen else 0)
        self._pictured = [self._validation.some_objects(source[index]) for index in shown]
        # nothing is trained yet: what the model computes now is the base, or what this run begins with
        self._before = [self._validation.masks(sample) for sample in self._pictured]
        self._best: tuple[int, tuple[NDArray[np.float64], ...]] | None = None
        self._last: tuple[NDArray[np.float64], ...] | None = None

    def __call__(self, step: int) -> float:
        """Mean IoU per object of the model as it is, 0 to 1."""
        import numpy as np

        from lora_sam.report.overlays import overlay_strip
        from lora_sam.training.validation import mean_iou

        self._last = scores = self._validation()
        for sample, before in zip(self._pictured, self._before, strict=True):
            strip = overlay_strip(sample, before, self._validation.masks(sample), sample.id)
            self._parts.tracker.image(step, f"validation/{sample.id}", np.asarray(strip))
        if self._best is None or mean_iou(scores) > mean_iou(self._best[1]):
            self._best = (step, scores)
        return mean_iou(scores)

    def sums(self) -> ClusterSums | None:
        """What the last mean was made of, by images or groups of them; None before the first."""
        from lora_sam.core.groups import clusters_of
        from lora_sam.data.sources import groups_of
        from lora_sam.training.chance import sums_of

        if self._last is None:
            return None
        return sums_of(self._last, clusters_of(groups_of(self._parts.splits.val)))

    def of_best(self, step: int) -> tuple[NDArray[np.float64], ...]:
        """IoU of the objects of every image with the weights of `step`, which are in the model.

        Measured again only where they are not those of the best validation of this process.
        """
        return self._best[1] if self._best is not None and self._best[0] == step else self._validation()


def validation_figures(
    parts: Parts, progress: Progress, scores: Sequence[NDArray[np.float64]]
) -> dict[str, Any] | None:
    """What `evaluation.json` says of the validation that chose the weights; None where the base was not measured.

    Args:
        parts: The run.
        progress: Its end.
        scores: IoU of the objects of every validation image with the weights that were kept.
    """
    from lora_sam.core.groups import named
    from lora_sam.core.metrics_log import read_metrics
    from lora_sam.data.sources import groups_of
    from lora_sam.evaluation.comparison import compare_means
    from lora_sam.training.cross_validation import CrossValidated

    if progress.base is None:
        return None
    groups = groups_of(parts.splits.val)
    cross = CrossValidated.recorded(read_metrics(parts.directory.metrics))
    kept = compare_means(scores, scores, parts.settings.seed, groups)
    return {
        "base": progress.base,
        "trained": progress.trained,
        "kept_step": progress.best_step,
        "iou": kept.base,
        "iou_interval": list(kept.base_interval),
        "per_image": [
            {"id": name, "objects": len(values), "iou": float(values.mean()), **named(group)}
            for name, values, group in zip(parts.splits.val.ids, scores, groups, strict=True)
        ],
        "asked": validation_of(parts).asked(),
        "trained_on": len(set(parts.splits.val.ids) & set(parts.splits.train.ids)),
        **({} if cross is None else {"cross_validation": {"base": cross.base, "trained": cross.trained}}),
    }
