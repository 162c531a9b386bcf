"""What tuning did to each kind of prompt: those it was trained with, and others that it may have harmed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_sam.evaluation.comparison import too_few
from lora_sam.evaluation.further_rows import CLICKS
from lora_sam.evaluation.lead import found_alone
from lora_sam.evaluation.result import kept_base

_NAMES = {"box": "boxes", "point": "single points", "clicks": "clicks", "everything": "no prompts"}


def kind_lines(report: Mapping[str, Any]) -> list[str]:
    """A verdict for each kind that was trained, and a warning for each other one that got worse, in one line each.

    Not for the one that the run is judged by (`lora_sam.evaluation.lead`) where the verdict has its figures.

    Where nothing at all is found without prompts, one line more says what to change.

    Better or worse where the 95 % interval of the paired difference does not contain zero.

    Args:
        report: Content of `evaluation.json`.
    """
    lines = []
    said = found_alone(report) and not kept_base(report)
    for kind in report.get("kinds", ()):
        if said and kind["name"] == "everything":
            continue  # the verdict says it
        values, name = kind["compared"], _NAMES.get(kind["name"], kind["name"])
        low, high = values["delta_interval"]
        figures = (
            f"{kind['figure']} {values['base']:.3f} -> {values['tuned']:.3f}, difference {values['delta']:+.3f} "
            f"(95 % interval {low:+.3f} to {high:+.3f}{', too few images to trust it' * too_few(values)})"
        )
        if kind["trained"]:
            claim = "better" if low > 0 else "worse" if high < 0 else "no measurable difference"
            lines.append(f"With {name}: {claim}, {figures}.")
        elif high < 0:
            lines.append(
                f"Warning: with {name}, which were not trained, tuned is worse: {figures}. {_REMEDY[kind['name']]}"
            )
    if (found := report.get("automatic")) is not None and found["images"] == found["empty"].get("tuned"):
        lines.append(_nothing(found))
    return lines


def _nothing(found: Mapping[str, Any]) -> str:
    """What to change where the tuned model found nothing in any image."""
    least = found["scores"]["tuned"]
    return (
        f"Without prompts, tuned found no mask in any of {found['images']:,} images: masks are kept from a score of "
        f"{least['predicted_iou']:.2f} and a stability of {least['stability']:.2f} on, the best on the validation "
        f"images. Train with prompt=everything, for longer (trainer.max_epochs), or with more than "
        f"{found['points_per_side']} points along a side (prompt.points_per_side); predict takes lower ones with "
        "predicted_iou= and stability=."
    )


_REMEDY = {
    "box": "prompt=mixed trains boxes beside points, prompt=iterative with corrections.",
    "point": "prompt=mixed trains points beside boxes, prompt=iterative with corrections.",
    "clicks": "prompt=iterative trains them.",
    "everything": "prompt=everything trains masks without prompts.",
}


def where_further(report: Mapping[str, Any]) -> list[str]:
    """What the further figures of a report were measured on, in a sentence each."""
    sentences = []
    if (found := report.get("automatic")) is not None:
        empty = [f"{count:,} of {name}" for name, count in found["empty"].items() if count]
        sentences.append(
            f"AP is without prompts: {found['images']:,} of {found['of_images']:,} images, "
            f"{found['points_per_side']} x {found['points_per_side']} points, thresholds of base and of tuned each "
            f"chosen on the same "
            f"{found['fitted_on']:,} validation images"
            + (", some or all of which are measured here, so AP flatters" if report.get("chosen_on") else "")
            + (f"; no mask at all in images: {', '.join(empty)}." if empty else ".")
            + f" {_part(report)} without an object are left out: masks that are found there count nowhere."
            + _few(found["ap_50"])
        )
    if (found := report.get("clicks")) is not None:
        sentences.append(
            f"Clicks: {found['objects']:,} objects in {found['images']:,} of {found['of_images']:,} images, up to "
            f"{found['most']} clicks each." + _few(found[f"iou_{CLICKS[0]}"])
        )
    return sentences


def _part(report: Mapping[str, Any]) -> str:
    """What is measured one by one: images, or tiles or slices of them."""
    return f"{report['groups']['part']}s".capitalize() if "groups" in report else "Images"


def _few(figure: Mapping[str, Any]) -> str:
    return " Too few images to trust these intervals." if too_few(figure) else ""
