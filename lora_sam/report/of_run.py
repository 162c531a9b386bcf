"""What a finished run tells: base and tuned on the same prompts, pictures, the adapter's facts, its page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_sam.core.config import plain_fields
from lora_sam.core.files import write_text
from lora_sam.core.memory import peak_memory
from lora_sam.report.shown_validation import validation_figures
from lora_sam.runs.adapter_files import adapter_bytes
from lora_sam.runs.loading import predictors_for
from lora_sam.training.parts import Parts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lora_sam.core.scores import Scores
    from lora_sam.core.structures import Masks, Prompts, Sample
    from lora_sam.data.sources import SampleSource
    from lora_sam.evaluation.average_precision import EncodedMask
    from lora_sam.predictors.class_head import ClassHead
    from lora_sam.predictors.torch_predictor import TorchPredictor
    from lora_sam.report.pictures import ReportPicture
    from lora_sam.training.state import Progress


@dataclass(frozen=True)
class Outcome:
    """Base and tuned compared.

    Attributes:
        report: Content of `evaluation.json`.
        pictures: For the page.
        object_iou: IoU of every object, for `base` and `tuned`.
        scores: From which score on masks without a prompt are good, for `base` and `tuned`; None where that was not
            measured.
        found: What base and tuned find without a prompt, for the page; none where that was not measured.
    """

    report: dict[str, Any]
    pictures: tuple[ReportPicture, ...]
    object_iou: dict[str, list[float]]
    scores: Mapping[str, Scores] | None = None
    found: tuple[ReportPicture, ...] = ()

    def add_scores(self, facts: dict[str, Any]) -> None:
        """Put the scores into the content of `lora_sam.json`."""
        if self.scores is not None:
            facts["scores"] = self.scores["tuned"].to_json()
            facts["base"] = {**facts["base"], "scores": self.scores["base"].to_json()}

    def table(self) -> str:
        """The comparison in Markdown, what it comes to before the figures: not everybody reads an interval."""
        from lora_sam.evaluation.result import difference
        from lora_sam.evaluation.table import markdown_table

        return f"{difference(self.report)}\n\n{markdown_table(self.report)}"


def fit_classes(parts: Parts) -> ClassHead | None:
    """What tells the classes of objects apart, fitted on the tuned model as it is; None where there are not several."""
    from lora_sam.core.console import progress
    from lora_sam.predictors.torch_predictor import TorchPredictor
    from lora_sam.training.class_head import fit_class_head

    settings, splits, sam = parts.settings, parts.splits, parts.adapted.sam
    if not settings.trainer.class_head or len(parts.trained_on.classes) < 2:
        return None
    sam.eval()
    tuned = TorchPredictor(sam, parts.base.image_size)
    with progress("fitting the class head", "images") as on_image:
        return fit_class_head(tuned, splits.train, splits.val, seed=settings.seed, on_image=on_image)


def evaluate_run(
    parts: Parts, progress: Progress, validated: Sequence[NDArray[np.float64]], head: ClassHead | None = None
) -> Outcome:
    """Base and tuned on the split of the final table, with the same prompts; writes these prompts and the overlays.

    The adapter of the best weights is in the model, and in its files.

    Args:
        parts: The run.
        progress: How far it came.
        validated: IoU of the objects of every validation image with these weights.
        head: What tells classes apart, measured on the tuned masks.
    """
    from lora_sam.evaluation.average_precision import decode_masks, encode_masks
    from lora_sam.evaluation.class_precision import ClassPrecision
    from lora_sam.evaluation.layout import validate_report
    from lora_sam.evaluation.naming import Naming
    from lora_sam.evaluation.result import evaluation_report
    from lora_sam.evaluation.scoring import evaluate
    from lora_sam.evaluation.thinness import Thinness
    from lora_sam.prompts.interface import trained_kinds
    from lora_sam.prompts.stored import entry, write_prompts
    from lora_sam.report.found import PREFIX, draw_found
    from lora_sam.report.further import further_of, measured_places
    from lora_sam.report.overlays import write_overlays
    from lora_sam.report.page import object_ious
    from lora_sam.report.pictures import draw_cases

    settings, directory, adapted = parts.settings, parts.directory, parts.adapted
    memory, source, split = peak_memory(), _evaluated(parts), settings.evaluate_split
    parts.say(f"evaluating base and tuned on the {len(source)} images of the {split} split")
    adapted.sam.eval()
    predictors = _predictors(parts)
    used: list[dict[str, Any]] = []

    def noted(sample: Sample) -> Prompts:
        prompts = settings.prompt.evaluation_prompts(sample, settings.seed)
        used.append(entry(sample, prompts))
        return prompts

    # of every image, as which of them are drawn is known at the end; some hundred bytes a mask
    kept: dict[str, list[tuple[EncodedMask, ...]]] = {"base": [], "tuned": []}

    def masks_for(place: int, sample: Sample) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        base, tuned = (decode_masks(kept[name][place], sample.size) for name in ("base", "tuned"))
        return base, tuned

    naming, precision, thinness = Naming(() if head is None else head.names), ClassPrecision(), Thinness()

    def named(which: str, sample: Sample, found: Masks) -> None:
        masks = encode_masks(found.masks)
        kept[which].append(masks)
        thinness.add(which, sample, found.masks)
        if head is None or not sample.classes:
            return
        told = None
        if which == "tuned":
            likely = head.probabilities(predictors[which], sample.image, found.masks)
            naming.add(sample.classes, likely, sample.group)
            told = [head.names[place] for place in likely.argmax(axis=1)]
        precision.add(which, sample, masks, found.scores, told)

    further = further_of(parts, predictors, head)
    places = measured_places(settings, len(source))

    def more(index: int, sample: Sample) -> None:
        if index in places:
            further.add(sample)

    evaluation = evaluate(predictors, source, noted, on_masks=named, on_sample=more)
    prompt = plain_fields(settings.prompt)
    write_prompts(directory.prompts(split), used, split=split, seed=settings.seed, settings=prompt)
    trainable, total = adapted.count()
    report = evaluation_report(
        evaluation,
        split=split,
        seed=settings.seed,
        prompt=prompt,
        trainable_parameters=trainable,
        total_parameters=total,
        adapter_bytes=adapter_bytes(directory.adapter),
        seconds=progress.seconds,
        peak_memory_bytes=memory,
        validation=validation_figures(parts, progress, validated),
        trained_on=len(set(source.ids) & set(parts.splits.train.ids)),
        chosen_on=len(set(source.ids) & set(parts.splits.val.ids)),
        parts=parts.splits.parts,
    )
    told = {"class_head": naming.report(settings.seed), "thin": thinness.report(settings.seed)}
    report |= {key: value for key, value in {**told, "init_from": settings.init_from}.items() if value is not None}
    if found := {
        name: figures
        for name, part in (("prompted", precision), ("automatic", further.precision))
        if (figures := part.report()) is not None
    }:
        report["class_precision"] = found
    fitted_on = len(measured_places(settings, len(parts.splits.val)))
    report |= further.report(trained_kinds(settings.prompt), len(source), fitted_on)
    validate_report(report)
    strips, pictures = draw_cases(evaluation, source, masks_for)
    write_overlays(directory.overlays, strips)
    strips, of_everything = draw_found(further, source, places)
    write_overlays(directory.overlays, strips, PREFIX)
    return Outcome(report, pictures, object_ious(evaluation), further.scores, of_everything)


def write_result(
    parts: Parts,
    outcome: Outcome,
    facts: dict[str, Any],
    *,
    config: dict[str, Any],
    overrides: Sequence[str],
    program: str,
) -> None:
    """Write `evaluation.json` and `report.html`.

    Args:
        parts: The run.
        outcome: Base and tuned compared.
        facts: Content of `lora_sam.json`.
        config: The composed configuration.
        overrides: What was typed (`key=value`).
        program: How the trainer was called.
    """
    from lora_sam.core.metrics_log import read_metrics
    from lora_sam.report.next_steps import next_steps, python_lines
    from lora_sam.report.page import report_html, write_report

    directory, splits = parts.directory, parts.splits
    write_text(directory.evaluation, json.dumps(outcome.report, indent=2) + "\n")
    page = report_html(
        report=outcome.report,
        log=read_metrics(directory.metrics),
        config=config,
        facts=facts,
        pictures=outcome.pictures,
        everything=outcome.found,
        object_iou=outcome.object_iou,
        next_steps=next_steps(directory.root, config, overrides, program, outcome.report),
        usage=python_lines(directory.root, scaled="scale" in facts),
        data={
            name: (len(source), None if source.object_counts is None else sum(source.object_counts))
            for name, source in (("train", splits.train), ("val", splits.val), ("test", splits.test))
        },
        notes=(*splits.notes, *splits.skipped),
        overrides=overrides,
    )
    write_report(directory.report, page)


def tell_result(parts: Parts, report: dict[str, Any]) -> None:
    """The table, the verdict, and where everything is."""
    from lora_sam.core.console import print_table
    from lora_sam.evaluation.kinds import kind_lines
    from lora_sam.evaluation.result import verdict
    from lora_sam.evaluation.table import render_table

    directory = parts.directory
    print_table(render_table(report))
    for line in (verdict(report), *kind_lines(report)):
        parts.say(line)
    parts.say(f"adapter   {directory.adapter} ({report['adapter_bytes'] / 1e6:.2f} MB)")
    parts.say(f"overlays  {directory.overlays}")
    parts.say(f"figures   {directory.evaluation}")
    parts.say(f"report    {directory.report}")


def _evaluated(parts: Parts) -> SampleSource:
    """The split that the final table is about."""
    return parts.splits.test if parts.settings.evaluate_split == "test" else parts.splits.val


def _predictors(parts: Parts) -> dict[str, TorchPredictor]:
    """Base and tuned in fp32; a second model where the adapter cannot be switched off."""
    from lora_sam.models.held import held_in
    from lora_sam.predictors.torch_predictor import TorchPredictor

    settings, adapted, side = parts.settings, parts.adapted, parts.base.image_size
    assert not held_in(adapted.sam), "what is evaluated is fp32: give the frozen weights back first"
    chunk = settings.trainer.decoder_chunk
    if adapted.reversible:
        split = settings.evaluate_split
        frozen = None if parts.encodings is None else parts.encodings.frozen(_evaluated(parts), split, exact=True)
        return predictors_for(adapted, side, chunk=chunk, frozen=frozen)
    tuned = TorchPredictor(adapted.sam, side, chunk=chunk)
    untouched = settings.model.build()
    untouched.sam.to(parts.processes.accelerator.device)
    return {"base": TorchPredictor(untouched.sam, untouched.image_size, chunk=chunk), "tuned": tuned}
