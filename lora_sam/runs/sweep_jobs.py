"""What is known of a sweep: its jobs, and those of them that differ in their seed only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

State = Literal["done", "failed", "running", "pruned", "missing", "interrupted", "killed", "changed"]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job of a sweep. What is not known (yet) is None.

    Attributes:
        job: Its number.
        state: What became of it; `missing` has not begun, `changed` is done, but with other settings or data than now.
        directory: Its run directory, relative to that of the sweep.
        overrides: Its values, as `key=value`.
        error: Why it failed, in one line.
        validation: Validation IoU of the weights that it kept: what jobs are ranked by.
        validation_interval: Its 95 % interval over the validation images.
        validated: A digest of what its validation measured: images, labels, prompts.
        validation_set: Number, from 1, of the jobs that it is ranked among: those whose validation measured the same.
        behind: 95 % interval of what the best of these has more on the same validation images; around zero, it may be
            luck.
        held_out: Whether any image that validated did not train; without one it may be learnt by heart.
        better_than_base: Whether any validation beat the base.
        split: Split of the figures below, `test` unless `evaluate_split` says otherwise.
        test: IoU of the tuned model on that split. Nothing is chosen by it.
        test_delta: What tuning added there.
        test_delta_interval: Its 95 % interval.
        trained_parameters: Weights that were trained.
        adapter_bytes: Size of the adapter.
        seconds: Duration of the whole job.
    """

    job: Annotated[int, Field(ge=0)]
    state: State
    directory: str | None = None
    overrides: tuple[str, ...]
    error: str | None = None
    validation: float | None = None
    validation_interval: Interval | None = None
    validated: str | None = None
    validation_set: int | None = None
    behind: Interval | None = None
    held_out: bool | None = None
    better_than_base: bool | None = None
    split: str | None = None
    test: float | None = None
    test_delta: float | None = None
    test_delta_interval: Interval | None = None
    trained_parameters: int | None = None
    adapter_bytes: int | None = None
    seconds: float | None = None

    @property
    def values(self) -> dict[str, str]:
        """Its values by key."""
        return values_of(self.overrides)

    @property
    def without_seed(self) -> tuple[str, ...]:
        """Its values but the seed: its configuration."""
        return tuple(one for one in self.overrides if values_of([one]).keys() != {"seed"})


@dataclass(frozen=True, kw_only=True)
class Group:
    """Jobs that differ in their seed only.

    Attributes:
        overrides: What they have in common.
        jobs: Numbers of those that are done.
        planned: How many there should be.
        validation_set: As of a job: seed by seed, configurations of a set have measured the same.
        validation: Mean validation IoU.
        validation_interval: Its 95 % interval over seeds and images.
        spread: Standard deviation of the validation IoU over seeds; None for one.
        test: Mean IoU on the split of the evaluation.
        test_delta: Mean of what tuning added there.
        test_delta_interval: Its 95 % interval over seeds and images.
    """

    overrides: tuple[str, ...]
    jobs: tuple[int, ...]
    planned: int
    validation_set: int = 1
    validation: float
    validation_interval: Interval
    spread: float | None
    test: float | None
    test_delta: float | None
    test_delta_interval: Interval | None

    @property
    def values(self) -> dict[str, str]:
        """What they have in common, by key."""
        return values_of(self.overrides)


def values_of(overrides: Iterable[str]) -> dict[str, str]:
    """Overrides `key=value` by key."""
    pairs = (override.partition("=") for override in overrides)
    return {key.lstrip("+~"): value for key, _, value in pairs}
