"""Write a run's merged model as two parts, OpenVINO IR or ONNX, and check that they compute the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.extras import require_extra
from lora_sam.core.run_directory import RunDirectory, find_run
from lora_sam.core.version import __version__
from lora_sam.deployment.exporting import compared
from lora_sam.runs.adapter_files import find_adapter, read_facts
from lora_sam.runs.elsewhere import working_copy
from lora_sam.runs.exported import STEP, made_from
from lora_sam.runs.manifest import Step, command, is_done, read_step, step_directory, write_step
from lora_sam.runs.merged import load_merged

if TYPE_CHECKING:
    from lora_sam.models.base_model import BaseModel


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the merged model as image encoder and mask decoder, and compare their masks with torch's.

    Attributes:
        run: Run directory, or latest.
        precision: How weights are stored, fp32 or fp16. What is computed in is chosen when the model is loaded.
        format: openvino, or onnx, with the names of segment_anything's own export (needs the package onnx).
        multimask: Give all four masks of a prompt, the single one first, as OpenVINO Model API needs them; false for
            the single one alone.
        min_iou: Least mean IoU between the masks of torch and of the exported parts, both computed in fp32, on prompts
            of the validation split; below it nothing is written.
        data_root: Where the run's images lie now, if they have moved; without images drawn ones are compared on.
        output: Directory to work in instead of the run, which may be one that can only be read: adapter, settings and
            report are copied there. Later steps take it as their run.
    """

    run: Annotated[str, Field(min_length=1)]
    precision: Literal["fp32", "fp16"]
    format: Literal["openvino", "onnx"]
    multimask: bool
    min_iou: Annotated[float, Field(ge=0, le=1)]
    data_root: Annotated[str, Field(min_length=1)] | None
    output: Annotated[str, Field(min_length=1)] | None

    def check(self) -> None:
        """Raise `ConfigError` where the format needs a package that is not there, or does not have the precision."""
        require_extra("deploy", "export")
        if self.format == "onnx":
            require_extra("onnx", "format = onnx")
        if self.format == "onnx" and self.precision != "fp32":
            raise ConfigError(f"precision = {self.precision}: ONNX files are written as fp32; add precision=fp32")

    def perform(self) -> int:
        """Do it unless it was done before; returns 0.

        Raises:
            AdapterError: the merged weights are missing or stale, the parts do not compute the same, or the directory
                cannot be written.
            DataError: the images at `data_root` cannot be read.
        """
        run = working_copy(find_run(self.run), self.output)
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
        from lora_sam.deployment.ir_parts import save_ir
        from lora_sam.deployment.onnx_parts import save_onnx
        from lora_sam.predictors.openvino_parts import DECODER, ENCODER
        from lora_sam.predictors.openvino_predictor import OpenVINOPredictor
        from lora_sam.predictors.torch_predictor import TorchPredictor

        _check_format(run, self.format)
        base = load_merged(run)
        remedy = command(STEP, run.root, precision=self.precision, format=self.format)
        with step_directory(directory, remedy) as temporary:
            if self.format == "onnx":
                save_onnx(base.sam, base.image_size, temporary, multimask=self.multimask)
                parts = [temporary / Path(name).with_suffix(".onnx") for name in (ENCODER, DECODER)]
            else:
                for name, model in zip((ENCODER, DECODER), self._models(run, base, origin, settings), strict=True):
                    save_ir(model, temporary / name, half=self.precision == "fp16")
                parts = [temporary / ENCODER, temporary / DECODER]
            # ONNX too: OpenVINO reads it
            exported = OpenVINOPredictor(*parts, execution="f32", compile_cache=False, verify=False)
            checks = compared(TorchPredictor(base.sam, base.image_size), exported, run, self.data_root)
            if not checks["mask_iou"] >= self.min_iou:
                raise AdapterError(
                    f"the exported parts do not compute what torch computes: mean mask IoU {checks['mask_iou']:.5f}, "
                    f"min_iou = {self.min_iou}; nothing was written. Try precision=fp32, or a lower min_iou"
                )
            return write_step(temporary, STEP, made_from=origin, settings=settings, checks=checks)

    def _models(
        self, run: RunDirectory, base: BaseModel, origin: dict[str, str], settings: dict[str, Any]
    ) -> Iterator[Any]:
        """Encoder, then decoder. What is there in fp32 is not traced again for fp16: it gives the same weights."""
        from lora_sam.deployment.ir_parts import decoder_ir, encoder_ir
        from lora_sam.predictors.openvino_parts import DECODER, ENCODER, read_part
        from lora_sam.runs.loading import load_classes

        exact = run.openvino("fp32")
        there = self.precision != "fp32" and is_done(exact, STEP, origin, {**settings, "precision": "fp32"})
        if there and read_step(exact, STEP, "").lora_sam == __version__:
            yield from (read_part(exact / name) for name in (ENCODER, DECODER))
            return
        yield encoder_ir(base.sam, base.image_size)
        classes = load_classes(find_adapter(run.root))
        yield decoder_ir(base.sam, base.image_size, multimask=self.multimask, classes=classes)


def _check_format(run: RunDirectory, wanted: str) -> None:
    """Raise `AdapterError` where the run's model cannot be exported in the format that is wanted."""
    from lora_sam.models.family import why_not

    adapter = find_adapter(run.root)
    reason = why_not(read_facts(adapter)["architecture"], wanted)
    if reason is not None:
        raise AdapterError(f"format = {wanted}: {adapter}: {reason}; leave format out")
