"""From a composed configuration to checked, typed settings; imports neither torch nor anything that does."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticUserError

from lora_sam.core.chosen import fields_in
from lora_sam.core.errors import ConfigError, LoraSamError
from lora_sam.core.unknown import nearest_of, unknown_key

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


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


@dataclass(frozen=True)
class Problem:
    """What is wrong with one key, as a line for people."""

    key: str
    text: str
    cause: LoraSamError | None = None


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
    problems: list[Problem] = []
    step = build_from(cls, "", fields_in(config), problems)
    if problems:
        raise ConfigError("\n".join(problem.text for problem in sorted(problems, key=lambda problem: problem.key)))
    check = getattr(cls, "check", None)
    if callable(check):
        check(step)
    return step


def class_of_step(target: Any) -> type[Any]:
    """The class that the configuration of a step names. Raises `ConfigError` unless it is a settings class of ours."""
    return class_of("", target)


def class_of(group: str, target: Any) -> type[Any]:
    """The frozen dataclass that `target` names; importing its module is all that happens."""
    refused = (
        f"{group}{'.' if group else ''}_target_ = {shown(target)}: must name a settings class of this package, "
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


def build_from(
    cls: type[Any], prefix: str, values: Mapping[str, Any], problems: list[Problem], beside: Sequence[str] = ()
) -> Any:
    """An instance of `cls`, or None with what is wrong added to `problems`.

    Args:
        cls: A frozen dataclass.
        prefix: Its place, like `method.`.
        values: Its fields.
        problems: Gets a problem for each key that is wrong.
        beside: Further keys that are valid where those of `cls` are: offered where a key is unknown.
    """
    missing = set(_missing(prefix, values))
    problems.extend(Problem(key, _not_set(cls, prefix, key)) for key in missing)
    try:
        text = json.dumps({"value": values})
        model = _model(cls)  # type: ignore[arg-type]  # classes are hashable
    except (TypeError, ValueError, NameError, PydanticUserError) as error:
        problems.append(Problem(prefix, f"{prefix.rstrip('.')} cannot be read: {' '.join(str(error).split())}"))
        return None
    try:
        checked: Any = model.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems.extend(
            problem
            for problem in _explain(error.errors(include_url=False), cls, prefix, values, beside)
            if problem.key not in missing
        )
        return None
    return None if missing else checked.value


@cache
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
    pattern = re.compile(rf"^\s+{re.escape(name)}: ([^.;\n]+)[.;]", re.MULTILINE)
    documented = next((found for base in cls.__mro__ if (found := pattern.search(base.__doc__ or ""))), None)
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


def _explain(
    errors: list[ErrorDetails], cls: type[Any], prefix: str, values: Mapping[str, Any], beside: Sequence[str]
) -> Iterator[Problem]:
    """One problem per key, from pydantic's list with one error per member of a union."""
    wrong: dict[str, _Wrong] = {}
    unions: set[str] = set()
    for error in errors:
        path, value = _place(error["loc"][1:], values)
        key = prefix + ".".join(path) if path else prefix.rstrip(".")
        if error["type"] == "unexpected_keyword_argument":
            yield Problem(key, unknown_key(key, [*_valid_keys(cls, prefix, path), *beside]))
        elif error["type"] == "missing" and isinstance(error["loc"][-1], str):
            key = f"{prefix}{'.'.join([*path, error['loc'][-1]])}"
            yield Problem(key, f"{key} is missing; add it to the file in conf/, or give +{key}=...")
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
        yield Problem(key, f"{key} = {shown(found.value)}: {', or '.join(found.reasons)}")


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
    return names


def _reason(error: ErrorDetails, cls: type[Any], path: list[str], value: Any) -> str:
    """What the value at `path` must be."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return f"must have at least {int(error['loc'][-1]) + 1} items"
    if kind == "literal_error":
        allowed = re.findall(r"'[^']*'|[^\s,']+", context["expected"])
        options = [option.strip("'") for option in allowed if option != "or"]
        nearest = nearest_of(str(value), options)
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


def shown(value: Any) -> str:
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


def from_conf(name: str, **values: Any) -> Any:
    """The settings in the file of `conf/` called `name`, some of them replaced. Raises `ConfigError` as `step_from`."""
    from omegaconf import OmegaConf

    from lora_sam.core.conf_files import conf_directory

    stored = OmegaConf.to_container(OmegaConf.load(conf_directory() / f"{name}.yaml"))
    assert isinstance(stored, dict)
    # what Hydra reads besides the values
    return step_from({**{str(key): value for key, value in stored.items() if key != "defaults"}, **values})


def plain_fields(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass as they are after JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return plain
