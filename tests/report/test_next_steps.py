"""Every command that is proposed is one that can be typed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from lora_sam.cli.jobs import plain
from lora_sam.core.config import step_from
from lora_sam.report.next_steps import next_steps, python_lines
from lora_sam.training.settings import settings_from

ROOT = Path(__file__).resolve().parents[2]


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return plain(compose("train", list(overrides)))


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.root=my data"],
        ["data.root=my_data", "method=decoder"],
        ["data.root=my_data", "method.rank=2", "method.targets=[q,v]", "optim.lr=0.1"],
        ["experiment=smoke"],
        ["experiment=smoke", "optim.lr=0.01"],
        ["experiment=smoke", "resume=latest", "trainer.max_steps=10"],
    ],
)
def test_commands_compose_and_pass_the_check(overrides: list[str], tmp_path: Path) -> None:
    same = [part for part in overrides if not part.startswith("resume=")]
    steps = list(next_steps(tmp_path / "my run", composed(*same), overrides))
    assert len(steps) == 7
    for verb in ("predict", "deploy", "robustness"):
        assert steps.pop(1).command.startswith(f"python -m lora_sam.{verb} ")
    for step in steps:
        program, script, *arguments = shlex.split(step.command)
        assert (program, script) == ("python", "train.py")
        sweep = arguments[:1] == ["-m"]
        parts = [part.partition("=") for part in arguments[sweep:]]
        assert len({name for name, _, _ in parts}) == len(parts), f"{step.command}: set twice"
        name, _, choices = parts[-1]
        assert ("," in choices) == sweep
        for choice in choices.split(",") if sweep else [choices]:
            typed = [*arguments[sweep:-1], f"{name}={choice}"]
            # what a resumed run takes from the old one is typed here
            settings_from({**composed(*(same if typed[0].startswith("resume=") else []), *typed), "resume": None})


def test_the_run_itself_goes_on_for_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = composed("experiment=smoke", "trainer.max_epochs=12")
    commands = [step.command for step in next_steps(tmp_path / "outputs" / "1", config, [], "lora-sam")]
    assert commands[-1] == "lora-sam resume=outputs/1 trainer.max_epochs=24"
    for name in ("a b", "it's", "a=b,c", "$HOME {x} [y]", "über"):
        elsewhere = next_steps(tmp_path.parent / name, config, [])[-1].command
        assert composed(shlex.split(elsewhere)[2])["resume"] == f"{tmp_path.parent}/{name}"


@pytest.mark.parametrize(("verb", "place"), [("predict", 1), ("deploy", 2), ("robustness", 3)])
def test_steps_after_training_name_the_run(tmp_path: Path, verb: str, place: int) -> None:
    for name in ("a b", "it's", "1"):
        command = next_steps(tmp_path / name, composed("experiment=smoke"), [], "lora-sam train")[place].command
        *program, argument = [word for word in shlex.split(command) if word != "source=my_images"]
        assert program == ["lora-sam", verb]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            assert compose(verb, [argument]).run == str(tmp_path / name)


def test_a_run_with_iterative_prompts_is_pointed_to_clicks(tmp_path: Path) -> None:
    wanted = "The evaluation used the first prompt alone: what do corrections add?"
    steps = {step.purpose: step.command for step in next_steps(tmp_path, composed("prompt=iterative"), [])}
    program, *arguments = shlex.split(steps[wanted])[2:]
    assert program == "lora_sam.robustness"
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        options = step_from(plain(compose("robustness", arguments)))
    assert (options.run, options.sections) == (str(tmp_path), ("clicks",))
    once = next_steps(tmp_path, composed("prompt=iterative", "prompt.rounds=1"), [])
    assert wanted not in {step.purpose for step in (*once, *next_steps(tmp_path, composed("prompt=box"), []))}


def test_other_methods_are_proposed(tmp_path: Path) -> None:
    lora = next_steps(tmp_path, composed("data.root=x", "method.rank=2"), ["data.root=x", "method.rank=2"])
    assert [step.command for step in lora[4:6]] == [
        "python train.py data.root=x method=decoder",
        "python train.py -m data.root=x method.rank=4,8,16",
    ]
    decoder = next_steps(tmp_path, composed("data.root=x", "method=decoder"), ["data.root=x", "method=decoder"])
    assert decoder[4].command == "python train.py data.root=x method=lora"
    assert "optim.lr=" in decoder[5].command


def test_python_lines_compile(tmp_path: Path) -> None:
    lines = python_lines(tmp_path / "it's")
    compile(lines, "usage", "exec")
    assert repr(str(tmp_path / "it's")) in lines
    assert 'read_image("image.png")' in lines
    lines = python_lines(tmp_path / "it's", scaled=True)
    compile(lines, "usage", "exec")
    assert 'read_image("image.png", ' + repr(str(tmp_path / "it's")) + ")" in lines


@pytest.mark.parametrize(("trained", "rate"), [(0.2, "0.0003"), (0.5, "0.009"), (None, "0.009")])
def test_where_nothing_beat_the_base_another_rate_comes_first(tmp_path: Path, trained: float, rate: str) -> None:
    config = composed("experiment=smoke", "seed=3")
    report = {"validation": {"base": 0.5, "trained": trained, "kept_step": 0}}
    typed = ["experiment=smoke", "optim.lr=0.003", "seed=3"]
    first = next_steps(tmp_path, config, typed, report=report)[0].command
    assert first == f"python train.py experiment=smoke seed=3 optim.lr={rate}"
    report["validation"]["kept_step"] = 4
    assert next_steps(tmp_path, config, typed, report=report) == next_steps(tmp_path, config, typed)
