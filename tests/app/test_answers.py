"""What the page is told: states, images, masks, and one sentence for every mistake."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from lora_sam.app.answers import Answers, automatic_settings
from lora_sam.app.backends import backends_of, bytes_of, code_of, why_not
from lora_sam.app.runs import described, find_runs
from lora_sam.app.scene import Scene, to_json
from lora_sam.app.workbench import Workbench
from lora_sam.core.errors import AdapterError, DataError
from lora_sam.core.run_directory import RunDirectory
from lora_sam.evaluation.metrics import mask_iou

MakeScene = Callable[..., Scene]


@pytest.fixture
def answers(bench: Workbench) -> Answers:
    return Answers(bench)


def unpacked(mask: dict[str, object]) -> np.ndarray:
    left, top, width, height = mask["box"]  # type: ignore[misc]
    bits = np.frombuffer(base64.b64decode(str(mask["bits"])), np.uint8)
    made = np.zeros((48, 64), np.bool_)
    made[top : top + height, left : left + width] = np.unpackbits(bits, count=width * height).reshape(height, width)
    return made


def test_the_page_opens_with_the_image_that_gained_most(answers: Answers, bench: Workbench) -> None:
    opening = answers.opening("")
    assert opening["note"] is None
    gains = [tuned - base for base, tuned in (example["iou"] for example in opening["examples"])]
    assert gains == sorted(gains, reverse=True)
    picture = answers.open_picture("", "first")
    assert picture["id"] == opening["examples"][0]["id"]
    assert len(picture["objects"]) == len(picture["truth"]) == 3
    assert picture["url"].startswith("data:image/jpeg;base64,")
    assert (picture["width"], picture["height"]) == (64, 48)


def test_masks_come_as_bits(answers: Answers, bench: Workbench, scene: MakeScene) -> None:
    answer = answers.masks(to_json(scene()), "ticket")
    json.dumps(answer)
    found = bench.compare(scene())
    for plain, column in zip(answer["columns"], found.columns, strict=True):
        for mask, patch in zip(plain["masks"], column.patches, strict=True):
            assert patch is not None
            assert np.array_equal(unpacked(mask), patch.full((48, 64)))
    assert len(answer["table"]) == 2
    ids = [mask["id"] for column in answer["columns"] for mask in column["masks"]]
    again = answers.masks(to_json(scene()), "ticket", " ".join(ids))
    assert [mask for column in again["columns"] for mask in column["masks"]] == [{"id": id} for id in ids]
    assert answers.ahead("ticket") == 0


def test_everything_comes_as_bits(answers: Answers, scene: MakeScene) -> None:
    options = json.dumps({"points_per_side": 2, "predicted_iou": 0, "stability": 0})
    answer = answers.everything(to_json(scene()), options, "ticket")
    assert len(answer["columns"]) == 2
    assert len(answer["columns"][0]["masks"]) >= 1


def test_a_link_leads_back(answers: Answers, scene: MakeScene) -> None:
    text = to_json(scene(alpha=0.25))
    opening = answers.opening(text)
    assert opening["scene"] == json.loads(text)
    gone = answers.opening(to_json(scene(image="upload:123", runs=("unknown",))))
    assert "not here any more" in gone["note"]
    assert gone["scene"]["runs"] == ["first"]
    assert "cannot be read" in answers.opening("{")["note"]


def test_uploads_get_an_image_or_a_sentence(answers: Answers) -> None:
    file = io.BytesIO()
    Image.new("RGB", (30, 20), (1, 2, 3)).save(file, format="PNG")
    answer = answers.upload("a.png", base64.b64encode(file.getvalue()).decode())
    assert (answer["width"], answer["height"], answer["objects"]) == (30, 20, [])
    assert answers.upload("a.png", base64.b64encode(b"text").decode()) == {
        "error": "a.png is damaged or not an image; choose PNG, JPEG, WebP, BMP, GIF or TIFF."
    }
    assert "did not arrive whole" in answers.upload("a.png", "***")["error"]
    assert "larger than 32 MiB" in answers.upload("a.png", "A" * 45_000_000)["error"]


def test_mistakes_are_one_sentence(answers: Answers, scene: MakeScene) -> None:
    for text in ("", "[", to_json(scene(image="test:99")), to_json(scene(runs=("x",)))):
        assert set(answers.masks(text, "t")) == {"error"}
    assert set(answers.open_picture("file:///etc/passwd", "first")) == {"error"}
    assert set(answers.open_picture("", "unknown")) == {"error"}
    assert answers.examples("unknown") == {"examples": [], "trained": {"tool": "+", "note": ""}}


def test_options_of_everything_are_checked() -> None:
    assert automatic_settings('{"points_per_side": 4}').points_per_side == 4
    with pytest.raises(DataError, match="points_per_side: Input should be less than or equal to 64"):
        automatic_settings('{"points_per_side": 1000}')
    with pytest.raises(DataError, match="settings of everything"):
        automatic_settings('{"crops": 1}')


def test_a_failure_while_loading_reaches_the_page(outputs: Path) -> None:
    bench = Workbench(outputs, "first")
    bench.failure = "the weights are gone"
    bench.ready.set()
    assert Answers(bench).opening("") == {"error": "the weights are gone"}


def test_runs_are_found_with_the_latest_first(outputs: Path, finished_run: Callable[..., object]) -> None:
    assert [run.name for run in find_runs(outputs)] == ["second", "first"]
    assert [run.name for run in find_runs(outputs, "first")] == ["first", "second"]
    assert [run.name for run in find_runs(outputs.parent / "outputs" / "first")] == ["first"]
    assert find_runs(outputs / "nothing") == []
    with pytest.raises(AdapterError, match="no such run directory"):
        find_runs(outputs, "missing")
    first = find_runs(outputs, "first")[0]
    assert described(first).startswith("first · tiny_random, lora · IoU 0.")


def test_back_ends_are_offered_that_are_whole_and_of_this_run(
    exported_run: Callable[[Path], Path], tmp_path: Path
) -> None:
    run = RunDirectory(exported_run(tmp_path / "run"))
    found = backends_of(run)
    assert list(found) == ["merged", "openvino fp32", "openvino fp16", "openvino bf16"]
    assert bytes_of(run, "merged") == (run.merged / "sam.safetensors").stat().st_size
    assert bytes_of(run, "openvino fp16") == bytes_of(run, "openvino bf16") < bytes_of(run, "openvino fp32")  # type: ignore[operator]
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    masks = [found[name]().segment(image, boxes=[[5, 6, 30, 28]]).masks for name in ("merged", "openvino fp32")]
    assert mask_iou(*masks).min() > 0.98
    imports, expression = code_of(run, "openvino fp32")
    names: dict[str, object] = {}
    exec("\n".join((*imports, f"predictor = {expression}")), names)  # what a user would do
    predictor = names["predictor"]
    assert np.array_equal(predictor.segment(image, boxes=[[5, 6, 30, 28]]).masks, masks[1])  # type: ignore[attr-defined]
    (run.openvino("fp32") / "mask_decoder.bin").write_bytes(b"changed by hand")
    assert list(backends_of(run)) == ["merged", "openvino fp16", "openvino bf16"]
    with pytest.raises(AdapterError, match=r"mask_decoder.bin was changed after .* make it again with: python"):
        why_not(run, "openvino fp32")
    weights = run.adapter / "adapter_model.safetensors"
    save_file({name: 2 * values for name, values in load_file(weights).items()}, weights)
    assert backends_of(run) == {}  # all were made from another adapter
    with pytest.raises(AdapterError, match="is stale: it was made from another adapter"):
        why_not(run, "openvino fp16")
    why_not(run, "openvino int8")  # was never made
    assert backends_of(RunDirectory(tmp_path / "nothing")) == {}
