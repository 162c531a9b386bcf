"""Images with their labels and prompts, side by side on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from lora_sam.core.structures import Prompts, Sample


PANEL_WIDTH = 512
_GAP, _LABEL = 8, 20
_PAPER, _INK = (255, 255, 255), (20, 20, 20)


def prompted_picture(sample: Sample, prompts: Prompts) -> Image.Image:
    """An image with its masks and the prompts of its objects, at most 512 pixels wide and high.

    Args:
        sample: The image and its N masks.
        prompts: N prompts on it.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    from lora_sam.core.painting import PALETTE, paint, panel_size

    height, width = panel_size(*sample.size)
    photograph = np.asarray(Image.fromarray(sample.image).resize((width, height), Image.Resampling.BILINEAR))
    order = np.argsort(-sample.masks.sum(axis=(1, 2)), kind="stable")
    painted = paint(photograph, sample.masks, order)
    for _, part in prompts.kinds():
        for logits in () if part.mask_inputs is None else part.mask_inputs:
            painted[_outline(logits, (height, width))] = 255
    picture = Image.fromarray(painted)
    draw = ImageDraw.Draw(picture)
    scale = np.array([width / sample.size[1], height / sample.size[0]])
    for rows, part in prompts.kinds():
        for number, row in enumerate(rows.tolist()):
            colour = PALETTE[row % len(PALETTE)]
            if part.boxes is not None:
                corners = (part.boxes[number].reshape(2, 2) * scale).ravel().tolist()
                draw.rectangle(corners, outline=colour, width=2)
            if part.points is not None and part.labels is not None:
                for (x, y), label in zip((part.points[number] * scale).tolist(), part.labels[number], strict=True):
                    _draw_point(draw, x, y, int(label), colour)
    return picture


def contact_sheet(rows: Sequence[Sequence[tuple[str, Image.Image]]]) -> Image.Image:
    """Pictures in rows, each with its label below, as one picture."""
    from PIL import Image, ImageDraw, ImageFont

    widths = [max(row[column][1].width for row in rows) for column in range(len(rows[0]))]
    heights = [max(picture.height for _, picture in row) + _LABEL for row in rows]
    sheet = Image.new("RGB", (sum(widths) + _GAP * (len(widths) + 1), sum(heights) + _GAP * (len(heights) + 1)), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        left = _GAP
        for (label, picture), width in zip(row, widths, strict=True):
            sheet.paste(picture, (left, top))
            text = label.encode("ascii", "replace").decode()
            while len(text) > 4 and font.getlength(text) > width:
                text = f"...{text[4:]}" if text.startswith("...") else f"...{text[1:]}"
            draw.text((left, top + picture.height + 3), text, _INK, font)
            left += width + _GAP
        top += height + _GAP
    return sheet


def _draw_point(draw: Any, x: float, y: float, label: int, colour: tuple[int, int, int]) -> None:
    if label == 1:
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour, outline=_PAPER, width=2)
    elif label == 0:
        for line, width in ((_PAPER, 5), (colour, 2)):
            draw.line((x - 4, y - 4, x + 4, y + 4), fill=line, width=width)
            draw.line((x - 4, y + 4, x + 4, y - 4), fill=line, width=width)


def _outline(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The rim of a rough mask [M, M] of the padded frame in a picture of `size` = (height, width), bool."""
    import numpy as np
    from PIL import Image
    from scipy.ndimage import binary_erosion

    side = max(size)
    frame = Image.fromarray(logits).resize((side, side), Image.Resampling.BILINEAR)
    mask: NDArray[np.bool_] = np.asarray(frame)[: size[0], : size[1]] > 0
    rim: NDArray[np.bool_] = mask & ~binary_erosion(mask, iterations=2)
    return rim
