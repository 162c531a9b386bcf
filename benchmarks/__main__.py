"""`python -m benchmarks [name ...]`: measure, print a table, keep the result as JSON."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from benchmarks.catalog import Question, all_questions
from benchmarks.record import (
    SCHEMA_VERSION,
    BenchmarkError,
    Result,
    commit,
    host,
    load,
    versions,
    write_result,
)
from lora_sam.core.errors import LoraSamError


def answer(name: str, question: Question, *, rehearse: bool) -> Result:
    """Measure one question. Raises `BenchmarkError` as `Question.measure` does."""
    before, date, start = load(), datetime.now(UTC), time.perf_counter()
    outcome = question.measure(rehearse=rehearse)
    head, modified = commit()
    return Result(
        schema_version=SCHEMA_VERSION,
        name=name,
        question=question.QUESTION,
        command=f"python -m benchmarks {name}",
        date=date.isoformat(timespec="seconds"),
        commit=head,
        modified=modified,
        seconds=round(time.perf_counter() - start, 1),
        host=host(before, load()),
        versions=versions(),
        settings=dict(outcome.settings),
        checks=dict(outcome.checks),
        figures=list(outcome.figures),
        details=dict(outcome.details),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 if something could not be measured. A missed limit is a result, not a failure."""
    every = all_questions()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="which to run; all quick ones by default")
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    parser.add_argument("--rehearse", action="store_true", help="tiny settings, nothing is kept: does it run at all?")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in every]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(every)}")
    if given.list:
        for name, question in every.items():
            sys.stdout.write(f"{name:16} {'' if question.QUICK else '(only by name) '}{question.QUESTION}\n")
        return 0
    failed = []
    for name in given.names or [name for name, question in every.items() if question.QUICK]:
        sys.stderr.write(f"{name}: {every[name].QUESTION}\n")
        try:
            result = answer(name, every[name], rehearse=given.rehearse)
            result = result if given.rehearse else write_result(result)
        except (BenchmarkError, LoraSamError) as error:
            sys.stderr.write(f"{name}: {error}\n")
            failed.append(name)
            continue
        show(result)
    if failed:
        sys.stderr.write(f"not measured: {', '.join(failed)}\n")
    elif not given.rehearse:
        sys.stderr.write("put the figures into the documents with: python -m benchmarks.tables\n")
    return 1 if failed else 0


def show(result: Result) -> None:
    """Print a result as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from benchmarks.tables import limit_of, measured, verdict

    table = Table(title=Text(result.question), box=box.SIMPLE_HEAD, title_justify="left")
    for heading in ("what", "limit", "measured", ""):
        table.add_column(heading, overflow="fold")
    for one in result.figures:
        cells = (one.what, limit_of(one), measured(one), verdict(one))
        table.add_row(*(Text(cell.replace("**", "")) for cell in cells))
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    console.print(table)
    for what, found in result.checks.items():
        console.print(f"checked: {what}: {found}", highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())
