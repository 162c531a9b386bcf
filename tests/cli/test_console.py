"""The command `lora-sam`: what its subcommands run, how it answers for itself, where it finds the configuration."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

import train as script
from lora_sam import __version__
from lora_sam.cli import console as console_module
from lora_sam.cli import train as train_module
from lora_sam.cli.console import commands, console
from lora_sam.cli.flags import foreign_flags
from lora_sam.cli.step import steps, usage
from lora_sam.core import conf_files as conf_module
from lora_sam.core.conf_files import conf_directory
from lora_sam.core.config import class_of_step

ROOT = Path(__file__).resolve().parents[2]

# every file of conf/ with a target is a command, between those of training and the app
STEPS = sorted(
    path.stem for path in (ROOT / "conf").glob("*.yaml") if "\n_target_:" in path.read_text(encoding="utf-8")
)
LISTED = f"Commands: demo, train, sweep, {', '.join(STEPS)}, app; lora-sam --help describes them"

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lora-sam", *arguments])
        code = console()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_help_and_version(call: Call) -> None:
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    assert all(f"\n  {name} " in out for name in commands())
    assert call("-h") == (code, out, err)
    assert call("--version") == (0, f"lora-sam {__version__}\n", "")


def test_help_has_every_command_once_and_fits_a_page(call: Call) -> None:
    out = call("--help")[1]
    assert [out.count(f"\n  {name} ") for name in commands()] == [1] * len(commands())
    assert out.index("\nTrain\n") < out.index("\nUse\n") < out.index("\nProve\n") < out.index("\nDeploy\n")
    assert max(map(len, out.splitlines())) <= 120


def test_help_of_training_says_how_it_was_called(tmp_path: Path) -> None:
    place = Path(sys.executable).parent
    done = subprocess.run(
        ["lora-sam", "train", "--help"], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{place}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert "\n  lora-sam train data.root=my_data " in done.stdout
    assert "train.py" not in done.stdout


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train --data my_images", "data.root=my_images"),
        ("train --data=my_images", "data.root=my_images"),
        ("train --data coco", "data=coco"),
        ("train --model nano", "model=nano"),
        ("train data.root=x --lr 0.001", "optim.lr=0.001"),
        ("train --epochs 3", "trainer.max_epochs=3"),
        ("train --batch-size 4", "trainer.batch_size=4"),
        ("train --max-steps 4", "trainer.max_steps=4"),
        ("train --lora-rank 16", "method.rank=16"),
        ("train --frobnicate", "key=value"),
        ("evaluate --run latest", "run=latest"),
        ("export --precision fp16", "precision=fp16"),
        ("check --data my_images", "data.root=my_images"),
    ],
)
def test_flags_of_other_programs_are_answered_with_the_key(call: Call, typed: str, meant: str) -> None:
    code, out, err = call(*typed.split())
    flag = next(word for word in typed.split() if word.startswith("--"))
    assert (code, out) == (2, "")
    assert err == f"error: {flag}: options are written key=value, without dashes: {meant} (--help lists them)\n"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train my_images", "data.root=my_images"),
        ("check my_images", "data.root=my_images"),
        ("predict my_images", "source=my_images"),
        ("predict latest", "run=latest"),
        ("train latest", "resume=latest"),
        ("evaluate my_run", "run=my_run"),
    ],
)
def test_a_folder_alone_is_answered_with_its_key(
    call: Call, typed: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_images").mkdir()
    (tmp_path / "my_run" / "adapter").mkdir(parents=True)
    word = typed.split()[1]
    expected = f"error: {word}: options are written key=value: {meant} (--help lists them)\n"
    assert call(*typed.split()) == (2, "", expected)


@pytest.mark.parametrize(
    "typed",
    [
        "train -m method.rank=2,4",
        "train --cfg job",
        "train --multi a=b",
        "evaluate --run run=latest",
        "x --config-dir d",
    ],
)
def test_flags_of_hydra_are_left_to_it(typed: str) -> None:
    _, *arguments = typed.split()
    assert foreign_flags(arguments, ROOT / "conf", "train") == []


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("words", ["train --cfg all experiment=smoke", "--help", "merge --help"])
def test_a_reader_that_has_seen_enough_is_no_error(words: str, buffered: bool, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("lora-sam")
    reader = "head -1" if words.startswith("train") else "true"  # which is gone before a line is written
    done = subprocess.run(
        f"'{program}' {words} | {reader}; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "" if buffered else "1"},
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode in (0, 141)  # 0 where the pipe took all of it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tran"], f"unknown command tran; did you mean train? {LISTED}"),
        (["x"], f"unknown command x. {LISTED}"),
        (["method.rank=4"], f"unknown command method.rank=4. {LISTED}"),
        (["evaluat"], f"unknown command evaluat; did you mean evaluate? {LISTED}"),
        ([], f"no command given. {LISTED}"),
    ],
)
def test_mistakes_name_the_commands(call: Call, arguments: list[str], message: str) -> None:
    assert call(*arguments) == (2, "", f"error: {message}\n")


@pytest.mark.parametrize(
    ("arguments", "handed_over"),
    [
        (["train", "-m", "method.rank=2,4"], ["-m", "method.rank=2,4"]),
        (["train", "--cfg", "job", "~tracker"], ["--cfg", "job", "~tracker"]),
        (["train"], ["experiment=demo"]),
        (["train", "--cfg", "job"], ["experiment=demo", "--cfg", "job"]),
        (["train", "--help"], ["--help"]),
        (["demo"], ["experiment=demo"]),
        (["demo", "seed=1"], ["experiment=demo", "seed=1"]),
        (["demo", "experiment=demo_everything"], ["experiment=demo_everything"]),
    ],
)
def test_commands_hand_the_rest_to_the_program_of_train_py(
    call: Call, monkeypatch: pytest.MonkeyPatch, arguments: list[str], handed_over: list[str]
) -> None:
    calls: list[tuple[Any, Path, list[str]]] = []

    def main(task: Any, *, conf: Path) -> int:
        calls.append((task, conf, sys.argv))
        return 7

    monkeypatch.setattr(train_module, "main", main)
    code, _, error = call(*arguments)
    assert code == 7
    assert calls == [(script.train, train_module.CONF, [f"lora-sam {arguments[0]}", *handed_over])]
    assert ("this is the demo" in error) == (arguments == ["train"])


@pytest.mark.parametrize("verb", sorted(steps().keys() - {"preview"}))
def test_steps_get_the_rest(call: Call, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    calls: list[Any] = []

    def step(*given: Any) -> int:
        calls.append(given)
        return 3

    monkeypatch.setattr(console_module, "run_step", step)
    assert call(verb, "run=here", "--cfg", "job")[0] == 3
    assert calls == [(verb, f"lora-sam {verb}", ["run=here", "--cfg", "job"])]


def test_the_list_of_commands_is_that_of_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = steps()
    assert {"check", "preview", "merge"} <= set(known)
    assert known["merge"] == "fold the adapter into the weights: a plain SAM checkpoint"
    (tmp_path / "train.yaml").touch()
    (tmp_path / "step.yaml").write_text("# what the others share\nhydra: null\n")
    (tmp_path / "polish.yaml").write_text("# make it shine\n_target_: lora_sam.cli.polish.Polish\n")
    monkeypatch.setattr("lora_sam.cli.step.conf_directory", lambda: tmp_path)
    assert list(commands()) == ["demo", "train", "sweep", "polish", "app"]
    assert commands()["polish"] == "make it shine"


@pytest.mark.parametrize(("name", "place"), [("preview", "preview.preview"), ("app", "app.serve_app")])
def test_preview_and_app_get_the_rest(call: Call, monkeypatch: pytest.MonkeyPatch, name: str, place: str) -> None:
    calls: list[Any] = []

    def run(*given: Any) -> int:
        calls.append(given)
        return 3

    monkeypatch.setattr(f"lora_sam.cli.{place}", run)
    assert call(name, "one", "--two")[0] == 3
    assert calls == [(["one", "--two"], f"lora-sam {name}")]


def test_preview_and_app_explain_themselves(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert "  lora-sam preview [key=value ...]" in call("preview", "--help")[1]
    with pytest.raises(SystemExit) as stopped:
        call("app", "--help")
    assert stopped.value.code == 0
    assert "usage: lora-sam app " in capsys.readouterr().out


def test_a_step_explains_itself(call: Call) -> None:
    code, out, err = call("deploy", "--help")
    assert (code, err) == (0, "")
    assert "  lora-sam deploy [key=value ...]\n" in out
    assert "  max_drop=null\n" in out


@pytest.mark.parametrize("step", STEPS)
def test_the_help_of_a_step_has_all_of_its_options_whether_docstrings_are_indented_or_not(
    step: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.13 takes the indentation away when it compiles, which left a help without options."""
    values = OmegaConf.load(ROOT / "conf" / f"{step}.yaml")
    listed = call(step, "--help")[1]
    for name in set(values) - {"_target_", "defaults", "hydra"}:
        assert f"\n  {name}=" in listed
    documented = class_of_step(values["_target_"])
    monkeypatch.setattr(documented, "__doc__", inspect.cleandoc(documented.__doc__ or ""))
    assert call(step, "--help")[1] == listed
    indented = (documented.__doc__ or "").replace("\n", "\n    ")
    monkeypatch.setattr(documented, "__doc__", indented)
    assert call(step, "--help")[1] == listed


def test_the_script_is_declared() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, name = scripts["lora-sam"].partition(":")
    assert getattr(import_module(module), name) is console


def test_answers_without_torch(tmp_path: Path) -> None:
    program = (
        "import runpy, sys\n"
        "try: runpy.run_module('lora_sam.cli', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop:\n"
        "    print(f'code={stop.code} torch={\"torch\" in sys.modules}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{program}", "train", "--cfg", "job"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert "_target_: lora_sam.methods.lora.LoRA" in done.stdout
    assert done.stdout.splitlines()[-1] == "code=0 torch=False"
    assert done.stderr == ""


# --- configuration files ----------------------------------------------------------------------------------------------


def test_a_checkout_has_its_configuration_beside_the_package() -> None:
    assert conf_directory() == train_module.CONF == ROOT / "conf"


def test_an_installed_package_has_it_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conf_module, "_PACKAGE", tmp_path / "lora_sam")
    for place in (tmp_path / "conf", tmp_path / "lora_sam" / "conf"):  # what is inside comes first
        place.mkdir(parents=True)
        (place / "train.yaml").touch()
        assert conf_directory() == place


def test_an_installation_without_configuration_says_so(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conf_module, "_PACKAGE", tmp_path / "lora_sam")
    monkeypatch.delitem(sys.modules, "lora_sam.cli.train")
    code, out, err = call("train")
    assert (code, out) == (2, "")
    inside, beside = tmp_path / "lora_sam" / "conf", tmp_path / "conf"
    assert err == (
        f"error: no configuration files: neither {inside} nor {beside} has a train.yaml; install lora_sam again.\n"
    )


def test_a_sweep_without_choices_says_how_they_are_written(call: Call) -> None:
    code, out, err = call("sweep")
    assert (code, out) == (2, "")
    assert "nothing varies" in err
    assert "sweep data.root=my_data method.rank=4,16" in err


def test_a_sweep_is_training_with_every_combination(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(train_module, "run_train", lambda program, words: seen.append((program, list(words))) or 0)
    assert call("sweep", "method.rank=4,16")[0] == 0
    assert seen == [("lora-sam train", ["-m", "method.rank=4,16"])]


@pytest.mark.parametrize("columns", [60, 80])
def test_help_fits_the_terminal(call: Call, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert max(map(len, call("--help")[1].splitlines())) <= columns
    long = [line for line in call("predict", "--help")[1].splitlines() if len(line) > columns]
    assert not long


@pytest.mark.parametrize("name", sorted(STEPS))
def test_the_help_says_what_has_to_be_given(name: str) -> None:
    """Of an option without a default it said null, which is refused: `source=null`, `repo=null`."""
    conf = ROOT / "conf"
    values = yaml.safe_load((conf / f"{name}.yaml").read_text(encoding="utf-8"))
    told = usage(name, f"lora-sam {name}", conf)
    for option, value in values.items():
        if value == "???":
            assert re.search(rf"^  {option}=\.\.\.\n(?:      .*\n)*?.*Has to be\s+given\.", told, re.MULTILINE), option
        elif value is None and f"\n  {option}=" in told:
            assert f"\n  {option}=null\n" in told


def test_some_options_have_to_be_given() -> None:
    told = "".join(usage(name, name, ROOT / "conf") for name in ("predict", "push", "pack", "select"))
    assert [line for line in told.splitlines() if line.endswith("=...")] == [
        "  source=...", "  repo=...", "  target=...", "  source=...",
    ]  # fmt: skip
