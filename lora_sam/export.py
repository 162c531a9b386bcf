"""Write a run's merged model as two parts, OpenVINO IR or ONNX, and check that they compute the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lora_sam.core.errors import AdapterError, ConfigError, LoraSamError
from lora_sam.core.files import read_json, sha256_of
from lora_sam.merge import load_merged, require_merged
from lora_sam.runs.adapter_files import RunDirectory, find_run
from lora_sam.runs.manifest import Step, command, is_done, require_step, step_directory, write_step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lora_sam.core.config import Settings
    from lora_sam.core.structures import Prompts
    from lora_sam.predictors.interface import Predictor

STEP = "export"

# Enough to notice a wrong constant; the whole test split is what `python -m lora_sam.evaluate` looks at.
CHECKED_IMAGES, CHECKED_OBJECTS = 4, 8


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the merged model as image encoder and mask decoder, and compare their masks with torch's.

    Attributes:
        run: Run directory, or latest.
        precision: How weights are stored, fp32 or fp16. What is computed in is chosen when the model is loaded.
        format: openvino, or onnx, with the names of segment_anything's own export (needs the package onnx).
        multimask: Give all four masks of a prompt, the single one first, instead of the single one.
        min_iou: Least mean IoU between the masks of torch and of the exported parts, both computed in fp32, on prompts
            of the validation split; below it nothing is written.
    """

    run: Annotated[str, Field(min_length=1)]
    precision: Literal["fp32", "fp16"]
    format: Literal["openvino", "onnx"]
    multimask: bool
    min_iou: Annotated[float, Field(ge=0, le=1)]

    def check(self) -> None:
        """Raise `ConfigError` where the format needs a package that is not there, or does not have the precision."""
        from importlib.util import find_spec

        if self.format == "onnx" and find_spec("onnx") is None:
            raise ConfigError("format = onnx: needs the package onnx, which is not installed: pip install onnx")
        if self.format == "onnx" and self.precision != "fp32":
            raise ConfigError(f"precision = {self.precision}: ONNX files are written as fp32; add precision=fp32")

    def perform(self) -> int:
        """Do it unless it was done before; returns 0.

        Raises:
            AdapterError: the merged weights are missing or stale, the parts do not compute the same, or the directory
                cannot be written.
        """
        run = find_run(self.run)
        directory = run.openvino(self.precision) if self.format == "openvino" else run.root / "onnx"
        origin = made_from(run)
        settings = {"precision": self.precision, "format": self.format, "multimask": self.multimask}
        if is_done(directory, STEP, origin, settings):
            print(f"{directory}: already there")
            return 0
        step = self._write(run, directory, origin, settings)
        size = sum((directory / name).stat().st_size for name in step.files)
        checks = step.checks
        print(
            f"{directory}: {size / 1e6:.1f} MB; mean mask IoU with torch {checks['mask_iou']:.5f} on "
            f"{checks['prompts']} prompts of {checks['images']} {checks['of']} images"
        )
        return 0

    def _write(self, run: RunDirectory, directory: Path, origin: dict[str, str], settings: dict[str, Any]) -> Step:
        from lora_sam.deployment.ir_parts import decoder_ir, encoder_ir, save_ir, save_onnx
        from lora_sam.predictors.openvino_predictor import DECODER, ENCODER, OpenVINOPredictor
        from lora_sam.predictors.torch_predictor import TorchPredictor

        base = load_merged(run)
        remedy = command(STEP, run.root, precision=self.precision, format=self.format)
        with step_directory(directory, remedy) as temporary:
            if self.format == "onnx":
                save_onnx(base.sam, base.image_size, temporary, multimask=self.multimask)
                parts = [temporary / Path(name).with_suffix(".onnx") for name in (ENCODER, DECODER)]
            else:
                half = self.precision == "fp16"
                save_ir(encoder_ir(base.sam, base.image_size), temporary / ENCODER, half=half)
                save_ir(decoder_ir(base.sam, base.image_size, multimask=self.multimask), temporary / DECODER, half=half)
                parts = [temporary / ENCODER, temporary / DECODER]
            # ONNX too: OpenVINO reads it
            exported = OpenVINOPredictor(*parts, execution="f32", compile_cache=False)
            checks = compared(TorchPredictor(base.sam, base.image_size), exported, run)
            if not checks["mask_iou"] >= self.min_iou:
                raise AdapterError(
                    f"the exported parts do not compute what torch computes: mean mask IoU {checks['mask_iou']:.5f}, "
                    f"min_iou = {self.min_iou}; nothing was written. Try precision=fp32, or a lower min_iou"
                )
            return write_step(temporary, STEP, made_from=origin, settings=settings, checks=checks)


def made_from(run: RunDirectory) -> dict[str, str]:
    """SHA-256 of what the exported parts are made from. Raises `AdapterError` as `require_merged` does."""
    return {"merged": sha256_of(require_merged(run))}


def require_exported(run: RunDirectory, precision: str) -> Path:
    """Directory of the run's IR parts with weights stored at `precision`.

    Raises:
        AdapterError: they are missing, stale or changed; names the command that makes them.
    """
    directory = run.openvino(precision)
    require_step(directory, STEP, made_from(run), command(STEP, run.root, precision=precision))
    return directory


def compared(reference: Predictor, exported: Predictor, run: RunDirectory) -> dict[str, Any]:
    """How far the masks of `exported` are from those of `reference`.

    On some validation images of the run, with its own kind of prompts and with one point per object; on drawn noise
    where the run's data is not there any more.

    Returns:
        `mask_iou` (mean over prompts), `logit_difference` (largest, low resolution), `prompts`, `images`, and `of`:
        `validation` or `random`.
    """
    import numpy as np

    try:
        cases, of = list(_validation_cases(settings_of(run))), "validation"
    except LoraSamError:
        cases, of = list(_random_cases()), "random"
    ious: list[float] = []
    difference = 0.0
    for image, prompts in cases:
        for prompt in prompts:
            wanted, found = reference.predict(image, prompt), exported.predict(image, prompt)
            union = (wanted.masks | found.masks).sum((1, 2))
            both = (wanted.masks & found.masks).sum((1, 2))
            ious += np.where(union > 0, both / np.maximum(union, 1), 1.0).tolist()
            difference = max(difference, float(np.abs(wanted.low_res_logits - found.low_res_logits).max()))
    return {
        "mask_iou": float(np.mean(ious)),
        "logit_difference": difference,
        "prompts": len(ious),
        "images": len(cases),
        "of": of,
    }


def settings_of(run: RunDirectory) -> Settings:
    """The settings of a run, from its `config.json`. Raises `AdapterError` or `ConfigError` if it is damaged."""
    from lora_sam.core.config import settings_from
    from lora_sam.runs.resuming import completed

    if not run.saved_config.is_file():
        raise AdapterError(f"{run.saved_config} is missing; give the directory of a finished run")
    return settings_from(completed(read_json(run.saved_config, "give the directory of a finished run"))[0])


def _validation_cases(settings: Settings) -> Iterator[tuple[NDArray[np.uint8], list[Prompts]]]:
    from lora_sam.evaluation.scoring import some_objects
    from lora_sam.prompts import PointPrompt

    source = settings.open_data().val
    for index in range(min(CHECKED_IMAGES, len(source))):
        sample = some_objects(source[index], CHECKED_OBJECTS, settings.seed)
        kinds = (settings.prompt, PointPrompt(farthest_share=1.0))
        yield sample.image, [kind.evaluation_prompts(sample, settings.seed) for kind in kinds]


def _random_cases() -> Iterator[tuple[NDArray[np.uint8], list[Prompts]]]:
    import numpy as np

    from lora_sam.core.structures import Prompts

    rng = np.random.default_rng(0)
    for size in ((96, 128), (150, 90)):
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        corners = rng.uniform(0, 0.6, (CHECKED_OBJECTS, 2)).astype(np.float32)
        boxes = np.concatenate([corners, corners + 0.3], axis=1) * np.array([size[1], size[0]] * 2, np.float32)
        points, labels = boxes[:, None, :2] + 1, np.ones((CHECKED_OBJECTS, 1), np.int64)
        yield image, [Prompts(boxes=boxes), Prompts(points=points, labels=labels)]


if __name__ == "__main__":
    from lora_sam.cli.step import run_step

    sys.exit(run_step(STEP, f"python -m lora_sam.{STEP}", sys.argv[1:]))
