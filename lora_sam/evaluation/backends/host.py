"""Facts about this machine that a latency means nothing without."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

from pydantic import Field

from lora_sam.core.processor import cpu_name

_PACKAGES = ("torch", "openvino", "numpy")


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine, without anything that names it.

    Attributes:
        cpu: Name of the processor.
        cores: Logical cores that may be used.
        threads: Threads that were asked for; None where it was left to torch and OpenVINO.
        torch_threads: Threads that torch takes (OMP_NUM_THREADS limits it, but not OpenVINO); None if it is not used.
        system: Operating system and architecture.
        versions: Versions by name of the package; None for one that is not installed.
    """

    cpu: str
    cores: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)] | None
    torch_threads: Annotated[int, Field(ge=1)] | None
    system: str
    versions: Mapping[str, str | None]


def this_host(threads: int | None) -> Host:
    """Facts about this machine and process; `threads` as in `Host`."""
    return Host(
        cpu=cpu_name(),
        cores=usable_cores(),
        threads=threads,
        torch_threads=sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None,
        system=f"{platform.system()} {platform.machine()}",
        versions={"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
    )


def usable_cores() -> int:
    """Logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
