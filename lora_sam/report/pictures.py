"""The test images that a report shows: which ones, and their files."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from lora_sam.core.crops import Crop
from lora_sam.core.painting import COMPRESSION, panel_size, resize_mask
from lora_sam.report.overlays import overlay_strip, panels_of

if TYPE_CHECKING:
    from lora_sam.core.structures import Sample
    from lora_sam.data.sources import SampleSource
    from lora_sam.evaluation.scoring import Case, Evaluation

PICTURES = 6

# Two such files for each of six images, in base 64, leave a third of 3 MB for everything else.
FILE_LIMIT = 110_000
_QUALITIES = (90, 80, 70, 60, 45, 30, 15)

# a white line with a dark one around it is seen on any photograph and on every colour of the masks
_OUTLINE = ((255, 255, 255, 255), (0, 0, 0, 200))

Masks = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ReportPicture:
    """One test image, ready to be embedded.

    Attributes:
        title: Why it is shown, e.g. `largest gain`.
        id: Id of the sample.
        objects: Number of its objects.
        told: What changed on it, in a few words.
        size: (height, width) of the files in pixels.
        base: PNG or JPEG of the image with the base's masks.
        tuned: PNG or JPEG of the image with the tuned masks.
        truth: Transparent PNG with the outlines of the true masks.
    """

    title: str
    id: str
    objects: int
    told: str
    size: tuple[int, int]
    base: bytes
    tuned: bytes
    truth: bytes


def choose_cases(evaluation: Evaluation, count: int = PICTURES) -> list[tuple[str, Case]]:
    """Titles and images to show: largest, median and smallest gain, then others evenly spaced between them.

    No image twice; fewer than `count` where there are fewer. `count` is at least 3.
    """
    assert count >= 3, count
    ranked = sorted(evaluation.per_image(), key=lambda case: (-case.delta, case.id))
    named = evaluation.cases()
    titles = {"best": "largest gain", "median": "median gain", "worst": "smallest gain"}
    if named["worst"].delta < 0:
        titles["worst"] = "largest loss"
    chosen: dict[int, tuple[str, Case]] = {}
    for name, title in titles.items():
        chosen.setdefault(named[name].index, (title, named[name]))
    places = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    # the evenly spaced ones first, then whatever is left, for those that were taken by a name
    for place in (*places.tolist(), *range(len(ranked))):
        if len(chosen) >= count:
            break
        case = ranked[place]
        chosen.setdefault(case.index, (f"rank {place + 1} of {len(ranked)} by gain", case))
    return list(chosen.values())


def draw_cases(
    evaluation: Evaluation, source: SampleSource, masks_for: Callable[[int, Sample], tuple[Masks, Masks]]
) -> tuple[dict[str, Image.Image], tuple[ReportPicture, ...]]:
    """Draw the chosen images once, for `overlays/` and for the report.

    Args:
        evaluation: Scores of `base` and `tuned`.
        source: The images that were measured.
        masks_for: The base's and the tuned masks of a sample at a place of `source`, bool [N, H, W] each.

    Returns:
        Strips by `best`, `median` and `worst`, for `write_overlays`; pictures for `report_html`.
    """
    strips, pictures = {}, []
    named = evaluation.cases()
    for title, case in choose_cases(evaluation):
        sample = source[case.index]
        base, tuned = masks_for(case.index, sample)
        names = [name for name, other in named.items() if other.index == case.index]
        drawn = {name: overlay_strip(sample, base, tuned, case.caption(name)) for name in names or [title]}
        strips.update(drawn)
        pictures.append(report_picture(title, case, sample, next(iter(drawn.values()))))
    return {name: strips[name] for name in named}, tuple(pictures)


def report_picture(title: str, case: Case, sample: Sample, strip: Image.Image) -> ReportPicture:
    """The files of one image, cut from its overlay strip."""
    told = f"mean IoU {case.base_iou:.3f} → {case.tuned_iou:.3f} ({case.delta:+.3f})"
    return cut_picture(title, sample, strip, objects=case.objects, told=told)


def cut_picture(title: str, sample: Sample, strip: Image.Image, *, objects: int, told: str) -> ReportPicture:
    """The same for any strip of the panels image, truth, base and tuned."""
    size = panel_size(*sample.size)
    panels = panels_of(strip, size[1])
    return ReportPicture(
        title=title,
        id=sample.id,
        objects=objects,
        told=told,
        size=size,
        base=_file(panels["base"]),
        tuned=_file(panels["tuned"]),
        truth=_outlines(sample.masks, size),
    )


def data_uri(file: bytes) -> str:
    """A PNG or JPEG file as the value of `src`."""
    kind = "png" if file.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file).decode('ascii')}"


def _file(image: Image.Image) -> bytes:
    """`image` as PNG, or as JPEG where that is too large: the best quality that fits `FILE_LIMIT`."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=COMPRESSION)
    for quality in _QUALITIES:
        if buffer.tell() <= FILE_LIMIT:
            break
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, subsampling=0)  # contours are thin and coloured
    return buffer.getvalue()


def _outlines(masks: Masks, size: tuple[int, int]) -> bytes:
    """A PNG of `size` (height, width), transparent but for the contours of `masks` [N, H, W]."""
    levels = np.zeros(size, np.uint8)
    line = np.zeros(size, np.bool_)
    for mask in masks:
        crop = Crop.of(resize_mask(mask, size))
        if crop is not None:
            line[crop.window] |= crop.mask & ~binary_erosion(crop.mask)
    levels[binary_dilation(line)] = 2
    levels[line] = 1
    image = Image.fromarray(levels).convert("P")
    image.putpalette(bytes(channel for colour in ((0, 0, 0, 0), *_OUTLINE) for channel in colour), "RGBA")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
