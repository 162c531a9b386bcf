"""Content of `evaluation.json`, and what it says in a sentence."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lora_sam.core.calling import step_called
from lora_sam.core.groups import Parts, groups_in, independent, named
from lora_sam.core.wording import plural
from lora_sam.evaluation.comparison import FEW_IMAGES, compare
from lora_sam.evaluation.layout import SCHEMA_VERSION, validate_report
from lora_sam.evaluation.lead import by_iou, lead, measured_on
from lora_sam.prompts.iterative import most_rounds

if TYPE_CHECKING:
    from lora_sam.evaluation.scoring import Evaluation

# A validation IoU that is lower by this is no accident of the last steps.
KNOCKED_DOWN = 0.01


def clicks_command() -> str:
    """Measures what correcting clicks are worth, which the evaluation of a run does not."""
    return f"{step_called('robustness')} run=latest sections=[clicks]"


def evaluation_report(
    evaluation: Evaluation,
    *,
    split: str,
    prompt: Mapping[str, Any],
    seed: int,
    trainable_parameters: int,
    total_parameters: int,
    adapter_bytes: int,
    seconds: float,
    peak_memory_bytes: int | None,
    validation: Mapping[str, Any] | None = None,
    trained_on: int = 0,
    chosen_on: int = 0,
    parts: Parts | None = None,
) -> dict[str, Any]:
    """Content of `evaluation.json` from an evaluation of `base` and `tuned`; see docs/metrics.md for the figures.

    It has `classes` where the data has two or more (content of `lora_sam.evaluation.classes.Classes`), and `rounds`
    where the prompts are corrected in rounds of training: the figures are those of the first prompts.

    Args:
        evaluation: Scores of the two predictors named `base` and `tuned`.
        split: Name of the split that was measured.
        prompt: Settings that made the prompts, ready for JSON.
        seed: Seed of the run; it also draws the bootstrap.
        trainable_parameters: Parameters that were trained.
        total_parameters: Parameters of the tuned model.
        adapter_bytes: Size of the adapter's weights on disk.
        seconds: Wall time of the training.
        peak_memory_bytes: Most memory held while training, or None where it cannot be told.
        validation: Validation IoU of the `base`, the highest of the `trained` weights, and the `kept_step`; None where
            the base was not measured.
        trained_on: How many of the images were trained on.
        chosen_on: How many of them chose the weights, and the thresholds of masks without a prompt, by validation.
        parts: What images are parts of, in words.
    """
    report: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "split": split,
        **compare(evaluation.scores["base"], evaluation.scores["tuned"], seed),
        "trainable_parameters": trainable_parameters,
        "total_parameters": total_parameters,
        "adapter_bytes": adapter_bytes,
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes,
        "images": len(evaluation.scores["base"]),
        "objects": sum(len(image.object_ids) for image in evaluation.scores["base"]),
        "prompt": dict(prompt),
        "seed": seed,
        "per_image": [
            {
                "id": case.id,
                "objects": case.objects,
                "base_iou": case.base_iou,
                "tuned_iou": case.tuned_iou,
                **named(case.group),
            }
            for case in evaluation.per_image()
        ],
    }
    groups = groups_in([image.group for image in evaluation.scores["base"]], parts)
    if groups is not None:
        report["groups"] = dataclasses.asdict(groups)
    if len({label for image in evaluation.classes for label in image}) > 1:  # one class alone is all objects again
        classes = evaluation.by_class(seed)
        assert classes is not None
        report["classes"] = json.loads(json.dumps(dataclasses.asdict(classes)))
    if validation is not None:
        report["validation"] = dict(validation)
    rounds = most_rounds(prompt)
    if rounds > 1:
        report["rounds"] = {"trained": rounds, "evaluated": 1}
    if trained_on:
        report["trained_on"] = trained_on
    if chosen_on:
        report["chosen_on"] = chosen_on
    validate_report(report)
    return report


def kept_base(report: Mapping[str, Any]) -> bool:
    """Whether no validation beat the base, so that the run kept the weights of step 0, which change nothing.

    Of a run that began with an adapter, step 0 is that adapter: nothing beat it.
    """
    validation = report.get("validation")
    return validation is not None and validation["kept_step"] == 0


def knocked_down(report: Mapping[str, Any]) -> bool:
    """Whether all that was trained is well below the base on the validation images: the rate was too high."""
    validation = report["validation"]
    return validation["trained"] is not None and validation["trained"] < validation["base"] - KNOCKED_DOWN


def by_chance(report: Mapping[str, Any]) -> bool:
    """Whether what was trained validated above step 0, which was kept: by too little to tell it from chance."""
    if not kept_base(report) or refuted(report):
        return False
    validation = report["validation"]
    return validation["trained"] is not None and validation["trained"] > validation["base"]


def held_out(report: Mapping[str, Any]) -> bool:
    """Whether any image chose the weights that did not train; so it is taken to be where the report does not say."""
    validation = report.get("validation")
    return validation is None or validation.get("trained_on", 0) < len(validation["per_image"])


def refuted(report: Mapping[str, Any]) -> bool:
    """Whether cross-validation found no gain on images that had not been trained on, so that step 0 was kept."""
    cross = (report.get("validation") or {}).get("cross_validation")
    return cross is not None and cross["trained"] <= cross["base"]


def verdict(report: Mapping[str, Any]) -> str:
    """One sentence: whether tuning made the IoU per object better, worse, or neither measurably.

    Neither when the 95 % interval of the paired difference contains zero. Where no validation beat the base, that, and
    what to change. Images that were trained on are named, since figures of them flatter; a second sentence says so
    where they alone chose the weights.
    """
    if held_out(report):
        return _claim(report)
    cross = report["validation"].get("cross_validation")
    images = plural(len(report["validation"]["per_image"]), "training image")
    said = f"{_claim(report)} Nothing was held out to choose the weights: the {images} chose them too"
    if cross is None or refuted(report):
        return f"{said}."
    return f"{said}, after {cross['base']:.3f} -> {cross['trained']:.3f} in cross-validation over halves of them."


def _claim(report: Mapping[str, Any]) -> str:
    if kept_base(report):
        validation = report["validation"]
        trained = "not measured" if validation["trained"] is None else f"{validation['trained']:.3f} at best"
        advice = (
            "lower optim.lr to a tenth first"
            if knocked_down(report)
            else "train for longer (trainer.max_epochs), with a higher optim.lr or on more images"
        )
        before, what, after = validation["base"], "validation IoU", "after"
        if refuted(report):
            cross = validation["cross_validation"]
            before, trained = cross["base"], f"{cross['trained']:.3f}"
            what = "IoU of each half of the images when the other half trained"
            advice = "label more images, or train on all of them all the same with trainer.cross_validate=0"
        elif by_chance(report):
            after += ", a rise that can be chance"
            advice += "; trainer.least_rise=0 keeps whatever is above"
        if "init_from" in report:
            return (
                f"Training on did not beat the adapter that it began with ({report['init_from']}): {what} "
                f"{before:.3f} before, {trained} {after}; that adapter was kept as it is; {advice}. "
                + difference(report)
            )
        return (
            f"Training did not beat the base: {what} {before:.3f} before, {trained} {after}; the "
            f"adapter that was kept is that of step 0 and changes nothing; {advice}."
        )
    return difference(report)


def difference(report: Mapping[str, Any]) -> str:
    """Base and tuned in one sentence, whatever was validated; in two where masks without prompts were trained."""
    first = lead(report)
    claim = "No measurable difference between base and tuned"
    if first.better:
        claim = "Tuned is better than base"
    elif first.worse:
        claim = "Tuned is worse than base"
    if first.alone:
        claim += " without prompts"
    images, known = report["images"], report.get("trained_on", 0)
    if known:
        claim += " on images it was trained on" if known == images else f", {known} of {images} images trained on"
    objects, measured = measured_on(report)
    sentence = f"{claim}: {first.numbers}, on {plural(objects, 'object')} in {measured}"
    rest_on = independent(report)
    if first.alone:  # that is measured on some images alone
        rest_on = report["automatic"]["ap_50"].get("independent", rest_on)
    if rest_on < FEW_IMAGES:
        few = "images" if "groups" not in report else f"{report['groups']['whole']}s"
        sentence += f", too few {few} to trust the interval"
    if known:
        sentence += "; figures of images that were trained on flatter: they say nothing about new ones"
    elif chosen := report.get("chosen_on", 0):
        which = "these images" if chosen == images else f"{chosen} of these images"
        sentence += f"; {which} chose the weights by validation, so their figures flatter"
    return f"{sentence}. With prompts on each object: {by_iou(report).numbers}." if first.alone else f"{sentence}."


def first_prompts(report: Mapping[str, Any]) -> str | None:
    """What is to be said about prompts that were corrected in training but not in the evaluation; None for others."""
    rounds = report.get("rounds")
    if rounds is None:
        return None
    return (
        f"Training corrected its prompts in {rounds['trained']:,} rounds; these figures are those of the first prompt "
        "alone."
    )


def drawn_line(report: Mapping[str, Any]) -> str | None:
    """What the intervals draw again and again; None of older reports, which do not say."""
    drawn = report["base"].get("resampled")
    if drawn is None:
        return None
    whole = report["groups"]["whole"] if "groups" in report else "image"
    if drawn == "objects":
        return f"Intervals draw the objects of the one {whole}: they say nothing of others."
    return f"Intervals draw whole {whole if drawn == 'groups' else 'image'}s."
