"""Pictures of the validation: drawn for trackers that show them, for no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lora_sam.core.structures import Sample
from lora_sam.report import shown_validation
from lora_sam.report.shown_validation import ShownValidation
from lora_sam.training.tracking import NoTracker
from lora_sam.training.validation import Validation


class Showing:
    def __init__(self) -> None:
        self.names: list[str] = []

    def image(self, step: int, name: str, array: Any) -> None:
        self.names.append(f"{step} {name}")


class Counted:
    """A validation of three images, one object each."""

    def __init__(self) -> None:
        self.predicted = 0

    def some_objects(self, sample: Sample) -> Sample:
        return sample

    def masks(self, sample: Sample) -> Any:
        self.predicted += 1
        return sample.masks

    def __call__(self) -> tuple[Any, ...]:
        return (np.array([0.5]),)


def sample(name: str) -> Sample:
    masks = np.zeros((1, 8, 8), np.bool_)
    masks[:, 2:5, 2:5] = True
    return Sample(id=name, image=np.zeros((8, 8, 3), np.uint8), masks=masks, object_ids=("1",))


def test_nothing_is_predicted_or_drawn_for_a_tracker_that_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    showing, found = Showing(), {}
    for name, tracker in (("showing", showing), ("silent", NoTracker().open(Path()))):
        counted = Counted()
        monkeypatch.setattr(shown_validation, "validation_of", lambda parts, counted=counted: counted)
        parts = SimpleNamespace(
            splits=SimpleNamespace(val=[sample(one) for one in "abc"]),
            settings=SimpleNamespace(trainer=SimpleNamespace(overlays=2)),
            processes=SimpleNamespace(main=True),
            tracker=tracker,
        )
        assert ShownValidation(parts)(7) == 0.5  # type: ignore[arg-type]
        found[name] = counted.predicted
    assert found == {"showing": 4, "silent": 0}
    assert showing.names == ["7 validation/a", "7 validation/b"]


def test_what_was_asked_tells_validations_apart_and_leaves_out_what_only_training_knows(
    option: Callable[..., Any],
) -> None:
    class Source(list[Sample]):
        ids = ("a", "b")

    def asked(prompt: str, *, max_objects: int | None = None, points: Any = None, **changes: Any) -> str:
        return Validation(
            predictor=None,  # type: ignore[arg-type]  # nothing is predicted
            source=Source([sample("a"), sample("b")]),
            prompt=option(f"prompt/{prompt}", **changes),
            seed=3,
            max_objects=max_objects,
            masks_of_points=points,
        ).asked()

    assert asked("box") == asked("box", jitter_fraction=0.1) == asked("box", max_objects=5)
    different = [
        asked("box"),
        asked("box", jitter_fraction=0.1, jitter_evaluation=True),
        asked("point"),
        asked("points", positive=3),
        asked("point", points=("single",)),
    ]
    assert len(set(different)) == len(different)
