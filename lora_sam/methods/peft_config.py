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

FILE, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# what this package writes beside the two of PEFT, and the key there with the SHA-256 of each of them
FACTS, DIGESTS = "lora_sam.json", "files"
# tells the classes of objects apart; only where the training data has several
CLASS_HEAD = "class_head.safetensors"
# PEFT's own word for "no layer gets an adapter, only modules_to_save are trained"
NO_TARGETS = "dummy-target-modules"
MAX_RANK = 4096
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
    )
)


def check_config(directory: Path) -> dict[str, Any]:
    """The PEFT configuration of an adapter, if it is one that can be loaded; takes milliseconds and no memory.

    Refused are other tuners than LoRA; fields with a value that this version of PEFT or this package does not know;
    a rank beyond that of the tensors in the file; and regular expressions that could go on matching for ever.

    Raises:
        AdapterError: names the file, the field, its value and what is allowed.
    """
    config = {"peft_type": None, **read_json(directory / FILE, "train again or restore the file")}
    for name, value in config.items():
        if name not in _CHECKS and name not in _DESCRIBING and not _is_default(name, value):
            raise _refused(directory, name, value, "must be left at its default")
    for name, check in _CHECKS.items():
        if name in config and (allowed := check(config[name])):
            raise _refused(directory, name, config[name], allowed)
    if config.get("target_modules") != NO_TARGETS:
        _check_ranks(directory, config)
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


def _is_default(name: str, value: Any) -> bool:
    """Whether a field says nothing: it is empty, off, or as PEFT has it by itself."""
    if not value:
        return True
    from peft import LoraConfig

    for field in fields(LoraConfig):
        if field.name == name:
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            return bool(value == default)
    return False


def _check_ranks(directory: Path, config: Mapping[str, Any]) -> None:
    """Raise `AdapterError` if layers would be made that are larger than those in the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(directory / WEIGHTS, framework="numpy") as file:
            ranks = {file.get_slice(key).get_shape()[0] for key in file.keys() if ".lora_A." in key}  # noqa: SIM118
    except (SafetensorError, OSError, IndexError, ValueError):
        return  # who reads the tensors says what is wrong with them
    most, patterns = max(ranks, default=0), config.get("rank_pattern") or {}
    # where patterns name every layer, r is of none of them; a file without any such tensor is refused when it is read
    asked = (("r", config.get("r", 8), max(most, 64) if patterns or not most else most),)
    for name, rank, limit in (*asked, *(("rank_pattern", rank, most) for rank in patterns.values())):
        if rank > limit:
            raise _refused(directory, name, rank, f"the tensors in {WEIGHTS} have rank {most or 'none'}")


def _rank(value: Any) -> str:
    return "" if type(value) is int and 1 <= value <= MAX_RANK else f"must be a whole number from 1 to {MAX_RANK}"


def _number(least: float, most: float) -> Any:
    def check(value: Any) -> str:
        number = type(value) in (int, float) and least <= value <= most  # not so for NaN
        return "" if number else f"must be a number from {least:g} to {most:g}"

    return check


def _one_of(*allowed: Any) -> Any:
    def check(value: Any) -> str:
        known = any(type(value) is type(one) and value == one for one in allowed)
        return "" if known else f"must be one of {', '.join(map(str, allowed))}"

    return check


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


_CHECKS = {
    "peft_type": lambda value: "" if value == "LORA" else "only LORA adapters are loaded",
    "r": _rank,
    "lora_alpha": _number(1e-6, 1e6),
    "lora_dropout": _number(0, 1),
    "target_modules": _names,
    "exclude_modules": _names,
    "modules_to_save": _plain_names,
    "bias": _one_of("none", "all", "lora_only"),
    "use_rslora": _one_of(True, False),
    "use_dora": _one_of(True, False),
    "lora_bias": _one_of(True, False),
    "init_lora_weights": _one_of(True, False, "gaussian", "orthogonal"),
    "layers_to_transform": _layers,
    "layers_pattern": _plain_names,
    "rank_pattern": _by_pattern(_rank),
    "alpha_pattern": _by_pattern(_number(1e-6, 1e6)),
}
