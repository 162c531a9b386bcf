"""Classes as an output of the exported decoder: those of the class head, at any size of image and in any precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_sam.core.errors import AdapterError
from lora_sam.core.structures import Prompts
from lora_sam.deployment.ir_parts import decoder_ir, encoder_ir, save_ir
from lora_sam.deployment.quantizing.compression import compressed, read, save
from lora_sam.predictors.class_head import ClassHead
from lora_sam.predictors.openvino_parts import (
    CLASS_NAMES,
    DECODER,
    ENCODER,
    openvino_core,
    openvino_directory,
    quiet_openvino,
)
from lora_sam.predictors.openvino_predictor import OpenVINOPredictor
from lora_sam.predictors.torch_predictor import TorchPredictor

SIZES = [(48, 64), (64, 64), (37, 23), (150, 90)]


def picture(size: tuple[int, int]) -> Any:
    return np.random.default_rng(size[0]).integers(0, 256, (*size, 3), np.uint8)


@pytest.fixture(scope="module")
def sam(option: Callable[..., Any]) -> Any:
    return option("model/tiny_random").build().sam


@pytest.fixture(scope="module")
def head(sam: Any) -> ClassHead:
    rng = np.random.default_rng(3)
    width = sam.prompt_encoder.embed_dim + 1
    weight, bias = rng.normal(size=(3, width)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    return ClassHead(("a", "b", "ü"), weight, bias)


@pytest.fixture(scope="module")
def directory(sam: Any, head: ClassHead, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("parts")
    save_ir(encoder_ir(sam, 64), place / ENCODER, half=False)
    save_ir(decoder_ir(sam, 64, multimask=True, classes=head), place / DECODER, half=False)
    return place


@pytest.fixture(scope="module")
def predictor(directory: Path) -> OpenVINOPredictor:
    return OpenVINOPredictor(*openvino_directory(directory), compile_cache=False, verify=False, chunk=2)


def prompts(size: tuple[int, int]) -> Prompts:
    """Three prompts of two kinds."""
    corners = np.array([[0.1, 0.1, 0.6, 0.5], [0.3, 0.2, 0.9, 0.9]], np.float32) * np.tile(size[::-1], 2)
    boxes = np.concatenate([corners, np.full((1, 4), np.nan, np.float32)]).astype(np.float32)
    points = np.full((3, 1, 2), 5, np.float32)
    return Prompts(boxes=boxes, points=points, labels=np.array([[-1], [-1], [1]]))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_output_is_what_the_head_says_of_these_masks(
    predictor: OpenVINOPredictor, head: ClassHead, size: tuple[int, int]
) -> None:
    image = picture(size)
    found = predictor.predict(image, prompts(size))
    assert predictor.class_names == head.names
    assert found.class_probabilities is not None
    assert found.class_probabilities.shape == (3, 3)
    wanted = head.probabilities(predictor, image, found.masks)
    assert np.abs(found.class_probabilities - wanted).max() < 1e-4
    assert np.ptp(wanted) > 0.1


def test_what_is_no_single_mask_at_zero_has_no_such_classes(predictor: OpenVINOPredictor) -> None:
    image, size = picture((48, 64)), (48, 64)
    assert predictor.predict(image, prompts(size), threshold=1.0).class_probabilities is None
    assert predictor.predict(image, prompts(size), multimask=True).class_probabilities is None
    assert predictor.predict_all(image, prompts(size)).scores.shape == (3, 4)


def test_empty_masks_are_as_likely_as_the_bias_says(sam: Any, head: ClassHead, directory: Path, tmp_path: Path) -> None:
    import copy

    import torch

    empty = copy.deepcopy(sam)
    with torch.no_grad():
        for mlp in empty.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight.zero_()
            mlp.layers[-1].bias.zero_()
    save_ir(decoder_ir(empty, 64, multimask=False, classes=head), tmp_path / DECODER, half=False)
    predictor = OpenVINOPredictor(directory / ENCODER, tmp_path / DECODER, compile_cache=False, verify=False)
    found = predictor.predict(picture((48, 64)), prompts((48, 64)))
    assert not found.masks.any()
    assert found.class_probabilities == pytest.approx(
        np.tile(np.exp(head.bias) / np.exp(head.bias).sum(), (3, 1)), abs=1e-5
    )


@pytest.mark.parametrize("stored", ["fp16", "int8_weights", "int4_weights"])
def test_other_precisions_leave_the_head_alone(head: ClassHead, directory: Path, tmp_path: Path, stored: str) -> None:
    for name in (ENCODER, DECODER):
        model = read(directory / name)
        save(model if stored == "fp16" else compressed(model, stored), tmp_path / name)  # type: ignore[arg-type]
    predictor = OpenVINOPredictor(*openvino_directory(tmp_path), compile_cache=False, verify=False)
    image = picture((48, 64))
    found = predictor.predict(image, prompts((48, 64)))
    assert predictor.class_names == head.names
    assert found.class_probabilities is not None
    wanted = head.probabilities(predictor, image, found.masks)
    assert np.abs(found.class_probabilities - wanted).max() < 0.01


def test_model_api_loads_a_decoder_that_tells_classes(directory: Path, predictor: OpenVINOPredictor) -> None:
    quiet_openvino()
    from model_api.adapters import OpenvinoAdapter
    from model_api.models import Model, SAMDecoder
    from model_api.models.visual_prompting import Prompt, SAMVisualPrompter

    encoder, decoder = (
        Model.create_model(OpenvinoAdapter(openvino_core(), str(directory / name))) for name in (ENCODER, DECODER)
    )
    assert isinstance(decoder, SAMDecoder)
    image, box = picture((64, 64)), np.array([10, 12, 50, 40], np.float32)
    found = SAMVisualPrompter(encoder, decoder)(image, boxes=[Prompt(box, 1)])
    every = predictor.predict_all(image, Prompts(boxes=box[None]))
    best = every.scores[0, 1:].argmax()
    # it may compute in bf16
    assert (found.processed_mask[0] == (every.logits[0, 1 + best] > 0)).mean() > 0.97


def test_classes_without_names_are_refused(sam: Any, head: ClassHead, directory: Path, tmp_path: Path) -> None:
    model = decoder_ir(sam, 64, multimask=False, classes=head)
    model.set_rt_info('["a", "b"]', ["model_info", CLASS_NAMES])
    save_ir(model, tmp_path / DECODER, half=False)
    with pytest.raises(AdapterError, match="not their names; export the model again"):
        OpenVINOPredictor(directory / ENCODER, tmp_path / DECODER, compile_cache=False, verify=False)


def test_predict_takes_the_classes_of_the_parts_where_they_are_those_of_the_head(
    predictor: OpenVINOPredictor, head: ClassHead
) -> None:
    from types import SimpleNamespace

    from lora_sam.deployment.predicting.objects import namer

    image, masks = picture((48, 64)), np.ones((2, 48, 64), np.bool_)
    told = np.array([[0.2, 0.1, 0.7], [0.1, 0.8, 0.1]], np.float32)
    work: Any = SimpleNamespace(head=head, categories={1: "a", 2: "b", 3: "ü"})
    assert namer(work, predictor)(image, masks, told) == ["ü", "b"]
    wanted = head.names[int(head.probabilities(predictor, image, masks)[0].argmax())]
    assert namer(work, predictor)(image, masks, None) == [wanted] * 2
    # a head with other names was not exported
    work.head = ClassHead(("x", "y", "z"), head.weight, head.bias)
    other = "xyz"[head.names.index(wanted)]
    assert namer(work, predictor)(image, masks, told) == [other] * 2


def test_parts_of_sam2_tell_classes_as_well(option: Callable[..., Any], tmp_path: Path) -> None:
    base = option("model/sam2_random").build()
    depth = TorchPredictor(base.sam, base.image_size).embedding(picture((48, 64))).shape[1]
    rng = np.random.default_rng(3)
    weight, bias = rng.normal(size=(3, depth + 1)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    head = ClassHead(("a", "b", "c"), weight, bias)
    save_ir(encoder_ir(base.sam, base.image_size), tmp_path / ENCODER, half=False)
    save_ir(decoder_ir(base.sam, base.image_size, multimask=False, classes=head), tmp_path / DECODER, half=False)
    predictor = OpenVINOPredictor(*openvino_directory(tmp_path), compile_cache=False, verify=False)
    found = predictor.predict(picture((37, 23)), prompts((37, 23)))
    assert found.class_probabilities is not None
    assert np.ptp(found.class_probabilities) > 0.1
    wanted = head.probabilities(predictor, picture((37, 23)), found.masks)
    assert np.abs(found.class_probabilities - wanted).max() < 1e-3
