"""SAM's two deployable parts as ONNX files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lora_sam.deployment.ir_parts import (
    DECODER_INPUTS,
    DECODER_OUTPUTS,
    ENCODER_INPUTS,
    ENCODER_OUTPUTS,
    PromptedDecoder,
    decoder_example,
    encoder_example,
    encoder_facts,
    without_tracer_warnings,
)
from lora_sam.predictors.openvino_parts import META_NAMES

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor, nn

META_INPUTS = tuple(META_NAMES.get(name, name) for name in DECODER_INPUTS)
META_OUTPUTS = tuple(META_NAMES.get(name, name) for name in DECODER_OUTPUTS)
"""Inputs and outputs of the decoder, by the names of `segment_anything`'s own ONNX export."""

META_AXES: Mapping[str, Mapping[int, str]] = {
    "point_coords": {0: "prompts", 1: "points"},
    "point_labels": {0: "prompts", 1: "points"},
    "mask_input": {0: "masks", 2: "mask_height", 3: "mask_width"},
    "masks": {0: "prompts", 2: "height", 3: "width"},
    "iou_predictions": {0: "prompts"},
    "low_res_masks": {0: "prompts"},
}


def meta_example(sam: Sam, image_size: int) -> tuple[Tensor, ...]:
    """Inputs to trace a decoder with, of the shapes and types that `segment_anything`'s own export has."""
    *tensors, _, size = decoder_example(sam, image_size)
    return (*tensors, torch.zeros(1), size.flatten().float())


def save_onnx(sam: Sam, image_size: int, directory: Path, *, multimask: bool) -> None:
    """Write `image_encoder.onnx` and `mask_decoder.onnx`, with the names of `segment_anything`'s ONNX export.

    Shapes and types of the inputs are also its own: `has_mask_input` [1], `orig_im_size` float32 [2]. How images come
    to lie in the input is in the encoder's `metadata_props`, under the names that our IR has in `model_info`.

    Raises:
        ImportError: the package `onnx` is not installed.
    """
    save_part(
        sam.image_encoder,
        encoder_example(image_size),
        directory / "image_encoder.onnx",
        inputs=ENCODER_INPUTS,
        outputs=ENCODER_OUTPUTS,
    )
    _describe(directory / "image_encoder.onnx", encoder_facts(sam, image_size))
    save_part(
        PromptedDecoder(sam, image_size, multimask=multimask),
        meta_example(sam, image_size),
        directory / "mask_decoder.onnx",
        inputs=META_INPUTS,
        outputs=META_OUTPUTS,
        axes=META_AXES,
    )


def save_part(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]] | None = None,
) -> None:
    """Write a module as an ONNX file.

    Args:
        module: What is traced.
        example: Inputs to trace it with.
        path: The file.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        axes: The axes of any length, by input or output.

    Raises:
        ImportError: the package `onnx` is not installed.
    """
    import onnx  # noqa: F401  # torch asks for it only after the work is done

    with torch.no_grad(), without_tracer_warnings():
        torch.onnx.export(
            module.eval(),
            example,
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: dict(lengths) for name, lengths in (axes or {}).items()},
            opset_version=17,
            dynamo=False,
        )


def _describe(path: Path, facts: Mapping[str, object]) -> None:
    """Add metadata to an ONNX file; weights that lie beside it are not read."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    onnx.save(model, str(path))
