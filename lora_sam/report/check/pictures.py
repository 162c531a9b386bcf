"""Thumbnails of samples with their masks and the prompts that training would draw."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.core.seeds import drawn_places
from lora_sam.core.structures import Prompts, Sample
from lora_sam.core.wording import plural
from lora_sam.data.check.examination import Examination
from lora_sam.data.check.samples import Look, spread
from lora_sam.prompts import PromptSource
from lora_sam.report.contact_sheet import prompted_picture

SIDE = 320
"""Longer side of a thumbnail in pixels, at most."""

MOST_OBJECTS = 200
"""So many objects of a thumbnail are drawn."""

EXAMPLES = 4
"""So many pictures of one defect."""

_LEAST_WINDOW = 48  # pixels of the image around objects that are shown enlarged
_AROUND = 1.0  # how much of their own size is shown on each side of them


@dataclass(frozen=True)
class Thumbnail:
    """A picture ready to be embedded.

    Attributes:
        id: Id of the sample.
        text: What it shows.
        size: (height, width) of the file in pixels.
        file: JPEG.
    """

    id: str
    text: str
    size: tuple[int, int]
    file: bytes


def overview(examination: Examination, prompt: PromptSource, seed: int, count: int) -> list[tuple[str, Thumbnail]]:
    """(split, thumbnail) of about `count` samples, evenly spaced in every split, half of them from train."""
    looks: dict[str, list[Look]] = {split: [] for split in examination.sources}
    for look in examination.looks:
        looks[look.split].append(look)
    shares = {"train": count - 2 * (count // 4), "val": count // 4, "test": count // 4}
    drawn = []
    for split, found in looks.items():
        for place in spread(len(found), shares[split]):
            sample = _sample(examination, found[place])
            if sample is not None:
                height, width = sample.size
                text = f"{width}x{height}, {plural(len(sample.masks), 'object')}"
                shown, prompts = first_prompts(prompt, sample, seed, examination.max_objects)
                drawn.append((split, thumbnail(shown, prompts, text)))
    return drawn


def examples(examination: Examination, prompt: PromptSource, seed: int) -> dict[str, list[Thumbnail]]:
    """Pictures of the first cases of every defect, by its name; objects that are meant are shown enlarged."""
    places = {look.id: look for look in examination.looks}
    drawn: dict[str, list[Thumbnail]] = {}
    for group in examination.groups:
        pictures = drawn.setdefault(group.defect.name, [])
        for finding in group.findings:
            look = places.get(finding.image or "")
            sample = None if look is None or len(pictures) == EXAMPLES else _sample(examination, look)
            if sample is None:
                continue
            rows = np.array([row for row, name in enumerate(sample.object_ids) if name in finding.objects], np.int64)
            if len(rows):
                prompts = prompt.training_prompts(sample, seed, 0)[rows]
                pictures.append(thumbnail(*_enlarged(sample.only(rows), prompts), finding.detail))
            else:
                shown, prompts = first_prompts(prompt, sample, seed, examination.max_objects)
                pictures.append(thumbnail(shown, prompts, finding.detail))
    return drawn


def first_prompts(prompt: PromptSource, sample: Sample, seed: int, most: int | None) -> tuple[Sample, Prompts]:
    """What training draws for a sample in its first epoch, before augmentation.

    Args:
        prompt: How prompts are made.
        sample: The sample.
        seed: Seed of the run.
        most: Objects of an image that one training step uses; None for all.

    Returns:
        The sample with those objects that are prompted first, and at most `MOST_OBJECTS`; the prompts.
    """
    count = len(sample.masks)
    rows = drawn_places(count, most, seed, "objects", 0, sample.id)  # as training.examples draws, which needs torch
    prompts = prompt.training_prompts(sample if rows is None else sample.only(rows), seed, 0)
    rows = np.arange(count) if rows is None else rows
    shown = np.concatenate([rows, np.setdiff1d(np.arange(count), rows)])[:MOST_OBJECTS]
    return sample.only(shown), prompts[:MOST_OBJECTS] if len(prompts) > MOST_OBJECTS else prompts


def thumbnail(sample: Sample, prompts: Prompts, text: str) -> Thumbnail:
    """A sample with its masks and prompts.

    Args:
        sample: The sample.
        prompts: Prompts of its first objects.
        text: What it shows.
    """
    picture = prompted_picture(sample, prompts)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85, subsampling=0)  # contours are thin and coloured
    return Thumbnail(sample.id, text, (picture.height, picture.width), buffer.getvalue())


def _sample(examination: Examination, look: Look) -> Sample | None:
    try:
        return examination.sources[look.split][look.index]
    except DataError:  # it changed after it was looked at
        return None


def _enlarged(sample: Sample, prompts: Prompts) -> tuple[Sample, Prompts]:
    """The part of a sample around its objects; mask prompts, which belong to the whole image, are left out."""
    left, top, right, bottom = _window(sample.masks)
    part = np.s_[top:bottom, left:right]
    cut = replace(sample, image=sample.image[part], masks=sample.masks[:, *part], ignored=None)
    origin = np.array([left, top], np.float32)
    return cut, Prompts(
        boxes=None if prompts.boxes is None else prompts.boxes - np.tile(origin, 2),
        points=None if prompts.points is None else prompts.points - origin,
        labels=prompts.labels,
    )


def _window(masks: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is shown around some objects."""
    union: NDArray[np.bool_] = np.any(masks, axis=0)
    sides = []
    for present in (np.any(union, axis=0), np.any(union, axis=1)):
        places, limit = np.flatnonzero(present), len(present)
        first, last = int(places[0]), int(places[-1]) + 1
        length = max(_LEAST_WINDOW, round((last - first) * (1 + 2 * _AROUND)))
        start = max(0, min((first + last - length) // 2, limit - length))
        sides.append((start, min(limit, start + length)))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom
