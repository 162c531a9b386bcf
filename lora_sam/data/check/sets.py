"""What can be seen only in many samples together: duplicates, leaks between splits, mixtures, rarities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations

import numpy as np

from lora_sam.core.groups import Groups, counted_images, independent
from lora_sam.core.tile_grid import LEAST_TILE
from lora_sam.core.wording import plural
from lora_sam.data.check.defects import Finding
from lora_sam.data.check.samples import Look
from lora_sam.data.reading.duplicates import alike

FEW_IMAGES: Mapping[str, int] = {"train": 10, "val": 3, "test": 5}
"""Splits with fewer images are small."""

RARE_SHARE = 0.05
"""A class with a smaller share of the objects of the most frequent one is rare."""

SIZES_APART = 4.0
"""Sizes vary if the longer sides of the images are so many times apart; those twice off the median are named."""

SMALL_SHARE = 1 / 24
"""Objects are small where the median of their image spans less of its longer side: 21 of 512 pixels, 43 of 1,024."""

SMALL_IMAGES = 0.1
"""Share of the images with small objects from which on they are named."""

TILE_SPANS = 20
"""A tile that is proposed is so many times as wide as the median of the small objects."""


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
    """Objects that a model sees in a few pixels, since the whole image is scaled to its input."""
    seen = [(look, float(np.median(np.sqrt(look.areas)))) for look in looks if len(look.areas)]
    small = [(look, span) for look, span in seen if span < SMALL_SHARE * max(look.size)]
    if not small or len(small) < SMALL_IMAGES * len(seen):
        return
    tile = proposed_tile([span for _, span in small])
    example, span = max(small, key=lambda one: max(one[0].size) / one[1])
    side = max(example.size)
    if tile >= side:
        return
    yield Finding(
        "small_in_image",
        "objects",
        f"{len(small):,} of {plural(len(seen), 'image')}: the median object spans less than {SMALL_SHARE:.1%} of the "
        f"longer side ({example.id}: {span:.0f} of {side:,} pixels); data.tile={tile} shows it {side / tile:.1f} times "
        "as large",
        example.id,
    )


def proposed_tile(spans: Sequence[float]) -> int:
    """Side of tiles in pixels, a multiple of 64, in which small objects of such spans are seen well."""
    step = 2 * LEAST_TILE
    return max(2 * step, step * round(TILE_SPANS * float(np.median(spans)) / step))


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
