"""Quantising by NNCF: what is written, what it loses, the ladder, and every mistake one line with its remedy."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_sam.cli.quantize import made_from
from lora_sam.cli.step import run_step
from lora_sam.core.config import step_from
from lora_sam.core.errors import AdapterError
from lora_sam.core.run_directory import RunDirectory
from lora_sam.core.structures import Prompts
from lora_sam.deployment.quantizing.ladder import PATCHES, Attempt, Rung, Rungs, best, climb, encoder_rungs
from lora_sam.predictors.openvino_parts import DECODER, ENCODER, openvino_core, openvino_directory, quiet_openvino
from lora_sam.predictors.openvino_predictor import OpenVINOPredictor
from lora_sam.runs.quantized import require_quantized

ROOT = Path(__file__).resolve().parents[2]


def quantize(run: Path, **changes: Any) -> int:
    import yaml

    values = yaml.safe_load((ROOT / "conf" / "quantize.yaml").read_text())
    del values["defaults"]
    return int(step_from({**values, "run": str(run), "subset": 4, **changes}).perform())


@pytest.fixture(scope="module")
def quantized(exported_run: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with INT8 parts; the images are random to it, so any drop is allowed."""
    run = exported_run(tmp_path_factory.mktemp("quantized") / "run")
    assert quantize(run, max_drop=100) == 0
    return run


@pytest.fixture(scope="module")
def both_quantized(exported_run: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, its decoder in INT8 as well."""
    run = exported_run(tmp_path_factory.mktemp("both") / "run")
    assert quantize(run, decoder=True, max_drop=100) == 0
    return run


def manifest(run: Path, mode: str = "int8") -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run / "openvino" / mode / "manifest.json").read_text())
    return values


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.glob("*.bin")}


def test_the_encoder_computes_in_int8_and_the_decoder_does_not(quantized: Path) -> None:
    directory = require_quantized(RunDirectory(quantized))
    kinds = {name: (directory / f"{name}.xml").read_text() for name in ("image_encoder", "mask_decoder")}
    assert kinds["image_encoder"].count('type="FakeQuantize"') > 10
    assert 'type="FakeQuantize"' not in kinds["mask_decoder"]
    int8, fp16 = ((quantized / "openvino" / name / "image_encoder.bin").stat().st_size for name in ("int8", "fp16"))
    assert int8 < 0.75 * fp16  # positions and the patch embedding are a large part of so small a model


def test_masks_stay_close_and_the_manifest_tells_what_was_lost(quantized: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    boxes = [[3, 4, 40, 30], [10, 2, 30, 44]]
    fp32, int8 = (
        OpenVINOPredictor(*openvino_directory(quantized / "openvino" / name), compile_cache=False).segment(
            image, boxes=boxes
        )
        for name in ("fp32", "int8")
    )
    difference = np.abs(int8.low_res_logits - fp32.low_res_logits).max()
    # of random weights; without VNNI sums of products saturate, and a third of the largest logit was seen
    assert 0 < difference < 0.45 * np.abs(fp32.low_res_logits).max()
    checks = manifest(quantized)["checks"]
    assert checks["calibration_images"] == 4
    assert checks["images"] == 2
    assert checks["decoder"] == "floating point"
    assert checks["drop"] == pytest.approx(100 * (checks["iou_fp32"] - checks["iou"]))
    assert checks["rung"] in checks["tried"][0]


def test_model_api_segments_with_int8_parts(quantized: Path) -> None:
    """Masks and scores of its SAMVisualPrompter are those of the best mask that our predictor has of the same files."""
    quiet_openvino()
    from model_api.adapters import OpenvinoAdapter
    from model_api.models import Model
    from model_api.models.visual_prompting import Prompt, SAMVisualPrompter

    directory = quantized / "openvino" / "int8"
    parts = [Model.create_model(OpenvinoAdapter(openvino_core(), str(directory / name))) for name in (ENCODER, DECODER)]
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)  # of the input's own size
    boxes = np.array([[3, 4, 40, 30], [10, 2, 30, 44]], np.float32)
    points = np.array([[20, 30], [40, 12]], np.float32)
    found = SAMVisualPrompter(*parts)(
        image, boxes=[Prompt(box, 1) for box in boxes], points=[Prompt(point, 1) for point in points]
    )
    ours = OpenVINOPredictor(*openvino_directory(directory), execution="f32", compile_cache=False)
    wanted = [
        ours.predict_all(image, Prompts(boxes=boxes)),
        ours.predict_all(image, Prompts(points=points[:, None], labels=np.ones((2, 1), np.int64))),
    ]
    for row in range(4):
        logits, scores = wanted[row // 2].logits[row % 2, 1:], wanted[row // 2].scores[row % 2, 1:]
        full = np.flatnonzero((logits > 0).any(axis=(1, 2)))  # it leaves out empty masks
        best = full[scores[full].argmax()]
        assert 0 < found.processed_mask[row].mean() < 1
        assert (found.processed_mask[row] == (logits[best] > 0)).mean() > 0.95  # it pads before it normalises
        assert found.best_iou[row] == pytest.approx(np.clip(scores[best], 0, 1), abs=0.03)


def test_done_once_and_the_same_bytes_again(
    quantized: Path, both_quantized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantize(quantized, max_drop=100) == 0
    assert "already there" in capsys.readouterr().out
    once, again = (digests(run / "openvino" / "int8") for run in (quantized, both_quantized))
    assert once["image_encoder.bin"] == again["image_encoder.bin"]  # what becomes of the decoder makes no difference
    assert once["mask_decoder.bin"] != again["mask_decoder.bin"]


def test_weights_only(exported_run: Callable[[Path], Path], tmp_path: Path) -> None:
    run = exported_run(tmp_path / "run")
    assert quantize(run, mode="int8_weights", max_drop=None) == 0
    assert manifest(run, "int8_weights")["checks"]["calibration_images"] == 0
    text = (require_quantized(RunDirectory(run), "int8_weights") / "image_encoder.xml").read_text()
    assert 'type="FakeQuantize"' not in text
    assert 'element_type="u8"' in text or 'element_type="i8"' in text


def test_the_decoder_too(both_quantized: Path) -> None:
    directory = require_quantized(RunDirectory(both_quantized))
    assert 'type="FakeQuantize"' in (directory / "mask_decoder.xml").read_text()
    assert manifest(both_quantized)["checks"]["decoder"] != "floating point"


def test_too_large_a_loss_writes_nothing(
    exported_run: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from lora_sam.deployment.quantizing import attempts

    run = exported_run(tmp_path / "run")
    monkeypatch.setattr(attempts, "encoder_rungs", lambda ends: Rungs((Rung("a"), Rung("b", 0.5))))
    monkeypatch.setattr(attempts, "quantized", lambda model, *_: model)  # what is lost is said below
    losses = iter([7.13, 3.14])
    monkeypatch.setattr(attempts.Scale, "drop", lambda *_: next(losses))
    assert quantize(run) == 3
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: int8 loses 3.14 points of IoU at best (b), and max_drop = 0.5; nothing was written")
    assert "max_drop=3.2, or compress weights only with mode=int8_weights" in error
    assert not (run / "openvino" / "int8").exists()
    assert not list((run / "openvino").glob(".*"))


def test_other_labels_are_another_origin(
    exported_run: Callable[[Path], Path], option: Callable[..., Any], blobs: Path, tmp_path: Path
) -> None:
    run = RunDirectory(exported_run(tmp_path / "run"))
    shutil.copytree(blobs, tmp_path / "data")

    def origin() -> dict[str, str]:
        return made_from(run, option("data/coco", root=str(tmp_path / "data")).open(0))

    first = origin()
    labels = tmp_path / "data" / "annotations" / "instances_val.json"
    values = json.loads(labels.read_text())
    values["annotations"][0]["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    labels.write_text(json.dumps(values))
    assert [name for name, digest in origin().items() if digest != first[name]] == ["data"]


# --- the ladder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "tries"), [(1.0, 1), (0.65, 3), (0.5, 5), (0.0, 7), (None, 1)])
def test_the_ladder_ends_at_the_first_rung_that_is_good_enough(limit: float | None, tries: int) -> None:
    drops = iter([0.9, 0.8, 0.6, 0.7, 0.5, 0.4, 0.3])
    tried = climb(encoder_rungs(("blocks.0", "blocks.11")), lambda rung: next(drops), limit)
    assert len(tried) == tries
    assert best(tried) is tried[-1]
    assert all(PATCHES in attempt.rung.in_float for attempt in tried)
    if tries > 4:  # the rungs after SmoothQuant go on with the best exponent, that of the third
        assert {attempt.rung.alpha for attempt in tried[4:]} == {tried[2].rung.alpha}
    if tries == 7:
        assert tried[-1].rung.controlled


def test_the_best_attempt_is_kept_not_the_last() -> None:
    tried = [Attempt(Rung(name), drop) for name, drop in (("a", 3.0), ("b", 1.0), ("c", 2.0))]
    assert best(tried).rung.name == "b"


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mode=int2",), "error: mode = int2: must be one of int8, int8_weights, int4_weights"),
        (("max_dorp=1",), "error: unknown key max_dorp; did you mean max_drop?"),
        (("subset=0",), "error: subset = 0: must be greater than or equal to 1"),
        (("run=nowhere",), "error: nowhere: no such run directory"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_step("quantize", "python -m lora_sam.quantize", arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(message), error


def test_without_the_fp32_parts_or_with_changed_ones(exported_run: Callable[[Path], Path], tmp_path: Path) -> None:
    run = exported_run(tmp_path / "run")
    part = run / "openvino" / "fp32" / "image_encoder.bin"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(AdapterError, match=r"image_encoder\.bin was changed.*lora_sam\.export .*precision=fp32"):
        quantize(run)
    shutil.rmtree(run / "openvino" / "fp32")
    with pytest.raises(AdapterError, match=r"not there yet; make it with: python -m lora_sam\.export"):
        quantize(run)


def test_a_subset_larger_than_the_split_takes_all(
    exported_run: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from lora_sam.deployment.quantizing import attempts

    run = exported_run(tmp_path / "run")
    given: list[int] = []
    monkeypatch.setattr(attempts, "quantized", lambda model, examples, *_: given.append(len(examples)) or model)
    assert quantize(run, subset=99, max_drop=None) == 0
    assert "subset = 99: the training split has 6 images, all of them are used" in capsys.readouterr().err
    assert given == [6]
    assert manifest(run)["checks"]["calibration_images"] == 6
    assert manifest(run)["checks"]["drop"] is None


def test_parts_of_another_merge_are_stale(quantized: Path, tmp_path: Path) -> None:
    shutil.copytree(quantized, tmp_path / "run")
    path = tmp_path / "run" / "openvino" / "int8" / "manifest.json"
    values = json.loads(path.read_text())
    values["made_from"]["merged"] = "0" * 64
    path.write_text(json.dumps(values))
    with pytest.raises(AdapterError, match="is stale: it was made from another merged"):
        require_quantized(RunDirectory(tmp_path / "run"))
