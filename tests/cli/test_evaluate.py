"""The evaluate step: one table of all back ends, true to what each of them computes, and a gate."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_sam.cli.evaluate import Evaluate
from lora_sam.cli.step import run_step
from lora_sam.core.config import from_conf
from lora_sam.core.errors import AdapterError, ConfigError, DataError
from lora_sam.core.run_directory import RunDirectory
from lora_sam.deployment import comparing as measuring
from lora_sam.evaluation.backends.result import Comparison, read_backends
from lora_sam.evaluation.comparison import summarize
from lora_sam.evaluation.scoring import evaluate
from lora_sam.runs import exported
from lora_sam.runs.backends import RunBackEnds
from lora_sam.runs.manifest import MANIFEST, write_step
from lora_sam.runs.places import write_splits
from lora_sam.runs.resuming import settings_of

FP = ("base", "tuned", "merged", "fp32", "fp16", "bf16")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No processes for memory."""
    monkeypatch.setattr(measuring, "peak_memory_of", lambda *_, **__: 123_000_000)


@pytest.fixture
def run(exported_run: Callable[[Path], Path], tmp_path: Path) -> RunDirectory:
    return RunDirectory(exported_run(tmp_path / "run"))


@pytest.fixture(scope="module")
def single_masks(exported_run: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fp32 parts of such a run that give single masks only."""
    run = RunDirectory(exported_run(tmp_path_factory.mktemp("single") / "run"))
    assert from_conf("export", run=str(run.root), precision="fp32", multimask=False).perform() == 0
    return run.openvino("fp32")


def take_parts(run: RunDirectory, parts: Path) -> None:
    shutil.rmtree(run.openvino("fp32"))
    shutil.copytree(parts, run.openvino("fp32"))


def options(run: Path | str, **changes: Any) -> Evaluate:
    built = from_conf("evaluate", run=str(run), repeats=1, **changes)
    assert isinstance(built, Evaluate)
    return built


def result(run: RunDirectory) -> Comparison:
    return read_backends(run.backends, "")


# --- a run -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_all_that_is_there_in_one_table(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert options(run.root).perform() == 0
    found = result(run)
    assert tuple(found.backends) == FP
    assert (found.split, found.images, found.objects, found.image_size) == ("test", 3, 9, (48, 64))
    assert found.backends["tuned"].iou_with_torch == 1
    assert found.backends["merged"].iou_with_torch >= 0.999
    assert found.backends["fp32"].iou_with_torch >= 0.999
    assert found.backends["base"].iou_with_torch < 0.99
    for name, entry in found.backends.items():
        assert entry.bytes == sum(path.stat().st_size for path in RunBackEnds(run).files(name))
        assert entry.peak_memory_bytes == 123_000_000
        for what in ("encoder", "decoder", "first_prompt", "next_prompt"):
            low, high = getattr(entry, f"{what}_ms_range")
            assert 0 < low <= getattr(entry, f"{what}_ms") <= high
    assert {name: entry.against for name, entry in found.backends.items()} == {
        "base": None, "tuned": None, "merged": "tuned", "fp32": "tuned", "fp16": "fp32", "bf16": "fp32",
    }  # fmt: skip
    assert [entry.runtime for entry in found.backends.values()] == ["torch"] * 3 + ["openvino"] * 3
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines() if re.match(r"(\w+) +0\.\d{3} +0\.\d{3}", line)] == [
        *FP
    ]
    assert len(re.findall(r"^\w+ (loses|gains) .*(tuned|fp32)", captured.out, re.MULTILINE)) == 4
    assert f"figures   {run.backends}" in captured.out
    assert f"report    {run.report}" in captured.out
    page = run.report.read_text()
    assert page.count("<h2>Back ends</h2>") == 1
    assert "a page" in page


@pytest.mark.usefixtures("quick")
def test_int8_is_compared_with_fp32(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("int8", "int8_weights"):  # parts in another place, as quantize would leave them
        shutil.copytree(run.openvino("fp16"), run.openvino(name), ignore=shutil.ignore_patterns(MANIFEST))
        write_step(run.openvino(name), "quantize", made_from=exported.made_from(run), settings={}, checks={})
    options(run.root, backends=["fp32", "fp16", "int8_bf16", "int8", "int8_weights"]).perform()
    found = result(run)
    assert tuple(found.backends) == ("fp32", "fp16", "int8", "int8_bf16", "int8_weights")
    assert {found.backends[name].against for name in ("int8", "int8_bf16", "int8_weights")} == {"fp32"}
    assert found.backends["int8"].iou == found.backends["fp16"].iou
    assert found.backends["int8"].iou_difference == found.backends["fp16"].iou - found.backends["fp32"].iou
    assert len(re.findall(r"^int8\w* (loses|gains) .*fp32", capsys.readouterr().out, re.MULTILINE)) == 3
    options(run.root, max_images=1).perform()  # all that is there
    assert tuple(result(run).backends) == (*FP, "int8", "int8_bf16", "int8_weights")
    (run.openvino("int8") / "mask_decoder.bin").unlink()
    with pytest.raises(AdapterError, match=r"mask_decoder\.bin is missing; make it again with: .*lora_sam\.quantize"):
        options(run.root).perform()


@pytest.mark.usefixtures("quick")
def test_the_figures_are_those_of_the_training_comparison(run: RunDirectory) -> None:
    """Same images, prompts and metrics as `base` and `tuned` of `evaluation.json` come from."""
    options(run.root, backends=["base", "tuned"], split="val").perform()
    settings = settings_of(run)
    source = settings.data.open(settings.seed).val
    predictors = RunBackEnds(run).open(["base", "tuned"], threads=None)
    expected = evaluate(predictors, source, lambda sample: settings.prompt.evaluation_prompts(sample, settings.seed))
    found = result(run)
    assert found.images == len(source) == 2
    for name in ("base", "tuned"):
        figures = summarize(expected.scores[name], settings.seed)
        for metric in ("iou", "dice", "f1", "boundary_f1"):
            assert getattr(found.backends[name], metric) == figures[metric]
            assert list(getattr(found.backends[name], f"{metric}_interval")) == figures[f"{metric}_interval"]


@pytest.mark.usefixtures("quick")
def test_the_gate(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert options(run.root, backends=["base", "fp32"], fail_under=0.0).perform() == 0
    iou = result(run).backends["fp32"].iou
    capsys.readouterr()
    assert options(run.root, backends=["base", "fp32"], fail_under=0.99).perform() == 3
    assert f"fail_under = 0.99 is not reached: mean IoU of fp32 {iou:.4f}\n" in capsys.readouterr().err
    assert result(run).failed == ("fp32",)  # written all the same
    assert options(run.root, backends=["base"], fail_under=0.99).perform() == 0


@pytest.mark.usefixtures("quick")
def test_images_that_choose_a_threshold_are_not_measured_with_it(run: RunDirectory) -> None:
    said = (
        "mask_threshold = tune: the validation images would choose it, and 2 of the 2 images that are measured "
        r"(split val) are among them; measure others (split=...), or give a number"
    )
    with pytest.raises(ConfigError, match=re.escape(said)):
        options(run.root, backends=["tuned"], split="val", mask_threshold="tune").perform()
    options(run.root, backends=["tuned"], split="val", mask_threshold=0.5).perform()


@pytest.mark.usefixtures("quick")
def test_a_tuned_threshold_is_applied_to_all_and_told(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    options(run.root, backends=["tuned", "fp32"], mask_threshold="tune").perform()
    found = result(run)
    assert found.tuned_by == "tuned"
    assert found.tuned_threshold is not None
    assert (found.tuned_threshold.images, found.tuned_threshold.objects) == (2, 6)
    assert found.mask_threshold == found.tuned_threshold.threshold
    assert found.tuned_threshold.iou >= found.tuned_threshold.iou_at_zero
    assert f"logit threshold {found.mask_threshold:g}, best for tuned on 2 validation images" in capsys.readouterr().out
    options(run.root, backends=["tuned", "fp32"], mask_threshold=found.mask_threshold).perform()
    assert result(run).backends["fp32"].iou == found.backends["fp32"].iou
    options(run.root, backends=["tuned", "fp32"], mask_threshold=100.0).perform()
    assert result(run).backends["fp32"].iou == 0


@pytest.mark.usefixtures("quick")
def test_some_images_and_another_file(run: RunDirectory, tmp_path: Path) -> None:
    before = run.report.read_text()
    output = tmp_path / "elsewhere" / "figures.json"
    options(run.root, backends=["fp32"], max_images=2, output=str(output)).perform()
    found = read_backends(output, "")
    assert (found.images, found.objects, found.backends["fp32"].iou_with_torch) == (2, 6, None)
    assert not run.backends.exists()
    assert run.report.read_text() == before


@pytest.mark.usefixtures("quick")
def test_multimask_takes_parts_that_offer_it(run: RunDirectory, single_masks: Path) -> None:
    options(run.root, backends=["tuned", "fp32"], multimask=True).perform()
    found = result(run)
    assert found.backends["fp32"].iou_with_torch >= 0.999
    assert found.multimask
    options(run.root, backends=["tuned", "fp32"]).perform()
    assert result(run).backends["tuned"].iou != found.backends["tuned"].iou
    take_parts(run, single_masks)
    with pytest.raises(ConfigError, match="multimask = true: fp32 gives single masks only; export it again"):
        options(run.root, multimask=True).perform()


@pytest.mark.usefixtures("quick")
def test_measured_once_unless_something_changed(
    run: RunDirectory, single_masks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {"backends": ["tuned", "fp32"]}
    options(run.root, **chosen).perform_once()
    first = result(run)
    capsys.readouterr()
    assert options(run.root, **chosen, fail_under=0.99).perform_once() == 3
    assert "already there" in capsys.readouterr().err
    assert result(run).backends == first.backends
    options(run.root, **chosen, mask_threshold=1.0).perform_once()
    assert result(run).mask_threshold == 1
    take_parts(run, single_masks)
    options(run.root, **chosen, mask_threshold=1.0).perform_once()
    assert result(run).made_from["fp32"] != first.made_from["fp32"]
    run.backends.write_text("{")
    options(run.root, **chosen).perform_once()
    assert result(run).backends["fp32"].iou == pytest.approx(first.backends["fp32"].iou)


@pytest.mark.usefixtures("quick")
def test_labels_that_were_corrected_are_measured_anew_and_named(
    run: RunDirectory, blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(blobs, data)
    write_splits(run, settings_of(run, str(data)).open_data(), {})
    chosen = {"backends": ["fp32"], "data_root": str(data)}
    options(run.root, **chosen).perform_once()
    first, said = result(run), capsys.readouterr().err
    assert "edited" not in said
    labels = data / "annotations" / "instances_test.json"
    values = json.loads(labels.read_text())
    values["annotations"][0]["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    labels.write_text(json.dumps(values))
    options(run.root, **chosen).perform_once()
    assert "labels of test were edited: 'images/test/1.png' after training" in capsys.readouterr().err
    assert result(run).backends["fp32"].iou != first.backends["fp32"].iou
    image = data / "images" / "test" / "1.png"
    image.write_bytes(image.read_bytes() + b"\0")
    with pytest.raises(DataError, match="the images are not those of this run: images of test were edited"):
        options(run.root, **chosen).perform()


# --- files that were handed over -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_parts_alone_equal_those_of_their_run(
    run: RunDirectory, blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options(run.root, backends=["fp16", "bf16"]).perform()
    expected = result(run).backends
    handed = tmp_path / "handed over"
    shutil.copytree(run.openvino("fp16"), handed)
    shutil.rmtree(run.root)
    files = sorted(path.name for path in handed.iterdir())
    for part in ("image_encoder.xml", "mask_decoder.xml", ""):
        output = tmp_path / f"figures of {part}.json"
        assert options(handed / part, data_root=str(blobs), output=str(output)).perform() == 0
        found = read_backends(output, "")
        assert tuple(found.backends) == ("fp16", "bf16")
        for name, entry in found.backends.items():
            assert (entry.iou, entry.dice, entry.map) == (expected[name].iou, expected[name].dice, expected[name].map)
            assert entry.iou_with_torch is None
        assert (found.backends["fp16"].against, found.backends["bf16"].against) == (None, "fp16")
        assert "bf16 loses" in capsys.readouterr().out
    assert sorted(path.name for path in handed.iterdir()) == files


@pytest.mark.usefixtures("quick")
def test_parts_without_output_are_only_printed(
    run: RunDirectory, blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path for path in tmp_path.rglob("*"))
    options(run.openvino("fp32") / "image_encoder.xml", data_root=str(blobs), fail_under=1.0).perform()
    captured = capsys.readouterr()
    assert "figures" not in captured.out
    assert "fail_under = 1 is not reached: mean IoU of fp32" in captured.err
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("quick")
def test_what_becomes_of_a_set_without_splits_is_said(
    run: RunDirectory, blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = shutil.ignore_patterns("val", "test", "instances_val.json", "instances_test.json")
    shutil.copytree(blobs, tmp_path / "data", ignore=absent)
    output = tmp_path / "figures.json"
    chosen = {"data_root": str(tmp_path / "data"), "backends": ["fp32"], "output": str(output)}
    options(run.openvino("fp32") / "image_encoder.xml", **chosen).perform()
    assert "no test split: 1 of 6 training images were set aside for it" in capsys.readouterr().err
    assert read_backends(output, "").images == 1
    options(run.openvino("fp32") / "image_encoder.xml", **chosen, split="train").perform()
    assert (read_backends(output, "").split, read_backends(output, "").images) == ("train", 5)


def test_bad_input_without_a_model(run: RunDirectory, blobs: Path, tmp_path: Path) -> None:
    part = run.openvino("fp16") / "image_encoder.xml"
    for changes, message in (
        ({"run": str(part)}, "IR parts come without images to measure them on; add data_root="),
        ({"run": str(part), "data_root": str(blobs), "base": "x.pth"}, "IR parts need no base weights"),
        ({"run": "latest", "fail_under": 1.5}, "fail_under = 1.5: must be less than or equal to 1"),
        ({"run": "latest", "backends": ["fp33"]}, "did you mean fp32"),
        ({"run": "latest", "backends": []}, "backends = []"),
        ({"run": "latest", "mask_threshold": "tuned"}, "mask_threshold = tuned"),
        ({"run": "latest", "repeats": 0}, "repeats = 0"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            from_conf("evaluate", **changes)
    with pytest.raises(ConfigError, match="backends: int8: not in these files, which offer fp16 and bf16"):
        options(part, data_root=str(blobs), backends=["fp16", "int8"]).perform()
    with pytest.raises(DataError, match="data_root = .*none: no such directory; give the one with"):
        options(part, data_root=str(tmp_path / "none")).perform()
    (run.openvino("fp16") / "mask_decoder.xml").unlink()
    with pytest.raises(AdapterError, match=r"mask_decoder\.xml is missing"):
        options(part, data_root=str(blobs)).perform()
    with pytest.raises(AdapterError, match=r"mask_decoder\.xml is missing; make it again with: .* precision=fp16"):
        options(run.root).perform()
    with pytest.raises(AdapterError, match="no such run directory"):
        options(tmp_path / "none").perform()
    assert not run.backends.exists()


def test_a_back_end_that_was_not_made_names_the_command(run: RunDirectory) -> None:
    with pytest.raises(AdapterError, match=f"python -m lora_sam.quantize run={run.root}"):
        options(run.root, backends=["int8"]).perform()


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_one_line_and_exit_code_2_for_a_mistake(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.root.parent)
    assert run_step("evaluate", "python -m lora_sam.evaluate", ["run=run", "fail_undr=0.7"]) == 2
    assert "unknown key fail_undr; did you mean fail_under?" in capsys.readouterr().err
    assert run_step("evaluate", "python -m lora_sam.evaluate", ["run=run", "backends=[fp32]", "repeats=1"]) == 0
    assert run_step("evaluate", "x", ["run=run", "backends=[fp32]", "repeats=1", "fail_under=1"]) == 3


def test_help_answers_without_torch() -> None:
    code = "import sys; from lora_sam.cli.step import run_step; run_step(sys.argv[1], 'x', ['--help'])"
    for verb in ("evaluate", "deploy"):
        done = subprocess.run(
            [sys.executable, "-c", f"{code}; print('torch' in sys.modules, 'openvino' in sys.modules)", verb],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert "fail_under=null" in done.stdout
        assert done.stdout.endswith("False False\n")


def test_content_is_the_documented_json(run: RunDirectory) -> None:
    """Everything once, memory in a process of its own included."""
    options(run.root, backends=["fp16"]).perform()
    content = json.loads(run.backends.read_text())
    wanted = {"iou", "dice", "f1", "map", "iou_with_torch", "encoder_ms", "decoder_ms", "bytes", "peak_memory_bytes"}
    assert wanted <= content["backends"]["fp16"].keys()
    assert 30e6 < content["backends"]["fp16"]["peak_memory_bytes"] < 1e9
    assert content["host"]["cores"] >= 1
    assert read_backends(run.backends, "").backends["fp16"].iou == content["backends"]["fp16"]["iou"]
    content["backends"]["fp16"]["iou"] += 0.001
    run.backends.write_text(json.dumps(content))
    with pytest.raises(AdapterError, match=r"backends.json is not what was written .*; make it again with: again"):
        read_backends(run.backends, "again")
    del content["digest"]  # one that is older says nothing of it
    run.backends.write_text(json.dumps(content))
    read_backends(run.backends, "")
