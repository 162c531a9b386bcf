"""Exported parts held against torch, on images of the validation split or drawn ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from lora_sam.core.errors import LoraSamError
from lora_sam.core.run_directory import RunDirectory
from lora_sam.runs.resuming import settings_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lora_sam.core.predictor import Predictor
    from lora_sam.core.structures import Masks, Prompts
    from lora_sam.training.settings import Settings

    Case = tuple[NDArray[np.uint8], list[Prompts]]


# Enough to notice a wrong constant; the whole test split is what `python -m lora_sam.evaluate` looks at.
CHECKED_IMAGES, CHECKED_OBJECTS = 4, 8


class Answering(Protocol):
    """What is held against a predictor of ours; each of ours is one as well."""

    def predict(self, image: NDArray[np.uint8], prompts: Prompts) -> Masks:
        """One mask for each of N prompts, see `Predictor`."""
        ...


def compared(
    reference: Predictor, exported: Answering, run: RunDirectory, data_root: str | None = None
) -> dict[str, Any]:
    """How far the masks of `exported` are from those of `reference`.

    On some validation images of the run, with its own kind of prompts and with one point per object; on drawn noise
    where the run's data is not there any more.

    Args:
        reference: Computes what is right.
        exported: Is held against it.
        run: The run.
        data_root: Where its data lies now; None for where it was.

    Raises:
        DataError: there are no images at `data_root`.

    Returns:
        `mask_iou` (mean over prompts), `logit_difference` (largest, low resolution), `prompts`, `images`, and `of`:
        `validation` or `random`.
    """
    import numpy as np

    from lora_sam.evaluation.metrics import mask_iou

    cases, of = cases_of(run, data_root)
    ious: list[float] = []
    difference = 0.0
    for image, prompts in cases:
        for prompt in prompts:
            wanted, found = reference.predict(image, prompt), exported.predict(image, prompt)
            ious += mask_iou(wanted.masks, found.masks).tolist()
            difference = max(difference, float(np.abs(wanted.low_res_logits - found.low_res_logits).max()))
    return {
        "mask_iou": float(np.mean(ious)),
        "logit_difference": difference,
        "prompts": len(ious),
        "images": len(cases),
        "of": of,
    }


def cases_of(run: RunDirectory, data_root: str | None = None) -> tuple[list[Case], str]:
    """Images and prompts to compare on, and `validation` or `random`; arguments and errors as those of `compared`."""
    try:
        return list(_validation_cases(settings_of(run, data_root))), "validation"
    except LoraSamError:
        if data_root is not None:
            raise
        return list(_random_cases()), "random"


def _validation_cases(settings: Settings) -> Iterator[Case]:
    from lora_sam.evaluation.scoring import some_objects
    from lora_sam.prompts import PointPrompt

    source = settings.open_data().val
    for index in range(min(CHECKED_IMAGES, len(source))):
        sample = some_objects(source[index], CHECKED_OBJECTS, settings.seed)
        kinds = (settings.prompt, PointPrompt(farthest_share=1.0))
        yield sample.image, [kind.evaluation_prompts(sample, settings.seed) for kind in kinds]


def _random_cases() -> Iterator[Case]:
    import numpy as np

    from lora_sam.core.structures import Prompts

    rng = np.random.default_rng(0)
    for size in ((96, 128), (150, 90)):
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        corners = rng.uniform(0, 0.6, (CHECKED_OBJECTS, 2)).astype(np.float32)
        boxes = np.concatenate([corners, corners + 0.3], axis=1) * np.array([size[1], size[0]] * 2, np.float32)
        points, labels = boxes[:, None, :2] + 1, np.ones((CHECKED_OBJECTS, 1), np.int64)
        yield image, [Prompts(boxes=boxes), Prompts(points=points, labels=labels)]
