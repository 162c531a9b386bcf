"""A YAML file and two ONNX files for X-AnyLabeling, whose *Load Custom Model* takes the first.

X-AnyLabeling (`type: segment_anything`) lays every image into a canvas of 684 x 1024 pixels, black around it, and gives
that to the encoder: RGB of 0 to 255, float32 [684, 1024, 3], not normalised. It gives prompts to the decoder in pixels
of the canvas, and takes the first mask of `masks` at the canvas' size. So scaling to the input and normalising are in
the encoder here, and the way from the canvas to the input is in the decoder; models of any input side work.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_sam.core.extras import is_there, require_extra
from lora_sam.core.frame import Frame
from lora_sam.deployment.packs.packing import Opened, Packed, refuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_sam.deployment.packs.questions import Answer, Question

CANVAS = (684, 1024)
"""(height, width) of what X-AnyLabeling makes of every image."""

ENCODER, DECODER = "image_encoder.onnx", "mask_decoder.onnx"
_MASK_INPUT = 256


@dataclass(frozen=True, kw_only=True)
class XAnyLabelingPack:
    """A YAML file and two ONNX files for X-AnyLabeling."""

    def write(self, packed: Packed, directory: Path) -> Opened:
        """See `lora_sam.deployment.packs.packing.Target`; writes `lora_sam.yaml` and both files."""
        from lora_sam.deployment.packs.questions import agreement, our_answer
        from lora_sam.models.family import why_not

        require_extra("onnx", "target = x_anylabeling")
        reason = why_not(packed.architecture, "x_anylabeling")
        if reason is not None:
            raise refuse(packed, "x_anylabeling", reason, "take target=cvat or target=label_studio")
        _write_parts(packed, directory)
        text = "\n".join(
            (
                "type: segment_anything",
                f"name: lora_sam_{packed.variant}",
                "provider: lora_sam",
                f"display_name: SAM tuned with lora_sam ({packed.variant})",
                f"encoder_model_path: {ENCODER}",
                f"decoder_model_path: {DECODER}",
                f"input_size: {CANVAS[1]}",
                f"max_width: {CANVAS[1]}",
                f"max_height: {CANVAS[0]}",
            )
        )
        (directory / "lora_sam.yaml").write_text(text + "\n", encoding="utf-8")
        run, runtime = onnx_runtime(directory)
        ours = our_answer(packed)
        iou, masks = agreement(packed, lambda *asked: ours(*laid(*asked)), lambda *asked: run(*laid(*asked)))
        return Opened(
            host="X-AnyLabeling",
            by=f"keys of its YAML; names, shapes and types of both files with {runtime}, on its canvas",
            mask_iou=iou,
            masks=masks,
            why_not_run="X-AnyLabeling is a program with windows, which this package does not install",
        )


def laid(image: NDArray[np.uint8], question: Question) -> tuple[NDArray[np.uint8], Question]:
    """An image and a question about it on the canvas, at its upper left corner."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = min(CANVAS[0] / height, CANVAS[1] / width)
    size = max(1, int(height * scale)), max(1, int(width * scale))
    canvas = np.zeros((*CANVAS, 3), np.uint8)
    small = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    canvas[: size[0], : size[1]] = np.asarray(small)
    return canvas, question.scaled(size[1] / width, size[0] / height)


def onnx_runtime(directory: Path) -> tuple[Answer, str]:
    """Both files as X-AnyLabeling asks them, on ONNX Runtime where it is installed and on OpenVINO else; and which."""
    if is_there("onnxruntime"):
        import onnxruntime

        sessions = [
            onnxruntime.InferenceSession(str(directory / name), providers=["CPUExecutionProvider"])
            for name in (ENCODER, DECODER)
        ]
        runs: list[Any] = [lambda values, session=session: session.run(None, values) for session in sessions]
        runtime = f"onnxruntime {onnxruntime.__version__}"
    else:
        require_extra("deploy", "target = x_anylabeling")
        from lora_sam.predictors.openvino_parts import openvino_core

        compiled = [
            openvino_core().compile_model(str(directory / name), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            for name in (ENCODER, DECODER)
        ]
        runs = [lambda values, model=model: [model(values)[port] for port in model.outputs] for model in compiled]
        runtime = "OpenVINO"
    encode, decode = runs

    def answer(canvas: NDArray[np.uint8], question: Question) -> NDArray[np.bool_]:
        points, labels = [question.points], [question.labels]
        if question.box is not None:
            points, labels = [question.box.reshape(2, 2), *points], [np.array([2, 3]), *labels]
        coords = np.concatenate([*points, np.zeros((1, 2))])[None].astype(np.float32)
        kinds = np.concatenate([*labels, [-1]])[None].astype(np.float32)
        (embedding, *_) = encode({"image": canvas.astype(np.float32)})
        masks, *_ = decode(
            {
                "image_embeddings": embedding,
                "point_coords": coords,
                "point_labels": kinds,
                "mask_input": np.zeros((1, 1, _MASK_INPUT, _MASK_INPUT), np.float32),
                "has_mask_input": np.zeros(1, np.float32),
                "orig_im_size": np.array(CANVAS, np.float32),
            }
        )
        mask: NDArray[np.bool_] = masks[0, 0] > 0
        return mask

    return answer, runtime


def _write_parts(packed: Packed, directory: Path) -> None:
    import torch

    from lora_sam.deployment.onnx_parts import META_AXES, META_INPUTS, META_OUTPUTS, meta_example, save_part
    from lora_sam.deployment.packs.canvas import CanvasDecoder, CanvasEncoder
    from lora_sam.models.family import frame_of

    sam, side = packed.base.sam, packed.base.image_size
    frame: Frame = frame_of(sam)
    save_part(
        CanvasEncoder(sam, frame, CANVAS),
        (torch.zeros(*CANVAS, 3),),
        directory / ENCODER,
        inputs=("image",),
        outputs=("image_embeddings",),
    )
    save_part(
        CanvasDecoder(sam, frame, CANVAS),
        meta_example(sam, side),
        directory / DECODER,
        inputs=META_INPUTS,
        outputs=META_OUTPUTS,
        axes=META_AXES,
    )
