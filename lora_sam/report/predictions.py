"""`predictions.html`: what was found in a folder of images, without a single request to anywhere."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.painting import brighten, paint, panel_size, resize_image
from lora_sam.core.wording import plural
from lora_sam.report.charts import histogram
from lora_sam.report.markup import append, element, serialize
from lora_sam.report.pictures import data_uri

SIDE = 320
"""Longer side of a picture in pixels, at most."""

MOST_OBJECTS = 400
"""So many objects of a picture are drawn: those with the most pixels."""

_MOST_FAILURES = 200
_BINS = 24


@dataclass(frozen=True, kw_only=True)
class PredictionsPicture:
    """An image with its masks, ready to be embedded.

    Attributes:
        name: Of the image.
        objects: How many were found.
        score: Their mean predicted IoU; None without objects.
        size: (height, width) of the file in pixels.
        file: JPEG.
    """

    name: str
    objects: int
    score: float | None
    size: tuple[int, int]
    file: bytes


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What the page shows.

    Attributes:
        run: Directory of the run.
        settings: What the predictions were made with, in words.
        about: `images`, `objects`, `empty`, `there_before` and `failures`, as in `predictions.json`.
        counts: Objects of each image.
        scores: Of all objects.
        pictures: Some of the images.
        places: Meaning and place of each format that was written.
        next_steps: Purpose and command of what comes next.
    """

    run: str
    settings: Mapping[str, str]
    about: Mapping[str, Any]
    counts: Sequence[int]
    scores: Sequence[float]
    pictures: Sequence[PredictionsPicture]
    places: Mapping[str, tuple[str, str]]
    next_steps: Sequence[tuple[str, str]]


def predictions_picture(
    name: str, pixels: NDArray[np.uint8], masks: NDArray[np.bool_], score: float | None, objects: int
) -> PredictionsPicture:
    """A picture of an image, RGB uint8 [H, W, 3], and masks of its `objects` objects, bool [N, H, W]."""
    height, width = panel_size(pixels.shape[0], pixels.shape[1])
    photograph, _ = brighten(resize_image(pixels, (height, width)))
    order = np.argsort(-masks.sum(axis=(1, 2)), kind="stable")[:MOST_OBJECTS]
    picture = Image.fromarray(paint(photograph, masks, order))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85, subsampling=0)  # contours are thin and coloured
    return PredictionsPicture(
        name=name, objects=objects, score=score, size=(picture.height, picture.width), file=buffer.getvalue()
    )


def predictions_html(predictions: Predictions) -> str:
    """The whole page. The same arguments give the same text."""
    main = element("main")
    failures = predictions.about["failures"]
    append(
        main,
        _header(predictions),
        _failures(failures) if failures else None,
        _pictures(predictions) if predictions.pictures else None,
        _charts(predictions) if predictions.scores else None,
        _written(predictions),
        _next(predictions.next_steps) if predictions.next_steps else None,
    )
    title = f"{plural(predictions.about['objects'], 'object')} in {plural(predictions.about['images'], 'image')}"
    template = Template(files("lora_sam.report").joinpath("template.html").read_text(encoding="utf-8"))
    page = template.substitute(title=html.escape(f"{title} · lora_sam"), main=serialize(main))
    style = files("lora_sam.report.check").joinpath("page.css").read_text(encoding="utf-8")
    return page.replace("</style>", f"{style}</style>", 1)


def _header(predictions: Predictions) -> Element:
    about = predictions.about
    images, objects, failed = about["images"], about["objects"], len(about["failures"])
    claim = f"{plural(objects, 'object')} in {plural(images, 'image')}"
    tone = "bad" if failed or not objects else "good"
    tiles = [(f"{images:,}", "images"), (f"{objects:,}", "objects")]
    if images:
        tiles.append((f"{np.median(predictions.counts):g}", "objects in an image, median"))
    if predictions.scores:
        tiles.append(
            (f"{np.median(predictions.scores):.3f}", "score, median: the IoU that the model predicts for itself")
        )
    without = sum(count == 0 for count in predictions.counts)
    for count, what in (
        (without, "images without an object"),
        (about["empty"], "prompts that gave an empty mask"),
        (failed, "images that could not be used"),
    ):
        if count:
            tiles.append((f"{count:,}", what))
    return element(
        "header",
        element("p", "lora_sam · predictions", class_="kicker"),
        element("h1", claim, class_=tone),
        element("dl", *(element("div", element("dt", what), element("dd", value)) for value, what in tiles)),
        element("p", "Predicted by ", element("code", predictions.run), ".", class_="note"),
    )


def _failures(failures: Mapping[str, str]) -> Element:
    shown = list(failures.items())[:_MOST_FAILURES]
    rows = [element("tr", element("th", name, scope="row"), element("td", reason)) for name, reason in shown]
    more = len(failures) - len(shown)
    return element(
        "section",
        element("h2", "Images that could not be used"),
        element("div", element("table", element("tbody", *rows), class_="settings"), class_="scroll"),
        element("p", f"and {more:,} more, all of them in predictions.json", class_="note") if more else None,
    )


def _pictures(predictions: Predictions) -> Element:
    whole = len(predictions.pictures) == predictions.about["images"]
    text = "All images." if whole else "Chosen by the number of objects, evenly spaced from most to fewest."
    return element(
        "section",
        element("h2", "What was found"),
        element("p", f"{text} Dark images are brightened."),
        element("div", *(_figure(picture) for picture in predictions.pictures), class_="sheet"),
    )


def _figure(picture: PredictionsPicture) -> Element:
    height, width = picture.size
    score = "" if picture.score is None else f", mean score {picture.score:.2f}"
    about = f"{picture.name}: {plural(picture.objects, 'object')}{score}"
    return element(
        "figure",
        element("img", src=data_uri(picture.file), alt=about, width=width, height=height, loading="lazy"),
        element("figcaption", about),
    )


def _charts(predictions: Predictions) -> Element:
    most = max(predictions.counts)
    edges = np.unique(np.linspace(0, most + 1, min(_BINS, most + 1) + 1).round()).tolist()
    return element(
        "section",
        element("h2", "Scores and counts"),
        element(
            "p",
            "The score is the IoU that the model predicts for its own mask: 1 is a perfect outline. It orders objects; "
            "it is not a probability.",
        ),
        element(
            "div",
            histogram("Score of every object", "score", "objects", [("score", "tuned", predictions.scores)]),
            histogram("Objects in every image", "objects", "images", [("images", "tuned", predictions.counts)], edges),
            class_="charts",
        ),
    )


def _written(predictions: Predictions) -> Element:
    rows = [
        element(
            "tr", element("th", name, element("small", meaning), scope="row"), element("td", element("code", place))
        )
        for name, (meaning, place) in predictions.places.items()
    ]
    rows += [
        element("tr", element("th", name.replace("_", " "), scope="row"), element("td", value))
        for name, value in predictions.settings.items()
    ]
    return element(
        "section",
        element("h2", "What was written, and with which settings"),
        element("div", element("table", element("tbody", *rows), class_="settings"), class_="scroll"),
    )


def _next(steps: Sequence[tuple[str, str]]) -> Element:
    items = [
        element("li", element("p", f"{purpose[:1].upper()}{purpose[1:]}"), element("pre", element("code", command)))
        for purpose, command in steps
    ]
    return element("section", element("h2", "What next"), element("ul", *items, class_="steps"))
