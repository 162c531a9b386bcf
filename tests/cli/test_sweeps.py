"""Sweeps on the command line: the table, what goes on after a kill, what is refused, names that find the best."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.sweeps.commands import steps_of
from benchmarks.sweeps.quick_run import STEPS, quick_run
from lora_sam.cli.sweeps import with_sweep
from lora_sam.cli.train import run_train
from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.run_directory import find_run
from lora_sam.runs.sweep import collect, read_sweep
from lora_sam.training.settings import Settings
from tests.conftest import CommandLine, Done

pytestmark = pytest.mark.usefixtures("stand_in")

BASE = ("-m", "experiment=smoke", "method=lora")


class StandIn:
    """`quick_run`, which fails at some ranks, and can die at any of its points."""

    def __init__(self) -> None:
        self.die_at: int | None = None
        self.points = 0
        self.failing: set[int] = set()
        self.again: list[str | None] = []

    def _point(self) -> None:
        if self.points == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.points += 1

    def run(self, settings: Settings, *, config: dict[str, Any], **told: Any) -> float:
        self.again.append(told["again"])
        if config["method"]["rank"] in self.failing:
            raise RuntimeError("a bug")
        return quick_run(settings, config=config, point=self._point, **told)

    def steps(self) -> list[str]:
        return sorted(steps_of(Path("swept")).elements())


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, command_line: CommandLine) -> StandIn:
    made = StandIn()
    module = ModuleType("lora_sam.cli.run")
    module.run = made.run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lora_sam.cli.run", module)
    return made


def lines_of_table(out: str) -> list[str]:
    return [line.rstrip() for line in out.splitlines() if re.match(r"\d*≈? +\d", line)]


def test_the_table_has_a_column_for_what_varies_and_the_best_first(
    command_line: CommandLine, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.failing = {13}
    done = command_line(*BASE, "method.rank=2,13,4", "hydra.sweep.dir=swept", "seed=3")
    assert done.code == 1
    assert "RuntimeError: a bug" in done.err  # at once
    headings = next(line for line in done.out.splitlines() if "rank" in line and "val IoU" in line)
    assert headings.split() == ["job", "rank", "val", "IoU", "95", "%", "test", "IoU", "time"]
    rows = lines_of_table(done.out)
    assert [row.split()[:3] for row in rows] == [["1", "2", "4"], ["2", "0", "2"], ["1", "13", "failed"]]
    assert [row.split()[3] for row in rows[:2]] == ["0.0400", "0.0200"]
    last = done.out.splitlines()[-5:]
    assert last == [
        "job 1 failed: RuntimeError: a bug",
        "best: job 2 with 0.0400 (method.rank=4)",
        "go on:  python train.py sweep=swept",
        "next:   python -m lora_sam.deploy run=swept",
        f"sweep  {Path('swept') / 'sweep.html'}",
    ]
    assert "job 1, failed" in (tmp_path / "swept" / "sweep.html").read_text(encoding="utf-8")
    for name in ("best", "latest", "swept", "multirun/latest"):
        assert find_run(name).root == tmp_path / "swept" / "2"


def test_the_same_command_again_runs_what_failed_only(command_line: CommandLine, stand_in: StandIn) -> None:
    stand_in.failing = {4}
    typed = (*BASE, "method.rank=2,4", "hydra.sweep.dir=swept")
    assert command_line(*typed).code == 1
    stand_in.failing = set()
    done = command_line(*typed)
    assert done.code == 0
    assert stand_in.steps() == EVERY_STEP_OF_TWO
    assert "job 0: experiment=smoke method=lora method.rank=2 (done before)\n" in done.out
    before = [path.stat().st_mtime_ns for path in Path("swept").glob("*/status.json")]
    done = command_line("sweep=latest")
    assert (done.code, len(stand_in.steps())) == (0, 2 * STEPS)
    assert [path.stat().st_mtime_ns for path in Path("swept").glob("*/status.json")] == before
    assert done.out.count("(done before)") == 2
    assert read_sweep(Path("swept")).command == (*BASE, "method.rank=2,4")


POINTS = 2 * (2 + 2 * STEPS)
EVERY_STEP_OF_TWO = [f"{job}.{step}" for job in range(2) for step in range(STEPS)]


@pytest.mark.parametrize("point", [0, 1, 4, 7, 8, 11, 15])
def test_killed_anywhere_nothing_is_run_twice_mixed_or_lost(
    command_line: CommandLine, stand_in: StandIn, point: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 before and after every step and every file: only the step that was not saved is done again."""
    typed = (*BASE, "method.rank=2,4", "hydra.sweep.dir=swept")
    child = os.fork()
    if not child:
        stand_in.die_at = point
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        try:
            run_train("train.py", typed)
        finally:
            os._exit(77)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    killed = collect(Path("swept"))
    assert killed.state == "interrupted"
    assert [job.state for job in killed.jobs] == (["killed", "missing"] if point < POINTS // 2 else ["done", "killed"])
    done = command_line(*typed)
    assert done.code == 0
    inside = point % (POINTS // 2)
    twice = [f"{point // (POINTS // 2)}.{(inside - 1) // 2}"] if inside in range(1, 2 * STEPS, 2) else []
    assert stand_in.steps() == sorted(EVERY_STEP_OF_TWO + twice)
    found = read_sweep(Path("swept"))
    assert [(job.state, job.validation, job.directory) for job in found.jobs] == [
        ("done", 0.02, "0"),
        ("done", 0.04, "1"),
    ]
    assert (found.best, found.state) == (1, "finished")


def test_what_changed_is_refused_and_stays(
    command_line: CommandLine, stand_in: StandIn, tmp_path: Path, blobs: Path
) -> None:
    """A setting that no override names, and an image."""
    shutil.copytree(blobs, tmp_path / "data")
    own = tmp_path / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# @package _global_\noptim:\n  weight_decay: 0.5\n")
    typed = ("--config-dir", str(own.parent), "-m", "data.root=data", "experiment=mine", "method.rank=2,4")
    typed = (*typed, "hydra.sweep.dir=swept")
    assert command_line(*typed).code == 0
    (own / "mine.yaml").write_text("# @package _global_\noptim:\n  weight_decay: 0.25\n")
    done = command_line(*typed)
    assert (done.code, len(stand_in.steps())) == (1, 2 * STEPS)
    assert (
        f"job 0: error: {tmp_path}/swept/0: optim.weight_decay was 0.5 when this job was run and is 0.25 now; its "
        "result stays. Put that back, or name a new hydra.sweep.dir\n"
    ) in done.err
    assert [row.split()[2] for row in lines_of_table(done.out)] == ["changed", "changed"]
    assert "no job is done; mend what failed" in done.out
    (own / "mine.yaml").write_text("# @package _global_\noptim:\n  weight_decay: 0.5\ntracker:\n  directory: other\n")
    assert command_line(*typed).code == 0  # no figure depends on it
    picture = next((tmp_path / "data" / "images" / "train").glob("*.png"))
    shutil.copy(next((tmp_path / "data" / "images" / "val").glob("*.png")), picture)
    done = command_line("sweep=latest")
    assert done.code == 1
    assert done.err.count("the data are not those that this run was trained on") == 2
    assert json.loads((tmp_path / "swept/0/status.json").read_text())["status"] == "completed"


def test_another_sweep_in_its_directory_is_refused_before_any_job(command_line: CommandLine, stand_in: StandIn) -> None:
    assert command_line(*BASE, "method.rank=2,4", "hydra.sweep.dir=swept").code == 0
    done = command_line(*BASE, "method.rank=2,8", "hydra.sweep.dir=swept")
    assert (done.code, len(stand_in.steps())) == (2, 2 * STEPS)
    assert re.fullmatch(
        r"error: hydra.sweep.dir = swept: holds a sweep of other values: method.rank=2,4 there, method.rank=2,8 now; "
        r"type the same command, name a new directory, or go on with that one: sweep=swept\n",
        done.err,
    )


def test_interrupted_it_says_how_to_go_on(
    command_line: CommandLine, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "_point", lambda self: (_ for _ in ()).throw(KeyboardInterrupt()))
    done = command_line(*BASE, "method.rank=2,4", "hydra.sweep.dir=my sweep")
    assert done.code == 130
    assert "what is done stays. Go on with: python train.py 'sweep=my sweep'" in done.err
    assert read_sweep(Path("my sweep")).state == "interrupted"
    monkeypatch.undo()


def test_a_job_that_is_stopped_is_told_that_the_sweep_goes_on_not_itself_as_a_new_run(
    command_line: CommandLine, stand_in: StandIn
) -> None:
    assert command_line(*BASE, "method.rank=2,4", "hydra.sweep.dir=my sweep").code == 0
    assert command_line(*BASE[1:], "hydra.run.dir=alone").code == 0
    assert stand_in.again == ["'sweep=my sweep'", "'sweep=my sweep'", None]


def test_seeds_are_a_sweep_over_seeds_with_a_row_for_each_configuration(
    command_line: CommandLine, stand_in: StandIn
) -> None:
    done = command_line("experiment=smoke", "method=lora", "seeds=2", "seed=5", "method.rank=2,4", "-m")
    assert done.code == 0
    headings = next(line for line in done.out.splitlines() if "val IoU" in line)
    assert headings.split()[:2] == ["rank", "seeds"]
    assert [row.split()[:4] for row in lines_of_table(done.out)] == [
        ["1", "4", "2", "0.0400"],
        ["2", "2", "2", "0.0200"],
    ]
    (found,) = Path("multirun").glob("*/*/sweep.json")
    assert [job.values["seed"] for job in read_sweep(found.parent).jobs] == ["5", "5", "6", "6"]


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        (["data.root=x", "seeds=3"], ["-m", "data.root=x", "seed=0,1,2"]),
        (["-m", "a=1,2", "seed=7", "seeds=2"], ["-m", "a=1,2", "seed=7,8"]),
        (["seeds=2", "seed=7", "a=1,2", "-m"], ["seed=7,8", "a=1,2", "-m"]),
        (["a=1"], ["a=1"]),
    ],
)
def test_seeds_in_the_words_of_hydra(typed: list[str], wanted: list[str]) -> None:
    assert with_sweep(typed) == wanted


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["seeds=1"], "seeds=1: must be a number of seeds, 2 to 1000"),
        (["seeds=many"], "seeds=many: must be a number of seeds"),
        (["seeds=2", "seed=1,2"], "seeds=2 counts from one seed: write seed= with one number, not seed=1,2"),
        (["sweep=nowhere"], "sweep=nowhere: no sweep.json in nowhere"),
        (["sweep=latest"], "sweep=latest: no sweep.json in multirun/latest; no sweep has been made here yet"),
    ],
)
def test_mistakes_are_one_line(
    typed: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((AdapterError, ConfigError), match=re.escape(message)):
        with_sweep(typed)
    assert run_train("train.py", typed) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert len(os.listdir(tmp_path)) == 0


def test_nothing_else_stands_beside_the_sweep_that_goes_on(command_line: CommandLine) -> None:
    assert command_line(*BASE, "method.rank=2,4", "hydra.sweep.dir=swept").code == 0
    done = command_line("-m", "sweep=swept", "method.rank=8")
    assert done == Done(
        2, "", "error: sweep=swept goes on with a sweep as it was begun: leave out method.rank=8, or begin a new one\n"
    )
