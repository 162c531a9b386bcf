"""Splits out of what a format reads: those that are missing are carved, alike images and groups stay together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from lora_sam.core.errors import DataError
from lora_sam.core.groups import Parts
from lora_sam.core.seeds import generator_for
from lora_sam.core.spaced import evenly_spaced
from lora_sam.core.wording import plural
from lora_sam.data.noticed import Notes
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.deep_images import DeepPixels, deep_pixels
from lora_sam.data.reading.duplicates import groups_of_duplicates
from lora_sam.data.reading.grouping import groups_within, in_groups
from lora_sam.data.reading.images import turned_by
from lora_sam.data.reading.labelled import LabelledImages
from lora_sam.data.reading.pixel_scale import PixelScale, measured
from lora_sam.data.reading.skipping import Ledger, attempt_all
from lora_sam.data.reading.volumes import Slice
from lora_sam.data.sources import SampleSource, groups_of
from lora_sam.data.splits import Splits, Subset, spellings

_MEASURED = 32  # images that the scale is measured on
_NOT_SOUGHT = "images that look alike were not looked for before setting images aside: the data set is too large"


class ReadSplit(Protocol):
    """How a format reads one split."""

    def __call__(self, split: str, notes: Notes) -> SampleSource | None:
        """The samples of `split`, or None when there is no such split; may add notes. Raises `DataError`."""
        ...


def read_splits(
    read: ReadSplit,
    ledger: Ledger,
    options: FormatOptions,
    *,
    seed: int,
    place: Callable[[str], str],
    single: bool = False,
) -> Splits:
    """Read the splits by name, and carve those that are absent out of train.

    A split that is called train, val or test may also be spelled training, valid, validation or testing. An absent
    split gets `fraction` of the training images, at least one, by a permutation that depends on `seed` and the number
    of images only; which images test gets does not depend on whether val is absent too. Images that look alike
    (`lora_sam.data.reading.duplicates`) stay together: a group of them moves as its first image in the permutation
    does, or stays in train where it is larger than what the split still lacks. So do slices of a volume, and images of
    which `data.group` says that they are parts of one; these are never parted.

    Of a few training images (`options.few_images`) none is set aside for an absent val split: those that train, without
    those of an absent test split, are the val split as well.

    Args:
        read: Reads one split.
        ledger: Where `read` counts what it skips; closed here.
        options: Names of the splits, and shares of those that are absent.
        seed: Seed of the run.
        place: Where a split by that name is looked for, for messages.
        single: Whether there is one set only, out of which val and test are carved whatever they are called.

    Raises:
        DataError: train is absent, a split is empty, nothing is left to train on, or too much was skipped.
    """
    train = options.train
    # of one set val and test are carved, unless they are to be the training images themselves
    val, test = (None if single and name != train else name for name in (options.val, options.test))
    notes = Notes()
    found = {name: _read(read, name, notes) for name in dict.fromkeys((train, val, test)) if name is not None}
    skipped = ledger.close()
    _say_turned(found.values(), notes)
    found = in_groups(found, options.group, notes)
    scale = _scale_of(found.values(), options, notes)
    found = {name: source if scale is None else _scaled(source, scale) for name, source in found.items()}
    for name, source in found.items():
        if source is not None and len(source) == 0:
            raise DataError(f"{place(name)}: the split {name!r} is empty: no image with a labelled object. Add some.")
    rest = found[train]
    if rest is None:
        raise DataError(
            f"{place(train)}: does not exist, so there is nothing to train on; docs/data.md shows layouts.",
            "missing_file",
        )
    present = {"test": found[test] if test is not None else None, "val": found[val] if val is not None else None}
    fractions = {"test": options.test_fraction, "val": options.val_fraction}
    few = options.val is not None and present["val"] is None and len(rest) <= options.few_images
    absent = [role for role, source in present.items() if source is None and not (few and role == "val")]
    counts = {role: max(1, round(fractions[role] * len(rest))) for role in absent}
    order = [int(index) for index in generator_for(seed, "split").permutation(len(rest))]
    if len(order) <= sum(counts.values()):
        raise DataError(
            f"{place(train)}: {plural(len(rest), 'image')} {'is' if len(rest) == 1 else 'are'} too few to set aside "
            f"{' and '.join(counts)}; {_instead('images', counts, train)}"
        )
    parts, whole = _parts_of(found.values(), options), groups_within(rest)
    _check_groups(len(order), whole, counts, place(train), train, parts)
    alike = _lookalikes(rest) if counts else ()
    taken, about = carve(order, counts, alike or (), whole)
    carved: dict[str, SampleSource] = {role: Subset(rest, tuple(sorted(taken[role]))) for role in counts}
    notes.extend(
        f"no {role} split: {len(taken[role])} of {len(rest)} training images were set aside for it" for role in counts
    )
    if few:
        notes.append(
            f"no val split, and no more than {plural(len(rest), 'training image')}: those that train choose the "
            "weights too, none is held out for it (data.val=null sets some aside; data.few_images)"
        )
    if alike is None:
        notes.found("duplicates_not_sought", f"{place(train)}: {_NOT_SOUGHT}")
    notes.extend(about)
    gone = {index for indices in taken.values() for index in indices}
    training: SampleSource = Subset(rest, tuple(index for index in range(len(rest)) if index not in gone))
    splits = {"train": training if carved else rest}
    for role, called in (("test", test), ("val", val)):  # one called like train is what trains
        own = called != train and not (few and role == "val")
        splits[role] = (present[role] or carved[role]) if own else splits["train"]
    _say_shared(splits, notes, told=("train", "val") if few else None)
    return Splits(splits["train"], splits["val"], splits["test"], skipped, notes.texts, scale, parts, notes.noticed)


def instead_of_split(config: FormatOptions, split: str) -> str:
    """What else can be done where a split other than train has no labels; nothing for train."""
    role = next((role for role in ("val", "test") if split in spellings(getattr(config, role) or "")), None)
    if role is None or split in spellings(config.train):
        return ""
    return f", or set some training images aside in place of {split}, with data.{role}=null"


def carve(
    order: Sequence[int],
    counts: Mapping[str, int],
    alike: Sequence[Sequence[int]],
    whole: Sequence[Sequence[int]] = (),
) -> tuple[dict[str, list[int]], list[str]]:
    """Set images aside for splits, in turn, in the order of a permutation, without parting a group.

    Args:
        order: Permutation of the n images.
        counts: How many each split gets; together fewer than n.
        alike: Images that look alike and stay together where that is possible.
        whole: Images that are parts of one thing, which is never parted; there are more such things, and images that
            are of none, than splits.

    Returns:
        For each split the images it gets, as many as it asked for where the groups allow it; and what to tell the user.
    """
    if alike:
        inside = sum(len(group) for group in alike)
        about = [f"{len(alike)} groups of images that look alike ({inside} images) were kept on one side each"]
    else:
        about = []
    units = _units(order, _joined([*alike, *whole]))
    if len(units) <= len(counts):
        about = [f"nearly all of the {len(order)} images look alike, and had to be parted: figures will flatter"]
        units = _units(order, whole)
    taken: dict[str, list[int]] = {}
    for later, (role, count) in zip(range(len(counts) - 1, -1, -1), counts.items(), strict=True):
        spare = len(units) - later - 1  # the other splits and train need one each
        chosen: list[tuple[int, ...]] = []
        lacking = count
        for unit in units:
            if len(unit) <= lacking and len(chosen) < spare:
                chosen.append(unit)
                lacking -= len(unit)
        chosen = chosen or [min(units, key=len)]
        taken[role] = [index for unit in chosen for index in unit]
        gone = set(chosen)
        units = [unit for unit in units if unit not in gone]
    return taken, about


def _units(order: Sequence[int], groups: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """What moves as one, in the order of its first image."""
    group_of = {index: tuple(group) for group in groups for index in group}
    return list(dict.fromkeys(group_of.get(index, (index,)) for index in order))


def _read(read: ReadSplit, name: str, notes: Notes) -> SampleSource | None:
    for spelling in spellings(name):
        source = read(spelling, notes)
        if source is not None:
            return source
    return None


def _scale_of(sources: Iterable[SampleSource | None], options: FormatOptions, notes: Notes) -> PixelScale | None:
    """One scale for all images, from some of those that have more than 8 bits or many bands; None where none has."""
    files = [image.path for source in sources if isinstance(source, LabelledImages) for image in source.images]
    read = attempt_all(deep_pixels, [files[place] for place in evenly_spaced(len(files), _MEASURED)])
    deep = [found for found in read if isinstance(found, DeepPixels)]
    if not deep:
        failed = [found for found in read if isinstance(found, DataError) and "pip install" in str(found)]
        if failed:
            raise failed[0]
        return None
    scale = measured([found.values for found in deep], options.scale, options.bands, [found.nodata for found in deep])
    count = min(found.values.shape[2] for found in deep)
    if all(found.values.dtype == np.uint8 for found in deep):
        scale = replace(scale, low=(0.0,) * 3, high=(255.0,) * 3)
    ends = ",".join(f"{end:g}" for end in (min(scale.low), max(scale.high)))
    notes.append(f"images of more than 8 bits: {scale.in_words()} become 0 to 255, as data.scale=[{ends}] does")
    if count > 3 or count == 2:
        chosen = ",".join(map(str, scale.bands))
        notes.append(f"images have {count} bands, of which {chosen} are shown; data.bands=[...] chooses others")
    return scale


def _say_turned(sources: Iterable[SampleSource | None], notes: Notes) -> None:
    """Note images that EXIF turns: labels may be of the pictures as they are stored, and sizes need not tell."""
    every = [image for source in sources if isinstance(source, LabelledImages) for image in source.images]
    # slices have no EXIF, and are decoded whole
    images = [image for image in every if not isinstance(image.path, Slice)]
    read = attempt_all(turned_by, [image.path for image in images])
    turned = [image.id for image, by in zip(images, read, strict=True) if by in range(2, 9)]
    if turned:
        notes.append(
            f"{len(turned)} of {plural(len(images), 'image')} {'is' if len(turned) == 1 else 'are'} turned as EXIF "
            f"says (e.g. {turned[0]}): labels have to fit the upright picture; the preview shows both"
        )


def _scaled(source: SampleSource | None, scale: PixelScale) -> SampleSource | None:
    return replace(source, scale=scale) if isinstance(source, LabelledImages) else source


def _lookalikes(source: SampleSource) -> tuple[tuple[int, ...], ...] | None:
    if not isinstance(source, LabelledImages):
        return ()
    return groups_of_duplicates([image.path for image in source.images], source.sizes)


def _joined(groups: Iterable[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Groups where those that share a member are one."""
    joined: list[set[int]] = []
    for group in groups:
        apart = [other for other in joined if other.isdisjoint(group)]
        met = [other for other in joined if not other.isdisjoint(group)]
        joined = [*apart, set(group).union(*met)]
    return tuple(tuple(sorted(group)) for group in joined if len(group) > 1)


def _parts_of(sources: Iterable[SampleSource | None], options: FormatOptions) -> Parts | None:
    """What samples are parts of, in words; None where each is a whole."""
    if not any(group is not None for source in sources if source is not None for group in groups_of(source)):
        return None
    return Parts("volume", "slice") if options.group is None else Parts("group", "image")


def _check_groups(
    images: int, groups: Sequence[Sequence[int]], roles: Collection[str], place: str, train: str, parts: Parts | None
) -> None:
    """Raise `DataError` where splits cannot be carved without parting a group."""
    units = images - sum(len(group) - 1 for group in groups)
    if roles and parts is not None and units <= len(roles):
        whole, part = parts.whole, parts.part
        raise DataError(
            f"{place}: {plural(units, whole)} are too few to set aside {plural(len(roles), 'split')}, as {part}s of "
            f"one {whole} are too much alike to be parted; {_instead(f'{whole}s', roles, train)}"
        )


def _instead(what: str, roles: Iterable[str], train: str) -> str:
    """The remedy where there is too little of `what` to set some aside for the splits `roles`."""
    told = " ".join(f"data.{role}={train}" for role in sorted(roles, reverse=True))
    return (
        f"add {what}, give these splits, or set {told} to look at the training images themselves, whose figures "
        "flatter."
    )


def _say_shared(splits: dict[str, SampleSource], notes: Notes, told: tuple[str, str] | None) -> None:
    """Note images that are in two splits, but for the two of `told`."""
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        if (first, second) == told:
            continue
        shared = sorted(set(splits[first].ids) & set(splits[second].ids))
        if shared:
            notes.append(f"{len(shared)} images are in both {first} and {second} (e.g. {shared[0]}): figures flatter")
            continue
        parted = sorted({one for one in groups_of(splits[first]) if one} & set(groups_of(splits[second])), key=str)
        if parted:
            notes.found(
                "parted_group",
                f"parts of {plural(len(parted), 'group')} are in both {first} and {second} (e.g. {parted[0]}): figures "
                "flatter",
            )
