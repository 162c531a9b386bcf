"""One run, from settings to result: data, model, training, evaluation, adapter."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam import __version__
from lora_sam.core.console import print_table
from lora_sam.core.errors import TrainingError
from lora_sam.core.files import write_text
from lora_sam.core.run_directory import RunDirectory
from lora_sam.data.splits import split_ids
from lora_sam.report.model_card import model_card
from lora_sam.runs.adapter_files import SCHEMA_VERSION, adapter_bytes, save_adapter, write_facts
from lora_sam.runs.resuming import copy_state, flat
from lora_sam.training.tracking import NoTracker

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator
    from numpy.typing import NDArray
    from rich.console import Console

    from lora_sam.core.structures import Prompts, Sample
    from lora_sam.data.splits import SampleSource, Splits
    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.models.attention.choice import AttentionChoice
    from lora_sam.models.device import Precision
    from lora_sam.models.vit import BaseModel
    from lora_sam.predictors.torch_predictor import TorchPredictor
    from lora_sam.report.pictures import ReportPicture
    from lora_sam.runs.settings import Settings
    from lora_sam.training.encoding import Encodings
    from lora_sam.training.planning.plan import Plan
    from lora_sam.training.state import Progress
    from lora_sam.training.tracking import Tracker


def run(
    settings: Settings,
    *,
    config: Mapping[str, Any],
    output_dir: Path,
    overrides: Sequence[str] = (),
    program: str = "python train.py",
) -> float:
    """Train and evaluate as `settings` say, writing everything into `output_dir`.

    Args:
        settings: Checked settings, built from `config`.
        config: The composed configuration with nothing left to resolve, kept as `config.json`.
        output_dir: The new run directory.
        overrides: What was typed (`key=value`), for the report.
        program: How the trainer was called, for the commands that are proposed.

    Returns:
        The best validation IoU: the objective of sweeps; NaN where only a plan was wanted.

    Raises:
        LoraSamError: a mistake in configuration, data, weights or adapter, found before training starts where possible.
        SystemExit: 130 after SIGINT or SIGTERM, once the state is saved.
    """
    settings.method.check_depth(settings.model.depth)
    earlier = None if settings.resume is None else copy_state(settings.resume, output_dir)
    splits = settings.open_data()
    pipeline = _Pipeline(settings, RunDirectory(output_dir), splits, dict(config), overrides, program)
    if settings.trainer.plan:
        print_table(pipeline.plan.table())
        return math.nan
    try:
        progress = pipeline.train(earlier)
        if not progress.finished:
            pipeline.say(
                f"stopped at step {progress.step}; everything is saved. Go on with: {program} resume={output_dir}"
            )
            raise SystemExit(130)
        pipeline.finish(progress)
    finally:
        pipeline.close()
    assert progress.best is not None
    return progress.best


class _Pipeline:
    """The parts of one run, built in the order in which mistakes are cheapest to find."""

    def __init__(
        self,
        settings: Settings,
        directory: RunDirectory,
        splits: Splits,
        config: dict[str, Any],
        overrides: Sequence[str],
        program: str,
    ) -> None:
        from rich.console import Console

        from lora_sam.models.device import pick_device, pick_precision

        self.settings = settings
        self.directory = directory
        self.splits = splits
        self.console: Console = Console(stderr=True)
        device = pick_device(settings.trainer.device)
        self.precision: Precision = pick_precision(settings.trainer.precision, device)
        self.accelerator = _accelerator(device.type)
        self.main = self.accelerator.is_main_process
        self._describe_data()
        self.base: BaseModel = settings.model.build()
        self.adapted = self._adapt(self.base)
        self.encodings = self._encodings()
        self.attention = self._choose_attention()
        self.plan = self._plan()
        self.precision = self.plan.precision
        if settings.trainer.plan:
            return
        if self.main:
            _check_disk(directory.root, self.adapted)
            write_text(directory.saved_config, json.dumps(config, indent=2) + "\n")
            write_text(directory.splits, json.dumps(split_ids(splits), indent=2) + "\n")
        self.config = config
        self.overrides = overrides
        self.program = program
        tracker = settings.tracker if self.main else NoTracker()
        self.tracker: Tracker = tracker.open(directory.root)
        if settings.trainer.compile:
            self._compile()

    def _choose_attention(self) -> AttentionChoice:
        """How the image encoder attends, measured once per machine."""
        from lora_sam.models.attention.choice import choose_attention, set_attention

        encoder, device = self.adapted.sam.image_encoder, self.accelerator.device
        wanted = self.settings.trainer.attention
        choice = choose_attention(encoder, self.base.image_size, device, self.precision, wanted)
        set_attention(encoder, choice["training"], choice["inference"], self.precision)
        return choice

    def _plan(self) -> Plan:
        """What the run will take, and how much goes through the model at once."""
        from lora_sam.training.planning.machine import look_at
        from lora_sam.training.planning.plan import TrainingData, make_plan, row_bytes
        from lora_sam.training.planning.workload import trained_in

        settings, options = self.settings, self.settings.trainer
        trained, source, stage = trained_in(self.adapted), self.splits.train, self.adapted.frozen_stage
        cached = 0
        if self.encodings is not None:
            cached = self.encodings.images(len(source), settings.augmentation) + len(self.splits.val)
        plan = make_plan(
            model=settings.model,
            trained=trained,
            options=options,
            precision=self.precision,
            machine=look_at(self.accelerator.device, self.precision, 4 * trained.held),
            data=TrainingData.of(
                source.object_counts,
                len(source),
                max_objects=settings.data.max_objects_per_image,
                chunk=options.decoder_chunk,
                rounds=getattr(settings.prompt, "rounds", 1),
                cached=cached,
                cached_bytes=0
                if stage is None
                else row_bytes(stage.shape(self.adapted.sam.image_encoder), settings.cache.dtype),
            ),
            processes=self.accelerator.num_processes,
            input_loss=settings.loss.resolution == "input",
            attention=self.attention["training"],
        )
        self.say(plan.line())
        for note in plan.notes:
            self.say(f"  {note}")
        return plan

    def _compile(self) -> None:
        from lora_sam.models.compiling import compile_model

        self.say("compiling image encoder and mask decoder; the first steps take minutes")
        compile_model(self.adapted.sam, self.accelerator.device)

    def _encodings(self) -> Encodings | None:
        """What is encoded once instead of at every step; None where nothing can be, or is wanted."""
        from lora_sam.training.encoding import Encodings, why_no_cache

        if self.settings.trainer.cache == "off":
            return None
        stage = self.adapted.frozen_stage
        reason = why_no_cache(stage, self.settings.augmentation)
        if stage is None or reason is not None:
            self.say(f"embedding cache: off: {reason}")
            return None
        return Encodings(self.adapted, self.base, stage, self.settings.cache, self.say)

    def _training_predictor(self) -> TorchPredictor:
        """Predicts with the model as it is, in the arithmetic of training."""
        from lora_sam.models.device import autocast
        from lora_sam.predictors.torch_predictor import ImageEmbedder, TorchPredictor

        def context() -> AbstractContextManager[None]:
            return autocast(self.accelerator.device, self.precision)

        sam, side = self.adapted.sam, self.base.image_size
        frozen = None if self.encodings is None else self.encodings.frozen(self.splits.val, "validation")
        embedder = ImageEmbedder(sam, side, context=context, frozen=frozen)
        return TorchPredictor(sam, side, embedder=embedder, context=context, chunk=self.settings.trainer.decoder_chunk)

    def close(self) -> None:
        """Let go of files that others may want."""
        self.tracker.close()
        if self.encodings is not None:
            self.encodings.close()

    def say(self, text: str) -> None:
        """One line for people, from the main process only."""
        if self.main:
            self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _describe_data(self) -> None:
        splits = self.splits
        sizes = ", ".join(
            f"{name} {len(source)} images" + ("" if counts is None else f" / {sum(counts)} objects")
            for name, source in (("train", splits.train), ("val", splits.val), ("test", splits.test))
            for counts in (source.object_counts,)
        )
        self.say(f"data: {sizes}")
        for note in splits.notes:
            self.say(f"  {note}")
        if splits.skipped:
            self.say(f"  skipped {len(splits.skipped)}:")
            for message in splits.skipped:
                self.say(f"    {message}")

    def _adapt(self, base: BaseModel) -> AdaptedSam:
        import torch

        torch.manual_seed(self.settings.seed)
        adapted: AdaptedSam = self.settings.method.apply(base.sam)
        adapted.peft.to(self.accelerator.device)
        trainable, total = adapted.count()
        if trainable == 0:
            raise TrainingError("nothing to train: this method leaves every weight frozen; choose another method=")
        self.say(
            f"model: {base.variant} at {base.image_size} px, method={self.settings.method.name}: "
            f"{trainable:,} of {total:,} parameters train ({100 * trainable / total:.2f} %), "
            f"{self.precision} on {self.accelerator.device}"
        )
        return adapted

    def train(self, resume_from: Path | None) -> Progress:
        """Fit, or go on fitting."""
        from lora_sam.core.metrics_log import MetricsLog
        from lora_sam.training.display import Display
        from lora_sam.training.examples import TrainingExamples
        from lora_sam.training.loop import Fit
        from lora_sam.training.state import read_progress

        settings, options = self.settings, self.settings.trainer
        encodings = self.encodings
        examples = TrainingExamples(
            self.splits.train,
            settings.prompt,
            settings.augmentation,
            image_size=self.base.image_size,
            seed=settings.seed,
            max_objects=settings.data.max_objects_per_image,
            encoded=None
            if encodings is None
            else encodings.training(self.splits.train, settings.augmentation, settings.seed),
        )
        log = MetricsLog(self.directory.metrics)
        done = 0
        if resume_from is not None:
            done = read_progress(resume_from).step
            log.truncate_after(done)
            self.say(f"resuming at step {done}")

        def record(step: int, values: Mapping[str, float]) -> None:
            if self.main:
                log.append({"step": step, **values})
                self.tracker.scalars(step, values)

        validate = self._validation()
        if resume_from is None:  # what the curves begin with
            record(0, {"epoch": 0, "validation_iou": validate(0)})
        with Display(done, console=self.console, quiet=not self.main) as display:
            return Fit(
                adapted=self.adapted,
                examples=examples,
                loss=settings.loss,
                optim=settings.optim,
                options=options,
                precision=self.precision,
                seed=settings.seed,
                run=self.directory,
                accelerator=self.accelerator,
                validate=validate,
                log=record,
                display=display,
                at_once=self.plan.at_once,
                checkpointed=self.plan.checkpointed,
                before_epoch=encodings.before_epoch if encodings else lambda _: None,
            ).fit(resume_from)

    def _validation(self) -> Callable[[int], float]:
        """Measures validation IoU and, at every call, shows the tracker the same few images."""
        import numpy as np

        from lora_sam.report.overlays import overlay_strip
        from lora_sam.training.validation import Validation

        settings = self.settings
        validation = Validation(
            predictor=self._training_predictor(),
            source=self.splits.val,
            prompt=settings.prompt,
            seed=settings.seed,
            max_objects=settings.trainer.validation_objects,
        )
        pictured = [validation.some_objects(self.splits.val[index]) for index in self._pictured()]
        # nothing is trained yet: what the model computes now is the base
        base = [validation.masks(sample) for sample in pictured]

        def validate(step: int) -> float:
            value = validation()
            for sample, before in zip(pictured, base, strict=True):
                strip = overlay_strip(sample, before, validation.masks(sample), sample.id)
                self.tracker.image(step, f"validation/{sample.id}", np.asarray(strip))
            return value

        return validate

    def _pictured(self) -> range:
        """Indices of the validation images that the tracker shows."""
        return range(min(self.settings.trainer.overlays, len(self.splits.val)) if self.main else 0)

    def finish(self, progress: Progress) -> None:
        """Write the adapter of the best weights, compare base and tuned on the test split, tell the user."""
        from lora_sam.evaluation.result import verdict
        from lora_sam.evaluation.table import markdown_table, render_table
        from lora_sam.training.state import load_state

        if not self.main:
            return
        directory = self.directory
        load_state(directory.best, self.adapted.trainable())
        facts = self._facts(progress)
        save_adapter(self.adapted, directory.adapter, facts, model_card(facts, None))
        report, pictures, object_iou = self._evaluate(progress)
        facts["metrics"] = {name: report[name] for name in ("base", "tuned", "delta")}
        write_facts(directory.adapter, facts, model_card(facts, markdown_table(report)))
        write_text(directory.evaluation, json.dumps(report, indent=2) + "\n")
        self._write_page(report, facts, pictures, object_iou)
        directory.point_latest_here()
        means = {f"{name}/iou": float(report[name]["iou"]) for name in ("base", "tuned", "delta")}
        self.tracker.hyperparameters(flat(self.config), means)
        print_table(render_table(report))
        self.say(verdict(report))
        self.say(f"adapter   {directory.adapter} ({report['adapter_bytes'] / 1e6:.2f} MB)")
        self.say(f"overlays  {directory.overlays}")
        self.say(f"figures   {directory.evaluation}")
        self.say(f"report    {directory.report}")

    def _write_page(
        self,
        report: dict[str, Any],
        facts: dict[str, Any],
        pictures: tuple[ReportPicture, ...],
        object_iou: dict[str, list[float]],
    ) -> None:
        from lora_sam.core.metrics_log import read_metrics
        from lora_sam.report.next_steps import next_steps, python_lines
        from lora_sam.report.page import report_html, write_report

        splits, root = self.splits, self.directory.root
        sources = (("train", splits.train), ("val", splits.val), ("test", splits.test))
        page = report_html(
            report=report,
            log=read_metrics(self.directory.metrics),
            config=self.config,
            facts=facts,
            pictures=pictures,
            object_iou=object_iou,
            next_steps=next_steps(root, self.config, self.overrides, self.program),
            usage=python_lines(root),
            data={
                name: (len(source), None if source.object_counts is None else sum(source.object_counts))
                for name, source in sources
            },
            notes=(*splits.notes, *splits.skipped),
            overrides=self.overrides,
        )
        write_report(self.directory.report, page)

    def _evaluated(self) -> SampleSource:
        """The split that the final table is about."""
        return self.splits.test if self.settings.evaluate_split == "test" else self.splits.val

    def _predictors(self) -> dict[str, TorchPredictor]:
        """Base and tuned in fp32; a second model where the adapter cannot be switched off."""
        from lora_sam.predictors.torch_predictor import TorchPredictor
        from lora_sam.runs.loading import predictors_for

        chunk = self.settings.trainer.decoder_chunk
        if self.adapted.reversible:
            split = self.settings.evaluate_split
            frozen = None if self.encodings is None else self.encodings.frozen(self._evaluated(), split, exact=True)
            return predictors_for(self.adapted, self.base.image_size, chunk=chunk, frozen=frozen)
        tuned = TorchPredictor(self.adapted.sam, self.base.image_size, chunk=chunk)
        untouched = self.settings.model.build()
        untouched.sam.to(self.accelerator.device)
        return {"base": TorchPredictor(untouched.sam, untouched.image_size, chunk=chunk), "tuned": tuned}

    def _evaluate(self, progress: Progress) -> tuple[dict[str, Any], tuple[ReportPicture, ...], dict[str, list[float]]]:
        """Content of `evaluation.json`; pictures and IoU of every object for the report."""
        from lora_sam.evaluation.result import evaluation_report
        from lora_sam.evaluation.scoring import evaluate
        from lora_sam.prompts.stored import entry, write_prompts
        from lora_sam.report.overlays import write_overlays
        from lora_sam.report.page import object_ious
        from lora_sam.report.pictures import draw_cases

        settings = self.settings
        memory = peak_memory_bytes()
        source = self._evaluated()
        self.say(f"evaluating base and tuned on the {len(source)} images of the {settings.evaluate_split} split")
        self.adapted.sam.eval()
        predictors = self._predictors()

        used: list[dict[str, Any]] = []

        def prompts_for(sample: Sample) -> Prompts:
            return settings.prompt.evaluation_prompts(sample, settings.seed)

        def noted(sample: Sample) -> Prompts:
            prompts = prompts_for(sample)
            used.append(entry(sample, prompts))
            return prompts

        evaluation = evaluate(predictors, source, noted)
        write_prompts(
            self.directory.prompts(settings.evaluate_split),
            used,
            split=settings.evaluate_split,
            seed=settings.seed,
            settings=_plain(settings.prompt),
        )
        trainable, total = self.adapted.count()
        report = evaluation_report(
            evaluation,
            split=settings.evaluate_split,
            seed=settings.seed,
            prompt=_plain(settings.prompt),
            trainable_parameters=trainable,
            total_parameters=total,
            adapter_bytes=adapter_bytes(self.directory.adapter),
            seconds=progress.seconds,
            peak_memory_bytes=memory,
        )

        def masks_for(sample: Sample) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
            base, tuned = (
                predictors[key].predict(sample.image, prompts_for(sample)).masks for key in ("base", "tuned")
            )
            return base, tuned

        strips, pictures = draw_cases(evaluation, source, masks_for)
        write_overlays(self.directory.overlays, strips)
        return report, pictures, object_ious(evaluation)

    def _facts(self, progress: Progress) -> dict[str, Any]:
        settings = self.settings
        return {
            "schema_version": SCHEMA_VERSION,
            "architecture": settings.model.architecture(),
            "image_size": self.base.image_size,
            "base": {
                "source": self.base.source,
                "sha256": self.base.sha256,
                "weights_seed": settings.model.weights_seed,
                "prompt_frequency": settings.model.prompt_frequency,
            },
            "method": {"name": settings.method.name, **_plain(settings.method)},
            "trains_encoder": self.adapted.trains_encoder,
            "prompt": _plain(settings.prompt),
            "seed": settings.seed,
            "plan": self.plan.to_json(),
            "attention": self.attention,
            "steps": progress.step,
            "best_step": progress.best_step,
            "validation_iou": progress.best,
            "metrics": None,
            "versions": {
                "lora_sam": __version__,
                **{name: version(name) for name in ("torch", "peft", "segment-anything")},
            },
        }


def peak_memory_bytes() -> int:
    """Largest memory so far: of the GPU if one is used, else of this process."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def _plain(settings: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return plain


def _check_disk(directory: Path, adapted: AdaptedSam) -> None:
    """Raise before training if checkpoints and adapter will not fit: weights four times, two Adam moments twice."""
    trainable, _ = adapted.count()
    needed = trainable * 4 * 8 + 2**24
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise TrainingError(
            f"{directory}: {free / 2**20:.0f} MiB free, this run needs about {needed / 2**20:.0f} MiB for checkpoints; "
            "free some space or choose another place with hydra.run.dir=..."
        )


def _accelerator(device: str) -> Accelerator:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(cpu=device == "cpu")
