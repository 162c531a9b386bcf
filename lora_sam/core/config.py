"""From a composed configuration to checked, typed settings; imports neither torch nor anything that does."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError

from lora_sam.core.errors import ConfigError, LoraSamError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from lora_sam.data.augmentation import Augmentation
    from lora_sam.data.splits import Splits
    from lora_sam.methods import Method
    from lora_sam.models.vit import ViTSam
    from lora_sam.predictors.embeddings.options import CacheOptions
    from lora_sam.prompts import PromptSource
    from lora_sam.training.losses import Loss
    from lora_sam.training.optim import Adam
    from lora_sam.training.options import TrainerOptions
    from lora_sam.training.tracking import TrackerConfig

MISSING = "???"

# no part may begin with an underscore: nothing private, no dunder names
_TARGET = re.compile(r"(lora_sam(?:\.[A-Za-z][A-Za-z0-9_]*)+)\.([A-Za-z][A-Za-z0-9_]*)")
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_REASONS = {
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a group of keys",
    "none_required": "must be null",
}


class DataSource(Protocol):
    """Labelled images on disk, in any format."""

    @property
    def max_objects_per_image(self) -> int | None:
        """Largest number of objects of an image that one training step uses; None for all."""
        ...

    def open(self, seed: int) -> Splits:
        """Read and check everything; `seed` decides what becomes an absent split. Raises `DataError`."""
        ...


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
        evaluate_split: Split of the final comparison of base and tuned.
        semantic: Take all objects of a class in an image as one.
    """

    model: ViTSam
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
    evaluate_split: Literal["val", "test"]
    semantic: bool

    def open_data(self) -> Splits:
        """The labelled images as this run takes them. Raises `DataError` as `DataSource.open` does."""
        splits = self.data.open(self.seed)
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
    evaluate_split: Literal["val", "test"]
    semantic: bool


RUN_KEYS = tuple(field.name for field in dataclasses.fields(_Run))
GROUPS = tuple(field.name for field in dataclasses.fields(Settings) if field.name not in RUN_KEYS)


@dataclass(frozen=True)
class _Problem:
    """What is wrong with one key, as a line for people."""

    key: str
    text: str
    cause: LoraSamError | None = None


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
    problems: list[_Problem] = []
    built = {group: _build_group(group, config.get(group), problems) for group in GROUPS}
    run = _build(_Run, "", {key: value for key, value in config.items() if key not in GROUPS}, problems)
    if problems:
        if len(problems) == 1 and problems[0].cause is not None:
            raise problems[0].cause
        raise ConfigError("\n".join(problem.text for problem in sorted(problems, key=lambda problem: problem.key)))
    assert run is not None
    return Settings(**built, **{key: getattr(run, key) for key in RUN_KEYS})


def step_from(config: Mapping[str, Any]) -> Any:
    """The checked options of one step: an instance of the class that a flat configuration names by `_target_`.

    Its fields and its `check()` are used as those of a group are in `settings_from`.

    Args:
        config: Plain values; the content of `conf/<verb>.yaml` with what was overridden.

    Raises:
        ConfigError: one line for every problem, sorted by key.
        LoraSamError: what `check()` raised.
    """
    cls = class_of_step(config.get("_target_"))
    problems: list[_Problem] = []
    step = _build(cls, "", {key: value for key, value in config.items() if key != "_target_"}, problems)
    if problems:
        raise ConfigError("\n".join(problem.text for problem in sorted(problems, key=lambda problem: problem.key)))
    check = getattr(cls, "check", None)
    if callable(check):
        check(step)
    return step


def class_of_step(target: Any) -> type[Any]:
    """The class that the configuration of a step names. Raises `ConfigError` unless it is a settings class of ours."""
    return _class_of("", target)


def unknown_key(key: str, valid: Iterable[str]) -> str:
    """One line for a key that is not among the `valid` dotted keys: the nearest of them, and its valid neighbours."""
    names = sorted(set(valid))
    parent, _, last = key.rpartition(".")
    neighbours = [name for name in names if name.rpartition(".")[0] == parent]
    same = [name for name in names if name.rpartition(".")[2] == last]
    nearest = _nearest(key, same, cutoff=0) or _nearest(key, neighbours) or _nearest(key, names)
    if nearest is None:
        lasts = {name.rpartition(".")[2]: name for name in names}
        nearest = lasts.get(_nearest(last, list(lasts)) or "")
    hint = f"; did you mean {nearest}?" if nearest else "."
    # where the group is unknown too, the top is what can be offered
    return f"unknown key {key}{hint} Valid keys: {', '.join(neighbours or [name for name in names if '.' not in name])}"


def unknown_option(text: str, group: str, name: str, options: Iterable[str]) -> str:
    """One line for an option that its group does not have; `text` is what the user wrote."""
    names = sorted(set(options))
    nearest = _nearest(name, names)
    hint = f"; did you mean {group}={nearest}?" if nearest else "."
    return f"unknown option {text}{hint} Options of {group}: {', '.join(names)}"


def _nearest(name: str, names: Sequence[str], cutoff: float = 0.6) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=cutoff)), None)


def _build_group(group: str, values: Any, problems: list[_Problem]) -> Any:
    if not isinstance(values, Mapping):
        given = f"{group} = {_shown(values)}" if values is not None else f"{group} is missing"
        problems.append(
            _Problem(
                group,
                f"{given}: must be a group of keys; choose a file of conf/{group}/ by its name, with {group}=name on "
                f"the command line or `override /{group}: name` in the defaults of an experiment",
            )
        )
        return None
    try:
        cls = _class_of(group, values.get("_target_"))
    except ConfigError as error:
        problems.append(_Problem(f"{group}._target_", str(error)))
        return None
    instance = _build(cls, f"{group}.", {key: value for key, value in values.items() if key != "_target_"}, problems)
    check = getattr(cls, "check", None)
    if instance is not None and callable(check):
        try:
            check(instance)
        except LoraSamError as error:
            problems.append(_Problem(group, str(error), error))
    return instance


def _class_of(group: str, target: Any) -> type[Any]:
    """The frozen dataclass that `target` names; importing its module is all that happens."""
    refused = (
        f"{group}{'.' if group else ''}_target_ = {_shown(target)}: must name a settings class of this package, "
        f"as the files of conf/{group}{'/' if group else ''} do"
    )
    match = _TARGET.fullmatch(target) if isinstance(target, str) else None
    if match is None:
        raise ConfigError(refused)
    module_name, name = match[1], match[2]
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a dependency is missing, which is not the user's mistake in this key
        raise ConfigError(refused) from error
    cls = getattr(module, name, None)
    # a package may offer the classes of its own modules
    if (
        not isinstance(cls, type)
        or not dataclasses.is_dataclass(cls)
        or not f"{cls.__module__}.".startswith(f"{module_name}.")
    ):
        raise ConfigError(refused)
    if not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]  # not in typeshed
        raise ConfigError(refused)
    return cls


def _build(cls: type[Any], prefix: str, values: Mapping[str, Any], problems: list[_Problem]) -> Any:
    """An instance of `cls`, or None with what is wrong added to `problems`; `prefix` is its place, like `method.`."""
    missing = set(_missing(prefix, values))
    problems.extend(_Problem(key, _not_set(cls, prefix, key)) for key in missing)
    try:
        text = json.dumps({"value": values})
        model = _model(cls)
    except (TypeError, ValueError, NameError, PydanticUserError) as error:
        problems.append(_Problem(prefix, f"{prefix.rstrip('.')} cannot be read: {' '.join(str(error).split())}"))
        return None
    try:
        checked: Any = model.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems.extend(
            problem
            for problem in _explain(error.errors(include_url=False), cls, prefix, values)
            if problem.key not in missing
        )
        return None
    return None if missing else checked.value


def _model(cls: type[Any]) -> type[BaseModel]:
    """A model around `cls`: the only place where a strict configuration can be given to a standard dataclass."""
    return create_model("Configuration", __config__=_STRICT, value=(cls, ...))


def _missing(prefix: str, values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _missing(f"{prefix}{key}.", value)
        elif isinstance(value, str) and value == MISSING:
            yield f"{prefix}{key}"


def _not_set(cls: type[Any], prefix: str, key: str) -> str:
    name = key.removeprefix(prefix)
    documented = re.search(rf"^\s+{re.escape(name)}: ([^.;\n]+)[.;]", cls.__doc__ or "", re.MULTILINE)
    meaning = f" ({documented[1]})" if documented else ""
    if name in {"root", "directory", "folder"}:
        example = "path/to/folder"
    elif name in {"checkpoint", "annotations", "file"}:
        example = "path/to/file"
    else:
        example = "..."
    return f"{key} is not set{meaning}; give it on the command line, e.g. {key}={example}"


@dataclass(frozen=True)
class _Wrong:
    """All that is wrong with the value at one key: parts of a sentence, one per member of a union."""

    value: Any
    reasons: list[str]


def _explain(errors: list[ErrorDetails], cls: type[Any], prefix: str, values: Mapping[str, Any]) -> Iterator[_Problem]:
    """One problem per key, from pydantic's list with one error per member of a union."""
    wrong: dict[str, _Wrong] = {}
    unions: set[str] = set()
    for error in errors:
        path, value = _place(error["loc"][1:], values)
        key = prefix + ".".join(path) if path else prefix.rstrip(".")
        if error["type"] == "unexpected_keyword_argument":
            yield _Problem(key, unknown_key(key, _valid_keys(cls, prefix, path)))
        elif error["type"] == "missing" and isinstance(error["loc"][-1], str):
            key = f"{prefix}{'.'.join([*path, error['loc'][-1]])}"
            yield _Problem(key, f"{key} is missing; add it to the file in conf/, or give +{key}=...")
        else:
            if len(path) < len(error["loc"]) - 1:
                unions.add(key)
            reasons = wrong.setdefault(key, _Wrong(value, [])).reasons
            reason = _reason(error, cls, path, value)
            if error["type"] == "missing":  # one such error for every element too few
                reasons.clear()
            if reason not in reasons:
                reasons.append(reason)
    for key, found in wrong.items():
        # where one form of a union fits but for an element, the other forms need no mention
        if key in unions and any(other.startswith(f"{key}.") for other in wrong):
            continue
        yield _Problem(key, f"{key} = {_shown(found.value)}: {', or '.join(found.reasons)}")


def _place(location: tuple[int | str, ...], values: Any) -> tuple[list[str], Any]:
    """The part of pydantic's location that is in the configuration (the rest names members of unions), its value."""
    path: list[str] = []
    for part in location:
        inside = isinstance(values, Mapping) and part in values
        if not inside and not (isinstance(values, list) and isinstance(part, int) and part < len(values)):
            continue
        values = values[part]
        path.append(str(part))
    return path, values


def _valid_keys(cls: type[Any], prefix: str, path: Sequence[str]) -> list[str]:
    """The dotted keys beside the one at `path`."""
    owner = _class_at(cls, path[:-1])
    inner = prefix + "".join(f"{part}." for part in path[:-1])
    names = [f"{inner}{field.name}" for field in dataclasses.fields(owner)] if owner else []
    return [*names, *(GROUPS if cls is _Run else ())]


def _reason(error: ErrorDetails, cls: type[Any], path: list[str], value: Any) -> str:
    """What the value at `path` must be."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return f"must have at least {int(error['loc'][-1]) + 1} items"
    if kind == "literal_error":
        allowed = re.findall(r"'[^']*'|[^\s,']+", context["expected"])
        options = [option.strip("'") for option in allowed if option != "or"]
        nearest = _nearest(str(value), options)
        return f"must be one of {', '.join(options)}" + (f"; did you mean {nearest}?" if nearest else "")
    if kind == "dataclass_type":
        owner = _class_at(cls, path)
        names = ", ".join(field.name for field in dataclasses.fields(owner)) if owner else "its fields"
        return f"must be a group of keys: {names}"
    if kind in {"value_error", "assertion_error"}:  # from __post_init__
        return str(context["error"])
    return _REASONS.get(kind) or re.sub(r"^\w+ should ", "must ", error["msg"]).replace(" after validation", "")


def _class_at(cls: type[Any], path: Sequence[str]) -> type[Any] | None:
    """The dataclass of the nested field at `path`."""
    for part in path:
        hint = typing.get_type_hints(cls).get(part)
        members = [hint, *typing.get_args(hint)]
        nested = next(
            (member for member in members if isinstance(member, type) and dataclasses.is_dataclass(member)), None
        )
        if nested is None:
            return None
        cls = nested
    return cls


def _shown(value: Any) -> str:
    """A value as the user would write it, on one line and not too long."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if isinstance(value, str) and (
        not value.isprintable() or value.strip() != value or _reads_as_something_else(value)
    ):
        text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _reads_as_something_else(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return not text
    return True
