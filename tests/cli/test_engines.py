"""Launchers and the search with Optuna: alike where all is well, where a job fails, and where the sweep is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import load_study

from benchmarks.sweeps import commands
from benchmarks.sweeps.commands import BASE, ENGINES, EVERY_STEP, GRID, RAY, SEARCH, steps_of
from benchmarks.sweeps.quick_run import STEPS
from lora_sam.cli import engines
from lora_sam.cli.engines import TOKEN, is_taken_over, wait_for_another
from lora_sam.cli.search import space_of
from lora_sam.cli.study import STUDY
from lora_sam.cli.train import run_train
from lora_sam.core import extras
from lora_sam.core.errors import ConfigError
from lora_sam.runs.status import Status, this_process
from lora_sam.runs.sweep import begin, collect, read_sweep
from tests.conftest import CommandLine, Done

ROOT = Path(__file__).resolve().parents[2]


def typed(place: Path, *words: str, **said: str) -> Done:
    """The command in a process of its own."""
    done = commands.typed(place, *words, **said)
    return Done(done.returncode, done.stdout, done.stderr)


def check_one_failed(done: Done, sweep: Path) -> None:
    assert done.code == 1
    assert "RuntimeError: a bug" in done.err
    found = read_sweep(sweep)
    assert [(job.job, job.state) for job in found.jobs] == [(0, "done"), (1, "failed"), (2, "done")]
    assert (found.state, found.job(1).error) == ("finished", "RuntimeError: a bug")
    if found.varied != ("seed",):
        assert re.search(r"^ +1 +\d+ +failed", done.out, re.M)
    assert "job 1 failed: RuntimeError: a bug" in done.out
    assert "RuntimeError: a bug" in (sweep / "sweep.html").read_text()


def test_joblib_where_a_job_fails_and_the_sweep_goes_on(tmp_path: Path) -> None:
    check_one_failed(typed(tmp_path, *BASE, *ENGINES["joblib"], FAILING="1"), tmp_path / "swept")
    assert set(steps_of(tmp_path / "swept")) == {name for name in EVERY_STEP if not name.startswith("1.")}


NO_RAY = pytest.mark.skipif(
    not extras.is_there("hydra_plugins.hydra_ray_launcher"),
    reason="Ray is not locked, as its launcher wants another cloudpickle than joblib: pip install hydra-ray-launcher",
)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [*ENGINES, pytest.param("ray", marks=NO_RAY)])
@pytest.mark.parametrize("fate", ["good", "one_fails", "killed"])
def test_alike_under_every_engine(engine: str, fate: str, tmp_path: Path) -> None:
    command, sweep = (*BASE, *{**ENGINES, "ray": RAY}[engine]), tmp_path / "swept"
    if fate == "one_fails":
        check_one_failed(typed(tmp_path, *command, FAILING="1"), sweep)
    elif fate == "killed":
        assert typed(tmp_path, *command, KILLS="1", SLOW="0.3").code == -signal.SIGKILL
        assert collect(sweep).state == "interrupted"
    done = typed(tmp_path, *(("sweep=latest",) if fate != "good" else command))
    assert done.code == 0, done.err
    found = read_sweep(sweep)
    assert [(job.job, job.state) for job in found.jobs] == [(0, "done"), (1, "done"), (2, "done")]
    assert dict(steps_of(sweep)) == EVERY_STEP


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_process_that_dies_leaves_a_table_and_can_go_on(launcher: str, tmp_path: Path) -> None:
    done = typed(tmp_path, *BASE, *ENGINES[launcher], DIES="1", SLOW="0.1")
    assert done.code == 1
    assert "the process of a job has ended without a word" in done.err
    assert "Traceback" not in done.err
    assert re.search(r"^ +1 +4 +killed", done.out, re.M)
    done = typed(tmp_path, "sweep=swept")
    assert (done.code, [job.state for job in read_sweep(tmp_path / "swept").jobs]) == (0, ["done"] * 3)


# --- Optuna, in this process -----------------------------------------------------------------------------------------


@pytest.fixture
def here(quick: None, command_line: CommandLine) -> CommandLine:
    return command_line


def trials(sweep: Path) -> list[tuple[str, float | None]]:
    study = load_study(study_name="sweep", storage=JournalStorage(JournalFileBackend(str(sweep / STUDY))))
    return [(trial.state.name, trial.value) for trial in study.trials]


def ranks(sweep: Path) -> list[str]:
    return [job.values["method.rank"] for job in read_sweep(sweep).jobs]


def test_a_failed_job_is_told_as_failed_and_replaced_when_it_is_mended(here: CommandLine, tmp_path: Path) -> None:
    sweep = tmp_path / "swept"
    check_one_failed(here(*BASE, *SEARCH, FAILING="1"), sweep)
    told = trials(sweep)
    assert [state for state, _ in told] == ["COMPLETE", "FAIL", "COMPLETE"]
    before = ranks(sweep)
    assert told[0][1] == int(before[0]) / 100
    done = here("sweep=latest")
    assert (done.code, done.out.count("(done before)")) == (0, 2)
    assert trials(sweep) == [*told, ("COMPLETE", int(before[1]) / 100)]
    assert ranks(sweep) == before
    assert steps_of(sweep) == EVERY_STEP
    more = [text.replace("n_trials=3", "n_trials=4") for text in (*BASE, *SEARCH)]
    assert here(*more).code == 0
    # the trial that took the place of one that failed has a number too: it is nobody's job
    assert [job.job for job in read_sweep(sweep).jobs] == [0, 1, 2, 4]


def test_killed_it_chooses_what_it_would_have_chosen(here: CommandLine, tmp_path: Path) -> None:
    """With a line of the journal that the kill has cut, too."""
    sweep = tmp_path / "swept"
    options = ("hydra.sweeper.n_trials=5", "hydra.sweeper.startup_trials=2", "hydra.sweeper.prune=false")
    assert here(*BASE, *SEARCH, *options).code == 0
    wanted = ranks(sweep)
    assert len(set(wanted)) > 2
    (sweep / "sweep.json").unlink()  # as one is told to where nobody knows whether its process still runs
    done = here(*BASE, *SEARCH, *options)
    assert done.out.count("(done before)") == 5
    assert ranks(sweep) == wanted  # all of them are of the sweep still
    assert read_sweep(sweep).best == wanted.index(max(wanted, key=int))
    other = [text.replace("swept", "other") for text in (*BASE, *SEARCH, *options)]
    child = os.fork()
    if not child:
        os.environ["KILLS"] = "3"
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        try:
            run_train("train.py", other)
        finally:
            os._exit(77)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    with (tmp_path / "other" / STUDY).open("a") as journal:
        journal.write('{"op_code":4,"wor')
    done = here(*other)
    assert done.code == 0
    assert done.out.count("(done before)") == 3
    assert "job 3: " in done.out
    assert "(goes on)" in done.out
    assert ranks(tmp_path / "other") == wanted
    assert steps_of(tmp_path / "other") == {f"{job}.{step}": 1 for job in range(5) for step in range(STEPS)}


def test_a_search_over_what_cannot_be_compared_says_so_once(here: CommandLine, tmp_path: Path) -> None:
    search = ("prompt=box,point", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.prune=false")
    done = here(*BASE, *search)
    assert {job.values["prompt"] for job in read_sweep(tmp_path / "swept").jobs} == {"box", "point"}
    assert done.err.count("takes the easier ones for the better settings") == 1
    assert read_sweep(tmp_path / "swept").best is None


def test_a_hopeless_job_is_pruned_and_stays_so(here: CommandLine, tmp_path: Path) -> None:
    sweep = tmp_path / "swept"
    options = ("hydra.sweeper.n_trials=5", "hydra.sweeper.startup_trials=2")
    done = here(*BASE, *SEARCH, *options)
    assert done.code == 0
    found = read_sweep(sweep)
    pruned = [job for job in found.jobs if job.state == "pruned"]
    assert len(pruned) >= 1
    assert found.best not in {job.job for job in pruned}
    best_before = sorted(int(job.values["method.rank"]) for job in found.jobs if job.job < pruned[0].job)
    assert int(pruned[0].values["method.rank"]) < best_before[len(best_before) // 2]
    assert re.search(
        rf"^job {pruned[0].job} pruned: at epoch 2: validation IoU 0\.\d+ is below the median", done.out, re.M
    )
    assert "pruned" in (sweep / "sweep.html").read_text()
    assert [state for state, _ in trials(sweep)].count("PRUNED") == len(pruned)
    ran = steps_of(sweep)
    assert f"{pruned[0].job}.2" not in ran
    assert here("sweep=latest").out.count("(done before)") == 5
    assert steps_of(sweep) == ran


def space(*texts: str) -> dict[str, object]:
    return dict(space_of(OverridesParser.create().parse_overrides(list(texts))))


def test_the_space_is_what_the_words_of_hydra_say() -> None:
    found = space(
        "a=1,2", "b=range(1,10,3)", "c=interval(1,2)", "d=int(interval(1,8))", "e=tag(log,interval(1e-5,1e-2))",
        "f=range(0,0.5,0.1)", "g=tag(log,range(1,9))", "h=x", "method=lora,decoder",
    )  # fmt: skip
    assert {key: str(value) for key, value in found.items()} == {
        "a": "CategoricalDistribution(choices=('1', '2'))",
        "b": "IntDistribution(high=7, log=False, low=1, step=3)",
        "c": "FloatDistribution(high=2.0, log=False, low=1.0, step=None)",
        "d": "IntDistribution(high=8, log=False, low=1, step=1)",
        "e": "FloatDistribution(high=0.01, log=True, low=1e-05, step=None)",
        "f": "FloatDistribution(high=0.4, log=False, low=0.0, step=0.1)",
        "g": "IntDistribution(high=8, log=True, low=1, step=1)",
        "method": "CategoricalDistribution(choices=('lora', 'decoder'))",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("method.rank=2",), "nothing is searched; give a key several values"),
        (("seeds=2", "method.rank=2,4"), "a seed is nothing to search"),
        (("optim.lr=tag(log,interval(0,1))",), "optim.lr=tag(log,interval(0,1)): cannot be searched"),
        (("method.rank=2,4", "hydra.sweeper.n_trials=0"), "hydra.sweeper.n_trials = 0: must be 1 or more"),
    ],
)
def test_what_cannot_be_searched_is_refused_at_once(
    words: Sequence[str], message: str, here: CommandLine, tmp_path: Path
) -> None:
    done = here(*BASE, "hydra/sweeper=optuna", *words)
    assert done.code == 2
    assert re.fullmatch(rf"error: .*{re.escape(message)}.*\n", done.err)
    assert not (tmp_path / "swept").exists()


# --- what is missing, what runs elsewhere ----------------------------------------------------------------------------


@pytest.mark.usefixtures("active_environment")
@pytest.mark.parametrize(
    ("choice", "command"),
    [
        ("hydra/launcher=ray", "pip install hydra-ray-launcher"),
        ("hydra/launcher=joblib", "pip install hydra-joblib-launcher"),
        ("hydra/sweeper=optuna", "pip install optuna"),
    ],
)
def test_what_is_not_installed_is_one_line_with_the_command(
    choice: str, command: str, here: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(extras, "is_there", lambda module: False)
    monkeypatch.setattr(engines, "is_there", lambda module: False)
    done = here(*BASE, *GRID, choice)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith(f"error: {choice}: needs the package ")
    assert done.err.rstrip().endswith(f"which is not installed: {command}")
    assert not (tmp_path / "swept").exists()


def test_ray_reports_home_only_where_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, told in ((None, "0"), ("1", "1")):
        monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
        if said is not None:
            monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", said)
        engines.keep_engines_quiet()
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == told


def test_of_a_process_elsewhere_it_says_that_it_cannot_wait(tmp_path: Path) -> None:
    status = Status(status="running", job=0, overrides=[], started=1.0, process={"host": "other", "pid": 7, "began": 1})
    status.write(tmp_path)
    with pytest.raises(ConfigError, match=r"runs in process 7 on other; wait for it.*remove .*status\.json"):
        wait_for_another(tmp_path, print)


def test_it_waits_for_a_process_of_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        other.stdout.readline()
        process = {**this_process(), "pid": other.pid, "began": engines_began(other.pid)}
        Status(status="running", job=0, overrides=[], started=1.0, process=process).write(tmp_path)
        told: list[str] = []

        def say(line: str) -> None:
            told.append(line)
            other.communicate()  # it ends

        wait_for_another(tmp_path, say)
    assert told == [f"still runs in process {other.pid} of a command that was stopped; waiting for its end"]


def engines_began(pid: int) -> int | None:
    from lora_sam.runs import status

    return status._began(pid)


def test_a_job_of_a_command_that_was_replaced_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path, ["-m"], ["a=1,2"], [["a=1"], ["a=2"]])
    (mine,) = (text for text in engines.environment_of_jobs(full_errors=True) if TOKEN in text)
    monkeypatch.setenv(TOKEN, mine.partition("=")[2].strip("'"))
    assert not is_taken_over(tmp_path)
    values = json.loads((tmp_path / "sweep.json").read_text())
    values["process"]["began"] = 1
    (tmp_path / "sweep.json").write_text(json.dumps(values))
    assert is_taken_over(tmp_path)
    monkeypatch.delenv(TOKEN)
    assert not is_taken_over(tmp_path)


def test_the_script_for_slurm_is_what_the_options_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the launcher makes it, without a cluster."""
    import submitit
    from omegaconf import OmegaConf

    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    words = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.launcher.gpus_per_node=1"]
    words += [
        "hydra.launcher.timeout_min=240",
        "hydra.launcher.max_num_timeout=5",
        "hydra.launcher.array_parallelism=8",
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        launcher = compose("train", [*words, "experiment=smoke"], return_hydra_config=True).hydra.launcher
        options = {
            key: OmegaConf.select(launcher, key)
            for key in launcher
            if key not in ("_target_", "submitit_folder", "name")
        }
    executor = submitit.AutoExecutor(folder=tmp_path / "log", cluster="slurm", slurm_max_num_timeout=5)
    del options["max_num_timeout"], options["additional_parameters"]
    shared = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "stderr_to_stdout"}
    executor.update_parameters(**{key if key in shared else f"slurm_{key}": options[key] for key in options})
    script = executor._executor._make_submission_file_text("true", "x")
    for line in ("--partition=gpu", "--gpus-per-node=1", "--time=240", "--signal=USR2@120", "--nodes=1"):
        assert f"#SBATCH {line}\n" in script
