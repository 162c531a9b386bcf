"""The layout of Hugging Face: the same masks, strictly loaded, with a processor that makes the same input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lora_sam.core.frame import Frame
from lora_sam.deployment.proof import answers, compare, probe
from lora_sam.deployment.transformers_layout import (
    read_transformers,
    transformers_answers,
    write_transformers,
)
from lora_sam.models.layouts import transformers_state
from lora_sam.models.projections import fuse_state_dict
from lora_sam.models.vit_transformers import config
from lora_sam.predictors.torch_predictor import TorchPredictor

FRAME = Frame(64, square=False)


@pytest.fixture(scope="module")
def written(option: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A tiny SAM, split, and the directory where it is written."""
    settings = option("model/tiny_random")
    sam, directory = settings.build().sam, tmp_path_factory.mktemp("layout") / "transformers"
    write_transformers(directory, fuse_state_dict(sam.state_dict()), settings.architecture())
    return sam, directory


def test_the_same_answers(written: tuple[Any, Path]) -> None:
    sam, directory = written
    model = read_transformers(directory)
    assert not model.training
    assert model.dtype == torch.float32
    agreement = compare(answers(sam, probe(FRAME)), transformers_answers(model, probe(FRAME)))
    assert agreement.largest_logit_difference <= 1e-6
    assert agreement.largest_score_difference <= 1e-6
    assert agreement.mean_mask_iou > 0.999
    assert agreement.masks == 64


def test_another_model_answers_otherwise(written: tuple[Any, Path]) -> None:
    sam, directory = written
    model = read_transformers(directory)
    model.mask_decoder.transformer.layers[1].layer_norm3.bias.add_(0.1)
    agreement = compare(answers(sam, probe(FRAME)), transformers_answers(model, probe(FRAME)))
    assert agreement.largest_logit_difference > 1e-3


def test_the_files(written: tuple[Any, Path]) -> None:
    _, directory = written
    assert sorted(path.name for path in directory.iterdir()) == [
        "config.json",
        "model.safetensors",
        "processor_config.json",
    ]
    config = json.loads((directory / "config.json").read_text())
    assert config["architectures"] == ["SamModel"]
    assert config["vision_config"]["image_size"] == config["prompt_encoder_config"]["image_size"] == 64
    assert config["mask_decoder_config"]["layer_norm_eps"] == 1e-5
    assert str(directory) not in (directory / "config.json").read_text()


@pytest.mark.parametrize("name", ["nano", "vit_b", "vit_l", "vit_h"])
def test_the_names_fit_every_variant(option: Callable[..., Any], name: str) -> None:
    from transformers import SamModel

    settings = option(f"model/{name}")
    with torch.device("meta"):
        ours = settings.empty().state_dict()
        theirs: Any = SamModel(config(settings.architecture())).state_dict()
    renamed = transformers_state(ours)
    assert renamed.keys() == theirs.keys()
    assert {key: value.shape for key, value in renamed.items()} == {key: value.shape for key, value in theirs.items()}


def test_processor_and_model_give_our_masks(written: tuple[Any, Path]) -> None:
    from transformers import SamModel, SamProcessor

    sam, directory = written
    # as long as the input, so that no resampling is involved, in which the packages differ
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    boxes = [[3.0, 4, 40, 30], [10, 2, 30, 38]]
    processor: Any = SamProcessor.from_pretrained(directory)
    model: Any = SamModel.from_pretrained(directory).eval()
    inputs = processor(images=image, input_boxes=[boxes], return_tensors="pt")
    inputs["input_boxes"] = inputs["input_boxes"].float()
    with torch.no_grad():
        output = model(**{key: inputs[key] for key in ("pixel_values", "input_boxes")}, multimask_output=False)
    (masks,) = processor.post_process_masks(
        output.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"], mask_threshold=0.0
    )
    ours = TorchPredictor(sam, 64).segment(image, boxes=boxes)
    assert (masks[:, 0].numpy() == ours.masks).mean() > 0.999
    assert np.abs(output.iou_scores[0, :, 0].numpy() - ours.scores).max() < 1e-5


def test_transformers_speaks_as_before(written: tuple[Any, Path], capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    logging.set_verbosity_info()
    logging.enable_progress_bar()
    read_transformers(written[1])
    assert logging.get_verbosity() == logging.INFO
    assert logging.is_progress_bar_enabled()
    logging.set_verbosity_warning()
    assert "it/s" not in capfd.readouterr().err
