"""The tuned model as files that other tools open: one module and one file of `conf/pack` for each tool."""

from __future__ import annotations

from lora_sam.core.conf_files import conf_directory
from lora_sam.core.unknown import known_name


def targets() -> tuple[str, ...]:
    """Names of the tools: the files of `conf/pack`. Raises `ConfigError` where the installation is incomplete."""
    return tuple(sorted(file.stem for file in (conf_directory() / "pack").glob("*.yaml")))


def known_target(name: str) -> str:
    """`name`, if it is one of `targets`; raises `ValueError` with all of them and the nearest."""
    return known_name(targets())(name)
