"""The exported parts: equal to torch for every kind of prompt and size, readable by OpenVINO Model API and as ONNX."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.errors import AdapterError, ConfigError, DataError
from lora_sam.core.structures import Prompts
from lora_sam.deployment.ir_parts import PromptedDecoder, decoder_ir, encoder_ir, save_ir
from lora_sam.deployment.onnx_parts import save_onnx
from lora_sam.models.decoding import decode_all_masks
from lora_sam.predictors.openvino_parts import DECODER, ENCODER, openvino_core, openvino_directory, quiet_openvino
from lora_sam.predictors.openvino_predictor import OpenVINOPredictor
from lora_sam.predictors.torch_predictor import TorchPredictor

ROOT = Path(__file__).resolve().parents[2]
SIZES = [(48, 64), (64, 50), (100, 150), (64, 64), (1, 9), (37, 1000)]
RNG = np.random.default_rng(0)
LOW_RES = RNG.normal(0, 5, (3, 16, 16)).astype(np.float32)


def picture(size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)


def prompts(kind: str, size: tuple[int, int]) -> Prompts:
    height, width = size
    scale = np.array([width, height] * 2, np.float32)
    boxes = np.array([[0.1, 0.1, 0.6, 0.7], [0, 0, 1, 1], [0.3, 0.5, 0.35, 0.9]], np.float32) * scale
    points = (
        np.array([[[0.2, 0.3], [0.9, 0.9]], [[0.5, 0.5], [0, 0]], [[0.1, 0.7], [0.4, 0.2]]], np.float32) * scale[:2]
    )
    labels = np.array([[1, 0], [1, 1], [1, -1]])
    return {
        "boxes": Prompts(boxes=boxes),
        "one point": Prompts(points=points[:, :1], labels=labels[:, :1]),
        "points": Prompts(points=points, labels=labels),
        "boxes and points": Prompts(boxes=boxes, points=points, labels=labels),
        "points and masks": Prompts(points=points, labels=labels, mask_inputs=LOW_RES),
        "boxes and masks": Prompts(boxes=boxes, mask_inputs=LOW_RES),
    }[kind]


KINDS = ["boxes", "one point", "points", "boxes and points", "points and masks", "boxes and masks"]


@pytest.fixture(scope="module")
def sam(option: Callable[..., Any]) -> Any:
    return option("model/tiny_random").build().sam


@pytest.fixture(scope="module")
def parts(sam: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Directory of the parts, made once for each way of saving them."""
    made: dict[tuple[bool, bool], Path] = {}

    def make(*, half: bool = False, multimask: bool = False) -> Path:
        key = half, multimask
        if key not in made:
            made[key] = tmp_path_factory.mktemp("parts")
            save_ir(encoder_ir(sam, 64), made[key] / "image_encoder.xml", half=half)
            save_ir(decoder_ir(sam, 64, multimask=multimask), made[key] / "mask_decoder.xml", half=half)
        return made[key]

    return make


@pytest.fixture(scope="module")
def exported(parts: Callable[..., Path]) -> Callable[..., OpenVINOPredictor]:
    compiled: dict[Any, OpenVINOPredictor] = {}

    def make(*, chunk: int = 16, **how: bool) -> OpenVINOPredictor:
        key = chunk, *sorted(how.items())
        if key not in compiled:
            compiled[key] = OpenVINOPredictor(*openvino_directory(parts(**how)), compile_cache=False, chunk=chunk)
        compiled[key].forget()
        return compiled[key]

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_torch(sam: Any, exported: Callable[..., Any], size: tuple[int, int], kind: str) -> None:
    image, given = picture(size), prompts(kind, size)
    torch_predictor = TorchPredictor(sam, 64)
    for multimask in (False, True):
        found = exported(multimask=True, chunk=2).predict(image, given, multimask=multimask)
        wanted = torch_predictor.predict(image, given, multimask=multimask)
        assert np.abs(found.low_res_logits - wanted.low_res_logits).max() < 1e-4
        assert np.abs(found.scores - wanted.scores).max() < 1e-4
        assert found.masks.shape == (3, *size)
        assert (found.masks == wanted.masks).mean() > 0.999
    every, all_wanted = exported(multimask=True).predict_all(image, given), torch_predictor.predict_all(image, given)
    assert every.logits.shape == (3, 4, *size)
    assert np.abs(every.logits - all_wanted.logits).max() < 1e-3
    assert np.abs(every.low_res_logits - all_wanted.low_res_logits).max() < 1e-4


def test_a_mask_prompt_counts(exported: Callable[..., Any]) -> None:
    image = picture((48, 64))
    predictor = exported()
    without, with_mask = (predictor.predict(image, prompts(kind, (48, 64))) for kind in ("boxes", "boxes and masks"))
    assert np.abs(without.low_res_logits - with_mask.low_res_logits).max() > 0.01


def test_single_masks_only_says_so(exported: Callable[..., Any]) -> None:
    predictor = exported()
    assert predictor.predict_all(picture((48, 64)), prompts("boxes", (48, 64))).scores.shape == (3, 1)
    with pytest.raises(ConfigError, match="export it again with multimask=true"):
        predictor.predict(picture((48, 64)), prompts("boxes", (48, 64)), multimask=True)
    with pytest.raises(ConfigError, match="export it again with multimask=true"):
        predictor.segment(picture((48, 64)), boxes=[[1, 2, 30, 40]], multimask=True)
    with pytest.raises(ConfigError, match="hold one merged model and take no adapter"):
        predictor.use("other")


def test_multimask_of_segment_gives_all_three(sam: Any, exported: Callable[..., Any]) -> None:
    image, boxes = picture((48, 64)), [[1, 2, 30, 40], [10, 12, 50, 40]]
    found = exported(multimask=True).segment(image, boxes=boxes, multimask=True)
    wanted = TorchPredictor(sam, 64).segment(image, boxes=boxes, multimask=True)
    assert found.candidates.masks.shape == (2, 3, 48, 64)
    assert np.abs(found.candidates.low_res_logits - wanted.candidates.low_res_logits).max() < 1e-4
    assert np.abs(found.candidates.scores - wanted.candidates.scores).max() < 1e-4
    assert (found.candidates.masks == wanted.candidates.masks).mean() > 0.999
    assert (found.scores == found.candidates.scores.max(axis=1)).all()


def test_half_precision_files_are_half_as_large_and_close(
    sam: Any, parts: Callable[..., Path], exported: Callable[..., Any]
) -> None:
    sizes = [(parts(half=half) / "image_encoder.bin").stat().st_size for half in (False, True)]
    assert 0.45 < sizes[1] / sizes[0] < 0.6
    image, given = picture((48, 64)), prompts("boxes", (48, 64))
    wanted = TorchPredictor(sam, 64).predict(image, given)
    found = exported(half=True).predict(image, given)
    assert 0 < np.abs(found.low_res_logits - wanted.low_res_logits).max() < 0.05


def test_an_image_is_encoded_once(exported: Callable[..., Any]) -> None:
    predictor = exported()
    image = picture((48, 64))
    before = predictor.encoded
    predictor.set_image(image)
    predictor.segment(image, boxes=[[1, 2, 30, 40]])
    predictor.segment(image.copy(), points=[[5, 5]])
    assert predictor.encoded == before + 1
    predictor.forget()
    predictor.segment(image, boxes=[[1, 2, 30, 40]])
    assert predictor.encoded == before + 2
    assert predictor.predict(image, Prompts(boxes=np.zeros((0, 4), np.float32))).masks.shape == (0, 48, 64)
    with pytest.raises(DataError, match="uint8"):
        predictor.set_image(image.astype(np.float32))


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("labels", [[[1.0]], [[1.0, 0.0]], [[0.0], [1.0]]], ids=str)
def test_points_without_padding_get_the_padding_that_sam_adds(
    sam: Any, parts: Callable[..., Path], labels: list[list[float]], multimask: bool
) -> None:
    given = np.array(labels, np.float32)
    points = np.random.default_rng(3).uniform(5, 40, (*given.shape, 2)).astype(np.float32)
    decoder = openvino_core().compile_model(
        parts(multimask=multimask) / DECODER, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    embedding = np.random.default_rng(4).normal(0, 1, (1, 32, 4, 4)).astype(np.float32)
    inputs = {
        "image_embeddings": embedding,
        "mask_input": np.zeros((1, 1, 16, 16), np.float32),
        "has_mask_input": np.zeros((1, 1), np.float32),
        "orig_size": np.array([[64, 64]]),
    }
    wanted = (
        decode_all_masks(
            sam, torch.tensor(embedding), boxes=None, points=torch.tensor(points), labels=torch.tensor(given).long()
        )[0][:, : 4 if multimask else 1]
        .detach()
        .numpy()
    )
    padding = np.full((len(given), 1), -1, np.float32)
    for more in ([], [padding]):  # as Model API sends them, and as Meta's own ONNX needs them
        found = decoder(
            {
                **inputs,
                "point_coords": np.concatenate(
                    [points, *(np.zeros((len(given), 1, 2), np.float32) for _ in more)], axis=1
                ),
                "point_labels": np.concatenate([given, *more], axis=1),
            }
        )["low_res_masks"]
        assert np.abs(found - wanted).max() < 1e-4


def test_a_box_gets_no_padding(sam: Any, parts: Callable[..., Path]) -> None:
    decoder = PromptedDecoder(sam, 64, multimask=False)
    embedding, mask = torch.zeros(1, 32, 4, 4), torch.zeros(1, 1, 16, 16)
    box = torch.tensor([[[5.0, 6], [40, 41]]])
    rest = (mask, torch.zeros(1, 1), torch.tensor([[64, 64]]))
    with torch.no_grad():
        found = decoder(embedding, box, torch.tensor([[2.0, 3]]), *rest)[2]
        padded = decoder(embedding, torch.cat([box, box[:, :1] * 0], 1), torch.tensor([[2.0, 3, -1]]), *rest)[2]
        wanted = decode_all_masks(sam, embedding, boxes=box.reshape(1, 4), points=None, labels=None)[0][:, :1]
    assert (found - wanted).abs().max() < 1e-5
    assert (padded - wanted).abs().max() > 1e-4  # it would be noticed


def model_api_parts(directory: Path) -> tuple[Any, Any]:
    quiet_openvino()
    from model_api.adapters import OpenvinoAdapter
    from model_api.models import Model

    # runtimes of its own would leave this process without a stack for signals
    encoder, decoder = (
        Model.create_model(OpenvinoAdapter(openvino_core(), str(directory / name))) for name in (ENCODER, DECODER)
    )
    return encoder, decoder


def test_model_api_chooses_among_the_three_masks(parts: Callable[..., Path], exported: Callable[..., Any]) -> None:
    encoder, decoder = model_api_parts(parts(multimask=True))
    from model_api.models.visual_prompting import Prompt, SAMVisualPrompter

    image = picture((64, 64))  # the input's own size, so that its way to resize does not matter
    boxes = np.array([[10, 12, 50, 40], [2, 3, 30, 60]], np.float32)
    points = np.array([[20, 30], [40, 12]], np.float32)
    found = SAMVisualPrompter(encoder, decoder)(
        image, boxes=[Prompt(box, 1) for box in boxes], points=[Prompt(point, 1) for point in points]
    )
    wanted = [exported(multimask=True).predict_all(image, Prompts(boxes=boxes))]
    wanted += [
        exported(multimask=True).predict_all(image, Prompts(points=points[:, None], labels=np.ones((2, 1), int)))
    ]
    for row in range(4):
        every = wanted[row // 2]
        logits, scores = every.logits[row % 2, 1:], every.scores[row % 2, 1:]
        full = np.flatnonzero((logits > 0).any(axis=(1, 2)))  # it leaves out empty masks
        best = full[scores[full].argmax()]
        assert 0 < found.processed_mask[row].mean() < 1
        # it may compute in bf16, and pads before it normalises
        assert (found.processed_mask[row] == (logits[best] > 0)).mean() > 0.97
        assert found.best_iou[row] == pytest.approx(np.clip(scores[best], 0, 1), abs=0.02)


def test_model_api_learns_from_a_prompt(parts: Callable[..., Path]) -> None:
    from model_api.models.visual_prompting import Prompt, SAMLearnableVisualPrompter

    prompter = SAMLearnableVisualPrompter(*model_api_parts(parts(multimask=True)))
    for how in ({"boxes": [Prompt(np.array([10, 12, 50, 40]), 0)]}, {"points": [Prompt(np.array([30, 30]), 0)]}):
        features, masks = prompter.learn(picture((64, 64)), **how, reset_features=True)
        assert masks.shape == (1, 64, 64)
        assert 0 < masks.mean() < 1
        assert np.linalg.norm(features.feature_vectors[0]) == pytest.approx(1, abs=1e-3)


def test_the_single_mask_stays_the_default(parts: Callable[..., Path], exported: Callable[..., Any]) -> None:
    image = picture((48, 64))
    for kind in KINDS:
        one = exported().predict(image, prompts(kind, (48, 64)))
        of_four = exported(multimask=True).predict(image, prompts(kind, (48, 64)))
        assert np.abs(one.low_res_logits - of_four.low_res_logits).max() < 1e-5
        assert (one.masks == of_four.masks).all()
    # only that one is enlarged
    decoder = exported(multimask=True)._decoder.compiled
    assert [output.partial_shape[1].get_length() for output in decoder.outputs] == [1, 4, 4]


def test_openvino_model_api_loads_both_parts(parts: Callable[..., Path], exported: Callable[..., Any]) -> None:
    quiet_openvino()
    from model_api.adapters import OpenvinoAdapter
    from model_api.models import Model, SAMDecoder, SAMImageEncoder
    from model_api.models.visual_prompting import Prompt, SAMVisualPrompter

    files = (str(parts() / ENCODER), str(parts() / DECODER))
    # runtimes of its own would leave this process without a stack for signals
    encoder, decoder = (Model.create_model(OpenvinoAdapter(openvino_core(), file)) for file in files)
    assert isinstance(encoder, SAMImageEncoder)
    assert isinstance(decoder, SAMDecoder)
    image = picture((64, 64))  # the input's own size, so that its way to resize does not matter
    box = np.array([10, 12, 50, 40], np.float32)
    result = SAMVisualPrompter(encoder, decoder)(image, boxes=[Prompt(box, 1)])
    wanted = exported().segment(image, boxes=box)
    # it may compute in bf16, and pads before it normalises
    assert np.abs(result.low_res_masks[0] - wanted.low_res_logits).max() < 0.02
    assert (np.squeeze(result.hard_predictions[0]) == wanted.masks[0]).mean() > 0.97


def test_onnx_has_the_names_of_segment_anything_and_computes_the_same(sam: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the optional package onnx is not installed")
    save_onnx(sam, 64, tmp_path, multimask=False)
    model = openvino_core().read_model(tmp_path / "mask_decoder.onnx")
    names = [port.get_any_name() for port in (*model.inputs, *model.outputs)]
    inputs = ["image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"]
    assert names == [*inputs, "masks", "iou_predictions", "low_res_masks"]
    assert [len(port.partial_shape) for port in model.inputs] == [4, 3, 2, 4, 1, 1]
    parts = (tmp_path / "image_encoder.onnx", tmp_path / "mask_decoder.onnx")
    image = picture((48, 64))
    predictor = OpenVINOPredictor(*parts, compile_cache=False)
    for kind in KINDS:
        found = predictor.predict(image, prompts(kind, (48, 64)))
        wanted = TorchPredictor(sam, 64).predict(image, prompts(kind, (48, 64)))
        assert np.abs(found.low_res_logits - wanted.low_res_logits).max() < 1e-4
        assert (found.masks == wanted.masks).mean() > 0.999


def test_the_example_needs_neither_torch_nor_lora_sam(
    parts: Callable[..., Path], exported: Callable[..., Any], tmp_path: Path
) -> None:
    image = picture((48, 64))
    Image.fromarray(image).save(tmp_path / "image.png")
    example = ROOT / "examples" / "segment_openvino.py"
    # a finder that refuses both stands before the example
    code = (
        "import sys, runpy\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        assert name.split('.')[0] not in ('torch', 'lora_sam'), name\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    words = [str(parts()), str(tmp_path / "image.png"), "10", "12", "50", "40", str(tmp_path / "mask.png")]
    done = subprocess.run(
        [sys.executable, "-c", code, str(example), *words], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    wanted = exported().segment(image, boxes=[[10, 12, 50, 40]])
    assert (mask == wanted.masks[0]).mean() > 0.99  # the CPU may have computed it in bf16
    assert f"{mask.sum()} pixels" in done.stdout


@pytest.mark.parametrize("name", ["image_encoder.xml", "image_encoder.bin", "mask_decoder.xml", "mask_decoder.bin"])
def test_a_missing_file_is_named(parts: Callable[..., Path], tmp_path: Path, name: str) -> None:
    for path in parts().iterdir():
        if path.name != name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    for given in (tmp_path, tmp_path / "mask_decoder.xml"):
        with pytest.raises(AdapterError, match=name):
            openvino_directory(given)
    with pytest.raises(AdapterError, match=name):
        OpenVINOPredictor(tmp_path / "image_encoder.xml", tmp_path / "mask_decoder.xml")


def test_damaged_and_foreign_files_are_refused(parts: Callable[..., Path], tmp_path: Path) -> None:
    encoder, decoder = openvino_directory(parts())
    for path in parts().iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "image_encoder.xml").write_text("<net>")
    with pytest.raises(AdapterError, match="cannot be read as OpenVINO IR"):
        OpenVINOPredictor(tmp_path / "image_encoder.xml", decoder, compile_cache=False)
    with pytest.raises(AdapterError, match="not an image encoder"):
        OpenVINOPredictor(decoder, decoder, compile_cache=False)
    with pytest.raises(AdapterError, match="not a mask decoder of ours"):
        OpenVINOPredictor(encoder, encoder, compile_cache=False)


def test_telemetry_is_off() -> None:
    code = (
        "from lora_sam.predictors.openvino_parts import quiet_openvino\n"
        "quiet_openvino()\n"
        "import openvino, sys, os\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "assert telemetry_utils.tm.__name__ == 'openvino.tools.ovc.telemetry_stub', telemetry_utils.tm\n"
        "assert os.environ['NNCF_CI'] == '1'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_signal_after_predictors_have_gone(parts: Callable[..., Path]) -> None:
    code = (
        "import gc, os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from lora_sam.predictors import OpenVINOPredictor\n"
        "files = Path(sys.argv[1], 'image_encoder.xml'), Path(sys.argv[1], 'mask_decoder.xml')\n"
        "predictors = [OpenVINOPredictor(*files, compile_cache=False) for _ in range(3)]\n"
        "while predictors:\n"
        "    del predictors[0]\n"
        "    gc.collect()\n"
        "signal.signal(signal.SIGINT, lambda *_: print('handled'))\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(0.01)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(parts())], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
