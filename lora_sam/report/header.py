"""What stands first on the page of a run: whether tuned is better, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element

from lora_sam.core.wording import duration, in_bytes, plural
from lora_sam.evaluation.lead import lead, measured_on
from lora_sam.evaluation.result import kept_base, verdict
from lora_sam.report.markup import element

_AP = (
    "AP at IoU 0.5 counts objects that were found: those found, divided by those found, those missed and masks of "
    "nothing. "
)


def header(report: Mapping[str, Any]) -> Element:
    """The verdict as a heading, its figures, and what they mean.

    Args:
        report: Content of `evaluation.json`.
    """
    claim, _, rest = verdict(report).partition(": ")
    first, (objects, images) = lead(report), measured_on(report)
    low, high = first.interval
    what = "AP at IoU 0.5 without prompts" if first.alone else "IoU"
    trained, total = report["trainable_parameters"], report["total_parameters"]
    tone = "bad" if kept_base(report) else "good" if first.better else "bad" if first.worse else "even"
    tiles = (
        (f"{first.base:.3f} → {first.tuned:.3f}", f"{what} on the {report['split']} images"),
        (f"{first.delta:+.3f}", f"difference, 95 % interval {low:+.3f} to {high:+.3f}"),
        (
            f"{objects:,}",
            f"{plural(objects, 'object').partition(' ')[2]} in {images}, same "
            + ("grid of points for both" if first.alone else "prompts for both"),
        ),
        (f"{trained:,}", f"weights trained, {100 * trained / max(1, total):.1f} % of the model"),
        (in_bytes(report["adapter_bytes"]), "adapter file"),
        (duration(report["seconds"]), "of training"),
    )
    return element(
        "header",
        element("p", "lora_sam · base and tuned model compared", class_="kicker"),
        element("h1", claim, class_=tone),
        element("p", f"{rest[:1].upper()}{rest[1:]}".replace("->", "→"), class_="lead"),
        element("dl", *(element("div", element("dt", what), element("dd", value)) for value, what in tiles)),
        element(
            "p",
            "IoU says how well a predicted object covers the true one: the area they share, divided by the area that "
            "either covers. 1 is perfect, 0 is a miss. "
            + (_AP if first.alone else "")
            + "Base is the model before this training, tuned the one after. "
            f"The {report['split']} images were kept out of the training"
            + (", but they also chose which weights were kept." if report["split"] == "val" else "."),
            class_="note",
        ),
    )
