"""What can be seen only in many samples together: duplicates, leaks between splits, mixtures, rarities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations

import numpy as np

from lora_sam.core.groups import Groups, counted_images, independent
from lora_sam.data.check.defects import Finding
from lora_sam.data.check.samples import Look
from lora_sam.data.reading.duplicates import alike
from lora_sam.data.small_objects import Seen, small_objects, span_of

FEW_IMAGES: Mapping[str, int] = {"train": 10, "val": 3, "test": 5}
"""Splits with fewer images are small."""

RARE_SHARE = 0.05
"""A class with a smaller share of the objects of the most frequent one is rare."""

SIZES_APART = 4.0
"""Sizes vary if the longer sides of the images are so many times apart; those twice off the median are named."""


def findings_of(
    looks: Sequence[Look], images: Mapping[str, int], carved: Sequence[str], groups: Mapping[str, Groups | None]
) -> Iterator[Finding]:
    """All findings about the set as a whole.

    Args:
        looks: Every sample that was looked at.
        images: Number of images of each split.
        carved: Those splits that were carved out of train.
        groups: What the images of each split are parts of; None where each is a whole.
    """
    for role in carved:
        yield Finding("missing_split", role, f"{role}: {images[role]:,} training images were set aside for it")
    for role, least in FEW_IMAGES.items():
        content = {"images": images[role], "groups": (of := groups[role]) and asdict(of)}
        if independent(content) < least:
            detail = f"{role}: {counted_images(content)}, at least {least} are better"
            yield Finding("too_few_images", role, detail)
    yield from _same(looks)
    yield from _nearly_same(looks)
    yield from _mixed(looks)
    yield from _sizes(looks)
    yield from _small(looks)
    yield from _classes(looks)


def _same(looks: Sequence[Look]) -> Iterator[Finding]:
    seen: dict[str, list[Look]] = {}
    for look in looks:
        for other in seen.setdefault(look.likeness.pixels, []):
            if other.split == look.split:
                detail = f"{look.id}: the same pixels as {other.id}, both in {look.split}"
                yield Finding("duplicate_image", look.id, detail, look.id)
                break
        else:
            others = seen[look.likeness.pixels]
            if others:
                detail = f"{look.id} in {look.split}: the same pixels as {others[0].id} in {others[0].split}"
                yield Finding("leaked_image", look.id, detail, look.id)
            others.append(look)


def _nearly_same(looks: Sequence[Look]) -> Iterator[Finding]:
    splits: dict[str, list[Look]] = {}
    for look in looks:
        splits.setdefault(look.split, []).append(look)
    for one, two in combinations(splits, 2):
        first, second = splits[one], splits[two]
        for known, new in alike([look.likeness for look in first], [look.likeness for look in second]):
            if first[known].likeness.pixels != second[new].likeness.pixels:
                detail = f"{second[new].id} in {two}: nearly {first[known].id} in {one}"
                yield Finding("near_duplicate_across_splits", second[new].id, detail, second[new].id)


def _mixed(looks: Sequence[Look]) -> Iterator[Finding]:
    counts = Counter(look.channels for look in looks if look.channels is not None)
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    for look in looks:
        if look.channels not in (None, usual):
            detail = f"{look.id}: {look.channels}; {counts[usual]:,} of {counts.total():,} images are {usual}"
            yield Finding("mixed_channels", look.id, detail, look.id)


def _sizes(looks: Sequence[Look]) -> Iterator[Finding]:
    sides = np.array([max(look.size) for look in looks])
    if not len(sides) or sides.max() < SIZES_APART * sides.min():
        return
    usual = float(np.median(sides))
    for look, side in zip(looks, sides.tolist(), strict=True):
        if not usual / 2 <= side <= usual * 2:
            height, width = look.size
            detail = f"{look.id}: {width}x{height} pixels; the longer side is {usual:.0f} pixels in the median"
            yield Finding("image_sizes_vary", look.id, detail, look.id)


def _small(looks: Sequence[Look]) -> Iterator[Finding]:
    found = small_objects([Seen(look.id, max(look.size), span_of(look.areas)) for look in looks if len(look.areas)])
    if found is not None:
        yield Finding("small_in_image", "objects", str(found), found.example.id)


def _classes(looks: Sequence[Look]) -> Iterator[Finding]:
    counts: dict[str, Counter[str]] = {}
    for look in looks:
        counts.setdefault(look.split, Counter()).update(look.classes)
    trained = counts.get("train", Counter())
    if not trained:
        return
    most, largest = trained.most_common(1)[0]
    for name, count in sorted(trained.items(), key=lambda pair: pair[1]):
        if count < RARE_SHARE * largest:
            detail = f"{name}: {count:,} training objects, but {largest:,} of {most}"
            yield Finding("class_imbalance", name, detail)
    for role in ("val", "test"):
        for name, count in counts.get(role, Counter()).items():
            if name not in trained:
                yield Finding("unseen_class", f"{role}: {name}", f"{name}: {count:,} objects in {role}, none in train")
