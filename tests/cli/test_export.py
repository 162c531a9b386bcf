"""The export step: done once, checked against torch, nothing half-written, every mistake one line with its remedy."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_sam.cli.step import run_step
from lora_sam.core.config import step_from
from lora_sam.core.errors import AdapterError
from lora_sam.core.run_directory import RunDirectory
from lora_sam.predictors.openvino_parts import openvino_directory
from lora_sam.predictors.openvino_predictor import OpenVINOPredictor
from lora_sam.runs.exported import require_exported


@pytest.fixture(scope="module")
def merged(finished_run: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with merged weights; its data is not there, so the check draws its own images."""
    root = tmp_path_factory.mktemp("export") / "run"
    finished_run(root)
    step_from(options("merge", run=str(root))).perform()
    return root


@pytest.fixture
def run(merged: Path, tmp_path: Path) -> Path:
    shutil.copytree(merged, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def traced(merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with parts in fp16, which were not there in fp32."""
    root = tmp_path_factory.mktemp("traced") / "run"
    shutil.copytree(merged, root)
    assert export(root) == 0
    return root


def options(verb: str, **changes: Any) -> dict[str, Any]:
    import yaml

    values = yaml.safe_load((Path(__file__).resolve().parents[2] / "conf" / f"{verb}.yaml").read_text())
    del values["defaults"]
    return {**values, **changes}


def export(run: Path, **changes: Any) -> int:
    return int(step_from(options("export", run=str(run), **changes)).perform())


def test_writes_checked_parts_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(run) == 0
    directory = require_exported(RunDirectory(run), "fp16")
    assert sorted(path.name for path in directory.iterdir()) == [
        "image_encoder.bin",
        "image_encoder.xml",
        "manifest.json",
        "mask_decoder.bin",
        "mask_decoder.xml",
    ]
    checks = json.loads((directory / "manifest.json").read_text())["checks"]
    assert 0.999 <= checks["mask_iou"] <= 1
    assert checks["logit_difference"] < 0.05
    assert "mean mask IoU with torch" in capsys.readouterr().out
    before = (directory / "manifest.json").stat().st_mtime_ns
    assert export(run) == 0
    assert "already there" in capsys.readouterr().out
    assert (directory / "manifest.json").stat().st_mtime_ns == before
    assert export(run, multimask=True) == 0
    predictor = OpenVINOPredictor(*openvino_directory(directory), compile_cache=False)
    assert predictor.offers_all_masks


def test_fp32_differs_by_rounding_only(run: Path) -> None:
    export(run, precision="fp32")
    checks = json.loads((run / "openvino" / "fp32" / "manifest.json").read_text())["checks"]
    assert checks["mask_iou"] >= 0.9999
    assert checks["logit_difference"] <= 1e-4


def test_what_is_there_in_fp32_is_not_traced_again(traced: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is of other options, or of another lora_sam."""
    from lora_sam.deployment import ir_parts

    def parts(run: Path) -> dict[str, bytes]:
        # OpenVINO numbers what has no name by how many operations the process has made so far
        files = RunDirectory(run).openvino("fp16").glob("*_*")
        return {path.name: re.sub(rb'name="[A-Z]\w*\d\w*"', b"", path.read_bytes()) for path in files}

    def trace(*_: Any) -> Any:
        raise KeyboardInterrupt

    export(run, precision="fp32")
    monkeypatch.setattr(ir_parts, "encoder_ir", trace)
    export(run)
    assert parts(run) == parts(traced)
    with pytest.raises(KeyboardInterrupt):
        export(run, multimask=False)
    shutil.rmtree(RunDirectory(run).openvino("fp16"))
    manifest = RunDirectory(run).openvino("fp32") / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "lora_sam": "0.0.1"}))
    with pytest.raises(KeyboardInterrupt):
        export(run)


def test_the_check_can_fail_and_leaves_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lora_sam.deployment.ir_parts as exporting

    original = exporting.encoder_ir

    def another(sam: Any, image_size: int) -> Any:
        for parameter in sam.image_encoder.neck.parameters():
            parameter.data.mul_(0.5)
        return original(sam, image_size)

    # torch predicts with the same module, so it has to be a copy that is spoilt
    import copy

    monkeypatch.setattr(exporting, "encoder_ir", lambda sam, size: another(copy.deepcopy(sam), size))
    with pytest.raises(AdapterError, match="do not compute what torch computes.*nothing was written"):
        export(run)
    assert not (run / "openvino" / "fp16").exists()
    assert not list((run / "openvino").glob(".*"))


def test_interrupted_exports_are_not_picked_up(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lora_sam.deployment.ir_parts as exporting

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "decoder_ir", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(run)
    with pytest.raises(AdapterError, match=r"not there yet; make it with: python -m lora_sam\.export"):
        require_exported(RunDirectory(run), "fp16")


def test_a_read_only_directory(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lora_sam.runs.manifest as steps
    from lora_sam.core.errors import TrainingError

    def read_only(path: Path) -> Any:
        raise TrainingError("full") from PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(steps, "atomic_directory", read_only)
    with pytest.raises(AdapterError, match=r"cannot be written: .*Permission denied.*then: python -m lora_sam\.export"):
        export(run)


def test_onnx(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx", reason="the optional package onnx is not installed")
    export(run, format="onnx", precision="fp32")
    assert (run / "onnx" / "mask_decoder.onnx").is_file()
    checks = json.loads((run / "onnx" / "manifest.json").read_text())["checks"]
    assert checks["mask_iou"] >= 0.9999
    assert checks["logit_difference"] <= 1e-4
    assert f"mean mask IoU with torch {checks['mask_iou']:.5f}" in capsys.readouterr().out


def command_line(*arguments: str) -> int:
    return run_step("export", "python -m lora_sam.export", arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("precision=int8",), "error: precision = int8: must be one of fp32, fp16"),
        (("precison=fp32",), "error: unknown key precison; did you mean precision? Valid keys: data_root, format, "),
        (("run=nowhere",), "error: nowhere: no such run directory"),
        (("format=onnx",), "error: precision = fp16: ONNX files are written as fp32; add precision=fp32"),
        (("min_iou=2",), "error: min_iou = 2: must be less than or equal to 1"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(message), error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir()), "nothing is left by Hydra"


def test_unmerged_and_stale_runs_are_refused_with_the_command(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = run / "merged" / "sam.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert command_line(f"run={run}") == 2
    assert "sam.safetensors was changed after it was made; make it again with: python -m lora_sam.merge run=" in (
        capsys.readouterr().err
    )
    shutil.rmtree(run / "merged")
    assert command_line(f"run={run}") == 2
    assert "not there yet; make it with: python -m lora_sam.merge run=" in capsys.readouterr().err
    shutil.rmtree(run / "adapter")
    assert command_line(f"run={run}") == 2
    assert "no adapter there; give a finished run's directory" in capsys.readouterr().err


def test_parts_changed_by_hand_or_of_another_adapter_are_stale(traced: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(traced, run)
    model = run / "openvino" / "fp16" / "mask_decoder.xml"
    text = model.read_text()
    model.write_text(text.replace("<", " <", 1))
    with pytest.raises(AdapterError, match=r"mask_decoder\.xml was changed after it was made.*precision=fp16"):
        require_exported(RunDirectory(run), "fp16")
    model.write_text(text)
    require_exported(RunDirectory(run), "fp16")
    step_from(options("merge", run=str(run), alpha=0.5)).perform()
    with pytest.raises(AdapterError, match="is stale: it was made from another merged"):
        require_exported(RunDirectory(run), "fp16")


def test_help_names_every_option_without_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from lora_sam.cli.step import run_step\n"
        "assert run_step('export', 'x', ['--help']) == 0\n"
        "assert run_step('export', 'x', ['--cfg', 'job']) == 0\n"
        "assert not {'torch', 'openvino', 'nncf'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for name in ("run=latest", "precision=fp16", "format=openvino", "multimask=true", "min_iou=0.999"):
        assert name in done.stdout
    assert "Least mean IoU between the masks of torch" in done.stdout
