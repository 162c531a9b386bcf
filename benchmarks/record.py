"""What a benchmark leaves behind: figures with their limits, on which machine and code, as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from lora_sam.core.files import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
SCHEMA_VERSION = 1

Relation = Literal["<=", ">=", ">"]
_PACKAGES = ("torch", "peft", "transformers", "segment-anything", "accelerate", "safetensors", "numpy", "hydra-core")
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class BenchmarkError(Exception):
    """A benchmark cannot be run, or what it compares turned out not to be comparable. Printed as one line."""


@with_config(_STRICT)
@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number.

    Attributes:
        id: Name within its benchmark; stays the same from run to run.
        what: Description for people, to be read without the other columns.
        value: The number; a median where `samples` is above 1.
        unit: Of `value`, `limit`, `low` and `high`; empty for ratios and counts.
        low: Smallest of the samples, or lower end of an interval.
        high: Largest of the samples, or upper end of an interval.
        samples: Number of measurements behind `value`.
        relation: How `value` has to stand to `limit`.
        limit: What was promised; None where the figure is only for information.
        ok: Whether the promise is kept; None without a limit.
        note: Why a limit is missed, by hand; kept for as long as it is missed.
    """

    id: str
    what: str
    value: float
    unit: str
    low: float | None
    high: float | None
    samples: int
    relation: Relation
    limit: float | None
    ok: bool | None
    note: str


@with_config(_STRICT)
@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine: enough to repeat the measurement, nothing that identifies it.

    Attributes:
        cpu: Model name of the processor.
        cores: Logical cores that this process may use.
        memory_bytes: Main memory.
        system: Kernel and the first two numbers of its release.
        python: Version of the interpreter.
        load_before: Load average of the last minute, before the first measurement; None where there is none.
        load_after: The same after the last; of a benchmark on two cores about 2 of it is the benchmark itself.
    """

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    load_before: float | None
    load_after: float | None


@with_config(_STRICT)
@dataclass(frozen=True, kw_only=True)
class Result:
    """Content of `results/<name>.json`.

    Attributes:
        schema_version: Of this layout.
        name: Of the benchmark.
        question: What it asks.
        command: How to measure again.
        date: When it began, UTC, ISO 8601.
        commit: What was checked out, 40 hexadecimal digits; `unknown` outside a git checkout.
        modified: Whether tracked files (results and documents aside) differed from that commit.
        seconds: Wall time of the whole benchmark.
        host: The machine.
        versions: Installed packages.
        settings: What was measured: sizes, numbers of runs.
        checks: What was found equal before time counted, with the numbers.
        figures: The numbers.
        details: All single measurements, by side.
    """

    schema_version: int
    name: str
    question: str
    command: str
    date: str
    commit: str
    modified: bool
    seconds: float
    host: Host
    versions: dict[str, str]
    settings: dict[str, Any]
    checks: dict[str, str]
    figures: list[Figure]
    details: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a question's `measure` returns: the part of `Result` that it knows; fields as there."""

    settings: Mapping[str, Any]
    checks: Mapping[str, str]
    figures: Sequence[Figure]
    details: Mapping[str, Any] = field(default_factory=dict)


def figure(
    name: str,
    what: str,
    samples: float | Sequence[float],
    *,
    unit: str = "",
    limit: float | None = None,
    relation: Relation = "<=",
    value: float | None = None,
    interval: tuple[float, float] | None = None,
) -> Figure:
    """A figure from its samples.

    Args:
        name: See `Figure.id`.
        what: See `Figure.what`.
        samples: One number, or all that were measured.
        unit: See `Figure.unit`.
        limit: See `Figure.limit`.
        relation: See `Figure.relation`.
        value: Instead of the median of the samples.
        interval: Instead of the smallest and the largest sample.
    """
    numbers = [float(samples)] if isinstance(samples, int | float) else [float(sample) for sample in samples]
    several = len(numbers) > 1
    low, high = interval or ((min(numbers), max(numbers)) if several else (None, None))
    shown = float(statistics.median(numbers) if value is None else value)
    return Figure(
        id=name,
        what=what,
        value=shown,
        unit=unit,
        low=low,
        high=high,
        samples=len(numbers),
        relation=relation,
        limit=None if limit is None else float(limit),
        ok=None if limit is None else holds(shown, relation, limit),
        note="",
    )


def holds(value: float, relation: Relation, limit: float) -> bool:
    """Whether `value relation limit`."""
    return {"<=": value <= limit, ">=": value >= limit, ">": value > limit}[relation]


def host(load_before: float | None, load_after: float | None) -> Host:
    """This machine."""
    return Host(
        cpu=_cpu_model(),
        cores=usable_cores(),
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        python=platform.python_version(),
        load_before=load_before,
        load_after=load_after,
    )


def load() -> float | None:
    """Load average of the last minute, or None where the system has none."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Versions of what is measured; a package that is not installed is left out."""
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> tuple[str, bool]:
    """(commit that is checked out, whether code differs from it)."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return "unknown", True
    changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results", ":!docs", ":!*.md")
    return head, bool(changed)


def result_path(name: str, directory: Path = RESULTS) -> Path:
    """Where the result of a benchmark is kept."""
    return directory / f"{name}.json"


def write_result(result: Result, directory: Path = RESULTS) -> Result:
    """Write `result` atomically, with the notes that its predecessor had on limits that are still missed.

    Returns:
        What was written.

    Raises:
        BenchmarkError: the predecessor is damaged.
        TrainingError: the disk is full or read-only.
    """
    path = result_path(result.name, directory)
    notes = {one.id: one.note for one in read_result(path).figures} if path.is_file() else {}
    figures = [replace(one, note=notes.get(one.id, one.note)) if one.ok is False else one for one in result.figures]
    result = replace(result, figures=figures)
    write_text(path, json.dumps(asdict(result), indent=2, ensure_ascii=False) + "\n")
    return result


def read_result(path: Path) -> Result:
    """Read a result back and check it.

    Raises:
        BenchmarkError: a key is missing or unknown, a value has the wrong type, or a figure contradicts itself.
    """
    try:
        result = TypeAdapter(Result).validate_json(path.read_text(encoding="utf-8"), strict=True)
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise BenchmarkError(f"{path.name} is damaged ({' '.join(str(error).split())[:300]}); measure again") from error
    if result.schema_version != SCHEMA_VERSION:
        raise BenchmarkError(
            f"{path.name} has schema version {result.schema_version}, this code reads {SCHEMA_VERSION}: measure again"
        )
    for one in result.figures:
        if one.ok != (None if one.limit is None else holds(one.value, one.relation, one.limit)):
            raise BenchmarkError(f"{path.name}: {one.id}: ok contradicts value and limit; measure again")
    return result


def read_results(directory: Path = RESULTS) -> dict[str, Result]:
    """All results in `directory` by name, in alphabetical order. Raises `BenchmarkError` as `read_result` does."""
    found: Iterable[Path] = sorted(directory.glob("*.json"))
    return {path.stem: read_result(path) for path in found}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
