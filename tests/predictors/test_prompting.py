"""Prompts as people send them: what no model can make sense of is refused, what is likely a mistake is noted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lora_sam.core.errors import DataError
from lora_sam.core.predictor import Predictor
from lora_sam.core.structures import Prompts
from lora_sam.deployment.ir_parts import decoder_ir, encoder_ir, save_ir
from lora_sam.predictors.openvino_parts import openvino_directory
from lora_sam.predictors.openvino_predictor import OpenVINOPredictor
from lora_sam.predictors.torch_predictor import TorchPredictor

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
NAN = float("nan")


def floats(*rows: Any) -> Any:
    return np.array(rows, np.float32)


@pytest.fixture(scope="module")
def predictors(option: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Predictor]:
    sam = option("model/tiny_random").build().sam
    directory: Path = tmp_path_factory.mktemp("parts")
    save_ir(encoder_ir(sam, 64), directory / "image_encoder.xml", half=False)
    save_ir(decoder_ir(sam, 64, multimask=True), directory / "mask_decoder.xml", half=False)
    return {
        "torch": TorchPredictor(sam, 64),
        "openvino": OpenVINOPredictor(*openvino_directory(directory), compile_cache=False),
    }


@pytest.mark.parametrize("back_end", ["torch", "openvino"])
@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (Prompts(floats([30, 20, 10, 40])), "box 0 is [30, 20, 10, 40], must be x1, y1, x2, y2 with x1 < x2"),
        (Prompts(floats([1, 2, 3, 4], [3, 40, 9, 20])), "box 1 is [3, 40, 9, 20], must be x1, y1, x2, y2 with"),
        (Prompts(floats([64, 0, 70, 5])), "box 0 is [64, 0, 70, 5] and lies outside the image of 64 x 48 pixels"),
        (Prompts(floats([-9, 0, 0, 5])), "box 0 is [-9, 0, 0, 5] and lies outside the image of 64 x 48 pixels"),
        (Prompts(floats([1, NAN, 3, 4])), "box 0 is [1, nan, 3, 4], must be finite numbers"),
        (Prompts(floats([NAN] * 4)), "object 0 has neither a box nor a point"),
        (
            Prompts(None, floats([[5, 6]]), np.array([[2]])),
            "label 2 is unknown, must be 1 (foreground), 0 (background)",
        ),
        (Prompts(None, floats([[5, 6]]), np.array([[-2]])), "label -2 is unknown, must be 1 (foreground), 0"),
        (Prompts(None, floats([[5, NAN]]), np.array([[1]])), "points hold NaN or infinity, must be finite numbers"),
        (
            Prompts(None, floats([[5, 6]], [[7, 8]]), np.array([[1], [-1]])),
            "object 1 has neither a box nor a point: all its labels are -1 (padding)",
        ),
    ],
)
def test_refused_by_every_back_end(
    predictors: dict[str, Predictor], back_end: str, prompts: Prompts, message: str
) -> None:
    for ask in (predictors[back_end].predict, predictors[back_end].predict_all):
        with pytest.raises(DataError) as caught:
            ask(IMAGE, prompts)
        assert str(caught.value).startswith(message)
    assert predictors[back_end].encoded <= 1  # those of other tests


class Notes(logging.Handler):
    """What the logger of prompts says, whatever was done to the root logger before."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@pytest.fixture
def notes() -> Iterator[Notes]:
    logger, handler = logging.getLogger("lora_sam.predictors.prompting"), Notes()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def noted(notes: Notes) -> list[str]:
    found, notes.said = notes.said, []
    return found


@pytest.mark.parametrize("back_end", ["torch", "openvino"])
def test_noted_by_every_back_end(predictors: dict[str, Predictor], back_end: str, notes: Notes) -> None:
    segment = predictors[back_end].segment
    assert len(segment(IMAGE, points=[[20, 10], [30, 20]], labels=[1, 0]).masks) == 2
    assert noted(notes) == [
        "points of shape [2, 2] are 2 objects with one point each; several points of one object are "
        "points=[[[x, y], [x, y]]], labels=[[1, 0]]",
        "object 1 has background points alone (label 0), which show no object; add one with 1",
    ]
    segment(IMAGE, boxes=[0.1, 0.2, 0.5, 0.7])
    segment(IMAGE, points=[[0.5, 0.5]])
    assert (
        noted(notes)
        == [
            "all coordinates lie between 0 and 1; they are pixels here, of the image of 64 x 48 pixels (width x height)"
        ]
        * 2
    )


@pytest.mark.parametrize("back_end", ["torch", "openvino"])
def test_usual_prompts_are_neither_refused_nor_noted(
    predictors: dict[str, Predictor], back_end: str, notes: Notes
) -> None:
    predictor = predictors[back_end]
    predictor.segment(IMAGE, points=[[[5, 6], [30, 20]]], labels=[1, 0])
    predictor.segment(IMAGE, points=[[5, 6], [30, 20]])
    predictor.segment(IMAGE, boxes=[0, 0, 1, 1])  # the first pixel
    predictor.segment(IMAGE, boxes=[3, 4, 30, 20], points=[[5, 6]], labels=[0])  # a box says where the object is
    both = Prompts(floats([3, 4, 30, 20], [NAN] * 4), floats([[0, 0]], [[5, 6]]), np.array([[-1], [1]]))
    assert len(predictor.predict(IMAGE, both).masks) == 2
    assert noted(notes) == []


@pytest.mark.parametrize("back_end", ["torch", "openvino"])
def test_tensors_of_any_kind_are_prompts(predictors: dict[str, Predictor], back_end: str) -> None:
    wanted = predictors[back_end].segment(IMAGE, boxes=[[4, 4, 40, 30]])
    for kind in ({"requires_grad": True}, {"dtype": torch.bfloat16}, {"dtype": torch.int64}):
        box = torch.tensor([[4, 4, 40, 30]], **{"dtype": torch.float32, **kind})
        assert np.array_equal(predictors[back_end].segment(IMAGE, boxes=box).low_res_logits, wanted.low_res_logits)


@pytest.mark.parametrize("back_end", ["torch", "openvino"])
def test_boxes_over_the_edge_are_not_clipped(predictors: dict[str, Predictor], back_end: str) -> None:
    over, clipped = (
        predictors[back_end].predict(IMAGE, Prompts(floats(box))).low_res_logits
        for box in ([-20, -10, 30, 40], [0, 0, 30, 40])
    )
    assert np.abs(over - clipped).max() > 1e-4


@pytest.mark.parametrize("back_end", ["torch", "openvino"])
def test_an_earlier_answer_is_a_mask_prompt_on_every_back_end(predictors: dict[str, Predictor], back_end: str) -> None:
    predictor, boxes = predictors[back_end], [[3, 4, 40, 30], [10, 2, 30, 44]]
    first = predictor.segment(IMAGE, boxes=boxes)
    again = predictor.segment(IMAGE, boxes=boxes, mask_inputs=first.low_res_logits)
    as_sam_predictor = predictor.segment(IMAGE, boxes=boxes, mask_inputs=first.low_res_logits[:, None])
    expected = predictor.predict(IMAGE, Prompts(floats(*boxes), mask_inputs=first.low_res_logits))
    assert np.abs(again.low_res_logits - first.low_res_logits).max() > 1e-3, "passes without a mask prompt"
    for other in (as_sam_predictor, expected):
        assert np.array_equal(again.low_res_logits, other.low_res_logits)
    torch_first = predictors["torch"].segment(IMAGE, boxes=boxes)
    torch_again = predictors["torch"].segment(IMAGE, boxes=boxes, mask_inputs=torch_first.low_res_logits)
    assert np.abs(again.low_res_logits - torch_again.low_res_logits).max() < 1e-3


@pytest.mark.parametrize("back_end", ["torch", "openvino"])
def test_mask_inputs_that_fit_nothing_are_refused(predictors: dict[str, Predictor], back_end: str) -> None:
    segment, masks = predictors[back_end].segment, np.zeros((1, 16, 16), np.float32)
    with pytest.raises(DataError, match=r"mask_inputs have shape \[2, 16, 16\], must be \[1, 16, 16\] or"):
        segment(IMAGE, boxes=[[1, 2, 9, 9]], mask_inputs=np.zeros((2, 16, 16)))
    with pytest.raises(DataError, match=r"mask_inputs have shape \[1, 48, 64\]"):
        segment(IMAGE, points=[[5, 6]], mask_inputs=np.zeros((1, 48, 64)))
    with pytest.raises(DataError, match="mask_inputs hold NaN"):
        segment(IMAGE, points=[[5, 6]], mask_inputs=masks * NAN)
    with pytest.raises(DataError, match="mask_inputs are masks of 0 and 1, must be logits"):
        segment(IMAGE, points=[[5, 6]], mask_inputs=np.eye(16, dtype=np.bool_)[None])
    with pytest.raises(DataError, match="mask_inputs without a prompt: give the boxes or points"):
        segment(IMAGE, mask_inputs=masks)
