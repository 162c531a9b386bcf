"""Masks as files: PNG, a label image, COCO JSON, the prompts, and Python that makes the same masks."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.app.backends import code_of
from lora_sam.app.pictures import Picture
from lora_sam.app.runs import Run
from lora_sam.app.scene import Scene, inside, objects_json
from lora_sam.core.mask_files import coco_of
from lora_sam.evaluation.backends.names import TORCH
from lora_sam.prompts.objects import batches

MaskArray = NDArray[np.bool_]


def files_of(
    picture: Picture, scene: Scene, masks: Mapping[str, MaskArray], scores: Mapping[str, Sequence[float]]
) -> dict[str, bytes]:
    """Name and content of every file: for each model a ZIP of masks, a label image and COCO JSON; and the prompts.

    Args:
        picture: The image.
        scene: Its prompts.
        masks: Masks at the original size, bool [N, H, W], by model.
        scores: IoU as predicted, [N], by model.
    """
    made: dict[str, bytes] = {}
    for key, found in masks.items():
        name = _file_name(key)
        made[f"{name}_masks.zip"] = mask_archive(found)
        made[f"{name}_labels.png"] = label_image(found)
        content = coco(picture, found, scores[key])
        made[f"{name}_coco.json"] = json.dumps(content).encode()
    height, width = picture.size
    sizes = {"width": width, "height": height}
    prompts = {"image": picture.name, **sizes, "objects": objects_json(inside(scene.objects, picture.size))}
    made["prompts.json"] = json.dumps(prompts, indent=1).encode()
    return made


def png(values: NDArray[Any]) -> bytes:
    """An array as PNG: bool as 1-bit, uint8 and uint16 as grey or RGB."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, format="PNG")
    return file.getvalue()


def mask_archive(masks: MaskArray) -> bytes:
    """A ZIP with one 8-bit PNG per mask, 0 and 255: `object_001.png` and so on."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
        for number, mask in enumerate(masks, 1):
            archive.writestr(f"object_{number:03d}.png", png(np.where(mask, 255, 0).astype(np.uint8)))
    return file.getvalue()


def label_image(masks: MaskArray) -> bytes:
    """One PNG, 0 for background and n for object n; 16-bit from 256 objects on; the smaller mask wins."""
    labels = np.zeros(masks.shape[1:], np.uint8 if len(masks) < 256 else np.uint16)
    for index in np.argsort(-masks.sum(axis=(1, 2)), kind="stable"):
        labels[masks[index]] = index + 1
    return png(labels)


def coco(picture: Picture, masks: MaskArray, scores: Sequence[float]) -> dict[str, Any]:
    """COCO instances: one image, one category, an annotation with compressed RLE per mask that is not empty."""
    return coco_of(masks, np.asarray(scores, np.float64), picture.name, None)


def snippet(scene: Scene, picture: Picture, run: Run) -> str:
    """Python that makes the masks of base and tuned again, as `masks["base"]` and `masks["tuned"]`, in order."""
    objects = tuple(one for one in inside(scene.objects, picture.size) if not one.empty)
    directory = str(run.directory.root)
    exported = scene.backend != TORCH
    imports, tuned = code_of(run.directory, scene.backend)
    scale = f", {directory!r}" if "scale" in run.facts else ""
    lines = ["import numpy as np", ""]
    lines.append("from lora_sam import read_image")
    lines += ["from lora_sam.runs.loading import load_adapted, predictors_for"]
    if exported:
        lines += imports
    lines += [
        "",
        f"adapted = load_adapted({directory!r})",
        *([f"adapted.strength().set({scene.alpha!r})"] if scene.alpha != 1 and not exported else []),
        f"predictors = predictors_for(adapted, {run.facts['image_size']})",
    ]
    if exported:
        lines.append(f'predictors["tuned"] = {tuned}')
    lines += [
        f"image = read_image({(picture.path or picture.name)!r}{scale})",
        f"masks = {{name: np.zeros(({len(objects)}, *image.shape[:2]), bool) for name in predictors}}",
        "for name, predictor in predictors.items():",
    ]
    for places, prompts in batches(objects):
        arguments = []
        if prompts.boxes is not None:
            arguments.append(f"boxes={_numbers(prompts.boxes)}")
        if prompts.points is not None and prompts.labels is not None:
            arguments += [f"points={_numbers(prompts.points)}", f"labels={prompts.labels.tolist()}"]
        if scene.choice in ("single", "best"):
            extra = ", multimask=True" if scene.choice == "best" else ""
            lines.append(f"    masks[name][{places}] = predictor.segment(image, {', '.join(arguments)}{extra}).masks")
        else:
            lines += [
                "    from lora_sam.predictors.prompting import prompts_from",
                f"    prompts = prompts_from({_by_name(arguments)}, image.shape[:2])",
                f"    masks[name][{places}] = predictor.predict_all(image, prompts).logits[:, {scene.choice}] > 0",
            ]
    if not objects:
        lines.append("    pass  # no prompts yet")
    return "\n".join(lines) + "\n"


def _by_name(arguments: Sequence[str]) -> str:
    given = dict(argument.split("=", 1) for argument in arguments)
    return ", ".join(given.get(name, "None") for name in ("boxes", "points", "labels"))


def _numbers(values: NDArray[np.float32]) -> Any:
    """Nested lists of the shortest numbers that are the same in float32."""
    if values.ndim == 0:
        short = float(str(values))
        return int(short) if short.is_integer() else short
    return [_numbers(np.asarray(part, np.float32)) for part in values]


def _file_name(key: str) -> str:
    return re.sub(r"[^\w.-]+", "_", key, flags=re.ASCII).strip("._") or "tuned"
