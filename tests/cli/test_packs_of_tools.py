"""Packs for tools that people label with, PEFT and Model API: masks are ours, files are as documented."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lora_sam.core.config import from_conf
from lora_sam.core.errors import AdapterError
from lora_sam.core.structures import Prompts
from lora_sam.deployment.packs import hosting, targets
from lora_sam.deployment.packs.hosting import program
from lora_sam.deployment.packs.packing import target_of
from lora_sam.runs.loading import load

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
UPRIGHT = Image.Exif()
UPRIGHT[0x0112] = 6  # orientation: to be turned clockwise
BOX = np.array([3, 4, 40, 30], np.float32)


def pack(run: Path, target: str) -> tuple[dict[str, Any], Path]:
    output = run / "packs" / target
    assert from_conf("pack", run=str(run), target=target).perform() == 0
    told: dict[str, Any] = json.loads((output / "pack.json").read_text())
    return told, output


@pytest.fixture(scope="module")
def run(exported_run: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_run(tmp_path_factory.mktemp("packed") / "run")


@pytest.fixture(scope="module", autouse=True)
def parts_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Parts of the one run here are converted once; each pack gets copies."""
    write, made = hosting.write_parts, tmp_path_factory.mktemp("parts")

    def copies(packed: Any, directory: Path, target: str, *, multimask: bool) -> None:
        if not any(made.iterdir()):
            write(packed, made, target, multimask=multimask)
        for file in made.iterdir():
            shutil.copy(file, directory)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hosting, "write_parts", copies)
        yield


@pytest.fixture(scope="module")
def ours(run: Path) -> np.ndarray[Any, Any]:
    """Our mask of `BOX` in `IMAGE`, tuned."""
    mask: np.ndarray[Any, Any] = load(run).predict(IMAGE, Prompts(boxes=BOX[None])).masks[0]
    assert 0 < mask.mean() < 1
    return mask


def test_each_target_is_a_file_of_its_own() -> None:
    expected = "cvat label_studio micro_sam model_api peft sampredictor transformers x_anylabeling"
    assert targets() == tuple(expected.split())
    assert len({type(target_of(name)) for name in targets()}) == len(targets())


def test_peft_opens_it_on_a_model_of_transformers(run: Path) -> None:
    from peft import PeftModel
    from transformers import SamModel

    told, directory = pack(run, "peft")
    assert told["mask_iou"] >= 0.999
    assert told["opened_by"] == "PeftModel.from_pretrained on SamModel"
    config = json.loads((directory / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    assert all(name.endswith(".attn.qkv") for name in config["target_modules"])
    base: Any = SamModel.from_pretrained(directory / "base", local_files_only=True).eval()
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = base.get_image_embeddings(pixels)
        tuned = PeftModel.from_pretrained(base, str(directory)).eval().base_model.model.get_image_embeddings(pixels)
        wanted = load(run).sam.image_encoder(pixels)
    assert (tuned - wanted).abs().max() < 1e-4
    assert (plain - wanted).abs().max() > 1e-2, "passes without an adapter"


@pytest.mark.parametrize("method", ["decoder", "full", "bitfit"])
def test_peft_takes_what_is_no_lora_as_whole_modules(
    finished_run: Callable[..., Any], tmp_path: Path, method: str
) -> None:
    finished_run(tmp_path / "run", method=method)
    assert from_conf("merge", run=str(tmp_path / "run")).perform() == 0
    told, directory = pack(tmp_path / "run", "peft")
    assert told["mask_iou"] >= 0.999
    assert json.loads((directory / "adapter_config.json").read_text())["modules_to_save"]


def test_model_api_gives_our_masks_of_images_of_any_size(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("model_api", reason="OpenVINO Model API is not installed")
    told, directory = pack(run, "model_api")
    Image.fromarray(IMAGE).save(tmp_path / "flat.png")
    Image.fromarray(np.rot90(IMAGE)).save(tmp_path / "turned.png", exif=UPRIGHT)
    said = []
    for name in ("flat", "turned"):
        # in a process of its own, as it is used: an OpenVINO that is let go takes the stack for signals with it
        command = [sys.executable, str(directory / "use.py"), str(tmp_path / f"{name}.png"), *(f"{x:g}" for x in BOX)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0] == said[1]
    assert "pixels, predicted IoU" in said[0]
    assert told["checked"] == "run"
    assert told["mask_iou"] >= 0.999
    assert told["masks"] > 8
    assert {"use.py", "image_encoder.xml", "image_encoder.bin"} <= told["files"].keys()


def test_x_anylabeling_gets_a_yaml_and_two_files(run: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the optional package onnx is not installed")
    told, directory = pack(run, "x_anylabeling")
    assert (told["checked"], told["host"]) == ("not run", "X-AnyLabeling")
    assert told["mask_iou"] >= 0.999
    config = yaml.safe_load((directory / "lora_sam.yaml").read_text())
    assert config["type"] == "segment_anything"
    assert {"name", "display_name", "input_size", "max_width", "max_height"} <= config.keys()
    encoder = onnx.load(directory / config["encoder_model_path"]).graph
    assert _shape(encoder.input[0]) == [684, 1024, 3]
    decoder = onnx.load(directory / config["decoder_model_path"]).graph
    names = ["image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"]
    assert [port.name for port in decoder.input] == names
    assert decoder.output[0].name == "masks"


def _shape(port: Any) -> list[int]:
    return [axis.dim_value for axis in port.type.tensor_type.shape.dim]


def test_cvat_asks_and_gets_a_mask(run: Path, ours: np.ndarray[Any, Any]) -> None:
    told, directory = pack(run, "cvat")
    assert told["checked"] == "not run"
    assert told["mask_iou"] >= 0.999
    function = yaml.safe_load((directory / "function.yaml").read_text())
    assert function["metadata"]["namespace"] == "cvat"
    facts = function["metadata"]["annotations"]
    assert (facts["type"], facts["version"], facts["startswith_box_optional"]) == ("interactor", 2, True)
    assert function["spec"]["handler"] == "main:handler"
    file = io.BytesIO()
    Image.fromarray(IMAGE).save(file, "png")
    context = SimpleNamespace(user_data=SimpleNamespace(), Response=SimpleNamespace)
    with program(directory, "main.py") as main:
        main.init_context(context)
        body = {"image": base64.b64encode(file.getvalue()).decode(), "pos_points": [], "neg_points": []}
        # drawn from the other corner
        answer = main.handler(context, SimpleNamespace(body={**body, "obj_bbox": [[40, 30], [3, 4]]}))
        nothing = main.handler(context, SimpleNamespace(body={**body, "obj_bbox": None}))
        # as a camera stores it that was held upright
        turned = io.BytesIO()
        Image.fromarray(np.rot90(IMAGE)).save(turned, "png", exif=UPRIGHT)
        upright = {**body, "image": base64.b64encode(turned.getvalue()).decode()}
        same = main.handler(context, SimpleNamespace(body={**upright, "obj_bbox": [[40, 30], [3, 4]]}))
        # with 16 bits Pillow would make it white
        deep = io.BytesIO()
        Image.fromarray(IMAGE[:, :, 0].astype(np.uint16) * 200).save(deep, "png")
        body["image"] = base64.b64encode(deep.getvalue()).decode()
        refused = main.handler(context, SimpleNamespace(body={**body, "obj_bbox": [[40, 30], [3, 4]]}))
    assert (answer.status_code, nothing.status_code, refused.status_code) == (200, 400, 400)
    assert "more than 8 bits" in json.loads(refused.body)["error"]
    assert same.body == answer.body
    mask = np.array(json.loads(answer.body)["mask"])
    assert mask.shape == (48, 64)
    assert (mask == ours).mean() > 0.999
    assert "segmenter" not in sys.modules


@pytest.fixture
def label_studio(monkeypatch: pytest.MonkeyPatch) -> None:
    """What model.py takes of Label Studio's packages, no more."""

    class Base:
        def __init__(self) -> None:
            self.kept: dict[str, str] = {}
            self.setup()

        def setup(self) -> None: ...

        def set(self, key: str, value: str) -> None:
            self.kept[key] = value

        def get_first_tag_occurence(self, control: str, thing: str) -> tuple[str, str, str]:
            assert (control, thing) == ("BrushLabels", "Image")
            return "mask", "image", "image"

        def get_local_path(self, url: str, task_id: int | None = None) -> str:
            return url

    for name, content in {
        "label_studio_ml": {},
        "label_studio_ml.model": {"LabelStudioMLBase": Base},
        "label_studio_sdk": {},
        "label_studio_sdk.converter": {"brush": SimpleNamespace(mask2rle=lambda mask: mask.ravel().tolist())},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("label_studio")
def test_label_studio_asks_and_gets_a_region(run: Path, ours: np.ndarray[Any, Any], tmp_path: Path) -> None:
    told, directory = pack(run, "label_studio")
    assert told["checked"] == "not run"
    assert told["mask_iou"] >= 0.999
    assert {"model.py", "_wsgi.py", "requirements.txt", "Dockerfile", "labels.xml"} <= told["files"].keys()
    Image.fromarray(IMAGE).save(tmp_path / "image.png")
    percent = {"x": 300 / 64, "y": 400 / 48, "width": 3700 / 64, "height": 2600 / 48}
    drawn = {"type": "rectanglelabels", "value": {**percent, "rectanglelabels": ["washer"]}}
    task = {"id": 1, "data": {"image": str(tmp_path / "image.png")}}
    with program(directory, "model.py") as model:
        backend = model.TunedSam()
        (answer,) = backend.predict([task], {"result": [drawn]})
        # the same box, drawn upright from its other upper corner and turned about it
        turned = {"x": 4000 / 64, "y": 400 / 48, "width": 2600 / 64, "height": 3700 / 48, "rotation": 90}
        (again,) = backend.predict([task], {"result": [{**drawn, "value": {**turned, "rectanglelabels": ["washer"]}}]})
        assert again["result"][0]["value"] == answer["result"][0]["value"]
        assert backend.predict([task], {}) == []
        Image.fromarray(IMAGE[:, :, 0].astype(np.uint16) * 200).save(tmp_path / "deep.png")
        with pytest.raises(ValueError, match="has more than 8 bits: save it with 8"):
            backend.predict([{"id": 2, "data": {"image": str(tmp_path / "deep.png")}}], {"result": [drawn]})
    (region,) = answer["result"]
    assert (region["type"], region["from_name"], region["to_name"]) == ("brushlabels", "mask", "image")
    assert (region["original_width"], region["original_height"]) == (64, 48)
    assert region["value"]["brushlabels"] == ["washer"]
    assert (np.array(region["value"]["rle"]).reshape(48, 64) / 255 == ours).mean() > 0.999


@pytest.mark.parametrize("variant", ["sam2_random", "sam3_random"])
@pytest.mark.parametrize(("target", "reason"), [("model_api", "squeezes"), ("x_anylabeling", "squeezed")])
def test_what_a_tool_cannot_take_of_a_squeezed_image_is_said(
    option: Callable[..., Any], tmp_path: Path, target: str, reason: str, variant: str
) -> None:
    from lora_sam.deployment.packs.packing import Packed

    settings = option(f"model/{variant}")
    packed = Packed(run=None, base=settings.build(), state={}, architecture=settings.architecture())  # type: ignore[arg-type]
    with pytest.raises(AdapterError, match=reason):
        target_of(target).write(packed, tmp_path)


@pytest.mark.parametrize(
    ("variant", "target", "message"),
    [
        ("sam2_random", "sampredictor", "SAM 2 wants them squeezed into a square; take target=transformers$"),
        ("sam3_random", "micro_sam", "SAM 3 wants them squeezed into a square; take target=transformers$"),
        ("sam_hq_random", "transformers", r"; take SamPredictor\(lora_sam.merge.plain_sam\(run\)\), or the parts of"),
        ("tiny_vit_random", "transformers", r"; take SamPredictor\(lora_sam.merge.plain_sam\(run\)\), or the parts of"),
    ],
)
def test_what_is_offered_instead_takes_the_family(
    option: Callable[..., Any], tmp_path: Path, variant: str, target: str, message: str
) -> None:
    from lora_sam.deployment.packs.packing import Packed
    from lora_sam.models.family import why_not

    settings = option(f"model/{variant}")
    packed = Packed(run=None, base=settings.build(), state={}, architecture=settings.architecture())  # type: ignore[arg-type]
    with pytest.raises(AdapterError, match=message):
        target_of(target).write(packed, tmp_path)
    offered = "transformers" if target != "transformers" else "SamPredictor"
    assert why_not(settings.architecture(), offered) is None
