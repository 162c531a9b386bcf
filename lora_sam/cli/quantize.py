"""Store a run's exported model in INT8, calibrated on its own images, and measure what that costs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from lora_sam.core.errors import LoraSamError
from lora_sam.core.extras import require_extra
from lora_sam.core.run_directory import RunDirectory, find_run
from lora_sam.data.sources import SampleSource
from lora_sam.data.splits import Splits
from lora_sam.deployment.quantizing.attempts import Scale, Workshop, say
from lora_sam.deployment.quantizing.calibration import digest, drawn
from lora_sam.deployment.quantizing.compression import Preset, Recipe
from lora_sam.deployment.quantizing.drop import Validation
from lora_sam.deployment.quantizing.ladder import Attempt, best
from lora_sam.evaluation.backends.names import Mode
from lora_sam.predictors.openvino_parts import ENCODER
from lora_sam.runs.elsewhere import working_copy
from lora_sam.runs.exported import STEP as EXPORT
from lora_sam.runs.exported import made_from as made_from_merged
from lora_sam.runs.exported import require_exported
from lora_sam.runs.manifest import Step, command, is_done, read_step, step_directory, write_step
from lora_sam.runs.places import opened
from lora_sam.runs.quantized import STEP
from lora_sam.runs.resuming import settings_of

if TYPE_CHECKING:
    from lora_sam.training.settings import Settings


CHECK_FAILED = 3
_NO_SETTINGS = ("run", "data_root", "output")  # options that change no result


class DropError(LoraSamError):
    """Even the best quantised model loses more than `max_drop`."""


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """Quantise the exported image encoder after training (NNCF), and compare its masks with those of the fp32 parts.

    It is calibrated on the run's own training images. Where the masks lose more than max_drop, other settings are tried
    one after the other until they do not: SmoothQuant's exponents, then the neck and the MLPs of the first and last
    block in floating point, then NNCF's accuracy control. The patch embedding always computes in floating point.

    Attributes:
        run: Run directory, or latest.
        mode: int8 quantises weights and activations, which is faster; int8_weights and int4_weights only store weights
            in fewer bits, which needs no calibration. Each writes a directory of its own, openvino/<mode>.
        decoder: Quantise the mask decoder too, calibrated with boxes, points, several points and mask prompts; it stays
            in floating point if it loses more than max_drop.
        max_drop: Points of mean IoU (of 100) that may be lost against the fp32 parts, both computed in fp32, on the
            validation split with the same prompts; if all settings lose more, nothing is written and the exit code is
            3. null measures nothing and takes the first settings.
        subset: Training images to calibrate with.
        seed: Draws them.
        preset: mixed lets activations have a zero point, performance does not.
        fast: Correct biases from statistics of the fp32 model; false takes those of the quantised one, layer by layer,
            which takes far longer.
        val_images: Validation images to measure on, drawn by the run's seed; null takes all.
        data_root: Where the run's images lie now, if they have moved.
        output: Directory to work in instead of the run, which may be one that can only be read: adapter, settings and
            report are copied there. Later steps take it as their run.
    """

    run: Annotated[str, Field(min_length=1)]
    mode: Mode
    decoder: bool
    max_drop: Annotated[float, Field(ge=0, le=100)] | None
    subset: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    preset: Preset
    fast: bool
    val_images: Annotated[int, Field(ge=1)] | None
    data_root: Annotated[str, Field(min_length=1)] | None
    output: Annotated[str, Field(min_length=1)] | None

    def perform(self) -> int:
        """Do it unless it was done before; returns 0, or 3 if too much would be lost.

        Raises:
            AdapterError: the fp32 parts are missing, stale or changed, or the directory cannot be written.
            ConfigError: OpenVINO or NNCF is not installed.
            DataError: the run's images cannot be read.
        """
        require_extra("deploy", "quantize")
        run = working_copy(find_run(self.run), self.output)
        exported = require_exported(run, "fp32")
        settings = settings_of(run, self.data_root)
        needed = self.mode == "int8" or self.max_drop is not None
        splits = opened(run, settings, self.data_root) if needed else None
        directory = run.openvino(self.mode)
        origin, options = made_from(run, splits), self._options(exported)
        if is_done(directory, STEP, origin, options):
            print(f"{directory}: already there")
            return 0
        try:
            with step_directory(directory, command(STEP, run.root, mode=self.mode)) as temporary:
                checks = self._fill(temporary, exported, settings, splits)
                step = write_step(temporary, STEP, made_from=origin, settings=options, checks=checks)
        except DropError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return CHECK_FAILED
        print("\n".join(_summary(directory, exported, step)))
        return 0

    def _options(self, exported: Path) -> dict[str, Any]:
        """What changes the result: all options but `run`, and those of the export."""
        of_export = read_step(exported, EXPORT, "").settings
        return {
            **{name: value for name, value in asdict(self).items() if name not in _NO_SETTINGS},
            "export": dict(of_export),
        }

    def _fill(self, place: Path, exported: Path, settings: Settings, splits: Splits | None) -> dict[str, Any]:
        """Write both parts into the directory `place`; returns what was measured.

        Raises:
            DropError: see there.
        """
        images = None if splits is None or self.mode != "int8" else self._drawn(splits.train)
        scale = None
        if splits is not None and self.max_drop is not None:
            scale = Scale.of(self._validation(settings, splits.val), exported)
        with TemporaryDirectory(dir=place) as scratch:
            workshop = Workshop(
                mode=self.mode,
                recipe=Recipe(self.preset, self.fast),
                exported=exported,
                place=place,
                scratch=Path(scratch),
                images=images,
                seed=self.seed,
                scale=scale,
                limit=self.max_drop or 0.0,
            )
            encoder = workshop.quantize_encoder()
            if not workshop.is_enough(encoder):
                raise DropError(self._refusal(encoder))
            decoder = workshop.quantize_decoder() if self.decoder else []
            in_use = decoder if decoder and workshop.is_enough(decoder) else []
        return {
            "calibration_images": 0 if images is None else len(images),
            "rung": best(encoder).rung.name,
            "decoder": best(in_use).rung.name if in_use else "floating point",
            "tried": [
                f"{part}, {attempt}" for part, all_ in (("encoder", encoder), ("decoder", decoder)) for attempt in all_
            ],
            **_measured(scale, best(in_use or encoder)),
        }

    def _drawn(self, train: SampleSource) -> SampleSource:
        images = drawn(train, self.subset, "calibration", self.seed)
        if len(images) < self.subset:
            say(f"subset = {self.subset}: the training split has {len(images)} images, all of them are used")
        return images

    def _validation(self, settings: Settings, val: SampleSource) -> Validation:
        images = val if self.val_images is None else drawn(val, self.val_images, "quantize", settings.seed)
        return Validation(images, lambda sample: settings.prompt.evaluation_prompts(sample, settings.seed))

    def _refusal(self, tried: Sequence[Attempt]) -> str:
        attempt = best(tried)
        assert attempt.drop is not None
        remedy = f"allow more with max_drop={_rounded_up(attempt.drop):g}"
        if self.mode != "int8_weights":
            remedy += ", or compress weights only with mode=int8_weights"
        return (
            f"{self.mode} loses {attempt.drop:.2f} points of IoU at best ({attempt.rung.name}), and max_drop = "
            f"{self.max_drop:g}; nothing was written: {remedy}"
        )


def made_from(run: RunDirectory, splits: Splits | None) -> dict[str, str]:
    """SHA-256 of the merged weights, and of what images calibrate and measure. Raises as `require_merged` does."""
    return {**made_from_merged(run), **({} if splits is None else {"data": digest(splits)})}


def _measured(scale: Scale | None, attempt: Attempt) -> dict[str, Any]:
    if scale is None or attempt.drop is None:
        return {"iou_fp32": None, "iou": None, "drop": None, "images": 0}
    return {
        "iou_fp32": scale.reference,
        "iou": scale.reference - attempt.drop / 100,
        "drop": attempt.drop,
        "images": len(scale.validation.source),
    }


def _summary(directory: Path, exported: Path, step: Step) -> list[str]:
    checks = step.checks
    binary = Path(ENCODER).with_suffix(".bin")
    size, before = ((place / binary).stat().st_size for place in (directory, exported))
    lines = [
        f"{directory}: image encoder {size / 1e6:.1f} MB, {size / before:.2f} of its fp32 weights; "
        f"{checks['rung']}; decoder: {checks['decoder']}"
    ]
    if checks["drop"] is not None:
        lines.append(
            f"  IoU {checks['iou_fp32']:.4f} -> {checks['iou']:.4f} on {checks['images']} validation images: "
            f"{-checks['drop']:+.2f} points (it may lose {step.settings['max_drop']:g})"
        )
    return lines


def _rounded_up(drop: float) -> float:
    """To one decimal, and never less than `drop`."""
    import math

    return math.ceil(drop * 10) / 10
