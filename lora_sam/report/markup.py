"""HTML and inline SVG as a tree, so that every text and attribute is escaped and every element closed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from lora_sam.core.wording import unturned

Child = Element | str | None


def element(tag: str, *children: Child, **attributes: str | float | None) -> Element:
    """An element with text and elements inside it; children and attributes that are None are left out.

    Underscores in names of attributes stand for hyphens, and one at the end is dropped: `class_`, `stroke_width`.
    """
    made = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            text = value if isinstance(value, str) else f"{value:g}"
            made.set(name.rstrip("_").replace("_", "-"), text)
    append(made, *children)
    return made


def append(parent: Element, *children: Child) -> None:
    """Add text and elements at the end of `parent`."""
    for child in children:
        if isinstance(child, Element):
            parent.append(child)
        elif child is not None and len(parent):
            parent[-1].tail = (parent[-1].tail or "") + child
        elif child is not None:
            parent.text = (parent.text or "") + child


def figures_table(headings: Collection[str], lines: Iterable[Element]) -> Element:
    """A table whose rows, with a name in front, have a cell under each heading; scrolls where it is too wide."""
    named = [text for text in headings if text]
    head = element("tr", element("td"), *(element("th", text, scope="col") for text in headings))
    table = element("table", element("thead", head), element("tbody", *lines))
    # what scrolls must be reached by keyboard, and needs a name then
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=f"Table: {', '.join(named)}")


def serialize(root: Element) -> str:
    """`root` as HTML; what UTF-8 cannot hold (undecodable bytes of a file name) becomes a question mark.

    What would turn the order of letters, and with it of figures beside a name, is there as an escape.
    """
    html: str = ElementTree.tostring(root, encoding="unicode", method="html")
    return unturned(html).encode("utf-8", "replace").decode()
