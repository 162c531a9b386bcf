"""SAM's two deployable parts: as traceable torch modules, and from those to OpenVINO IR."""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_sam.deployment.class_output import ClassOutput
from lora_sam.models.decoding import maps_of, masks_from_embeddings
from lora_sam.models.family import family_of, frame_of
from lora_sam.predictors.openvino_parts import CLASS_NAMES, CLASSES, SQUEEZED, quiet_openvino

if TYPE_CHECKING:
    import openvino
    from segment_anything.modeling import Sam

    from lora_sam.predictors.class_head import ClassHead

ENCODER_INPUTS, ENCODER_OUTPUTS = ("images",), ("image_embeddings",)
DECODER_INPUTS = ("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_size")
DECODER_OUTPUTS = ("upscaled_masks", "iou_predictions", "low_res_masks")


class PromptedDecoder(nn.Module):
    """Prompt encoder, mask decoder and enlargement to the original image as one traceable module.

    The same computation as `decode_all_masks` followed by `logits_to_original`, without branches on the prompts: a box
    is two points with the labels 2 and 3 (as in `segment_anything.utils.onnx.SamOnnxModel`), and a mask prompt is
    switched on by `has_mask_input`. Points without a box get the point of padding that SAM's prompt encoder adds,
    unless they end with one: callers such as OpenVINO Model API send none.

    Args:
        sam: The model.
        image_size: Side S of its input.
        multimask: Give all four masks (the single one first) instead of the single one.
        classes: Also tells the class of each mask; None where there are not several.
    """

    def __init__(self, sam: Sam, image_size: int, *, multimask: bool, classes: ClassHead | None = None) -> None:
        super().__init__()
        self.class_head = None if classes is None else ClassOutput(classes, image_size)
        self.sam = sam
        self.image_size = image_size
        self.multimask = multimask
        self.square = frame_of(sam).square

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_size: Tensor,
    ) -> tuple[Tensor, ...]:
        """Masks of B prompts with N points each.

        Args:
            image_embeddings: [1, C, S/16, S/16].
            point_coords: (x, y) in the S frame, float32 [B, N, 2].
            point_labels: 1 foreground, 0 background, 2 and 3 the corners of a box, -1 padding; float32 [B, N]. Prompts
                that go together are of one kind: all with a box, or none.
            mask_input: Logits of an earlier prediction, float32 [1 or B, 1, h, w]; scaled to S/4 if they are not.
            has_mask_input: 1 where `mask_input` counts, else 0; float32 [1 or B, 1].
            orig_size: (height, width) of the original image, [1, 2] or [2].

        Returns:
            Logits at the original size [B, M, H, W], predicted IoU [B, M], logits [B, M, S/4, S/4]; M is 4 with
            `multimask`, else 1. With `classes` also how likely each mask is of each class, [B, M, C].
        """
        always = getattr(self.sam.prompt_encoder, "pads_boxes", False)
        sparse = self._embed_points(*_padded(point_coords, point_labels, beside_boxes=always))
        # adding zeros of the prompts' shape repeats what is there once
        repeat = torch.zeros_like(point_coords[:, :1, :1]).unsqueeze(-1)
        embeddings, fine = maps_of(self.sam, image_embeddings)
        source = embeddings + self._embed_mask(mask_input, has_mask_input.reshape(-1, 1, 1, 1)) + repeat
        logits, iou = masks_from_embeddings(self.sam, source, sparse, fine)
        if not self.multimask:
            logits, iou = logits[:, :1], iou[:, :1]
        size = orig_size.reshape(-1).to(torch.int64)
        extent = self._extent(size)
        enlarged = self._enlarge(logits, size, extent)
        if self.class_head is None:
            return enlarged, iou, logits
        return enlarged, iou, logits, self.class_head(image_embeddings, enlarged, size, extent)

    def _embed_points(self, coords: Tensor, labels: Tensor) -> Tensor:
        encoder = self.sam.prompt_encoder
        embedding = encoder.pe_layer._pe_encoding((coords + 0.5) / self.image_size)
        label = labels.unsqueeze(-1)
        embedding = embedding * (label != -1) + encoder.not_a_point_embed.weight * (label == -1)
        for kind, layer in enumerate(encoder.point_embeddings):
            embedding = embedding + layer.weight * (label == kind)
        return cast("Tensor", embedding)

    def _embed_mask(self, mask: Tensor, has: Tensor) -> Tensor:
        encoder = self.sam.prompt_encoder
        mask = F.interpolate(mask, size=encoder.mask_input_size, mode="bilinear", align_corners=False)
        none = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return cast("Tensor", has * encoder.mask_downscaling(mask) + (1 - has) * none)

    def _extent(self, size: Tensor) -> Tensor:
        if self.square:
            return torch.full_like(size, self.image_size)
        # `Frame.extent` in whole numbers, where no rounding differs
        longest = size.max()
        return torch.div(2 * size * self.image_size + longest, 2 * longest, rounding_mode="floor").clamp(min=1)

    def _enlarge(self, logits: Tensor, size: Tensor, extent: Tensor) -> Tensor:
        if self.square:
            return F.interpolate(logits, size=(size[0], size[1]), mode="bilinear", align_corners=False)  # type: ignore[arg-type]
        side = self.image_size
        padded = F.interpolate(logits, size=(side, side), mode="bilinear", align_corners=False)
        part = padded[..., : extent[0], : extent[1]]
        return F.interpolate(part, size=(size[0], size[1]), mode="bilinear", align_corners=False)  # type: ignore[arg-type]


def _padded(coords: Tensor, labels: Tensor, *, beside_boxes: bool) -> tuple[Tensor, Tensor]:
    """Points [B, N, 2] and labels [B, N] with one more point, label -1, where no such point, or box, is there yet.

    With `beside_boxes` a box does not stand for the point, as SAM 2 has it.

    Without branches: what is added is the beginning, of length 0 or 1, of a column that is always made.
    """
    there = labels[:, -1].amax() < 0
    if not beside_boxes:
        there = there | (labels.amax() > 1)
    missing = 1 - there.to(torch.int64)
    point, label = torch.zeros_like(coords[:, :1]), torch.full_like(labels[:, :1], -1)
    return torch.cat([coords, point[:, :missing]], dim=1), torch.cat([labels, label[:, :missing]], dim=1)


def encoder_example(image_size: int) -> tuple[Tensor, ...]:
    """Inputs to trace the image encoder with."""
    return (torch.zeros(1, 3, image_size, image_size),)


def decoder_example(sam: Sam, image_size: int) -> tuple[Tensor, ...]:
    """Inputs to trace `PromptedDecoder` with; no two sizes are alike by chance."""
    shape = family_of(sam.image_encoder).shape(sam.image_encoder, None)
    mask_side = frame_of(sam).mask_side
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(1, *shape, generator=generator),
        torch.rand(2, 5, 2, generator=generator) * image_size,
        torch.tensor([[1.0, 0, 2, 3, -1]] * 2),
        torch.zeros(1, 1, mask_side, mask_side),
        torch.zeros(1, 1),
        torch.tensor([[image_size // 2 + 3, image_size + 7]]),
    )


def encoder_ir(sam: Sam, image_size: int) -> openvino.Model:
    """The image encoder as an OpenVINO model, with the facts that OpenVINO Model API reads (`rt_info/model_info`)."""
    model = _converted(sam.image_encoder, encoder_example(image_size), [f"1,3,{image_size},{image_size}"])
    _name(model, ENCODER_INPUTS, ENCODER_OUTPUTS)
    _describe(model, encoder_facts(sam, image_size))
    return model


def encoder_facts(sam: Sam, image_size: int) -> dict[str, Any]:
    """How images come to lie in the input of an image encoder, in the words of OpenVINO Model API."""
    frame = frame_of(sam)
    return {
        "model_type": f"{_kind(sam)}_image_encoder",
        "image_size": image_size,
        "resize_type": SQUEEZED if frame.square else "fit_to_window",
        "mean_values": " ".join(map(str, frame.mean)),
        "scale_values": " ".join(map(str, frame.std)),
        # the grey level that is nearest to zero afterwards, for tools that pad before they normalise
        "pad_value": round(sum(frame.mean) / 3),
    }


def decoder_ir(sam: Sam, image_size: int, *, multimask: bool, classes: ClassHead | None = None) -> openvino.Model:
    """Prompt encoder and mask decoder as an OpenVINO model; any number of prompts, points and pixels.

    With `classes` it has one more output, `class_probabilities` [B, M, C], and their names in `model_info`.
    """
    embedding = family_of(sam.image_encoder).shape(sam.image_encoder, None)
    shapes = [f"1,{','.join(map(str, embedding))}", "?,?,2", "?,?", "?,1,?,?", "?,1", "1,2"]
    decoder = PromptedDecoder(sam, image_size, multimask=multimask, classes=classes)
    model = _converted(decoder, decoder_example(sam, image_size), shapes)
    _name(model, DECODER_INPUTS, DECODER_OUTPUTS if classes is None else (*DECODER_OUTPUTS, CLASSES))
    for node in model.get_ops():
        if node.get_type_name() == "Interpolate":  # the converter's mode differs from torch where one pixel is left
            node.set_attribute("coordinate_transformation_mode", "half_pixel")
    _describe(
        model,
        {
            "model_type": f"{_kind(sam)}_decoder",
            "image_size": image_size,
            "embed_dim": embedding[0],
            "mask_threshold": 0.0,
            **({} if classes is None else {CLASS_NAMES: json.dumps(classes.names)}),
        },
    )
    return model


def save_ir(model: openvino.Model, path: Path, *, half: bool) -> None:
    """Write `path` (.xml) and its .bin; weights in fp16 if `half`.

    Raises:
        OSError: the disk is full.
    """
    quiet_openvino()
    import openvino

    try:
        openvino.save_model(model, path, compress_to_fp16=half)
    except RuntimeError as error:
        if "iostream" not in str(error):  # its word for a full disk
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _converted(module: nn.Module, example: tuple[Tensor, ...], shapes: list[str]) -> openvino.Model:
    quiet_openvino()
    import openvino

    with torch.no_grad(), without_tracer_warnings():
        # traced here, because `convert_model` would run the module once more to check the trace
        traced = torch.jit.trace(module.eval(), example, check_trace=False)
        inputs = [openvino.PartialShape(f"[{shape}]") for shape in shapes]
        return openvino.convert_model(traced, example_input=example, input=inputs)


@contextmanager
def without_tracer_warnings() -> Iterator[None]:
    """Tracing warns of every branch on a size; those here are constant, or followed by OpenVINO (tests change them)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _kind(sam: Sam) -> str:
    """Model API pads whatever it takes for a SAM, so it is not to take for one what wants its images squeezed."""
    return family_of(sam.image_encoder).name if frame_of(sam).square else "sam"


def _name(model: openvino.Model, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    for port, name in zip((*model.inputs, *model.outputs), (*inputs, *outputs), strict=True):
        port.get_tensor().set_names({name})


def _describe(model: openvino.Model, facts: dict[str, Any]) -> None:
    for key, value in facts.items():
        model.set_rt_info(value, ["model_info", key])
