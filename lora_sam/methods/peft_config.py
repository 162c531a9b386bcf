"""What an `adapter_config.json` from elsewhere may say, looked at before PEFT acts on it."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from lora_sam.core.console import note
from lora_sam.core.errors import AdapterError
from lora_sam.core.files import check_sha256, read_json
from lora_sam.methods.tuners import BY_TYPE, SCALE, SHARE, SWITCH, Check, one_of, rank

FILE, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# what this package writes beside the two of PEFT, and the key there with the SHA-256 of each of them
FACTS, DIGESTS = "lora_sam.json", "files"
# tells the classes of objects apart; only where the training data has several
CLASS_HEAD = "class_head.safetensors"
# PEFT's own word for "no layer gets an adapter, only modules_to_save are trained"
NO_TARGETS = "dummy-target-modules"
# of a name of a module, and of what matching one name may try: an expression of this cost takes a millisecond or so
NAME_LENGTH, MAX_COST, MAX_NAMES, MAX_PATTERN = 200, 100_000, 4096, 20_000
_PLAIN = re.compile(r"[\w.]{1,200}")
# Fields that only describe, or that PEFT does not read when it loads.
_DESCRIBING = frozenset(
    (
        "peft_type",
        "task_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "megatron_core",
        "runtime_config",
        "qalora_group_size",
        # what this package writes is checked in `fields`; elsewhere it only says how a start was drawn
        "init_weights",
    )
)


def check_config(directory: Path) -> dict[str, Any]:
    """The PEFT configuration of an adapter, if it is one that can be loaded; takes milliseconds and no memory.

    Refused are tuners that this package does not know; fields with a value that this version of PEFT or this package
    does not know; a rank beyond that of the tensors in the file; and regular expressions that could go on matching for
    ever.

    Raises:
        AdapterError: names the file, the field, its value and what is allowed.
    """
    config = {"peft_type": None, **read_json(directory / FILE, "train again or restore the file")}
    checks = _checks(config["peft_type"])
    if checks is None:
        known = f"only adapters of {', '.join(('LORA', *BY_TYPE))} are loaded"
        raise _refused(directory, "peft_type", config["peft_type"], known)
    for name, value in config.items():
        if name not in checks and name not in _DESCRIBING and not _is_default(config["peft_type"], name, value):
            raise _refused(directory, name, value, "must be left at its default")
    for name, check in checks.items():
        # what a tuner leaves unset is what PEFT makes of it by itself
        if name in config and (config[name] is not None or name in _CHECKS) and (allowed := check(config[name])):
            raise _refused(directory, name, config[name], allowed)
    if config.get("target_modules") != NO_TARGETS:
        if config["peft_type"] == "LORA":
            _check_ranks(directory, config)
        else:
            _check_sizes(directory, config)
    return config


def check_saved(directory: Path) -> None:
    """Raise `AdapterError` if a file of an adapter is not what was saved; without a digest a note says so."""
    digests = read_json(directory / FACTS, "restore the file").get(DIGESTS) if (directory / FACTS).is_file() else None
    if not isinstance(digests, dict):
        note(f"{directory}: made without digests, so that nobody can tell whether it is what was saved")
        return
    for name in (FILE, WEIGHTS, *((CLASS_HEAD,) if CLASS_HEAD in digests else ())):
        check_sha256(directory / name, str(digests.get(name)), "restore the file or train again")


def _refused(directory: Path, name: str, value: Any, allowed: str) -> AdapterError:
    # a value may be as large as the file
    return AdapterError(f"{directory / FILE}: {name!r:.60} = {str(value)[:80]!r}: {allowed}; not loaded")


def _checks(peft_type: Any) -> Mapping[str, Check] | None:
    """What is allowed in each field of a tuner's configuration; None where the tuner is not known."""
    if peft_type == "LORA":
        return _CHECKS
    tuner = BY_TYPE.get(peft_type) if isinstance(peft_type, str) else None
    return None if tuner is None else {**_COMMON, **tuner.fields}


def _is_default(peft_type: str, name: str, value: Any) -> bool:
    """Whether a field says nothing: it is empty, off, or as PEFT has it by itself."""
    if not value:
        return True
    import peft

    for field in fields(getattr(peft, "LoraConfig" if peft_type == "LORA" else BY_TYPE[peft_type].config)):
        if field.name == name:
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            return bool(value == default)
    return False


def _check_sizes(directory: Path, config: Mapping[str, Any]) -> None:
    """Raise `AdapterError` if a tuner would make tensors that are larger than those in the file."""
    for name, (part, axis) in BY_TYPE[config["peft_type"]].sizes.items():
        found = _sizes(directory, part, axis)
        if found is not None and name in config and config[name] > max(found, default=0):
            limit = max(found, default="none")
            raise _refused(directory, name, config[name], f"the tensors in {WEIGHTS} have {limit}")


def _sizes(directory: Path, part: str, axis: int) -> set[int] | None:
    """Sizes along an axis of the tensors with `part` in their names; None where the file cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(directory / WEIGHTS, framework="numpy") as file:
            return {file.get_slice(key).get_shape()[axis] for key in file.keys() if part in f"{key}."}  # noqa: SIM118
    except (SafetensorError, OSError, IndexError, ValueError):
        return None  # who reads the tensors says what is wrong with them


def _check_ranks(directory: Path, config: Mapping[str, Any]) -> None:
    """Raise `AdapterError` if layers would be made that are larger than those in the file."""
    ranks = _sizes(directory, ".lora_A.", 0)
    if ranks is None:
        return
    most, patterns = max(ranks, default=0), config.get("rank_pattern") or {}
    # where patterns name every layer, r is of none of them; a file without any such tensor is refused when it is read
    asked = (("r", config.get("r", 8), max(most, 64) if patterns or not most else most),)
    for name, size, limit in (*asked, *(("rank_pattern", one, most) for one in patterns.values())):
        if size > limit:
            raise _refused(directory, name, size, f"the tensors in {WEIGHTS} have rank {most or 'none'}")


def _names(value: Any) -> str:
    """Of modules: a list, or one regular expression."""
    if value is None:
        return ""
    if isinstance(value, str):
        return _pattern(value)
    named = isinstance(value, list) and len(value) <= MAX_NAMES
    if named and all(isinstance(name, str) and len(name) <= NAME_LENGTH for name in value):
        return ""
    return f"must be a list of at most {MAX_NAMES} names of modules, or a regular expression"


def _plain_names(value: Any) -> str:
    """Of modules; where PEFT would take them for regular expressions too, they are none."""
    names = [] if value is None else [value] if isinstance(value, str) else value
    plain = isinstance(names, list) and all(isinstance(name, str) and _PLAIN.fullmatch(name) for name in names)
    return "" if plain else "must be names of modules"


def _layers(value: Any) -> str:
    values = [value] if type(value) is int else value
    if value is None or (isinstance(values, list) and all(type(one) is int and 0 <= one < 1000 for one in values)):
        return ""
    return "must be indices of blocks"


def _by_pattern(check: Any) -> Any:
    def mapping(value: Any) -> str:
        if not isinstance(value, dict) or len(value) > MAX_NAMES:
            return f"must be a mapping of at most {MAX_NAMES} names of modules"
        problems = (_pattern(key) or check(one) for key, one in value.items())
        return next((problem for problem in problems if problem), "")

    return mapping


def _pattern(text: str) -> str:
    """What is wrong with a regular expression that names modules."""
    if len(text) > MAX_PATTERN:
        return f"must be at most {MAX_PATTERN} characters"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = re._parser.parse(text)  # type: ignore[attr-defined]  # the only reader of Python's own syntax
            cost = _cost(parsed)
    except (re.error, RecursionError, OverflowError) as error:
        return f"is no regular expression ({str(error)[:60]})"
    if cost > MAX_COST:
        return "is a regular expression that could take for ever; give a list of names, or one with fewer repetitions"
    return ""


def _cost(parsed: Any) -> float:
    """How many ways there are, at most, to match a name: those of parts that follow each other multiply."""
    cost = 1.0
    for operation, argument in parsed:
        cost *= _cost_of(str(operation), argument)
        if cost > MAX_COST:
            return math.inf
    return cost


def _cost_of(operation: str, argument: Any) -> float:
    if operation in ("LITERAL", "NOT_LITERAL", "ANY", "IN", "AT"):
        return 1
    if operation == "BRANCH":
        return sum(_cost(branch) for branch in argument[1])
    if operation == "SUBPATTERN":
        return _cost(argument[3])
    if operation in ("MAX_REPEAT", "MIN_REPEAT"):
        _, most, repeated = argument
        if int(most) <= 1:
            return 1 + _cost(repeated)
        if len(repeated) == 1 and str(repeated[0][0]) in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return min(int(most), NAME_LENGTH)
    return math.inf  # repeated groups, references, conditions: nothing that names of modules need


_COMMON: Mapping[str, Check] = {
    "target_modules": _names,
    "exclude_modules": _names,
    "feedforward_modules": _names,
    "modules_to_save": _plain_names,
    "bias": one_of("none"),
    "layers_to_transform": _layers,
    "layers_pattern": _plain_names,
}
_CHECKS: Mapping[str, Check] = {
    **_COMMON,
    "r": rank,
    "lora_alpha": SCALE,
    "lora_dropout": SHARE,
    "bias": one_of("none", "all", "lora_only"),
    "use_rslora": SWITCH,
    "use_dora": SWITCH,
    "lora_bias": SWITCH,
    "init_lora_weights": one_of(True, False, "gaussian", "orthogonal"),
    "rank_pattern": _by_pattern(rank),
    "alpha_pattern": _by_pattern(SCALE),
}
