"""Pictures of one image with its truth and the masks before and after tuning, side by side."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lora_sam.core.files import atomic_path
from lora_sam.core.painting import COMPRESSION, brighten, paint, panel_size, resize_image
from lora_sam.core.structures import Sample
from lora_sam.core.wording import plural

NAMES = ("best", "median", "worst")

PANELS = ("image", "truth", "base", "tuned")

_GAP, _MARGIN = 8, 12
_LABEL_SIZE, _CAPTION_SIZE = 17, 15
_PAPER, _INK, _FAINT = (255, 255, 255), (20, 20, 20), (90, 90, 90)


def overlay_strip(
    sample: Sample, base_masks: NDArray[np.bool_], tuned_masks: NDArray[np.bool_], caption: str
) -> Image.Image:
    """Four labelled panels in a row: the image, and on it the truth, the base's and the tuned masks.

    An object has the same colour in all panels. A panel's longer side has at most 512 pixels; smaller images are
    enlarged by the largest whole factor that fits, so that their pixels stay visible as squares of one size. Dark
    images are brightened, and labelled so.

    Args:
        sample: The image and its true masks.
        base_masks: Masks before tuning, bool [N, H, W], in the order of `sample.masks`.
        tuned_masks: Masks after tuning, bool [N, H, W].
        caption: One line below the panels; shortened in its middle where it is too long.

    Returns:
        An RGB image.
    """
    for masks in (base_masks, tuned_masks):
        assert masks.shape == sample.masks.shape, f"masks {masks.shape} for objects {sample.masks.shape}"
    order = _largest_first(sample.masks)
    return _strip(sample, (("base", base_masks, order), ("tuned", tuned_masks, order)), caption)


def found_strip(
    sample: Sample, base_masks: NDArray[np.bool_], tuned_masks: NDArray[np.bool_], caption: str
) -> Image.Image:
    """The same panels for masks that were found without a prompt: as many as each model found, bool [N, H, W].

    Colours tell the masks of a panel apart, and nothing else.
    """
    found = [
        (f"{name}, {plural(len(masks), 'mask')}", masks, _largest_first(masks))
        for name, masks in (("base", base_masks), ("tuned", tuned_masks))
    ]
    return _strip(sample, found, caption)


def panels_of(strip: Image.Image, width: int | None = None) -> dict[str, Image.Image]:
    """The panels of a strip made by `overlay_strip`, by name, without labels and caption.

    Args:
        strip: The strip.
        width: Width of a panel in pixels; None for the whole column, which is wider where the image is very narrow.
    """
    count = len(PANELS)
    column = (strip.width - 2 * _MARGIN - (count - 1) * _GAP) // count
    top = _MARGIN + _LABEL_SIZE + 8
    bottom = strip.height - _MARGIN - _CAPTION_SIZE - 12
    lefts = [_MARGIN + k * (column + _GAP) for k in range(count)]
    return {
        name: strip.crop((left, top, left + (column if width is None else width), bottom))
        for name, left in zip(PANELS, lefts, strict=True)
    }


def write_overlays(directory: Path, strips: Mapping[str, Image.Image], prefix: str = "") -> list[Path]:
    """Write `best.png`, `median.png` and `worst.png` (those that `strips` has), each atomically; their paths.

    `prefix` stands before the names of files.

    Raises:
        TrainingError: the disk is full or the directory cannot be written.
    """
    assert set(strips) <= set(NAMES), f"{sorted(strips)} are not among {NAMES}"
    paths = []
    for name, strip in strips.items():
        path = directory / f"{prefix}{name}.png"
        with atomic_path(path) as temporary:
            strip.save(temporary, format="PNG", compress_level=COMPRESSION)
        paths.append(path)
    return paths


def _largest_first(masks: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The order in which small masks stay visible on top of large ones."""
    return np.argsort(-masks.sum(axis=(1, 2)), kind="stable")


def _strip(
    sample: Sample, models: Iterable[tuple[str, NDArray[np.bool_], NDArray[np.intp]]], caption: str
) -> Image.Image:
    photograph, brightened = brighten(resize_image(sample.image, panel_size(*sample.size)))
    panels = (
        ("image, brightened" if brightened else "image", photograph),
        (
            f"truth, {plural(len(sample.masks), 'object')}",
            paint(photograph, sample.masks, _largest_first(sample.masks)),
        ),
        *((label, paint(photograph, masks, order)) for label, masks, order in models),
    )
    return _arrange(panels, caption)


def _arrange(panels: tuple[tuple[str, NDArray[np.uint8]], ...], caption: str) -> Image.Image:
    label_font, caption_font = (ImageFont.load_default(size) for size in (_LABEL_SIZE, _CAPTION_SIZE))
    height, width = panels[0][1].shape[:2]
    # narrow images get columns wide enough for their labels
    column = max(width, *(int(label_font.getlength(label)) + 1 for label, _ in panels))
    label_height, caption_height = _LABEL_SIZE + 8, _CAPTION_SIZE + 12
    strip = Image.new(
        "RGB",
        (
            2 * _MARGIN + len(panels) * column + (len(panels) - 1) * _GAP,
            2 * _MARGIN + label_height + height + caption_height,
        ),
        _PAPER,
    )
    draw = ImageDraw.Draw(strip)
    for index, (label, panel) in enumerate(panels):
        left = _MARGIN + index * (column + _GAP)
        draw.text((left, _MARGIN), label, _INK, label_font, anchor="la")
        strip.paste(Image.fromarray(panel), (left, _MARGIN + label_height))
    text = _shorten(_in_ascii(caption), caption_font, strip.width - 2 * _MARGIN)
    draw.text((_MARGIN, strip.height - _MARGIN), text, _FAINT, caption_font, anchor="ld")
    return strip


def _in_ascii(text: str) -> str:
    """`text` without accents, and with ? for what Pillow's own font cannot show; it has hardly more than ASCII."""
    plain = unicodedata.normalize("NFKD", text.replace("→", "->"))
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).encode("ascii", "replace").decode()


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """`text` in one line, with its middle left out where it is wider than `width` pixels."""
    text = " ".join(text.split())
    length = font.getlength(text)
    if length <= width:
        return text
    keep = int(len(text) * width / length)  # near, as letters differ in width
    while keep and font.getlength(shortened := f"{text[: (keep + 1) // 2]}...{text[len(text) - keep // 2 :]}") > width:
        keep -= 1
    return shortened
