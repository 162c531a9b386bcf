"""Measure base and tuned away from what was trained: other prompts, clicks, classes, and images of another kind."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import Field

from lora_sam.core.config import from_conf
from lora_sam.core.run_directory import RunDirectory, find_run, from_here
from lora_sam.core.wording import plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_sam.core.predictor import Predictor
    from lora_sam.evaluation.robustness.findings import Findings, Row
    from lora_sam.evaluation.robustness.measure import Measured, PromptsFor
    from lora_sam.evaluation.task import Task
    from lora_sam.prompts import PromptSource


STEP = "robustness"


FILE = "robustness.json"


COMPARED = ("base", "tuned")


Section = Literal[
    "jitter", "points", "prompts", "clicks", "calibration", "classes", "outlines", "detection", "forgetting"
]


SECTIONS: tuple[Section, ...] = get_args(Section)


# options that do not change what is measured
_NO_SETTINGS = ("run", "base", "threads", "data_root", "output")


# side in pixels of the images that show what was forgotten, and where their seed is apart from that of the run
_SIDE = 256


_SHAPES = "forgetting"


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Measure base and tuned side by side with prompts and on images that they were not trained for.

    On the same images and prompts: IoU against box jitter and number of points, a box against a point and no help at
    all, simulated clicks (NoC), calibration of the predicted IoU, classes, outlines (Hausdorff 95), COCO's figures by
    size; and whether the tuned model forgot shapes of other kinds. Everything computes on the CPU. The tables go to the
    terminal, the figures to `robustness.json` in the run, and a section to its `report.html`.

    Attributes:
        run: Run directory, or latest.
        sections: What to measure, out of jitter, points, prompts, clicks, calibration, classes, outlines, detection,
            forgetting; null takes all.
        split: train, val or test; null takes the one on which the run compared base and tuned.
        max_images: Measure on so many images of the split, drawn by the seed; null takes all.
        max_objects: Measure so many objects of an image, drawn by the seed; null takes all.
        jitter: Largest moves of each side of a tight box, as shares of its width or height.
        points: Numbers of points, half of them (rounded up) on the object and the others around it.
        clicks: Clicks after which an object is given up.
        shapes: Number of images with drawn shapes that show whether the model forgot.
        seed: Seed of draws, prompts and bootstrap; null takes that of the run.
        threads: Threads to compute with; null leaves it to torch.
        base: Checkpoint of the base weights; null takes the file that the run used.
        data_root: Where the run's images lie now, if they have moved.
        output: File for the figures as JSON instead of the run's `robustness.json`; nothing is written into the run
            then.
    """

    run: Annotated[str, Field(min_length=1)]
    sections: Annotated[tuple[Section, ...], Field(min_length=1)] | None
    split: Literal["train", "val", "test"] | None
    max_images: Annotated[int, Field(ge=1)] | None
    max_objects: Annotated[int, Field(ge=1)] | None
    jitter: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1, max_length=100)]
    points: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=64)]
    clicks: Annotated[int, Field(ge=1, le=1000)]
    shapes: Annotated[int, Field(ge=1, le=10_000)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None
    threads: Annotated[int, Field(ge=1, le=4096)] | None
    base: str | None
    data_root: Annotated[str, Field(min_length=1)] | None
    output: Annotated[str, Field(min_length=1)] | None

    def perform(self) -> int:
        """Measure, write and print; returns 0.

        Raises:
            AdapterError: there is no such run, it is not finished, or it is damaged.
            CheckpointError: the base weights are not found.
            DataError: the images cannot be read.
            TrainingError: the figures cannot be written.
        """
        run = find_run(self.run)
        findings = self._measured(run)
        self._tell(run, findings)
        return 0

    def _measured(self, run: RunDirectory) -> Findings:
        from lora_sam.core.config import plain_fields
        from lora_sam.evaluation.task import Task
        from lora_sam.runs.backends import RunBackEnds
        from lora_sam.runs.places import opened
        from lora_sam.runs.resuming import settings_of

        origin = RunBackEnds(run, None if self.base is None else Path(self.base))
        origin.require(COMPARED)  # before images are read, which may take long
        settings = settings_of(run, self.data_root)
        seed = settings.seed if self.seed is None else self.seed
        # the splits are those of the run, whatever is drawn here
        splits = opened(run, settings, self.data_root)
        task = Task(splits, self.split or settings.evaluate_split, settings.prompt, seed, self.max_images)
        predictors = origin.open(COMPARED, threads=self.threads)
        chosen = {key: value for key, value in plain_fields(self).items() if key not in _NO_SETTINGS}
        made_from = {**origin.digests(COMPARED), "data": task.digest()}
        return self._findings(predictors, task, made_from, {**chosen, "sections": list(self._sections)})

    @property
    def _sections(self) -> tuple[Section, ...]:
        return tuple(section for section in SECTIONS if section in (self.sections or SECTIONS))

    def _findings(
        self,
        predictors: Mapping[str, Predictor],
        task: Task,
        made_from: Mapping[str, str],
        settings: Mapping[str, object],
    ) -> Findings:
        from lora_sam.core.config import plain_fields
        from lora_sam.core.console import progress
        from lora_sam.core.groups import groups_in
        from lora_sam.evaluation.robustness import findings
        from lora_sam.evaluation.robustness.measure import OWN, measure

        asked, seed = set(self._sections), task.seed
        source = task.images(task.split)
        prompts = self._prompts(task)
        what = f"measuring base and tuned on {len(source)} images with {len(prompts)} kinds of prompts"
        with progress(what, "images") as on_image:
            measured = measure(
                predictors,
                source,
                prompts,
                max_objects=self.max_objects,
                seed=seed,
                outlines="outlines" in asked,
                detection="detection" in asked,
                clicks=self.clicks if "clicks" in asked else 0,
                on_image=on_image,
            )
        generic = self._generic(predictors, task) if "forgetting" in asked else None
        return findings.Findings(
            made_from=made_from,
            settings=settings,
            split=task.split,
            images=len(measured.classes),
            objects=sum(len(image.object_ids) for image in measured.scores[OWN]["base"]),
            groups=groups_in(measured.groups, task.splits.parts),
            seed=seed,
            prompt=plain_fields(task.prompt),
            jitter=self._rows("jitter", measured, seed),
            points=self._rows("points", measured, seed),
            prompts=self._rows("prompts", measured, seed),
            clicks=findings.clicking(measured, seed) if "clicks" in asked else None,
            calibration=findings.calibration(measured) if "calibration" in asked else None,
            classes=findings.by_class(measured, seed) if "classes" in asked else None,
            outlines=findings.outlines(measured, seed) if "outlines" in asked else None,
            detection=findings.detection(measured) if "detection" in asked else None,
            forgetting=None if generic is None else findings.forgetting(generic.scores[OWN], seed),
        )

    def _kinds(self, section: Section) -> dict[str, tuple[float | None, PromptSource | None]]:
        """Kinds of prompts of a section by their name: the place on its axis and what makes them, None for the own."""
        from lora_sam.evaluation.robustness.measure import OWN

        if section == "jitter":
            return {
                f"box, sides moved by up to {100 * share:g} %" if share else "tight box": (share, _boxes(share))
                for share in self.jitter
            }
        if section == "points":
            return {plural(count, "point"): (count, _points(count)) for count in self.points}
        if section == "prompts":
            return {
                OWN: (None, None),
                "tight box": (None, _boxes(0.0)),
                plural(1, "point"): (None, _points(1)),
                "whole image": (None, from_conf("prompt/none")),
            }
        return {}

    def _prompts(self, task: Task) -> dict[str, PromptsFor]:
        """All kinds of prompts that the sections need, each once."""
        from lora_sam.evaluation.robustness.measure import OWN

        sources = {name: kind for section in self._sections for name, (_, kind) in self._kinds(section).items()}
        # the run's own are always measured: they are what everything is compared with
        made: dict[str, PromptsFor] = {OWN: task.prompts_for}
        made |= {
            name: partial(source.evaluation_prompts, seed=task.seed)
            for name, source in sources.items()
            if source is not None
        }
        return made

    def _rows(self, section: Section, measured: Measured, seed: int) -> tuple[Row, ...] | None:
        from lora_sam.evaluation.robustness.findings import Row, paired_iou

        if section not in self._sections:
            return None
        return tuple(
            Row(name, value, paired_iou(measured.scores[name], seed))
            for name, (value, _) in self._kinds(section).items()
        )

    def _generic(self, predictors: Mapping[str, Predictor], task: Task) -> Measured:
        """The run's own prompts on drawn shapes of all styles, none of which it can have seen."""
        from lora_sam.core.console import progress
        from lora_sam.core.seeds import seed_for
        from lora_sam.evaluation.robustness.measure import OWN, measure

        drawn = from_conf("data/synthetic", test=self.shapes, side=_SIDE).open(seed_for(task.seed, _SHAPES)).test
        with progress(f"measuring base and tuned on {self.shapes} images of drawn shapes", "images") as on_image:
            return measure(
                predictors,
                drawn,
                {OWN: task.prompts_for},
                max_objects=self.max_objects,
                seed=task.seed,
                on_image=on_image,
            )

    def _tell(self, run: RunDirectory, findings: Findings) -> None:
        """Write and print what was measured."""
        from lora_sam.core.console import print_table
        from lora_sam.evaluation.robustness.findings import write_findings
        from lora_sam.evaluation.robustness.table import render_tables, sentences
        from lora_sam.report.robustness import put_robustness

        for table in render_tables(findings, from_here(run.root)):
            print_table(table)
        print("\n".join(sentences(findings)))
        path = run.root / FILE if self.output is None else Path(self.output)
        write_findings(path, findings)  # once it is shown: a disk may be full or read-only
        places = [f"figures   {path}"]
        if self.output is None and run.report.is_file() and put_robustness(run.report, dataclasses.asdict(findings)):
            places.append(f"report    {run.report}")
        print("\n".join(places))


def _boxes(share: float) -> PromptSource:
    """Tight boxes whose sides move by up to a share of their length, always in the same way for a sample."""
    source: PromptSource = from_conf(
        "prompt/box", jitter="uniform", jitter_pixels=0.0, jitter_fraction=share, jitter_evaluation=share > 0
    )
    return source


def _points(count: int) -> PromptSource:
    """Points on the object, the first where it is farthest from the edge, and as many or one fewer near it."""
    source: PromptSource = from_conf(
        "prompt/points",
        positive=(count + 1) // 2,
        negative=count // 2,
        placement="farthest",
        min_distance="dynamic",
        negative_margin=0.25,
    )
    return source
