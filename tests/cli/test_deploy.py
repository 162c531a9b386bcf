"""The deploy step: the other steps with their defaults, in order, each done once, up to the first that fails."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lora_sam.cli import deploy as module
from lora_sam.cli.step import run_step
from lora_sam.core.config import from_conf
from lora_sam.core.errors import AdapterError, ConfigError, DataError
from lora_sam.core.run_directory import RunDirectory
from lora_sam.deployment import comparing as measuring
from lora_sam.evaluation.backends.result import read_backends


@dataclass
class Steps:
    """Stands in for the steps: keeps what was asked for, and gives the exit codes or errors it was told to."""

    outcomes: dict[str, int | Exception]
    asked: list[tuple[str, dict[str, Any]]]

    def from_conf(self, name: str, **values: Any) -> Any:
        outcome = self.outcomes.get(name, 0)

        class Step:
            def perform(_) -> int:  # noqa: N805
                self.asked.append((name, values))
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome

            perform_once = perform

        return Step()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    made = Steps({}, [])
    monkeypatch.setattr(module, "from_conf", made.from_conf)
    return made


@pytest.fixture
def run(finished_run: Callable[..., Any], tmp_path: Path) -> Path:
    finished_run(tmp_path / "run")
    return tmp_path / "run"


def deploy(run: Path | str, **changes: Any) -> int:
    step = from_conf("deploy", run=str(run), **changes)
    assert isinstance(step, module.Deploy)
    return step.perform()


def test_all_steps_with_their_defaults(run: Path, steps: Steps, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy(run) == 0
    root = str(run.resolve())
    assert steps.asked == [
        ("merge", {"run": root}),
        ("export", {"run": root, "precision": "fp32"}),
        ("export", {"run": root, "precision": "fp16"}),
        ("quantize", {"run": root}),
        ("evaluate", {"run": root, "backends": None, "fail_under": None}),
    ]
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        f"[1/5] python -m lora_sam.merge run={root}",
        f"[2/5] python -m lora_sam.export run={root} precision=fp32",
        f"[3/5] python -m lora_sam.export run={root} precision=fp16",
        f"[4/5] python -m lora_sam.quantize run={root}",
        f"[5/5] python -m lora_sam.evaluate run={root}",
    ]
    places = [line.split(maxsplit=1)[1] for line in captured.out.splitlines()]
    assert places == [f"{root}/merged", *(f"{root}/openvino/{name}" for name in ("fp32", "fp16", "int8"))]


def test_options_reach_their_steps(run: Path, steps: Steps) -> None:
    deploy(run, max_drop=1.5, fail_under=0.7)
    assert steps.asked[3][1]["max_drop"] == 1.5
    assert steps.asked[4][1]["fail_under"] == 0.7
    steps.asked.clear()
    deploy(run, base="base.pth", data_root="moved", output=str(run.parent / "elsewhere"))
    assert [values["run"] for _, values in steps.asked] == [str(run.parent / "elsewhere")] * 5
    given = [{name: values[name] for name in ("base", "data_root") if name in values} for _, values in steps.asked]
    base, data = {"base": "base.pth"}, {"data_root": "moved"}
    assert given == [base, data, data, data, {**base, **data}]
    steps.asked.clear()
    deploy(run, int8=False)
    assert [name for name, _ in steps.asked] == ["merge", "export", "export", "evaluate"]
    assert steps.asked[3][1]["backends"] == ["base", "tuned", "merged", "fp32", "fp16", "bf16"]


def test_the_first_failure_ends_it(run: Path, steps: Steps, capsys: pytest.CaptureFixture[str]) -> None:
    steps.outcomes = {"quantize": DataError("no images")}
    with pytest.raises(DataError, match="no images"):
        deploy(run)
    assert [name for name, _ in steps.asked] == ["merge", "export", "export", "quantize"]
    steps.outcomes = {"evaluate": 3}
    assert deploy(run) == 3
    assert "files" not in capsys.readouterr().out


def test_bad_input(tmp_path: Path, steps: Steps) -> None:
    with pytest.raises(AdapterError, match="no such run directory"):
        deploy(tmp_path / "none")
    with pytest.raises(AdapterError, match="no adapter there; give a finished run's directory"):
        deploy(tmp_path)
    for changes, message in (
        ({"fail_under": 2}, "fail_under = 2: must be less than or equal to 1"),
        ({"int8": "yes"}, "int8 = yes: must be true or false"),
        ({"precision": "fp32"}, "unknown key precision"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            deploy(tmp_path, **changes)
    assert steps.asked == []


def test_a_real_run_is_deployed_once(
    exported_run: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(measuring, "peak_memory_of", lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)
    run = RunDirectory(exported_run(tmp_path / "run"))
    shutil.rmtree(run.openvino("fp16"))
    assert run_step("deploy", "python -m lora_sam.deploy", ["run=run", "int8=false"]) == 0
    found = read_backends(run.backends, "")
    assert tuple(found.backends) == ("base", "tuned", "merged", "fp32", "fp16", "bf16")
    made = {path: path.stat().st_mtime_ns for path in run.root.rglob("*") if path.suffix in (".bin", ".safetensors")}
    assert run.openvino("fp16") / "image_encoder.bin" in made
    first = capsys.readouterr().out
    assert run_step("deploy", "python -m lora_sam.deploy", ["run=run", "int8=false"]) == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert read_backends(run.backends, "") == found
    second = capsys.readouterr()
    assert second.err.count("already there") == 1
    table = [line for line in first.splitlines() if line.startswith(("base", "int8", "fp32", "bf16"))]
    assert table
    assert all(line in second.out for line in table)
