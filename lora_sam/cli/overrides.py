"""What is wrong with the overrides of a command line that Hydra refused, with the nearest valid names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_sam.core.calling import quoted
from lora_sam.core.files import followed

_PLACEHOLDER = re.compile(r"\{\w+\}")
_SYNTAX = frozenset("'\"[](){}")


def with_quotes(arguments: Sequence[str]) -> list[str]:
    """`arguments` with quotes where Hydra would take a text for syntax: around values such as `{split}/images`, and
    around the path of what exists.

    Values that are swept over keep the commas between them; what has quotes or brackets of its own stays as it is.
    """
    return [_quoted(text) for text in arguments]


def _quoted(text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals or text.startswith("-"):
        return text
    if value[:1] not in _SYNTAX and os.path.exists(value):
        return f"{key}={quoted(value)}"
    if _SYNTAX.intersection(_PLACEHOLDER.sub("", value)):
        return text
    return f"{key}=" + ",".join(quoted(one) if _PLACEHOLDER.search(one) else one for one in value.split(","))


def explain(error: Exception, arguments: Sequence[str], conf: Path, config_name: str) -> list[str]:
    """One line for each override that cannot be applied; else Hydra's own reason, on one line.

    Args:
        error: What Hydra raised.
        arguments: The command line.
        conf: The configuration directory.
        config_name: Name of the primary configuration.
    """
    if isinstance(error, OverrideParseException):
        return [
            f"{error.override}: not readable as an override; write key=value without spaces around =, and put special "
            "characters of a value in two pairs of quotes: 'key=\"a, b\"'"
        ]
    problems: list[str] = []
    # what is wrong with a file rather than an override makes this fail as it made Hydra fail
    with (
        suppress(HydraException, OmegaConfBaseException, ValueError),
        initialize_config_dir(version_base="1.3", config_dir=str(conf.resolve())),
    ):
        for problem in _problems(error, arguments, config_name):
            problems.append(problem)
    return problems or [_reason(error)]


def _problems(error: Exception, arguments: Sequence[str], config_name: str) -> Iterator[str]:
    from lora_sam.cli.engines import missing_engine
    from lora_sam.core.unknown import unknown_key, unknown_option  # not at the top: --help needs no pydantic

    loader = GlobalHydra.instance().config_loader()
    texts = [text for text in arguments if not text.startswith("-") and ("=" in text or text.startswith("~"))]
    places = _search_path(arguments, texts)
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(texts)
    multirun = any(text == "-m" or text.startswith("--mu") for text in arguments)
    groups = loader.list_groups("")
    choices = list(places)
    values = []
    for override in parsed:
        if override.is_sweep_override() and not multirun:
            yield _several_values(override)
            continue
        options = _options(loader, override.key_or_group, config_name, places)
        chooses = override.key_or_group in groups or options
        if not chooses or override.package is not None or _is_mapping(override):
            values.append(override)
            continue
        wrong = [name for name in _chosen(override, error) if name not in options]
        for name in wrong:
            choice = f"{override.key_or_group}={name}"
            yield missing_engine(choice) or unknown_option(choice, override.key_or_group, name, options)
        if not wrong and not override.is_sweep_override():
            choices.append(str(override.input_line))
    composed = compose(config_name, overrides=choices, return_hydra_config=True)
    keys = set(_keys(OmegaConf.to_container(composed)))
    # a step after training has options but no groups
    offered = groups if keys.intersection(groups) - {"hydra"} else []
    valid = {name for name in [*keys, *offered] if name != "hydra" and not name.startswith("hydra.")}
    for override in values:
        if override.is_add() or override.is_force_add():
            continue
        key = override.key_or_group
        inner = list(_keys(override.value(), f"{key}.")) if _is_mapping(override) else []
        for name in [key, *inner]:
            if name not in keys:
                yield unknown_key(name, keys if name.startswith("hydra") else valid)


def _options(loader: ConfigLoader, group: str, config_name: str, places: list[str]) -> list[str]:
    return loader.get_group_options(group, ObjectType.CONFIG, config_name=config_name, overrides=places)


def _is_mapping(override: Override) -> bool:
    """Whether it changes keys of a group, as `method={rank: 4}`, instead of choosing an option."""
    return not override.is_sweep_override() and isinstance(override.value(), dict)


def _chosen(override: Override, error: Exception) -> list[str]:
    """Names of the options that an override of a group chooses."""
    if override.is_sweep_override():
        return list(override.sweep_string_iterator()) if override.is_discrete_sweep() else []
    value = override.value()
    if value is None:
        # null is a choice for some groups; for others it is what Hydra complains about
        return ["null"] if "NoneType" in str(error) else []
    return [str(name) for name in (value if isinstance(value, list) else [value])]


def _search_path(arguments: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Overrides that bring in configuration directories of the user's own."""
    given = [text for text in texts if text.startswith("hydra.searchpath=")]
    for index, text in enumerate(arguments):
        flag, equals, value = text.partition("=")
        if flag in {"-cd", "--config-dir"}:
            directory = followed(Path(value if equals else "".join(arguments[index + 1 : index + 2])))
            if directory.is_dir():
                given = [f"hydra.searchpath=['file://{directory}']"]
    return given


def _keys(values: Any, prefix: str = "") -> Iterator[str]:
    """All dotted keys of a plain configuration, those of groups and of list items included."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        if key != "_target_":
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")


def _several_values(override: Override) -> str:
    text = str(override.input_line)
    key, _, value = text.partition("=")
    return f"{text}: several values; add -m to run once for each of them, or write a list as '{key}=[{value}]'"


def _reason(error: Exception) -> str:
    """What Hydra says, without its hints for developers."""
    from lora_sam.cli.engines import missing_engine
    from lora_sam.core.unknown import unknown_option

    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if (missing := missing_engine(f"{group}={name}")) is not None:
            return missing
        return unknown_option(f"{group}={name}", group, name, error.options)
    text = str(error) or str(error.__cause__ or type(error).__name__)
    return " ".join(text.partition("\nConfig search path:")[0].split())
