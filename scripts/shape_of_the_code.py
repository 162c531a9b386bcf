"""Measure the shape of the package; with `--write` into docs/design.md: `python scripts/shape_of_the_code.py`."""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "design.md"
LONG = 300
_BLOCK = re.compile(r"(<!-- shape -->\n).*?(<!-- /shape -->)", re.DOTALL)


@dataclass(frozen=True)
class Measure:
    """One figure of the code.

    Attributes:
        what: What is counted.
        value: The count.
        bar: The most it may be.
        detail: What it consists of.
    """

    what: str
    value: int
    bar: int
    detail: str = ""

    @property
    def met(self) -> bool:
        """Whether the bar holds."""
        return self.value <= self.bar


def entries(package: Path) -> list[str]:
    """Files and folders at the top of the package, in order; those with an underscore are the package itself."""
    found = (path for path in package.iterdir() if path.is_dir() or path.suffix == ".py")
    return sorted(path.name for path in found if not path.name.startswith(("_", ".")))


def floors(pyproject: Path) -> list[str]:
    """The floors of the first contract of import-linter, from the top."""
    settings = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    layers: list[str] = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return layers


def arrows(graph: grimp.ImportGraph, package: str) -> set[tuple[str, str]]:
    """Pairs of rooms of which the first imports the second, types and lazy imports included."""
    found = set()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            ends = [name.split(".")[1] for name in (module, imported) if name != package]
            if len(ends) == 2 and ends[0] != ends[1]:
                found.add((ends[0], ends[1]))
    return found


def longest_chain(imported_by: Mapping[str, set[str]]) -> list[str]:
    """The longest chain of modules, each importing the next, types and lazy imports included.

    Raises:
        ValueError: modules import each other in a circle.
    """
    best: dict[str, list[str]] = {}
    open_modules: set[str] = set()

    def chain(module: str) -> list[str]:
        if module in open_modules:
            raise ValueError(f"{module} imports itself by way of others")
        if module not in best:
            open_modules.add(module)
            below = (chain(imported) for imported in sorted(imported_by[module]))
            best[module] = [module, *max(below, key=len, default=[])]
            open_modules.remove(module)
        return best[module]

    return max((chain(module) for module in sorted(imported_by)), key=len, default=[])


def lines_of(package: Path) -> dict[str, int]:
    """Lines of every Python file, by its path below the package."""
    return {
        str(path.relative_to(package)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sorted(package.rglob("*.py"))
    }


def measures(root: Path, package: str = "lora_sam") -> list[Measure]:
    """Every figure, beside its bar."""
    graph = grimp.build_graph(package, cache_dir=None)
    chain = longest_chain({module: graph.find_modules_directly_imported_by(module) for module in graph.modules})
    lines = lines_of(root / package)
    long = {name: count for name, count in lines.items() if count > LONG}
    return [
        Measure(f"entries at the top of `{package}/`", len(entries(root / package)), 22),
        Measure("floors of rooms, the doors among them", len(floors(root / "pyproject.toml")), 9),
        Measure("arrows between rooms", len(arrows(graph, package)), 100),
        Measure("modules in the longest chain of imports", len(chain), 16, f"`{chain[0]}` … `{chain[-1]}`"),
        Measure(f"lines of `{package}/`, without tests", sum(lines.values()), 32_000),
        Measure(f"files over {LONG} lines", len(long), 5, ", ".join(f"`{name}`" for name in sorted(long))),
    ]


def table(found: list[Measure]) -> str:
    """The figures as Markdown, misses in bold."""
    rows = [
        f"| {one.what} | ≤ {one.bar:,} | {one.value:,} | {'met' if one.met else '**missed**'} | {one.detail} |\n"
        for one in found
    ]
    return "| what | bar | measured | | |\n|---|---:|---:|---|---|\n" + "".join(rows)


def filled(page: str, text: str) -> str:
    """`page` with `text` between its markers. Raises `ValueError` where they are missing."""
    replaced: Callable[[re.Match[str]], str] = lambda block: f"{block[1]}{text}{block[2]}"  # noqa: E731
    new, count = _BLOCK.subn(replaced, page)
    if count != 1:
        raise ValueError("<!-- shape --> and <!-- /shape --> have to stand in it once")
    return new


def main() -> int:
    """Print the table; with `--write` put it into docs/design.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/design.md")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    text = table(measures(ROOT))
    sys.stdout.write(text)
    if given.write:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
