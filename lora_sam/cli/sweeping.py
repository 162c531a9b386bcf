"""The sweep that this process is the command of: how it is ended where its launcher fails, or a signal comes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lora_sam.cli.engines import Watch, program
from lora_sam.cli.sweeps import end_sweep, interrupt_sweep


@dataclass
class _Sweeping:
    """The sweep that this process is the command of."""

    directory: Path
    watch: Watch | None


_sweeping: _Sweeping | None = None


def sweep_begins(directory: Path, watch: Watch | None) -> None:
    """Note that this process is the command of the sweep in `directory`, and what watches its jobs elsewhere."""
    global _sweeping
    _sweeping = _Sweeping(directory, watch)


def advice() -> str | None:
    """How to go on with the sweep of this command, after noting that it was interrupted; None where there is none."""
    if _sweeping is None:
        return None
    if _sweeping.watch is not None:
        _sweeping.watch.stop()
    return interrupt_sweep(_sweeping.directory, program())


def end_broken_sweep() -> None:
    """End a sweep whose launcher has failed as any other: table, page, next commands; exits with 1."""
    global _sweeping
    if _sweeping is not None:
        broken, _sweeping = _sweeping, None
        if broken.watch is not None:
            broken.watch.stop()
        end_sweep(broken.directory, program())


def forget_sweep() -> None:
    """What the command did is over."""
    global _sweeping
    if _sweeping is not None and _sweeping.watch is not None:
        _sweeping.watch.stop()
    _sweeping = None
