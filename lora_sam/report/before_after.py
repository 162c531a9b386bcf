"""Test images on a run's page: base and tuned under a divider that can be dragged."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from lora_sam.core.wording import plural
from lora_sam.report.markup import element
from lora_sam.report.pictures import ReportPicture, data_uri


def before_and_after(pictures: Sequence[ReportPicture]) -> Element:
    """The section of a run's page with the masks of its own prompts."""
    return element(
        "section",
        element("h2", "Before and after"),
        element(
            "p",
            element("span", "Drag the divider in a picture: base on its left, tuned on its right. ", class_="with-js"),
            "An object keeps its colour. Chosen by how much the mean IoU of an image changed, not by hand; dark images "
            "are brightened.",
        ),
        element(
            "div", *(compared(f"{number}", picture) for number, picture in enumerate(pictures, 1)), class_="pictures"
        ),
    )


def compared(name: str, picture: ReportPicture) -> Element:
    """Base and tuned on one image, with a divider between them.

    Args:
        name: Tells its controls from those of other pictures of the page.
        picture: The image.
    """
    height, width = picture.size
    switch, cut = f"truth-{name}", f"cut-{name}"
    objects = plural(picture.objects, "object")

    def panel(model: str, file: bytes) -> Element:
        alt = f"{picture.id} with the masks of the {model} model, {objects}"
        size = {"width": width, "height": height}
        return element(
            "div",
            element("img", src=data_uri(file), alt=alt, **size),
            element("img", src=data_uri(picture.truth), alt="true outlines", class_="truth", **size),
            element("span", model, class_="tag"),
            class_=f"panel {model}",
        )

    return element(
        "figure",
        element(
            "figcaption",
            element("strong", picture.title),
            " ",
            element("span", picture.id, class_="id"),
            element("br"),
            f"{objects}, {picture.told}",
        ),
        element("input", type="checkbox", id=switch, class_="switch"),
        element("label", "show the true outlines", for_=switch, class_="switch-label"),
        element(
            "div",
            panel("base", picture.base),
            panel("tuned", picture.tuned),
            element("label", f"Divider between base and tuned, {picture.id}", for_=cut, class_="unseen"),
            element("input", type="range", id=cut, min="0", max="100", value="50", class_="cut"),
            class_="compare",
            style=f"--ratio:{width / height:.4f}",
        ),
    )
