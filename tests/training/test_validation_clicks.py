"""Where corrections are trained, weights are chosen by what corrections bring too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lora_sam.core.predictor import Predictor
from lora_sam.core.structures import Masks, Prompts, Sample
from lora_sam.training.parts import validation_of
from lora_sam.training.validation import Validation


class Clicked:
    """The first mask is good; from the second click on, all is background, or all is right."""

    sam = SimpleNamespace(eval=lambda: None)

    def __init__(self, sample: Sample, *, corrected: bool) -> None:
        self.sample, self.corrected, self.clicks = sample, corrected, 0

    def forget(self) -> None: ...

    def predict(self, image: Any, prompts: Prompts) -> Masks:
        count = 0 if prompts.points is None else prompts.points.shape[1]
        self.clicks = max(self.clicks, count)
        masks = self.sample.masks.copy()
        masks[:, 4] = False  # one row is missing
        if count > 1:
            masks = self.sample.masks if self.corrected else np.zeros_like(masks)
        low = np.zeros((len(masks), 16, 16), np.float32)
        return Masks(masks=masks, scores=np.ones(len(masks), np.float32), low_res_logits=low)


@pytest.fixture
def sample() -> Sample:
    masks = np.zeros((1, 32, 32), np.bool_)
    masks[0, 4:8, 4:20] = True
    return Sample(id="a", image=np.zeros((32, 32, 3), np.uint8), masks=masks, object_ids=("1",))


def validation(predictor: Predictor | Clicked, sample: Sample, option: Callable[..., Any], clicks: int) -> Validation:
    class Source(list[Sample]):
        ids = ("a",)

    return Validation(
        predictor=predictor,  # type: ignore[arg-type]
        source=Source([sample]),
        prompt=option("prompt/iterative"),
        seed=0,
        max_objects=None,
        clicks=clicks,
    )


@pytest.mark.parametrize(("corrected", "last"), [(True, 1.0), (False, 0.0)])
def test_what_clicks_make_of_a_mask_counts_beside_the_first_one(
    sample: Sample, option: Callable[..., Any], corrected: bool, last: float
) -> None:
    predictor = Clicked(sample, corrected=corrected)
    (found,) = validation(predictor, sample, option, clicks=3)()
    assert found.tolist() == [0.75, last]
    assert predictor.clicks == 3
    (first,) = validation(predictor, sample, option, clicks=0)()
    assert first.tolist() == [0.75]


def test_validations_with_and_without_clicks_are_told_apart(sample: Sample, option: Callable[..., Any]) -> None:
    asked = {
        clicks: validation(Clicked(sample, corrected=True), sample, option, clicks).asked() for clicks in (0, 1, 3)
    }
    assert len(set(asked.values())) == 3


@pytest.mark.parametrize(
    ("prompt", "changes", "clicks"),
    [("iterative", {}, 3), ("iterative", {"rounds": 1}, 0), ("iterative", {"rounds": (1, 4)}, 3), ("box", {}, 0)],
)
def test_it_is_asked_of_runs_that_train_corrections(
    prompt: str, changes: dict[str, Any], clicks: int, option: Callable[..., Any], tmp_path: Path
) -> None:
    trainer = option("trainer/default")
    parts = SimpleNamespace(
        predictor=lambda: None,
        splits=SimpleNamespace(val=[]),
        settings=SimpleNamespace(prompt=option(f"prompt/{prompt}", **changes), seed=0, trainer=trainer),
    )
    assert validation_of(parts).clicks == clicks  # type: ignore[arg-type]
    parts.settings.trainer = replace(trainer, validation_clicks=0)
    assert validation_of(parts).clicks == 0  # type: ignore[arg-type]
