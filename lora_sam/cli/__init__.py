"""The command line around Hydra: exit codes, errors as one line each, run directories, sweeps that go on."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lora_sam.cli.flags import foreign_flags
from lora_sam.cli.overrides import explain, with_quotes
from lora_sam.core.signals import Stoppable, exit_code

BUG = 1
USER_ERROR = 2

# what jobs of a sweep may run in
_ENGINES = ("joblib", "ray", "submitit")

# of the job at work; not a ContextVar, because a thread has to see it
_at_work: Callable[[], str | None] | None = None

# whether `main` has set HYDRA_FULL_ERROR for its own purposes
_one_line_errors: ContextVar[bool] = ContextVar("one_line_errors", default=False)


def main(task: Callable[[], Any], *, conf: Path, config_name: str = "train") -> int:
    """Run a function decorated with `hydra.main` on `sys.argv`, and say in one line each what the user did wrong.

    With HYDRA_FULL_ERROR=1 in the environment every error is raised with its whole traceback instead.

    Args:
        task: The decorated function.
        conf: Its configuration directory.
        config_name: Its primary configuration.

    Returns:
        Exit code: 0; 2 after a user's mistake; 130 after Ctrl-C; 143 after SIGTERM. A command that does not end within
        seconds of a signal is ended.

    Raises:
        SystemExit: with the exit code of a job that failed (see `lora_sam.cli.jobs`); 1 after a sweep with failed jobs.
    """
    arguments = sys.argv[1:] = with_quotes(sys.argv[1:])
    if any(_unpickles(argument) for argument in arguments):
        return report(["--experimental-rerun unpickles a file, which may run code from it; use resume=<run> instead"])
    if foreign := foreign_flags(arguments, conf, config_name):
        return report(foreign)
    if full_errors():
        task()
        return 0
    return until_stopped(lambda: _without_stopping(task, arguments, conf, config_name))


def _without_stopping(task: Callable[[], Any], arguments: Sequence[str], conf: Path, config_name: str) -> int:
    try:
        with _hydra_raises():
            task()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return report(explain(error, arguments, conf, config_name))
    except YAMLError as error:
        return report([f"a configuration file is not valid YAML: {' '.join(str(error).split())}"])
    except BrokenPipeError:
        return reader_gone()
    except OSError as error:
        return report(
            [
                f"{error.filename or 'the run directory'}: {error.strerror or error}; mend it or choose "
                "another place with hydra.run.dir=... (hydra.sweep.dir=... with --multirun)"
            ]
        )
    except Exception as error:
        if (engine := type(error).__module__.partition(".")[0]) in _ENGINES:  # a job that has told nobody why it ended
            reason = " ".join(str(error).split()).partition(" Job (task=0) failed")[0]
            report([f"{engine}: the process of a job has ended without a word ({reason:.300})"])
        else:
            traceback.print_exc()
        return BUG
    return 0


def reader_gone() -> int:
    """What reads our output, such as `head`, has seen enough: end without a word. Returns 141, as a shell counts it."""
    # otherwise Python complains once more when it flushes at the end
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def until_stopped(act: Callable[[], int]) -> int:
    """What `act` returns; after Ctrl-C 130, after SIGTERM 143, with a sentence that says how to go on.

    A command that does not end within seconds of a signal is ended.
    """
    stop = Stoppable(stopped)
    try:
        with stop:
            code = act()
    except KeyboardInterrupt as error:
        if not getattr(error, "told", False):
            stopped(exit_code(error) - 128)
        return exit_code(error)
    if stop.received:  # what is called back from C has swallowed the exception
        print(f"{_words(stop.received)}, after everything was done", file=sys.stderr, flush=True)
        return 128 + stop.received
    return code


def stopped(number: int) -> None:
    """Say that a signal ended the command, and how to go on."""
    advice = None if _at_work is None else _at_work()
    if advice is None:
        program = f"python {sys.argv[0]}" if sys.argv[0].endswith(".py") else sys.argv[0]
        typed = f"{program} {shlex.join(sys.argv[1:])}".strip()
        advice = f"what was there before is as it was. Begin again with: {typed}"
    print(f"{_words(number)}; {advice}", file=sys.stderr, flush=True)


@contextmanager
def at_work(say: Callable[[], str | None]) -> Iterator[None]:
    """Inside this context `say` is called when a signal ends the command, at once or from a thread after seconds.

    Args:
        say: Notes down that it was ended, and returns how to go on; None for the usual advice.
    """
    global _at_work
    before, _at_work = _at_work, say
    try:
        yield
    except KeyboardInterrupt as error:
        stopped(exit_code(error) - 128)
        error.told = True  # type: ignore[attr-defined]
        raise
    finally:
        _at_work = before


def _words(number: int) -> str:
    return "interrupted" if number == signal.SIGINT else "terminated"


def report(lines: Sequence[str], prefix: str = "") -> int:
    """Print errors to stderr, one line each; returns the exit code of a user's mistake."""
    for line in lines:
        print(f"{prefix}error: {line}", file=sys.stderr, flush=True)
    return USER_ERROR


def full_errors() -> bool:
    """Whether the user asked for whole tracebacks, with HYDRA_FULL_ERROR=1."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1" and not _one_line_errors.get()


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Hydra prints its errors and exits unless this variable is set; then it raises them."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    token = _one_line_errors.set(True)
    try:
        yield
    finally:
        _one_line_errors.reset(token)
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _unpickles(argument: str) -> bool:
    flag = argument.split("=", maxsplit=1)[0]
    return flag.startswith("--e") and "--experimental-rerun".startswith(flag)
