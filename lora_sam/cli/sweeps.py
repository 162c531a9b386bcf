"""A sweep on the command line: what was typed, what becomes of its jobs, its table, and where it can go on."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lora_sam.core.errors import ConfigError, LoraSamError
from lora_sam.core.run_directory import RunDirectory, find_sweep
from lora_sam.runs.status import Status, read_status

if TYPE_CHECKING:
    from lora_sam.runs.sweep import Sweep

SEEDS, SWEEPS = "seeds=", "sweep="
_SHARE = 0.05  # of the time of a sweep that may go into keeping its page up to date
_next_note = 0.0


def with_sweep(arguments: Sequence[str]) -> list[str]:
    """The command line with `sweep=` and `seeds=` in Hydra's own words.

    `sweep=latest`, or `sweep=` and a directory, is the command that began that sweep, in its directory. `seeds=5` is
    `-m` with five seeds, from that of `seed=` or 0 on.

    Raises:
        AdapterError: there is no such sweep.
        ConfigError: `seeds` is not a number of seeds, or something else stands beside `sweep=`.
    """
    named = [text for text in arguments if text.startswith(SWEEPS)]
    if named:
        from lora_sam.runs.sweep import read_sweep

        directory = find_sweep(named[-1].removeprefix(SWEEPS))
        others = [text for text in arguments if text not in named and text not in ("-m", "--multirun")]
        if others:
            raise ConfigError(
                f"{named[-1]} goes on with a sweep as it was begun: leave out {' '.join(others)}, or begin a new one"
            )
        return [*read_sweep(directory).command, f"hydra.sweep.dir={_quoted(str(directory))}"]
    given = [text for text in arguments if text.startswith(SEEDS)]
    if not given:
        return list(arguments)
    count, first = given[-1].removeprefix(SEEDS), 0
    rest = [text for text in arguments if not text.startswith("seed=") and text not in given[:-1]]
    for text in [text for text in arguments if text.startswith("seed=")]:
        value = text.removeprefix("seed=")
        if not value.isdigit():
            raise ConfigError(f"{given[-1]} counts from one seed: write seed= with one number, not {text}")
        first = int(value)
    if not count.isdigit() or not 2 <= int(count) <= 1000:
        raise ConfigError(f"{given[-1]}: must be a number of seeds, 2 to 1000")
    swept = [] if {"-m", "--multirun"} & set(rest) else ["-m"]
    seeds = "seed=" + ",".join(str(first + number) for number in range(int(count)))
    return [*swept, *(seeds if text == given[-1] else text for text in rest)]


def begin_sweep(config: DictConfig) -> None:
    """Note that a sweep begins, or goes on; exits with 2 where another sweep is in its directory.

    Args:
        config: What Hydra composed for the sweep.
    """
    from lora_sam.cli import report
    from lora_sam.runs.sweep import begin

    overrides = [str(value) for value in OmegaConf.to_container(config.hydra.overrides.task, resolve=False) or ()]
    command = [text for text in sys.argv[1:] if not text.startswith("hydra.sweep.dir=")]
    try:
        begin(Path(str(config.hydra.sweep.dir)), command, overrides, _planned(config, overrides))
    except LoraSamError as error:  # Hydra would turn it into a warning
        raise SystemExit(report(str(error).splitlines())) from error


def _planned(config: DictConfig, overrides: Sequence[str]) -> list[list[str]] | None:
    """The values of every job of Hydra's own sweeper, by number; None where a sweeper chooses them as it goes."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    sweeper = config.hydra.sweeper
    if not str(sweeper.get("_target_", "")).endswith(".BasicSweeper"):
        return None
    texts = [*(f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()), *overrides]
    with suppress(HydraException, ValueError):  # who sweeps will say so
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        (jobs,) = BasicSweeper.split_arguments(parser.parse_overrides(texts), None)
        return [[text for text in job if not text.startswith("hydra.")] for job in jobs]
    return None


def engine_choices(config: DictConfig) -> list[str]:
    """Launcher and sweeper of a sweep, as they are typed."""
    choices = config.hydra.runtime.choices
    return [f"{group}={choices[group]}" for group in ("hydra/launcher", "hydra/sweeper") if group in choices]


def earlier_part(directory: Path, status: Status) -> Status | None:
    """What became of this very job before, where it is done or can go on; None where it has to begin.

    Args:
        directory: Its run directory.
        status: The job now: its number and values.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":  # the other processes could not tell
        return None
    before = read_status(directory)
    if before is None or before.job != status.job or list(before.overrides) != list(status.overrides):
        return None
    run = RunDirectory(directory)
    done = before.status == "completed" and before.objective is not None and run.evaluation.is_file()
    done = done or (before.status == "pruned" and before.objective is not None)
    return before if done or (before.status not in ("completed", "pruned") and run.last.is_file()) else None


def note_job(directory: Path) -> None:
    """Write `sweep.json` and page while the sweep runs, as often as takes a small share of its time."""
    global _next_note
    begun = time.monotonic()
    if begun < _next_note:
        return
    with suppress(LoraSamError):  # a sweep is not stopped by its page
        _write(directory, "running")
    now = time.monotonic()
    _next_note = now + (now - begun) / _SHARE


def end_sweep(directory: Path, program: str) -> None:
    """Write `sweep.json` and page, print table and next commands; exits with 1 if any job did not complete."""
    from lora_sam.core.console import print_table
    from lora_sam.report.sweep import PAGE
    from lora_sam.report.sweep_table import next_commands, table

    sweep = _write(directory, "finished")
    print_table(table(sweep))
    for job in sweep.jobs:
        if job.error is not None:
            print(f"job {job.job} {job.state}: {job.error}")
    for line in next_commands(sweep, directory, program):
        print(line)
    print(f"sweep  {directory / PAGE}", flush=True)
    if sweep.failed:
        raise SystemExit(1)


def interrupt_sweep(directory: Path, program: str) -> str:
    """Write `sweep.json` and page of a sweep that a signal ends; how to go on."""
    with suppress(LoraSamError):
        _write(directory, "interrupted")
    return f"what is done stays. Go on with: {program} {_again(directory)}"


def again_with_sweep() -> str | None:
    """What goes on with the sweep that this process runs a job of; None outside sweeps."""
    hydra = HydraConfig.get()
    return _again(Path(hydra.sweep.dir)) if hydra.mode == RunMode.MULTIRUN else None


def _again(directory: Path) -> str:
    return shlex.quote(SWEEPS + str(directory))


def _write(directory: Path, state: str) -> Sweep:
    from lora_sam.core.files import write_text
    from lora_sam.report.sweep import PAGE, sweep_page
    from lora_sam.runs.sweep import renew

    sweep = renew(directory, state)  # type: ignore[arg-type]
    write_text(directory / PAGE, sweep_page(sweep, directory))
    return sweep


def _quoted(path: str) -> str:
    """A path as Hydra reads it back."""
    from lora_sam.core.calling import quoted

    return quoted(path)
