"""How long until the command line answers, and does it answer without torch?"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.processes import run, seconds_of, take_turns
from benchmarks.record import BenchmarkError, Outcome, figure

QUESTION = "How long until the command line answers, and does it do so without torch?"
QUICK = True

_COMMANDS = {
    "help": ("python train.py --help", 0.8, ["train.py", "--help"], "method"),
    "cfg_job": ("python train.py --cfg job", 0.8, ["train.py", "--cfg", "job"], "_target_: lora_sam."),
    "import": ('python -c "import lora_sam"', 0.3, ["-c", "import lora_sam"], ""),
    "python": ('python -c "pass" (nothing of ours)', None, ["-c", "pass"], ""),
}


def measure(*, rehearse: bool) -> Outcome:
    """Wall time of whole processes in turns, after one run of each that warms the file cache and is checked."""
    rounds = 1 if rehearse else 7
    checks, with_torch = {}, []
    for name, (shown, _, arguments, expected) in _COMMANDS.items():
        done = run([sys.executable, "-X", "importtime", *arguments])
        if expected not in done.stdout:
            raise BenchmarkError(f"{shown} answered without {expected!r}: {done.stdout[:200]!r}")
        modules = imported(done)
        if any(module.partition(".")[0] == "torch" for module in modules):
            with_torch.append(shown)
        if name != "python":
            checks[shown] = f"{len(modules)} modules imported, torch {'' if shown in with_torch else 'not '}among them"
    sides = {
        name: (lambda arguments=arguments: seconds_of([sys.executable, *arguments]))
        for name, (_, _, arguments, _) in _COMMANDS.items()
    }
    seconds = take_turns(sides, rounds)
    figures = [
        figure(name, f"`{shown}`", seconds[name], unit="s", limit=limit)
        for name, (shown, limit, _, _) in _COMMANDS.items()
    ]
    figures.append(figure("torch", "of these commands, those that import torch", len(with_torch), limit=0))
    return Outcome(
        settings={"rounds": rounds, "warm_up": 1},
        checks=checks,
        figures=figures,
        details={"seconds": seconds, "with_torch": with_torch},
    )


def imported(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Modules that a process started with `-X importtime` named on its standard error."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return [line.rpartition("|")[2].strip() for line in lines[1:]]
