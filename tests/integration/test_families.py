"""A run on each family beside the plain ViT, from training to INT8: every step that a run on a plain ViT has."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from safetensors.torch import load_file
from transformers import Sam2Model, Sam2Processor, Sam3TrackerModel, Sam3TrackerProcessor

from lora_sam import load
from lora_sam.app.scene import Scene
from lora_sam.app.workbench import Workbench
from lora_sam.cli.jobs import plain
from lora_sam.cli.run import run
from lora_sam.core.config import from_conf, step_from
from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.frame import Frame
from lora_sam.core.run_directory import RunDirectory
from lora_sam.core.structures import Prompts
from lora_sam.data.reading.coco_masks import EncodedMasks
from lora_sam.data.reading.images import read_image
from lora_sam.data.transforms import preprocess
from lora_sam.deployment.merging import plain_sam
from lora_sam.deployment.quantizing.compression import ends_of, read
from lora_sam.deployment.quantizing.ladder import encoder_rungs
from lora_sam.evaluation.metrics import mask_iou
from lora_sam.models.family import family_of, frame_of, why_not
from lora_sam.models.sam3 import GREY
from lora_sam.predictors.automatic import AutomaticMasks
from lora_sam.predictors.openvino_parts import (
    DECODER,
    ENCODER,
    frame_in,
    openvino_core,
    openvino_directory,
    quiet_openvino,
    read_part,
)
from lora_sam.predictors.openvino_predictor import OpenVINOPredictor
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.prompts.objects import ObjectPrompts
from lora_sam.runs.merged import load_merged
from lora_sam.training.settings import settings_from

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM: dict[str, Any] = {
    "sam2": (Sam2Model, Sam2Processor),
    "sam3": (Sam3TrackerModel, Sam3TrackerProcessor),
}
QUICK = ["trainer.device=cpu", "tracker=none", "trainer.max_epochs=null"]
VARIANTS = {"tiny_vit": "tiny_vit_random", "sam2": "sam2_random", "sam3": "sam3_random", "sam_hq": "sam_hq_random"}
# the fewest blocks that have every step: a first, a last, and with most a middle one. Compiling and calibrating the
# parts is what takes long here, and grows with them
FEW_BLOCKS: dict[str, dict[str, Any]] = {
    "tiny_vit": {"depths": [1, 1, 1, 1]},
    "sam2": {"stages": [1, 1, 2, 1], "global_attention": [3]},
    "sam3": {"depth": 3, "global_attention": [1]},
    "sam_hq": {"depth": 2},
}

PARTS = (ENCODER, DECODER)


def composed(blobs: Path, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return plain(compose("train", [*QUICK, f"data.root={blobs}", *overrides]))


def train(blobs: Path, directory: Path, *overrides: str) -> Path:
    config = composed(blobs, *overrides)
    run(settings_from(config), config=config, output_dir=directory)
    return directory


def few_blocks(family: str) -> list[str]:
    return [f"model.{name}={value}" for name, value in FEW_BLOCKS[family].items()]


def perform(verb: str, directory: Path, **changes: Any) -> int:
    import yaml

    values = yaml.safe_load((ROOT / "conf" / f"{verb}.yaml").read_text())
    del values["defaults"]
    return int(step_from({**values, "run": str(directory), **changes}).perform())


@pytest.fixture(scope="module", params=VARIANTS)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def deployed(family: str, blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an adapter on late blocks, what was frozen cached; merged, exported and made INT8."""
    directory = tmp_path_factory.mktemp(family) / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory.parent)
        changes = ["method.blocks=last:1", "augmentation=none", "trainer.max_steps=3", "optim.lr=0.01"]
        changes += ["trainer.least_rise=0", "trainer.overlays=0"]  # two images say little of what three steps learn
        train(blobs, directory, f"model={VARIANTS[family]}", *few_blocks(family), *changes)
        assert perform("merge", directory) == 0
        assert perform("export", directory, precision="fp32") == 0
        assert perform("export", directory, precision="fp16", min_iou=0.99) == 0
        assert perform("quantize", directory, subset=2, max_drop=100) == 0
    return directory


@pytest.fixture(scope="module")
def tuned(deployed: Path) -> TorchPredictor:
    """The run as it is loaded; nothing here changes it."""
    return load(deployed)


@pytest.fixture(scope="module")
def exported(deployed: Path) -> OpenVINOPredictor:
    """Its parts in fp32."""
    return OpenVINOPredictor(*openvino_directory(deployed / "openvino" / "fp32"), compile_cache=False)


def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (50, 64, 3), np.uint8)


def every_kind() -> dict[str, Prompts]:
    boxes = np.array([[3, 4, 40, 30], [10, 2, 30, 44], [1, 1, 60, 45]], np.float32)
    points = boxes[:, None, :2] + np.array([[2, 3], [9, 8]], np.float32)
    labels = np.array([[1, 0], [1, 1], [1, -1]])
    rough = np.random.default_rng(0).normal(0, 5, (3, 16, 16)).astype(np.float32)
    return {
        "boxes": Prompts(boxes=boxes),
        "one box": Prompts(boxes=boxes[:1]),
        "points": Prompts(points=points, labels=labels),
        "boxes and points": Prompts(boxes=boxes, points=points, labels=labels),
        "boxes and masks": Prompts(boxes=boxes, mask_inputs=rough),
    }


def test_the_adapter_says_its_family_and_loads(family: str, deployed: Path) -> None:
    facts = json.loads((deployed / "adapter" / "lora_sam.json").read_text())
    assert facts["architecture"]["family"] == family
    predictor = load(deployed)
    assert family_of(predictor.sam.image_encoder).name == family
    masks = predictor.segment(picture(), boxes=[[3, 4, 40, 30]])
    assert masks.masks.shape == (1, 50, 64)


def test_merged_weights_load_strictly_where_they_came_from(
    family: str, deployed: Path, tuned: TorchPredictor, option: Callable[..., Any]
) -> None:
    state = load_file(deployed / "merged" / "sam.safetensors")
    upstream = option(f"model/{VARIANTS[family]}", **FEW_BLOCKS[family]).empty()
    assert state.keys() == family_of(upstream.image_encoder).published(upstream.state_dict()).keys()
    merged = load_merged(RunDirectory(deployed))
    found = TorchPredictor(merged.sam, merged.image_size)
    for prompts in every_kind().values():
        wanted, masks = (predictor.predict(picture(), prompts) for predictor in (tuned, found))
        assert np.abs(wanted.low_res_logits - masks.low_res_logits).max() <= 1e-4
    checks = json.loads((deployed / "merged" / "manifest.json").read_text())["checks"]
    assert checks["merged"]["largest_logit_difference"] <= 1e-4


@pytest.mark.parametrize("family", ["tiny_vit"], indirect=True)
def test_merged_weights_have_the_names_of_mobile_sam(
    deployed: Path, tuned: TorchPredictor, option: Callable[..., Any]
) -> None:
    state = load_file(deployed / "merged" / "sam.safetensors")
    option("model/tiny_vit_random", **FEW_BLOCKS["tiny_vit"]).empty().load_state_dict(state, strict=True)
    assert state["image_encoder.layers.0.blocks.0.conv1.bn.num_batches_tracked"].dtype == torch.int64
    plain_one = TorchPredictor(plain_sam(RunDirectory(deployed)), 64)
    wanted, found = (predictor.predict(picture(), every_kind()["points"]) for predictor in (tuned, plain_one))
    assert np.abs(wanted.low_res_logits - found.low_res_logits).max() <= 1e-4


@pytest.mark.parametrize("kind", every_kind())
def test_exported_parts_compute_what_torch_computes(
    tuned: TorchPredictor, exported: OpenVINOPredictor, kind: str
) -> None:
    wanted, found = (predictor.predict(picture(), every_kind()[kind]) for predictor in (tuned, exported))
    assert np.abs(wanted.low_res_logits - found.low_res_logits).max() < 1e-4
    assert mask_iou(wanted.masks, found.masks).mean() >= 0.999


def test_int8_stays_close(deployed: Path, exported: OpenVINOPredictor) -> None:
    compressed = OpenVINOPredictor(*openvino_directory(deployed / "openvino" / "int8"), compile_cache=False)
    fp32, int8 = (predictor.predict(picture(), every_kind()["boxes"]) for predictor in (exported, compressed))
    difference = np.abs(int8.low_res_logits - fp32.low_res_logits).max()
    # of random weights; without VNNI sums of products saturate, and a third of the largest logit was seen
    assert 0 < difference < 0.45 * np.abs(fp32.low_res_logits).max()
    text = (deployed / "openvino" / "int8" / "image_encoder.xml").read_text()
    assert text.count('type="FakeQuantize"') > 10


def test_the_app_shows_base_and_tuned(deployed: Path, tuned: TorchPredictor) -> None:
    bench = Workbench(deployed.parent, deployed.name)
    bench.load()
    assert bench.failure is None
    objects = (ObjectPrompts(box=(5.0, 6.0, 30.0, 28.0)), ObjectPrompts(points=((40.0, 20.0, 1), (10.0, 40.0, 0))))
    found = bench.compare(Scene(image="test:0", objects=objects, runs=(deployed.name,)))
    assert [column.label for column in found.columns] == ["base", "tuned"]
    image, predictor = found.picture.image, tuned
    box = predictor.segment(image, boxes=[[5, 6, 30, 28]])
    points = predictor.segment(image, points=[[[40, 20], [10, 40]]], labels=[[1, 0]])
    expected = np.concatenate([box.masks, points.masks])
    patches = found.columns[1].patches
    shown = np.stack([np.zeros(image.shape[:2], np.bool_) if p is None else p.full(image.shape[:2]) for p in patches])
    assert np.array_equal(shown, expected)


# SAM-HQ lays images as TinyViT does
@pytest.mark.parametrize("family", ["tiny_vit", "sam2", "sam3"], indirect=True)
def test_the_predict_command_finds_what_the_library_finds(
    deployed: Path, tuned: TorchPredictor, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = json.loads((blobs / "annotations" / "instances_test.json").read_text())
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    where = {"run": str(deployed), "source": str(blobs / "images" / "test"), "prompts": "boxes.json"}
    for backend in ("torch", "fp16"):
        step = from_conf("predict", **where, output=backend, backend=backend)
        assert step.perform() == 0
    first = content["images"][0]
    boxes = [one["bbox"] for one in content["annotations"] if one["image_id"] == first["id"]]
    corners = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    expected = tuned.segment(read_image(blobs / "images" / "test" / first["file_name"]), boxes=corners)
    written = json.loads((tmp_path / "torch" / "coco.json").read_text())
    (image,) = [one for one in written["images"] if one["file_name"] == first["file_name"]]
    rles = [one["segmentation"]["counts"].encode() for one in written["annotations"] if one["image_id"] == image["id"]]
    found = EncodedMasks(tuple(rles)).read((image["height"], image["width"]))
    assert np.array_equal(found, expected.masks[expected.masks.any(axis=(1, 2))])
    assert (tmp_path / "fp16" / "coco.json").is_file()


def test_the_first_and_the_last_block_are_those_of_all_stages(family: str, deployed: Path) -> None:
    encoder = read(deployed / "openvino" / "fp32" / "image_encoder.xml")
    ends = {
        "tiny_vit": ("layers.1.blocks.0", "layers.3.blocks.0"),
        "sam2": ("blocks.0", "blocks.4"),
        "sam3": ("layers.0", "layers.2"),
        "sam_hq": ("blocks.0", "blocks.1"),
    }[family]
    assert ends_of(encoder) == ends
    pattern = encoder_rungs(ends_of(encoder)).then[1].in_float[-1]
    names = {op.get_friendly_name() for op in encoder.get_ops()}
    kept = {name.split(".mlp.")[0] for name in names if re.fullmatch(pattern, name)}
    assert kept
    assert all(name.endswith(ends) for name in kept)
    assert all(any(name.endswith(end) for name in kept) for end in ends)


def test_masks_without_prompts(deployed: Path, tuned: TorchPredictor) -> None:
    settings = AutomaticMasks(points_per_side=4, predicted_iou=0, stability=0)
    found = settings.generate(tuned, picture())
    assert len(found.masks) > 0
    assert found.masks.shape[1:] == (50, 64)


@pytest.mark.parametrize("family", ["tiny_vit", "sam_hq"], indirect=True)
def test_what_transformers_does_not_have_is_refused(family: str, deployed: Path) -> None:
    why = {"tiny_vit": "no SAM with a TinyViT", "sam_hq": "an image that its attention has not changed"}[family]
    with pytest.raises(AdapterError, match=rf"format = transformers: .* {why}; leave format out"):
        perform("merge", deployed, format="transformers")


def test_onnx_parts_compute_what_torch_computes(deployed: Path, tuned: TorchPredictor) -> None:
    """The file alone says whether images are padded or squeezed, and their colours."""
    pytest.importorskip("onnx", reason="the optional package onnx is not installed")
    assert perform("export", deployed, format="onnx", precision="fp32") == 0
    checks = json.loads((deployed / "onnx" / "manifest.json").read_text())["checks"]
    assert checks["mask_iou"] >= 0.9999
    assert checks["logit_difference"] <= 1e-4
    path = deployed / "onnx" / "image_encoder.onnx"
    assert frame_in(read_part(path), path) == frame_of(tuned.sam)


@pytest.mark.parametrize("family", ["tiny_vit", "sam_hq"], indirect=True)
def test_model_api_opens_both_parts(deployed: Path, tuned: TorchPredictor) -> None:
    quiet_openvino()
    from model_api.adapters import OpenvinoAdapter
    from model_api.models import Model
    from model_api.models.visual_prompting import Prompt, SAMVisualPrompter

    place = deployed / "openvino" / "fp32"
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    encoder, decoder = (
        Model.create_model(OpenvinoAdapter(openvino_core(), str(place / name), plugin_config=exact)) for name in PARTS
    )
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)  # its way to resize does not matter then
    box = np.array([3, 4, 40, 30], np.float32)
    found = SAMVisualPrompter(encoder, decoder)(image, boxes=[Prompt(box, 1)])
    wanted = tuned.predict_all(image, Prompts(boxes=box[None]))
    assert np.abs(found.low_res_masks[0] - wanted.low_res_logits).max() < 1e-4


@pytest.mark.parametrize("family", ["sam2", "sam3"], indirect=True)
def test_merged_for_transformers_is_the_same_model(
    family: str, deployed: Path, tuned: TorchPredictor, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(deployed, run)
    assert perform("merge", run, format="transformers") == 0
    checks = json.loads((run / "merged" / "manifest.json").read_text())["checks"]["transformers"]
    assert checks["largest_logit_difference"] <= 1e-4
    assert checks["mean_mask_iou"] >= 0.9999
    model_class, processor_class = UPSTREAM[family]
    model, notes = model_class.from_pretrained(run / "merged" / "transformers", output_loading_info=True)
    assert not any(notes.values())
    processor = processor_class.from_pretrained(run / "merged" / "transformers")
    box = [3.0, 4.0, 40.0, 30.0]
    inputs = processor(images=picture(), input_boxes=[[box]], return_tensors="pt")
    with torch.no_grad():
        found = model(**inputs, multimask_output=False).pred_masks[0, 0, 0].numpy()
    wanted = tuned.predict(picture(), Prompts(boxes=np.array([box], np.float32)))
    # images are rounded to grey levels in other places
    assert np.abs(found - wanted.low_res_logits[0]).max() < 0.02 * np.abs(found).max()


@pytest.mark.parametrize("family", ["sam2", "sam3"], indirect=True)
def test_what_sam_2_cannot_do_is_refused_by_name(family: str, deployed: Path, blobs: Path, tmp_path: Path) -> None:
    architecture = json.loads((deployed / "adapter" / "lora_sam.json").read_text())["architecture"]
    assert "Model API scales prompts by the longer side" in str(why_not(architecture, "model_api"))
    assert "X-AnyLabeling pads images" in str(why_not(architecture, "x_anylabeling"))
    with pytest.raises(AdapterError, match=r"SamPredictor pads images, .*; use lora_sam.load"):
        plain_sam(RunDirectory(deployed))
    with pytest.raises(ConfigError, match=r"method.frame = 128: SAM [23] squeezes images .*; leave method.frame out"):
        train(
            blobs,
            tmp_path / "run",
            f"model={VARIANTS[family]}",
            "method=full",
            "method.frame=128",
            "trainer.max_steps=1",
        )


@pytest.mark.parametrize("family", ["sam2", "sam3"], indirect=True)
def test_files_say_that_images_are_squeezed(family: str, deployed: Path) -> None:
    """What is exported of this family is told apart from the first SAM's by the file alone, INT8 too."""
    for name in ("fp32", "fp16", "int8"):
        path = deployed / "openvino" / name / "image_encoder.xml"
        frame = Frame(64, True) if family == "sam2" else Frame(64, True, 8, GREY, GREY)
        assert frame_in(read(path), path) == frame
        assert f'model_type value="{family}_image_encoder"' in path.read_text()


@pytest.mark.parametrize("family", ["tiny_vit", "sam2", "sam3"], indirect=True)
def test_the_example_of_the_documentation_looks_at_images_as_the_family_does(
    deployed: Path, tuned: TorchPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With OpenVINO and NumPy alone, from what the files say."""
    Image.fromarray(picture()).save(tmp_path / "image.png")
    words = [str(deployed / "openvino" / "fp32"), str(tmp_path / "image.png"), "3", "4", "40", "30"]
    monkeypatch.setattr(sys, "argv", ["segment_openvino.py", *words, str(tmp_path / "mask.png")])
    found = runpy.run_path(str(ROOT / "examples" / "segment_openvino.py"))
    pixels = preprocess(picture(), frame_of(tuned.sam)).numpy()
    assert np.abs(found["images"][0] - pixels).max() < 1e-5
    wanted = tuned.segment(picture(), boxes=[[3, 4, 40, 30]]).masks[0]
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    assert mask.shape == wanted.shape
    assert (mask == wanted).mean() > 0.98  # the CPU may have computed it in bf16
