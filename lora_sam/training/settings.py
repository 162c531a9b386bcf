"""Everything one run is told, checked and built: a field per group of conf/."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lora_sam.core.chosen import OPTION, fields_in
from lora_sam.core.config import Problem, build_from, class_of, shown
from lora_sam.core.errors import ConfigError, LoraSamError

if TYPE_CHECKING:
    from lora_sam.data.augmentation import Augmentation
    from lora_sam.data.source import DataSource
    from lora_sam.data.splits import Splits
    from lora_sam.methods import Method
    from lora_sam.models.family import SamModel
    from lora_sam.predictors.embeddings.options import CacheOptions
    from lora_sam.prompts import PromptSource
    from lora_sam.training.losses import Loss
    from lora_sam.training.optim import Adam
    from lora_sam.training.options import TrainerOptions
    from lora_sam.training.tracking import TrackerConfig


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything one run is told, checked and built: a field per group of `conf/`, then the keys of `conf/train.yaml`.

    Attributes:
        model: Base model: variant, input size, weights.
        method: Fine-tuning method.
        data: Labelled images and their splits.
        augmentation: Random changes of training samples.
        prompt: How prompts are made from labels.
        loss: Loss per object.
        optim: Optimiser and schedule.
        trainer: Limits, intervals and hardware of the training loop.
        cache: Where and how what the frozen part of the image encoder makes is kept.
        tracker: Where curves and overlays are shown.
        seed: Seed of everything random.
        resume: Run directory to go on with, or `latest`; None starts anew.
        init_from: Run whose adapter's weights training begins with; None begins with those that change nothing.
        evaluate_split: Split of the final comparison of base and tuned.
        evaluate_automatic: Whether masks without a prompt are compared too, with thresholds for each of the two that
            are chosen on validation images and kept with the adapter; `auto` where points are trained.
        evaluate_clicks: Whether correcting clicks are compared too; `auto` where points are trained.
        evaluate_images: Images of that split, and of the validation split, that all but the main figures are measured
            on, a fixed draw; null for all.
        semantic: Take all objects of a class in an image as one.
        options: By group, the file of `conf/` that it was chosen by; empty where nobody knows.
    """

    model: SamModel
    method: Method
    data: DataSource
    augmentation: Augmentation
    prompt: PromptSource
    loss: Loss
    optim: Adam
    trainer: TrainerOptions
    cache: CacheOptions
    tracker: TrackerConfig
    seed: int
    resume: str | None
    init_from: str | None
    evaluate_split: Literal["val", "test"]
    evaluate_automatic: bool | Literal["auto"]
    evaluate_clicks: bool | Literal["auto"]
    evaluate_images: Annotated[int, Field(ge=1)] | None
    semantic: bool
    options: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def method_typed(self) -> str:
        """The method as it is typed: several files of `conf/method/` are options of one class."""
        return self.options.get("method", self.method.name)

    @property
    def data_key(self) -> tuple[Any, ...]:
        """All that `open_data` depends on: settings with equal keys have the same images."""
        return self.data, self.seed, self.semantic, self.trainer.shots, self.trainer.draw

    def open_data(self) -> Splits:
        """The labelled images as this run takes them.

        Raises:
            ConfigError: there are fewer training images than `trainer.shots`; `data.tile` with `semantic`.
            DataError: as `DataSource.open` does.
        """
        splits = self.data.open(self.seed)
        if self.trainer.shots is not None:
            from lora_sam.data.shots import few_shot

            splits = few_shot(splits, self.trainer.shots, self.trainer.draw)
        tile = getattr(self.data, "tile", None)
        if tile is not None:
            if self.semantic:
                raise ConfigError(
                    f"data.tile = {tile}: is for objects, and semantic=true makes one of each class; leave one out"
                )
            from lora_sam.data.tiled import in_tiles

            splits = in_tiles(splits, tile)
        if self.semantic:
            from lora_sam.data.semantic import by_class

            return by_class(splits)
        return splits


@dataclass(frozen=True, kw_only=True)
class _Run:
    """The keys of `conf/train.yaml` itself: the last fields of `Settings`."""

    # the largest range that every random generator in use takes as a seed
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    resume: Annotated[str, Field(min_length=1)] | None
    init_from: Annotated[str, Field(min_length=1)] | None
    evaluate_split: Literal["val", "test"]
    evaluate_automatic: bool | Literal["auto"]
    evaluate_clicks: bool | Literal["auto"]
    evaluate_images: Annotated[int, Field(ge=1)] | None
    semantic: bool


RUN_KEYS = tuple(field.name for field in dataclasses.fields(_Run))


GROUPS = tuple(field.name for field in dataclasses.fields(Settings) if field.name not in (*RUN_KEYS, "options"))


def settings_from(config: Mapping[str, Any]) -> Settings:
    """Check a whole configuration and build its settings.

    Every group names a frozen dataclass of this package by `_target_`; its other keys are checked against the
    dataclass's annotations, strictly (text is not a number, `true` is not 1) and as JSON, so lists become tuples.
    A `check()` method of the class, if there is one, may raise a `LoraSamError` for what annotations cannot say.
    Nothing but that constructor and that method is ever called, so a configuration from elsewhere may be passed.

    Args:
        config: Plain mappings, lists, text, numbers, booleans and None, with interpolations resolved; `???` marks a
            value that the user has to give.

    Raises:
        ConfigError: one line for every problem, sorted by key: the key, its value, what is allowed. Where a `check()`
            raised the only problem, its own error.
    """
    problems: list[Problem] = []
    built = {group: _build_group(group, config.get(group), problems) for group in GROUPS}
    run = build_from(_Run, "", {key: value for key, value in config.items() if key not in GROUPS}, problems, GROUPS)
    if problems:
        if len(problems) == 1 and problems[0].cause is not None:
            raise problems[0].cause
        raise ConfigError("\n".join(problem.text for problem in sorted(problems, key=lambda problem: problem.key)))
    assert run is not None
    options = {group: name for group in GROUPS if isinstance(name := config[group].get(OPTION), str)}
    return Settings(**built, **{key: getattr(run, key) for key in RUN_KEYS}, options=options)


def _build_group(group: str, values: Any, problems: list[Problem]) -> Any:
    if not isinstance(values, Mapping):
        given = f"{group} = {shown(values)}" if values is not None else f"{group} is missing"
        problems.append(
            Problem(
                group,
                f"{given}: must be a group of keys; choose a file of conf/{group}/ by its name, with {group}=name on "
                f"the command line or `override /{group}: name` in the defaults of an experiment",
            )
        )
        return None
    try:
        cls = class_of(group, values.get("_target_"))
    except ConfigError as error:
        problems.append(Problem(f"{group}._target_", str(error)))
        return None
    instance = build_from(cls, f"{group}.", fields_in(values), problems)
    check = getattr(cls, "check", None)
    if instance is not None and callable(check):
        try:
            check(instance)
        except LoraSamError as error:
            problems.append(Problem(group, str(error), error))
    return instance
