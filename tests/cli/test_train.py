from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime as real_datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lora_sam.cli import main
from lora_sam.cli.train import CONF
from lora_sam.core.run_directory import RunDirectory
from lora_sam.training.settings import Settings
from tests.conftest import CommandLine, Done

ROOT = Path(__file__).resolve().parents[2]
METHODS = sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml"))
ALL_METHODS = f"Options of method: {', '.join(METHODS)}"


pytestmark = pytest.mark.usefixtures("quiet_logging")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, dict[str, Any], Path]]:
    """Calls of a stand-in for the training run, which returns rank / 100."""
    calls: list[tuple[Settings, dict[str, Any], Path]] = []

    def run(settings: Settings, *, config: dict[str, Any], output_dir: Path, **told: Any) -> float:
        calls.append((settings, config, output_dir))
        outcome = OUTCOMES.get(config["method"].get("rank"))
        if outcome is not None:
            raise outcome
        return float(config["method"].get("rank", 0)) / 100

    module = ModuleType("lora_sam.cli.run")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lora_sam.cli.run", module)
    return calls


# what the stand-in raises at some ranks
OUTCOMES: dict[int, BaseException] = {13: RuntimeError("a bug"), 14: KeyboardInterrupt(), 15: SystemExit(130)}


def status_of(directory: Path) -> dict[str, Any]:
    status: dict[str, Any] = json.loads((directory / "status.json").read_text())
    return status


# --- one run ----------------------------------------------------------------------------------------------------------


def test_run_gets_checked_settings_and_its_directory(
    command_line: CommandLine, runs: list[Any], tmp_path: Path
) -> None:
    assert command_line("data.root=my data", "method.rank=4", "seed=3") == Done(0, "", "")
    ((settings, config, directory),) = runs
    assert settings.method.rank == config["method"]["rank"] == 4
    assert settings.data.root == "my data"
    assert settings.seed == 3
    assert type(config) is dict
    assert type(config["optim"]["betas"]) is list
    assert re.fullmatch(r"outputs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d", str(directory.relative_to(tmp_path)))
    assert {path.name for path in directory.iterdir()} == {".hydra", "status.json"}
    status = status_of(directory)
    assert status.pop("started") > 1.7e9
    assert 0 <= status.pop("seconds") < 60
    assert status.pop("process")["pid"] == os.getpid()
    assert status == {
        "status": "completed",
        "job": None,
        "overrides": ["data.root=my data", "method.rank=4", "seed=3"],
        "objective": 0.04,
        "error": None,
    }
    assert "HYDRA_FULL_ERROR" not in os.environ


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ["method.rnk=4"],
            [
                "unknown key method.rnk; did you mean method.rank? Valid keys: method.alpha, method.bias, "
                "method.blocks, method.decoder, method.dora, method.dropout, method.init, method.rank, method.rslora, "
                "method.targets"
            ],
        ),
        (
            ["method=lorra"],
            [f"unknown option method=lorra; did you mean method=lora? {ALL_METHODS}"],
        ),
        (["method=3"], [f"unknown option method=3. {ALL_METHODS}"]),
        (["method=null"], ["unknown option method=null*"]),
        (["method={rnk:3}", "data.root=x"], ["unknown key method.rnk; did you mean method.rank? *"]),
        (["method={rank:3}", "method.rnk=4"], ["unknown key method.rnk; did you mean method.rank? *"]),
        (["method=???"], [f"unknown option method=???. {ALL_METHODS}"]),
        (["experiment=typo"], ["unknown option experiment=typo*Options of experiment: *"]),
        (["experiment=[typo,slip]"], ["unknown option experiment=typo*", "unknown option experiment=slip*"]),
        (
            ["metod=lora"],
            ["unknown key metod; did you mean method? Valid keys: augmentation, cache, data, evaluate_automatic, *"],
        ),
        (
            ["metod.rank=4"],
            ["unknown key metod.rank; did you mean method.rank? Valid keys: augmentation, cache, data, *"],
        ),
        (["rank=4"], ["unknown key rank; did you mean method.rank? *"]),
        (["~method.q"], ["unknown key method.q; did you mean method.rank? *"]),
        (
            ["optim.betas.7=1"],
            ["unknown key optim.betas.7; did you mean optim.betas.*? Valid keys: optim.betas.0, optim.betas.1"],
        ),
        (["method=decoder", "method.rank=4"], ["unknown key method.rank*"]),
        (["hydra.rn.dir=x"], ["unknown key hydra.rn.dir; did you mean hydra.run.dir? *"]),
        (["hydra/launcher=x"], ["unknown option hydra/launcher=x. Options of hydra/launcher: basic*"]),
        (
            ["method=lorra", "lr=1", "modl=nano"],
            [
                "unknown option method=lorra; *",
                "unknown key lr; did you mean optim.lr? *",
                "unknown key modl; did you mean model? *",
            ],
        ),
        (
            ["seed=1,2"],
            ["seed=1,2: several values; add -m to run once for each of them, or write a list as 'seed=[1,2]'"],
        ),
        (["method=lora,full"], ["method=lora,full: several values; add -m*"]),
        (["se ed=1"], ["se ed=1: not readable as an override; write key=value without spaces around =*"]),
        (["seed"], ["seed: not readable as an override; *"]),
        (["seed=[1"], ["seed=[1: not readable as an override; *"]),
        (["method@q=lora"], ["Could not override 'method@q'. Did you mean to override method? *"]),
        (["+method=full"], ["Multiple values for method. To override a value use 'override method: full'"]),
        (["-r", "-m"], ["Only one of --run, --multirun, --cfg, --info and --shell_completion can be specified"]),
        (["seed=${foo}"], ["seed cannot be resolved: Interpolation key 'foo' not found"]),
        (["data.root=x", "+method.rnk=4"], ["unknown key method.rnk; did you mean method.rank? *"]),
        (
            ["method.rank=0", "optim.lr=-1"],
            [
                "data.root is not set (Directory of the data set); give it on the command line, "
                "e.g. data.root=path/to/folder",
                "method.rank = 0: must be greater than or equal to 1",
                "optim.lr = -1: must be greater than 0",
            ],
        ),
        (["data.root=x", "method._target_=os.system"], ["method._target_ = os.system: must name a settings class*"]),
        (["data.root=x", "resume=nowhere"], ["nowhere: no such run directory *"]),
        (["--experimental-rerun=x.pickle"], ["--experimental-rerun unpickles a file, which may run code from it; *"]),
        (["--exp", "x.pickle"], ["--experimental-rerun unpickles a file, which may run code from it; *"]),
    ],
    ids=lambda value: " ".join(value) if all("*" not in part and len(part) < 40 for part in value) else "",
)
def test_mistake_is_answered_in_a_line_each(
    command_line: CommandLine, runs: list[Any], arguments: list[str], lines: list[str]
) -> None:
    done = command_line(*arguments)
    assert done.code == 2
    assert done.out == ""
    given = done.err.splitlines()
    assert len(given) == len(lines), done.err
    for line, wanted in zip(given, lines, strict=True):
        assert re.fullmatch(re.escape(f"error: {wanted}").replace(r"\*", ".*"), line), line
    assert runs == []


def test_mistakes_in_files_of_the_users_own(command_line: CommandLine, runs: list[Any], tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "experiment").mkdir(parents=True)
    (own / "method").mkdir()
    (own / "method" / "mine.yaml").write_text("_target_: lora_sam.methods.decoder.DecoderOnly\n")
    header = "# @package _global_\n"
    (own / "experiment" / "wrong.yaml").write_text(f"{header}defaults:\n  - override /method: lorra\n")
    (own / "experiment" / "broken.yaml").write_text(f"{header}method: [\n")
    (own / "experiment" / "plain.yaml").write_text(f"{header}method: lora\n")
    (own / "experiment" / "good.yaml").write_text(f"{header}defaults:\n  - override /method: mine\nseed: 5\n")

    done = command_line("--config-dir", str(own), "experiment=wrong")
    assert done.code == 2
    assert done.err == (
        "error: unknown option method=lorra; did you mean method=lora? "
        f"Options of method: {', '.join(sorted([*METHODS, 'mine']))}\n"
    )
    done = command_line(f"--config-dir={own}", "experiment=broken")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("error: a configuration file is not valid YAML: ")
    assert "broken.yaml" in done.err
    done = command_line("--config-dir", str(own), "experiment=plain", "data.root=x")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err == (
        "error: method = lora: must be a group of keys; choose a file of conf/method/ by its name, with method=name on "
        "the command line or `override /method: name` in the defaults of an experiment\n"
    )
    done = command_line("--config-dir", str(own), "method=min")
    assert done.err.startswith("error: unknown option method=min; did you mean method=mine? ")
    done = command_line(f"hydra.searchpath=['file://{own}']", "method=min")
    assert done.err.startswith("error: unknown option method=min; did you mean method=mine? ")
    assert runs == []
    # an experiment may change the keys of train.yaml too
    assert command_line("--config-dir", str(own), "experiment=good", "data.root=x").code == 0
    assert (runs[0][0].seed, runs[0][0].method.name) == (5, "decoder")
    done = command_line("--config-dir", str(tmp_path / "nowhere"), "seed=1")
    assert done == Done(2, "", f"error: Additional config directory '{tmp_path / 'nowhere'}' not found\n")
    (tmp_path / "loop").symlink_to("loop")
    done = command_line("--config-dir", str(tmp_path / "loop"), "optim.lrr=1")
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch("error: [^\n]+\n", done.err)


def test_bug_shows_its_traceback(command_line: CommandLine, runs: list[Any], tmp_path: Path) -> None:
    done = command_line("data.root=x", "method.rank=13")
    assert done.code == 1
    assert done.err.startswith("Traceback (most recent call last):\n")
    assert done.err.endswith("RuntimeError: a bug\n")
    assert "HYDRA_FULL_ERROR" not in done.err
    assert "hydra/" not in done.err
    status = status_of(runs[0][2])
    assert (status["status"], status["error"], status["objective"]) == ("failed", "RuntimeError: a bug", None)


def test_bug_outside_of_a_job_shows_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a bug of a plug-in")

    monkeypatch.setattr(sys, "argv", ["train.py"])  # not those of the tests
    assert main(broken, conf=CONF) == 1
    assert capsys.readouterr().err.endswith("ZeroDivisionError: a bug of a plug-in\n")


AGAIN = "what was there before is as it was. Begin again with: python train.py data.root=x method.rank={}\n"


@pytest.mark.parametrize(("rank", "err"), [(14, f"interrupted; {AGAIN.format(14)}"), (15, "")])
def test_interruption(command_line: CommandLine, runs: list[Any], rank: int, err: str) -> None:
    assert command_line("data.root=x", f"method.rank={rank}") == Done(130, "", err)
    assert status_of(runs[0][2])["status"] == "interrupted"


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_a_run_and_says_how_to_go_on(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int, word: str
) -> None:
    """The signal itself: before a state is saved, and after."""
    saves = False

    def run(settings: Settings, *, output_dir: Path, **kwargs: Any) -> float:
        if saves:
            RunDirectory(output_dir).last.parent.mkdir(parents=True)
            RunDirectory(output_dir).last.touch()
        os.kill(os.getpid(), number)
        time.sleep(5)
        return 0.5

    module = ModuleType("lora_sam.cli.run")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lora_sam.cli.run", module)
    assert command_line("data.root=x", "method.rank=4") == Done(code, "", f"{word}; {AGAIN.format(4)}")
    saves = True
    done = command_line("data.root=x", "hydra.run.dir=a b")
    advice = f"{word}; what was trained is saved. Go on with: python train.py 'resume={Path.cwd()}/a b'\n"
    assert done == Done(code, "", advice)
    assert status_of(Path("a b"))["status"] == "interrupted"


def test_full_errors_on_request(command_line: CommandLine, runs: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.errors import ConfigCompositionException

    from lora_sam.core.errors import ConfigError

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigCompositionException, match=r"Could not override 'method\.rnk'"):
        command_line("method.rnk=4")
    with pytest.raises(ConfigError, match=r"method\.rank = 0"):
        command_line("data.root=x", "method.rank=0")
    with pytest.raises(RuntimeError, match="a bug"):
        command_line("data.root=x", "method.rank=13")
    assert command_line("data.root=x").code == 0
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_another_value_of_the_variable_is_put_back(
    command_line: CommandLine, runs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    assert command_line("method.rnk=4").code == 2
    assert os.environ["HYDRA_FULL_ERROR"] == "0"


def test_directory_that_cannot_be_made(command_line: CommandLine, runs: list[Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = command_line("data.root=x", "hydra.run.dir=file/run")
    assert done.code == 2
    assert done.err == (
        "error: file/run: Not a directory; mend it or choose another place with hydra.run.dir=... "
        "(hydra.sweep.dir=... with --multirun)\n"
    )
    (tmp_path / "outputs").write_text("")
    assert command_line("data.root=x").code == 2
    assert runs == []


# --- directories ------------------------------------------------------------------------------------------------------


@pytest.fixture
def frozen_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    class Frozen:
        @staticmethod
        def now() -> real_datetime:
            return real_datetime(2024, 2, 3, 4, 5, 6)

    monkeypatch.setattr("hydra.core.utils.datetime", Frozen)


@pytest.mark.usefixtures("frozen_clock")
def test_runs_of_one_second_have_directories_of_their_own(
    command_line: CommandLine, runs: list[Any], tmp_path: Path
) -> None:
    for _ in range(3):
        assert command_line("data.root=x").code == 0
    assert command_line("data.root=x", "hydra.run.dir=named").code == 0
    assert command_line("data.root=x", "hydra.run.dir=named").code == 0
    day = Path("outputs/2024-02-03")
    assert [path.relative_to(tmp_path) for _, _, path in runs] == [
        day / "04-05-06",
        day / "04-05-06-2",
        day / "04-05-06-3",
        Path("named"),
        Path("named"),
    ]


def test_a_directory_with_an_earlier_run_is_left_as_it_is(
    command_line: CommandLine, runs: list[Any], tmp_path: Path
) -> None:
    assert command_line("data.root=x", "method.rank=3", "hydra.run.dir=named").code == 0
    (tmp_path / "named" / "adapter").mkdir()
    (tmp_path / "named" / "metrics.jsonl").write_text("{}\n")
    status = status_of(Path("named"))
    done = command_line("data.root=x", "method.rank=13", "hydra.run.dir=named")
    assert done == Done(
        2,
        "",
        f"error: hydra.run.dir = {tmp_path}/named: holds an earlier run (adapter), which is left as it is; leave it "
        f"out or name a new directory, or go on with that run in a new one: resume={tmp_path}/named\n",
    )
    assert len(runs) == 1
    assert status_of(Path("named")) == status
    assert (tmp_path / "named" / "metrics.jsonl").read_text() == "{}\n"


def test_jobs_of_a_sweep_leave_earlier_runs_as_they_are(
    command_line: CommandLine, runs: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "sweep/0/adapter").mkdir(parents=True)
    done = command_line("-m", "data.root=x", "method.rank=2,3", "hydra.sweep.dir=sweep")
    assert done.code == 1
    assert [directory.name for _, _, directory in runs] == ["1"]
    assert "job 0 failed: hydra.run.dir = " in done.out
    assert os.listdir(tmp_path / "sweep/0/adapter") == []


def test_what_a_run_without_result_has_left_is_not_taken_for_a_part_of_the_next(
    command_line: CommandLine, runs: list[Any], tmp_path: Path
) -> None:
    """Step 0 of a run that failed stood before step 0 of the next in one metrics.jsonl."""
    assert command_line("data.root=x", "method.rank=13", "hydra.run.dir=named").code == 1
    names = ("metrics.jsonl", "config.json", "splits.json", "mine.txt", "tensorboard/events", "prompts/test.json")
    for name in names:
        (tmp_path / "named" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "named" / name).touch()
    assert command_line("data.root=x", "hydra.run.dir=named").code == 0
    assert {*os.listdir("named")} - {"train.log"} == {".hydra", "mine.txt", "status.json"}
    (tmp_path / "mine").mkdir()
    for name in names[:4]:  # in a directory without a run, what has such a name may be anybody's
        (tmp_path / "mine" / name).touch()
    assert command_line("data.root=x", "hydra.run.dir=mine").code == 0
    assert {*names[:4]} <= {*os.listdir("mine")}


def test_latest_names_the_run_that_saved_nothing(command_line: CommandLine, runs: list[Any], tmp_path: Path) -> None:
    """It was started after the one that `latest` is."""
    assert command_line("data.root=x", "hydra.run.dir=a").code == 0
    config = runs[0][1]
    done = command_line("resume=latest")
    assert done.code == 2
    assert f"{tmp_path}/a, the run that was started last, has saved nothing" in done.err
    (tmp_path / "a/config.json").write_text(json.dumps({**config, "resume": None}))
    RunDirectory(tmp_path / "a").point_latest_here()
    assert command_line("data.root=x", "method.rank=13", "hydra.run.dir=b").code == 1
    done = command_line("resume=latest", "hydra.run.dir=c")
    assert done.code == 0
    assert (
        f"resume=latest goes on from {tmp_path}/a, not from the run that was started last: {tmp_path}/b (failed) has "
        "saved nothing to go on from\n"
    ) in done.err
    status = status_of(Path("c"))
    # as if it had been killed: it says running, and its process is gone
    killed = {**status, "status": "running", "process": {**status["process"], "began": 1}}
    Path("c/status.json").write_text(json.dumps(killed))
    assert f"{tmp_path}/c (killed)" in command_line("resume=latest").err
    assert status_of(Path("c"))["status"] == "killed"


@pytest.mark.usefixtures("frozen_clock")
def test_sweeps_of_one_second_have_directories_of_their_own(
    command_line: CommandLine, runs: list[Any], tmp_path: Path
) -> None:
    for _ in range(2):
        assert command_line("-m", "data.root=x", "method.rank=1,2").code == 0
    day = Path("multirun/2024-02-03")
    assert [path.relative_to(tmp_path) for _, _, path in runs] == [
        day / "04-05-06/0",
        day / "04-05-06/1",
        day / "04-05-06-2/0",
        day / "04-05-06-2/1",
    ]
    assert {path.name for path in (tmp_path / day / "04-05-06-2").iterdir()} == {
        "0", "1", "best", "multirun.yaml", "sweep.html", "sweep.json",
    }  # fmt: skip


@pytest.mark.parametrize("arguments", [[], ["-m"], ["hydra.run.dir=named"]])
def test_only_the_first_of_several_processes_has_a_run_directory(
    command_line: CommandLine, runs: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert command_line("data.root=x", *arguments).code == 0
    assert [path for path in tmp_path.rglob("*") if path.name == "status.json"] == []
    assert not (tmp_path / "outputs").exists()
    assert not (tmp_path / "named").exists()
    assert runs[0][2].is_dir()
    assert tmp_path not in runs[0][2].parents


# --- sweeps -----------------------------------------------------------------------------------------------------------


def test_sweep_goes_on_after_failures_and_ends_with_a_table(
    command_line: CommandLine, runs: list[Any], tmp_path: Path
) -> None:
    done = command_line("-m", "data.root=x", "method.rank=2,0,13,4", "hydra.sweep.dir=sweep")
    assert done.code == 1
    assert [config["method"]["rank"] for _, config, _ in runs] == [2, 13, 4]
    lines = done.out.splitlines()
    assert lines[:4] == [f"job {job}: data.root=x method.rank={rank}" for job, rank in enumerate([2, 0, 13, 4])]
    rows = [line.split()[:-2] for line in lines[4:] if line.endswith(" s")]
    assert rows == [["1", "3", "4", "0.0400"], ["2≈", "0", "2", "0.0200"], ["1", "0", "failed"], ["2", "13", "failed"]]
    assert lines[-6:-3] == [
        "job 1 failed: method.rank = 0: must be greater than or equal to 1",
        "job 2 failed: RuntimeError: a bug",
        "best: job 3 with 0.0400 (method.rank=4)",
    ]
    assert done.err.startswith(
        "job 1: error: method.rank = 0: must be greater than or equal to 1\nTraceback (most recent"
    )
    statuses = [status_of(tmp_path / "sweep" / str(job)) for job in range(4)]
    assert [status["status"] for status in statuses] == ["completed", "failed", "failed", "completed"]
    assert [status["job"] for status in statuses] == [0, 1, 2, 3]
    assert [status["objective"] for status in statuses] == [0.02, None, None, 0.04]


def test_sweep_without_failures_exits_with_0(command_line: CommandLine, runs: list[Any]) -> None:
    done = command_line("-m", "data.root=x", "method.rank=2,4", "optim.lr=1e-4,3e-4")
    assert (done.code, done.err) == (0, "")
    assert [(config["method"]["rank"], config["optim"]["lr"]) for _, config, _ in runs] == [
        (2, 1e-4),
        (2, 3e-4),
        (4, 1e-4),
        (4, 3e-4),
    ]
    assert done.out.splitlines()[-3] == "best: job 2 with 0.0400 (method.rank=4, optim.lr=0.0001)"


def test_sweep_returns_the_objective_to_the_sweeper(
    command_line: CommandLine, runs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    objectives: list[list[float]] = []
    sweep = BasicSweeper.sweep

    def spy(self: BasicSweeper, arguments: list[str]) -> Any:
        result = sweep(self, arguments)
        objectives.extend([job.return_value for job in batch] for batch in result)
        return result

    monkeypatch.setattr(BasicSweeper, "sweep", spy)
    command_line("-m", "data.root=x", "method.rank=2,0,4")
    ((first, second, third),) = objectives
    assert (first, third) == (0.02, 0.04)
    assert math.isnan(second)


def test_interrupted_sweep_stops(command_line: CommandLine, runs: list[Any]) -> None:
    done = command_line("-m", "data.root=x", "method.rank=14,2")
    assert (done.code, len(runs)) == (130, 1)


@pytest.mark.parametrize("override", ["method=lora,lorra", "method.rnk=1,2", "method=glob(x*),lorra"])
def test_sweep_over_unknown_names_starts_no_job(command_line: CommandLine, runs: list[Any], override: str) -> None:
    done = command_line("-m", "data.root=x", override)
    assert (done.code, runs, done.out) == (2, [], "")
    assert done.err.startswith("error: ")


# --- the real command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "needle"),
    [
        (["--help"], 0, "python train.py -m method.rank=2,4,8 optim.lr=1e-4,3e-4"),
        (["--cfg", "job"], 0, "_target_: lora_sam.methods.lora.LoRA"),
        (["method.rnk=4"], 2, "did you mean method.rank?"),
        (["method.rank=0"], 2, "method.rank = 0: must be greater than or equal to 1"),
    ],
)
def test_answers_without_torch_from_any_directory(tmp_path: Path, arguments: list[str], code: int, needle: str) -> None:
    program = (
        "import runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "sys.path.insert(0, sys.argv[0].rpartition('/')[0])\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    heavy = {'torch', 'torchvision', 'peft', 'monai', 'accelerate', 'rich'} & sys.modules.keys()\n"
        "    print(f'code={stop.code} heavy={sorted(heavy)}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "train.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert f"code={code} heavy=[]" in done.stdout
    assert needle in done.stdout + done.stderr
    if code:
        assert all(line.startswith("error: ") for line in done.stderr.splitlines())
        assert "Traceback" not in done.stderr
        assert "HYDRA_FULL_ERROR" not in done.stderr
    else:
        assert done.stderr == ""


def test_help_lists_every_group_with_its_options(command_line: CommandLine) -> None:
    done = command_line("--help")
    assert (done.code, done.err) == (0, "")
    for folder in sorted((ROOT / "conf").iterdir()):
        options = sorted(path.stem for path in folder.glob("*.yaml")) if folder.is_dir() else []
        if options:
            assert f"\n{folder.name}: {', '.join(options)}\n" in done.out
    for command in (
        "python train.py data.root=my_data ",
        "method=decoder ",
        "python train.py -m method.rank=2,4,8 optim.lr=1e-4,3e-4 ",
        "python train.py resume=latest ",
        "python train.py --cfg job ",
    ):
        assert command in done.out
    assert "model=vit_b method=lora data=auto" in done.out
    assert "model=vit_b method=full" in command_line("--help", "model=vit_b", "method=full").out
