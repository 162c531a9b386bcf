"""Counts what an install brings, from poetry.lock, and how large it is: `python scripts/install_size.py [--write]`.

Sizes are those of the files that this environment has installed; `--write` puts the table into docs/faq.md.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "faq.md"
BAR = 75
"""Most packages of the core, without what PyTorch brings for GPUs."""

LINUX = {
    "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix",
    "python_version": "3.12", "python_full_version": "3.12.0", "implementation_name": "cpython",
    "platform_python_implementation": "CPython", "extra": "",
}  # fmt: skip
_OF_GPU = re.compile(r"nvidia-|cuda-|triton$")


@dataclass(frozen=True)
class Row:
    """What one way to install brings.

    Attributes:
        name: How it is typed.
        packages: Names of the packages, without PyTorch's libraries for GPUs.
        of_gpu: Names of those libraries, on Linux.
    """

    name: str
    packages: tuple[str, ...]
    of_gpu: tuple[str, ...]


def rows(project: Mapping[str, Any], locked: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The core and the extras that most people want.

    Args:
        project: `[project]` of pyproject.toml.
        locked: `[[package]]` of poetry.lock.
    """
    made = []
    for extra in (None, "deploy", "app", "all"):
        wanted = [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else ())]
        names = brought(map(Requirement, wanted), locked)
        of_gpu = tuple(sorted(name for name in names if _OF_GPU.match(name)))
        kept = tuple(sorted(names - set(of_gpu)))
        made.append(Row("pip install ." if extra is None else f'pip install ".[{extra}]"', kept, of_gpu))
    return made


def brought(wanted: Iterable[Requirement], locked: Sequence[Mapping[str, Any]]) -> set[str]:
    """Names of all locked packages that some requirements bring on Linux, theirs and those of theirs."""
    packages = {str(canonicalize_name(package["name"])): package for package in locked}
    extras: dict[str, set[str]] = {}
    waiting = [(str(canonicalize_name(one.name)), set(one.extras)) for one in wanted]
    while waiting:
        name, asked = waiting.pop()
        if name in extras and asked <= extras[name]:
            continue
        extras.setdefault(name, set()).update(asked)
        package = packages[name]
        by_extra = {
            str(canonicalize_name(Requirement(text).name))
            for extra in extras[name]
            for text in package.get("extras", {}).get(extra, ())
        }
        for needed, entry in package.get("dependencies", {}).items():
            for one in entry if isinstance(entry, list) else [entry]:
                rule = {} if isinstance(one, str) else one
                called = str(canonicalize_name(needed))
                markers = rule.get("markers", "")
                if rule.get("optional"):
                    if called in by_extra:
                        waiting.append((called, set(rule.get("extras", ()))))
                elif not markers or Marker(markers).evaluate(LINUX):
                    waiting.append((called, set(rule.get("extras", ()))))
    return set(extras)


def table(made: Sequence[Row]) -> str:
    """The rows in Markdown, with the size of what is installed here."""
    lines = ["| installed by | packages | size | with libraries for GPUs, on Linux |", "|---|---:|---:|---:|"]
    for row in made:
        size, both = _megabytes(row.packages), _megabytes((*row.packages, *row.of_gpu))
        lines.append(f"| `{row.name}` | {len(row.packages)} | {size} | {len(row.packages) + len(row.of_gpu)}, {both} |")
    return "\n".join(lines)


def read() -> list[Row]:
    """The rows of this checkout."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))["package"]
    return rows(project, locked)


def main(arguments: Sequence[str]) -> int:
    """Print the table, or write it; 0."""
    text = table(read())
    if "--write" in arguments:
        page = PAGE.read_text(encoding="utf-8")
        page = re.sub(r"(<!-- install -->\n).*?(?=<!-- /install -->)", rf"\g<1>{text}\n", page, flags=re.S)
        PAGE.write_text(page, encoding="utf-8")
    print(text)
    return 0


def _megabytes(names: Iterable[str]) -> str:
    total = sum(_size(name) for name in names) / 1e6
    return f"{total / 1e3:.1f} GB" if total >= 1e3 else f"{total:.0f} MB"


def _size(name: str) -> int:
    try:
        listed = files(name)
    except PackageNotFoundError:
        return 0
    paths = (Path(str(file.locate())) for file in listed or ())
    return sum(path.stat().st_size for path in paths if path.is_file())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
