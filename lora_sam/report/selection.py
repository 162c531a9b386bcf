"""The images that are worth labelling next, as one sheet and as a page that makes no request to anywhere."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.wording import plural
from lora_sam.report.contact_sheet import contact_sheet
from lora_sam.report.markup import element, figures_table, serialize
from lora_sam.report.pictures import data_uri

if TYPE_CHECKING:
    from PIL import Image

_COLUMNS = 5
_SIDE = 200
_MOST = 50
_CHARACTERS = 20  # of a name below its picture, beside its rank


@dataclass(frozen=True)
class Picked:
    """One chosen image.

    Attributes:
        rank: From 1 on.
        name: Its path in the source.
        score: What chose it.
        differs: Disagreement of adapter and base, or None.
        picture: uint8 [h, w, 3].
    """

    rank: int
    name: str
    score: float
    differs: float | None
    picture: NDArray[np.uint8]


def sheet(rows: Sequence[Picked]) -> Image.Image:
    """The first fifty of them in their order, five in a row, as one picture."""
    from PIL import Image, ImageOps

    cells = []
    for one in rows[:_MOST]:
        # small ones are enlarged, or there would be no room for their rank
        picture = ImageOps.contain(Image.fromarray(one.picture), (_SIDE, _SIDE))
        name = one.name if len(one.name) <= _CHARACTERS else f"...{one.name[3 - _CHARACTERS :]}"
        wide = ImageOps.pad(picture, (_SIDE, picture.height), color="white", centering=(0, 0))
        cells.append((f"{one.rank} {name}", wide))
    columns = min(_COLUMNS, len(cells))
    blank = ("", Image.new("RGB", (1, 1), "white"))
    cells += [blank] * (-len(cells) % columns)
    return contact_sheet([cells[start : start + columns] for start in range(0, len(cells), columns)])


def selection_html(rows: Sequence[Picked], content: Mapping[str, Any], picture: Image.Image) -> str:
    """The whole page.

    Args:
        rows: What was chosen.
        content: Content of `selection.json`.
        picture: The sheet.
    """
    file = io.BytesIO()
    picture.save(file, format="PNG")
    lines = [
        element(
            "tr",
            element("th", f"{one.rank}  {one.name}", scope="row"),
            element("td", f"{one.score:.4f}"),
            element("td", "" if one.differs is None else f"{one.differs:.3f}"),
        )
        for one in rows
    ]
    failures = content["failures"]
    lead = (
        f"Ranked by {content['by']}, out of {plural(content['usable'], 'image')}; "
        f"{plural(content['labelled'], 'image')} are labelled, and {content['like_labelled']} look like these. "
        "The first is worth most; label from the top."
    )
    broken = element(
        "section",
        element("h2", "Could not be read"),
        element("ul", *(element("li", f"{name}: {reason}") for name, reason in failures.items())),
    )
    main = element(
        "main",
        element(
            "header",
            element("p", "lora_sam · what to label next", class_="kicker"),
            element("h1", f"{plural(len(rows), 'image')} to label next", class_="good"),
            element("p", lead, class_="lead"),
        ),
        element(
            "section",
            element(
                "img", src=data_uri(file.getvalue()), alt="The chosen images in their order", style="max-width: 100%"
            ),
        ),
        element("section", element("h2", "List"), figures_table(["score", "disagreement"], lines)),
        broken if failures else None,
    )
    template = Template(files("lora_sam.report").joinpath("template.html").read_text(encoding="utf-8"))
    return template.substitute(title=html.escape("what to label next · lora_sam"), main=serialize(main))
