"""Where back ends come from: what a run or a pair of files offers, what it refuses, and that all are one model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_sam.core.errors import AdapterError
from lora_sam.core.memory import peak_rss
from lora_sam.core.run_directory import RunDirectory
from lora_sam.core.structures import Prompts
from lora_sam.deployment.peak_memory import main, peak_memory_of
from lora_sam.evaluation.average_precision import encode_masks, pairwise_iou
from lora_sam.evaluation.backends.names import BACK_ENDS, in_order, reference_of
from lora_sam.models.checkpoints import packaged_checkpoint
from lora_sam.runs.backends import PartsBackEnds, RunBackEnds, base_file, open_alone, stored_weights
from lora_sam.runs.resuming import settings_of

FP = ("base", "tuned", "merged", "fp32", "fp16", "bf16")


@pytest.fixture(scope="module")
def whole(exported_run: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def run(exported_run: Callable[[Path], Path], tmp_path: Path) -> RunDirectory:
    return RunDirectory(exported_run(tmp_path / "run"))


def test_names_are_ordered_and_compared_with_what_they_are_made_from() -> None:
    assert in_order(["int8", "base", "int8", "fp32"]) == ("base", "fp32", "int8")
    assert reference_of("int8", BACK_ENDS) == "fp32"
    assert reference_of("int8", ["base", "tuned", "int8"]) == "tuned"
    assert reference_of("fp32", BACK_ENDS) == "tuned"
    assert reference_of("int8_bf16", ["int8", "int8_bf16"]) is None
    assert reference_of("tuned", BACK_ENDS) is None
    for name, back_end in BACK_ENDS.items():
        assert name == back_end.name
        assert name not in back_end.references


def test_all_back_ends_of_a_run_are_one_model(whole: Path) -> None:
    origin = RunBackEnds(RunDirectory(whole))
    assert origin.offered == FP
    origin.require(FP)
    predictors = origin.open(FP, threads=1)
    assert tuple(predictors) == FP
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    prompts = Prompts(boxes=np.float32([[5, 5, 40, 40], [30, 10, 80, 50], [0, 0, 90, 60]]))
    found = {name: predictor.predict(image, prompts) for name, predictor in predictors.items()}
    low = {name: masks.low_res_logits for name, masks in found.items()}
    for name, limit in (("merged", 1e-4), ("fp32", 1e-3), ("fp16", 0.05), ("bf16", 1.0)):
        assert np.abs(low[name] - low["tuned"]).max() < limit, name
        assert pairwise_iou(encode_masks(found[name].masks), encode_masks(found["tuned"].masks)).min() > 0.9, name
    assert np.abs(low["base"] - low["tuned"]).max() > 0.1
    assert [getattr(predictors[name], "execution", "f32") for name in FP[3:5]] == ["f32", "f32"]


@pytest.mark.parametrize("name", FP)
def test_alone_it_is_the_same(whole: Path, name: str) -> None:
    origin = RunBackEnds(RunDirectory(whole))
    together = origin.open(["base", "tuned", name], threads=None)[name]
    alone = open_alone(BACK_ENDS[name], origin.place(name))
    image = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
    prompts = Prompts(boxes=np.float32([[3, 3, 20, 30]]))
    one, other = alone.predict(image, prompts), together.predict(image, prompts)
    np.testing.assert_allclose(one.low_res_logits, other.low_res_logits, atol=1e-5)


def test_an_adapter_that_cannot_be_switched_off(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    import lora_sam.runs.loading as loading

    original = loading.load_adapted
    monkeypatch.setattr(
        loading,
        "load_adapted",
        lambda *args, **kwargs: dataclasses.replace(original(*args, **kwargs), reversible=False),
    )
    opened = RunBackEnds(RunDirectory(whole)).open(["base", "tuned"], threads=None)
    assert opened["base"].sam is not opened["tuned"].sam  # type: ignore[attr-defined]


def test_threads_reach_torch(whole: Path) -> None:
    before = torch.get_num_threads()
    try:
        RunBackEnds(RunDirectory(whole)).open(["base", "tuned"], threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_files_are_all_that_is_needed(whole: Path) -> None:
    origin = RunBackEnds(RunDirectory(whole))
    parts = ["image_encoder.bin", "image_encoder.xml", "mask_decoder.bin", "mask_decoder.xml"]
    assert sorted(path.name for path in origin.files("bf16")) == parts
    assert origin.files("bf16") == origin.files("fp16") != origin.files("fp32")
    assert [path.name for path in origin.files("merged")] == ["sam.safetensors"]
    assert origin.files("base") == ()  # drawn from a seed
    assert {path.name for path in origin.files("tuned")} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "lora_sam.json",
    }


def test_where_the_base_weights_are(run: RunDirectory, tmp_path: Path) -> None:
    settings = settings_of(run)
    assert base_file(settings, None) is None
    assert base_file(settings, tmp_path / "given.pth") == tmp_path / "given.pth"
    content = json.loads(run.saved_config.read_text())
    content["model"] |= {"weights": "pretrained", "variant": "nano"}
    run.saved_config.write_text(json.dumps(content))
    assert base_file(settings_of(run), None) == packaged_checkpoint("nano")
    own = tmp_path / "own.pth"
    own.touch()
    content["model"] |= {"checkpoint": str(own)}
    run.saved_config.write_text(json.dumps(content))
    assert base_file(settings_of(run), None) == own


def test_what_is_not_there_is_not_offered_and_names_its_command(run: RunDirectory) -> None:
    shutil.rmtree(run.openvino("fp32"))
    shutil.rmtree(run.merged)
    origin = RunBackEnds(run)
    assert origin.offered == ("base", "tuned", "fp16", "bf16")
    with pytest.raises(AdapterError, match=f"python -m lora_sam.merge run={run.root}"):
        origin.require(["merged"])


def test_edited_and_stale_parts_are_refused(run: RunDirectory) -> None:
    origin = RunBackEnds(run)
    part = run.openvino("fp16") / "mask_decoder.xml"
    part.write_text(part.read_text() + " ")
    origin.require(["base", "tuned", "merged", "fp32"])
    with pytest.raises(AdapterError, match=r"was changed after it was made; make it again with: .* precision=fp16"):
        origin.require(["bf16"])
    weights = run.adapter / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(AdapterError, match="is stale: it was made from another adapter"):
        origin.require(["fp32"])


def test_digests_change_with_what_they_stand_for(run: RunDirectory) -> None:
    origin = RunBackEnds(run)
    before = origin.digests(["merged", "fp32", "fp16"])
    assert before.keys() == {"adapter", "base", "merged", "fp32", "fp16"}
    manifest = run.openvino("fp16") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"mask_iou"', '"mask_iou "'))
    after = origin.digests(["merged", "fp32", "fp16"])
    assert {name for name in before if before[name] != after[name]} == {"fp16"}


def test_parts_without_a_run_are_recognised(whole: Path, tmp_path: Path) -> None:
    for precision, offered in (("fp32", ("fp32",)), ("fp16", ("fp16", "bf16"))):
        directory = tmp_path / precision
        shutil.copytree(RunDirectory(whole).openvino(precision), directory)
        (directory / "manifest.json").unlink()
        origin = PartsBackEnds(directory)
        assert origin.offered == offered
        origin.require(offered)
        assert tuple(origin.open(offered, threads=1)) == offered
        assert len(origin.digests(offered)) == 4
    (directory / "mask_decoder.bin").unlink()
    with pytest.raises(AdapterError, match="mask_decoder.bin is missing"):
        origin.require(offered)


def test_weights_are_what_most_bytes_are(tmp_path: Path) -> None:
    path = tmp_path / "image_encoder.xml"

    def constants(*found: tuple[str, int]) -> None:
        lines = [f'<data element_type="{kind}" shape="1" offset="0" size="{size}" />' for kind, size in found]
        path.write_text("<net>" + "\n".join([*lines, *layers]) + "</net>")

    layers = ['<layer id="7" name="x" type="FakeQuantize" version="opset1">']
    constants(("i8", 1000), ("f16", 400), ("i64", 5000), ("f32", 80))
    assert stored_weights(path) == "int8"
    layers = []
    constants(("u8", 1000), ("f16", 400))
    assert stored_weights(path) == "int8_weights"
    constants(("u4", 300), ("f16", 200))
    assert stored_weights(path) == "int4_weights"
    constants(("f16", 401), ("f32", 400))
    assert stored_weights(path) == "fp16"
    path.write_text("<svg/>")
    with pytest.raises(AdapterError, match="holds no weights, so it is not an OpenVINO IR"):
        stored_weights(path)
    with pytest.raises(AdapterError, match="cannot be read"):
        stored_weights(tmp_path)


# --- memory ----------------------------------------------------------------------------------------------------------


def test_memory_is_that_of_the_back_end_and_not_of_this_process(whole: Path) -> None:
    run = RunDirectory(whole)
    ballast = np.ones(600_000_000, np.uint8)  # a child would inherit this in ru_maxrss
    assert peak_rss() > len(ballast)
    peaks = {}
    for name, place in (("fp16", run.openvino("fp16")), ("tuned", whole)):
        peaks[name] = peak_memory_of(BACK_ENDS[name], place, (60, 90), base=None, threads=1)
    assert peaks["fp16"] is not None
    assert peaks["tuned"] is not None
    # without torch, OpenVINO takes a fraction
    assert 30e6 < peaks["fp16"] < 0.8 * peaks["tuned"]
    assert peaks["fp16"] < len(ballast)


def test_a_process_that_fails_gives_no_figure(tmp_path: Path) -> None:
    assert peak_memory_of(BACK_ENDS["fp16"], tmp_path, (60, 90), base=None, threads=None) is None


def test_what_the_process_prints(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fp32", str(RunDirectory(whole).openvino("fp32")), "60", "90", "--threads", "1"]) == 0
    assert json.loads(capsys.readouterr().out) == {"peak_memory_bytes": pytest.approx(peak_rss(), rel=0.2)}
