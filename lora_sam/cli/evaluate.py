"""Measure torch, IR and INT8 side by side: the same images, the same prompts, one table."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lora_sam.core.config import from_conf
from lora_sam.core.errors import AdapterError, ConfigError, DataError
from lora_sam.core.run_directory import RunDirectory, find_run, from_here
from lora_sam.evaluation.backends.names import Name, in_order
from lora_sam.predictors.openvino_parts import ENCODER, openvino_directory
from lora_sam.runs.manifest import command

if TYPE_CHECKING:
    from lora_sam.evaluation.backends.result import Comparison
    from lora_sam.evaluation.task import Task
    from lora_sam.runs.backends import Origin


STEP = "evaluate"


GATE_CLOSED = 3


# options that do not change what is measured
_NO_SETTINGS = ("run", "base", "fail_under", "data_root", "output")


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure back ends side by side, all on the same images and prompts: quality, latency, size and memory.

    Everything computes on the CPU. Of a run, the table goes to the terminal, `backends.json` and `report.html`. Of IR
    parts without their run (run=path/to/image_encoder.xml, or the other part), the images come from data_root and the
    prompts are tight boxes.

    Attributes:
        run: Run directory, or latest, or the path of either IR part; the other one lies beside it.
        backends: Which, out of base, tuned, merged (torch), fp32, fp16, int8, int8_weights, int4_weights (OpenVINO with
            such weights, computed in fp32), bf16 and int8_bf16 (the fp16 and int8 files computed in bf16); null takes
            all that are there.
        split: train, val or test; null takes the one on which the run compared base and tuned, or test.
        mask_threshold: Logit above which a pixel belongs to a mask, or tune for the one with the highest mean IoU of
            tuned (or else of the first back end) on the validation split; the same for all back ends.
        multimask: Of SAM's three masks for ambiguous prompts, take the one with the highest predicted IoU, instead of
            the single mask.
        max_images: Measure on so many images of the split, drawn by the run's seed; null takes all.
        fail_under: Least mean IoU of every back end but base; if one is below, the exit code is 3.
        repeats: How often every latency is measured.
        threads: Threads to compute with; null leaves it to torch and OpenVINO.
        base: Checkpoint of the base weights; null takes the file that the run used.
        data_root: Directory of labelled images for IR parts without their run; of a run, where its images lie now, if
            they have moved.
        data_format: How those are labelled, by a file of `conf/data`, as in data=...; auto looks what is there.
        output: File for the figures as JSON instead of the run's `backends.json`; nothing is written into the run then.
    """

    run: Annotated[str, Field(min_length=1)]
    backends: Annotated[tuple[Name, ...], Field(min_length=1)] | None
    split: Literal["train", "val", "test"] | None
    mask_threshold: Annotated[float, Field(ge=-100, le=100)] | Literal["tune"]
    multimask: bool
    max_images: Annotated[int, Field(ge=1)] | None
    fail_under: Annotated[float, Field(ge=0, le=1)] | None
    repeats: Annotated[int, Field(ge=1, le=10_000)]
    threads: Annotated[int, Field(ge=1, le=4096)] | None
    base: str | None
    data_root: Annotated[str, Field(min_length=1)] | None
    data_format: Annotated[str, Field(min_length=1)]
    output: Annotated[str, Field(min_length=1)] | None

    def check(self) -> None:
        """Raise `ConfigError` where options contradict each other, or a format is unknown."""
        from lora_sam.data.detection import formats

        known = ("auto", *formats())
        if self.data_format not in known:
            raise ConfigError(f"data_format = {self.data_format}: must be one of {', '.join(known)}")
        if is_parts(self.run) and self.data_root is None:
            raise ConfigError(
                f"run = {self.run}: IR parts come without images to measure them on; add data_root=<directory>"
            )
        if is_parts(self.run) and self.base is not None:
            raise ConfigError("base: IR parts need no base weights; leave it out")

    def perform(self) -> int:
        """Measure, write and print; returns 0, or 3 where `fail_under` is not reached.

        Raises:
            AdapterError: a back end is missing, stale or damaged; names the command that makes it.
            CheckpointError: the base weights are not found.
            ConfigError: a back end or option that is not to be had here.
            DataError: the images cannot be read.
            TrainingError: the figures cannot be written.
        """
        if is_parts(self.run):
            return self._tell(self._measured(*self._handed_over()), None)
        run = find_run(self.run)
        return self._tell(self._measured(*self._of_run(run)), run)

    def perform_once(self) -> int:
        """`perform`, but only print where the same was measured before; for runs."""
        from lora_sam.evaluation.backends.result import read_backends

        run = find_run(self.run)
        origin, names, task = self._of_run(run)
        try:
            found = read_backends(run.backends, command(STEP, run.root))
        except AdapterError:
            found = None
        if (
            found is None
            or found.made_from != self._made_from(origin, names, task)
            or found.settings != self._settings(names)
        ):
            return self._tell(self._measured(origin, names, task), run)
        print(f"{run.backends}: already there", file=sys.stderr)
        return self._tell(dataclasses.replace(found, fail_under=self.fail_under), run)

    def _of_run(self, run: RunDirectory) -> tuple[Origin, tuple[str, ...], Task]:
        from lora_sam.evaluation.task import Task
        from lora_sam.runs.backends import RunBackEnds
        from lora_sam.runs.places import opened
        from lora_sam.runs.resuming import settings_of

        origin = RunBackEnds(run, self._base())
        names = in_order(self.backends or origin.offered)
        origin.require(names)  # before images are read, which may take long
        settings = settings_of(run, self.data_root)
        splits = opened(run, settings, self.data_root)
        split = self.split or settings.evaluate_split
        return origin, names, Task(splits, split, settings.prompt, settings.seed, self.max_images)

    def _handed_over(self) -> tuple[Origin, tuple[str, ...], Task]:
        from lora_sam.evaluation.task import Task
        from lora_sam.runs.backends import PartsBackEnds

        origin = PartsBackEnds(openvino_directory(Path(self.run))[0].parent)
        offered = origin.offered
        names = in_order(self.backends or offered)
        absent = [name for name in names if name not in offered]
        if absent:
            raise ConfigError(f"backends: {', '.join(absent)}: not in these files, which offer {' and '.join(offered)}")
        root = Path(str(self.data_root)).expanduser()
        if not root.is_dir():
            raise DataError(f"data_root = {root}: no such directory; give the one with your images and labels")
        splits = from_conf(f"data/{self.data_format}", root=str(root)).open(0)
        for note in (*splits.notes, *splits.skipped):
            print(note, file=sys.stderr)
        return origin, names, Task(splits, self.split or "test", from_conf("prompt/box"), 0, self.max_images)

    def _measured(self, origin: Origin, names: tuple[str, ...], task: Task) -> Comparison:
        from lora_sam.deployment.comparing import Options, measure

        options = Options(
            mask_threshold=self.mask_threshold,
            multimask=self.multimask,
            repeats=self.repeats,
            threads=self.threads,
            base=self._base(),
        )
        return measure(
            origin,
            names,
            task,
            options,
            made_from=self._made_from(origin, names, task),
            settings=self._settings(names),
            fail_under=self.fail_under,
        )

    def _tell(self, comparison: Comparison, run: RunDirectory | None) -> int:
        """Write and print what was measured; returns the exit code."""
        from lora_sam.core.console import print_table
        from lora_sam.evaluation.backends.result import speeds, verdicts, write_backends
        from lora_sam.evaluation.backends.table import caption, render_backends

        places = []
        output = Path(self.output) if self.output is not None else None if run is None else run.backends
        subject = str(Path(self.run).parent) if run is None else from_here(run.root)
        print_table(render_backends(comparison, f"back ends of {subject}"))
        speed = speeds(comparison)
        print("\n".join([*caption(comparison), "", *verdicts(comparison), *([] if speed is None else [speed])]))
        if output is not None:  # once it is shown: a disk may be full or read-only
            write_backends(output, comparison)
            places.append(f"figures   {output}")
        if run is not None and self.output is None and _put_into_report(run, comparison):
            places.append(f"report    {run.report}")
        if places:
            print("\n".join(places))
        if not comparison.failed:
            return 0
        values = ", ".join(f"{name} {comparison.backends[name].iou:.4f}" for name in comparison.failed)
        print(f"fail_under = {comparison.fail_under:g} is not reached: mean IoU of {values}", file=sys.stderr)
        return GATE_CLOSED

    def _made_from(self, origin: Origin, names: tuple[str, ...], task: Task) -> dict[str, str]:
        return {**origin.digests(names), "data": task.digest()}

    def _settings(self, names: tuple[str, ...]) -> dict[str, Any]:
        from lora_sam.core.config import plain_fields

        chosen = {key: value for key, value in plain_fields(self).items() if key not in _NO_SETTINGS}
        return {**chosen, "backends": list(names)}

    def _base(self) -> Path | None:
        return None if self.base is None else Path(self.base)


def is_parts(run: str) -> bool:
    """Whether what was given as `run` is a pair of IR parts: the path of one, or their directory."""
    return run.endswith(".xml") or (Path(run) / ENCODER).is_file()


def _put_into_report(run: RunDirectory, comparison: Comparison) -> bool:
    """Put the section into the run's report; False where it has none."""
    from lora_sam.evaluation.backends.result import verdicts
    from lora_sam.report.backends import put_backends

    return run.report.is_file() and put_backends(run.report, dataclasses.asdict(comparison), verdicts(comparison))
