"""`check.html`: a contact sheet of the data and everything that was found, without a single request to anywhere."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from xml.etree.ElementTree import Element

import numpy as np

from lora_sam.core.wording import plural
from lora_sam.data.check.defects import SEVERITIES, Group, Severity, total
from lora_sam.data.check.examination import Examination
from lora_sam.data.check.results import MOST_IDS, passed, verdict
from lora_sam.report.charts import histogram
from lora_sam.report.check.pictures import Thumbnail
from lora_sam.report.markup import append, element, serialize
from lora_sam.report.pictures import data_uri

_MOST_NOTES = 30
_MOST_CLASSES = 100
_BINS = 24
_FIRST = 5  # cases that are listed without unfolding
_KINDS = ("train", "val", "test")
_EXPLAINED: Mapping[Severity, tuple[str, str]] = {
    "error": ("error", ": training stops, or its figures are wrong"),
    "warning": ("warning", ": may do harm"),
    "info": ("remark", ": worth knowing"),
}


def check_html(
    examination: Examination,
    *,
    name: str,
    root: str,
    prompt: str,
    strict: bool,
    sheet: Sequence[tuple[str, Thumbnail]],
    examples: Mapping[str, Sequence[Thumbnail]],
) -> str:
    """The whole page. The same arguments give the same text.

    Args:
        examination: What was found.
        name: Name of the data set.
        root: The data root.
        prompt: The prompts that are drawn, in words.
        strict: Whether warnings count as errors.
        sheet: (split, picture) of samples.
        examples: Pictures of a defect, by its name.
    """
    main = element("main")
    append(
        main,
        _header(examination, name, root, strict),
        _table(examination.groups) if examination.groups else None,
        _sheet(sheet, prompt, examination.max_objects) if sheet else None,
        _charts(examination) if examination.looks else None,
        _classes(examination.classes) if examination.classes else None,
        element("section", element("h2", "Every defect"), *(_defect(group, examples) for group in examination.groups))
        if examination.groups
        else None,
        _notes(examination.notes) if examination.notes else None,
    )
    template = Template(files("lora_sam.report").joinpath("template.html").read_text(encoding="utf-8"))
    page = template.substitute(title=html.escape(f"{name}, checked · lora_sam"), main=serialize(main))
    style = files("lora_sam.report.check").joinpath("page.css").read_text(encoding="utf-8")
    return page.replace("</style>", f"{style}</style>", 1)


def _header(examination: Examination, name: str, root: str, strict: bool) -> Element:
    groups = examination.groups
    good = passed(examination, strict)
    counts = [(total(groups, severity), severity) for severity in SEVERITIES]
    if good:
        claim = f"{name} is ready to train on" if not counts[1][0] else f"{name} can be trained on"
    else:
        claim = f"{name} should be mended first"
    tone = "bad" if not good else "good" if not counts[1][0] else "even"
    tiles = [
        _counted(len(source), "image", f" in {split}, with {plural(_objects(examination, split), 'object')}")
        for split, source in examination.sources.items()
    ]
    tiles += [_counted(count, *_EXPLAINED[severity]) for count, severity in counts]
    looked, images = len(examination.looks), sum(len(source) for source in examination.sources.values())
    part = (
        ""
        if looked == images
        else f" {looked:,} of {plural(images, 'image')} {'was' if looked == 1 else 'were'} looked at."
    )
    return element(
        "header",
        element("p", "lora_sam · data check", class_="kicker"),
        element("h1", claim, class_=tone),
        element("p", f"{verdict(examination, strict).capitalize()}.{part}", class_="lead"),
        element("dl", *(element("div", element("dt", what), element("dd", value)) for value, what in tiles)),
        element("p", "Read from ", element("code", root), f" as {examination.format}.", class_="note"),
    )


def _counted(count: int, noun: str, rest: str) -> tuple[str, str]:
    """A figure, and what it counts."""
    number, _, what = plural(count, noun).partition(" ")
    return number, f"{what}{rest}"


def _objects(examination: Examination, split: str) -> int:
    return sum(len(look.areas) for look in examination.looks if look.split == split)


def _badge(severity: str) -> Element:
    return element("span", severity, class_=f"badge {severity}")


def _table(groups: Sequence[Group]) -> Element:
    names = ("", "count", "defect", "remedy")
    head = element("tr", *(element("th" if name else "td", name, scope="col" if name else None) for name in names))
    rows = [
        element(
            "tr",
            element("td", _badge(group.defect.severity)),
            element("td", f"{len(group.findings):,}"),
            element("td", element("a", group.defect.title, href=f"#{group.defect.name}")),
            element("td", group.defect.remedy),
        )
        for group in groups
    ]
    table = element("table", element("thead", head), element("tbody", *rows), class_="found")
    return element("section", element("h2", "What was found"), element("div", table, class_="scroll"))


def _sheet(sheet: Sequence[tuple[str, Thumbnail]], prompt: str, most: int | None) -> Element:
    part = (
        ""
        if most is None
        else f" Where an image has more than {plural(most, 'object')}, one step draws so many of them."
    )
    section = element(
        "section",
        element("h2", "Contact sheet"),
        element(
            "p",
            "Images evenly spaced in each split, with their masks and the prompts that training would draw in its "
            "first epoch, before augmentation: ",
            element("code", prompt),
            f".{part}",
        ),
        element(
            "p",
            "A prompt has the colour of its object: a frame is a box, a dot a point on the object, a cross a point "
            "beside it; a white outline is a rough mask.",
            class_="note",
        ),
    )
    for split in dict.fromkeys(split for split, _ in sheet):
        pictures = [_figure(picture) for found, picture in sheet if found == split]
        append(section, element("h3", split), element("div", *pictures, class_="sheet"))
    return section


def _figure(picture: Thumbnail) -> Element:
    height, width = picture.size
    about = picture.text if picture.text.startswith(picture.id) else f"{picture.id}: {picture.text}"
    return element(
        "figure",
        element("img", src=data_uri(picture.file), alt=about, width=width, height=height, loading="lazy"),
        element("figcaption", about),
    )


def _charts(examination: Examination) -> Element:
    counted = {
        "Objects per image": ("objects", "images", [len(look.areas) for look in examination.looks], True),
        "Longer side of the images": ("pixels", "images", [max(look.size) for look in examination.looks], False),
    }
    splits = [look.split for look in examination.looks]
    charts = [
        _histogram(title, what, of, splits, values, whole) for title, (what, of, values, whole) in counted.items()
    ]
    sides = [(look.split, float(side)) for look in examination.looks for side in np.sqrt(look.areas)]
    shares = [
        (look.split, 100 * area / (look.size[0] * look.size[1]))
        for look in examination.looks
        for area in look.areas.tolist()
    ]
    for title, what, pairs in (
        ("Size of the objects", "square root of the area, pixels", sides),
        ("Share of its image that an object covers", "%", shares),
    ):
        charts.append(_histogram(title, what, "objects", [s for s, _ in pairs], [value for _, value in pairs], False))
    return element(
        "section",
        element("h2", "Distributions"),
        element("p", "Train, val and test should look alike; the last bin holds the largest 1 %.", class_="note"),
        element("div", *charts, class_="charts"),
    )


def _histogram(
    title: str, x_label: str, counted: str, splits: Sequence[str], values: Sequence[float], whole: bool
) -> Element:
    """A histogram with a curve for each split; `whole` numbers get bins of equal numbers of them."""
    highest = max(1.0, float(np.percentile(values, 99)))
    if whole:
        step = max(1, -(-int(highest) // _BINS))
        edges = np.arange(0.5, highest + step + 0.5, step)
    else:
        edges = np.linspace(0.0, highest * 1.02, _BINS + 1)
    samples = [
        (name, name, [value for split, value in zip(splits, values, strict=True) if split == name]) for name in _KINDS
    ]
    return histogram(title, x_label, counted, [sample for sample in samples if sample[2]], edges.tolist())


def _classes(classes: Mapping[str, Mapping[str, int]]) -> Element:
    names = sorted({name for counts in classes.values() for name in counts})
    names.sort(key=lambda name: -sum(counts.get(name, 0) for counts in classes.values()))
    head = element("tr", element("td"), *(element("th", split, scope="col") for split in classes))
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            *(element("td", f"{counts.get(name, 0):,}") for counts in classes.values()),
        )
        for name in names[:_MOST_CLASSES]
    ]
    more = len(names) - _MOST_CLASSES
    return element(
        "section",
        element("h2", "Objects of each class"),
        element("div", element("table", element("thead", head), element("tbody", *rows)), class_="scroll"),
        element("p", f"and {more:,} more classes", class_="note") if more > 0 else None,
    )


def _defect(group: Group, examples: Mapping[str, Sequence[Thumbnail]]) -> Element:
    defect, pictures = group.defect, examples.get(group.defect.name, ())
    shown = [element("li", found.detail) for found in group.findings[:MOST_IDS]]
    more = len(group.findings) - len(shown)
    return element(
        "article",
        element("h3", _badge(defect.severity), f"{defect.title}: {len(group.findings):,}"),
        element("p", defect.remedy, " ", element("code", defect.name)),
        element("div", *(_figure(picture) for picture in pictures), class_="sheet") if pictures else None,
        element("ul", *shown[:_FIRST]),
        element("details", element("summary", f"{len(shown) - _FIRST} more"), element("ul", *shown[_FIRST:]))
        if len(shown) > _FIRST
        else None,
        element("p", f"and {more:,} that are not listed", class_="note") if more > 0 else None,
        id=defect.name,
        class_="defect",
    )


def _notes(notes: Sequence[str]) -> Element:
    shown = [*notes[:_MOST_NOTES], *([f"and {len(notes) - _MOST_NOTES:,} more"] if len(notes) > _MOST_NOTES else [])]
    return element(
        "section", element("h2", "How the labels were read"), element("ul", *(element("li", text) for text in shown))
    )
