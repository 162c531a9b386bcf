"""The format of a data set, found out by what is in its directory."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lora_sam.core.calling import data_words
from lora_sam.core.config import from_conf
from lora_sam.core.errors import ConfigError, DataError
from lora_sam.data.detection import Found, detected, formats, stored_option
from lora_sam.data.options import FormatOptions, MaskKind, SliceOptions
from lora_sam.data.reading.paths import data_root, within
from lora_sam.data.reading.unknown_layout import Layout, unknown_layout
from lora_sam.data.source import DataSource
from lora_sam.data.splits import Splits, spellings

_ROLES = ("train", "val", "test")
_PASSED_ON = ("crowd", "ignore", "instances", "invert", "mask_suffix", "mask_values", "rings", "threshold")
_MAX_HINTS = 50  # directories below the root that are looked into, to say where a data set may be


@dataclass(frozen=True, kw_only=True)
class Auto(SliceOptions, FormatOptions):
    """Labelled images in whichever format `root` has them: COCO, Pascal VOC, Common Semantic Segmentation, Datumaro,
    images and masks, images and label images, or a table of Hugging Face.

    The options of that format that are not here, or null, have the values of its file in `conf/data`; `data=<format>`
    sets them. One that the format does not have is refused.

    Attributes:
        crowd: As in `data=coco`.
        ignore: As in `data=labels` and `data=folder`.
        instances: As in `data=labels` and `data=folder`.
        invert: As in `data=folder`.
        mask_suffix: As in `data=labels` and `data=folder`.
        mask_values: As in `data=folder`.
        rings: As in `data=coco`.
        threshold: As in `data=folder`.
    """

    crowd: Literal["auto", "objects", "ignore"] | None
    ignore: tuple[int, ...] | Literal["auto"] | None
    instances: Literal["auto", "whole", "components", "values"] | None
    invert: bool | None
    mask_suffix: str | None
    mask_values: MaskKind | None
    rings: Literal["auto", "union", "even_odd"] | None
    threshold: Annotated[int, Field(ge=1, le=65535)] | None

    def open(self, seed: int) -> Splits:
        """Find the format, then read and check everything; a note says which format it is and why.

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: there is no format, or more than one, or what the format raises.
        """
        found = self.found()
        splits = self._built(found).open(seed)
        _check_field_of_view(found, splits)
        return replace(splits, notes=(f"read as data={found.option}: {found.why}", *splits.notes))

    def chosen(self) -> DataSource:
        """The options of the format that was found. Raises `DataError` as `found` does."""
        return self._built(self.found())

    def found(self) -> Found:
        """The one format that `root` has.

        Raises:
            DataError: `root` is no directory, cannot be listed, or has no known format or several.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        try:
            matches = detected(root, self.train)
            if not matches:
                below = _below(root, self.train)
                raise unknown_layout(root, below, _as_splits(below, self.train), _known(self.train), self.train)
        except OSError as error:
            place = error.filename or root
            raise DataError(f"{place}: cannot be looked into ({error.strerror}); check its permissions.") from error
        if len(matches) > 1:
            kinds = "; ".join(f"data={match.option} ({match.why})" for match in matches)
            raise DataError(f"{root}: can be read in several ways: {kinds}. Say which one with data=<format>.")
        return matches[0]

    def _built(self, found: Found) -> DataSource:
        target, values = stored_option(found.option)
        module, _, name = target.rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        names = {field.name for field in fields(cls)}
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name in names}
        for role in _ROLES:
            if values[role] in spellings(own[role] or ""):
                del own[role]  # what the format calls it
        if self.slices is not None and "slices" not in names:
            raise DataError(
                f"{self.root}: is read as data={found.option} ({found.why}), which has no volumes; leave "
                "data.slices out."
            )
        for key in _PASSED_ON:
            if own.get(key) is None:
                own.pop(key, None)
            if getattr(self, key) is not None and key not in names:
                raise DataError(
                    f"{self.root}: is read as data={found.option} ({found.why}), which has no {key}; leave data.{key} "
                    "out."
                )
        given = {key: own[key] for key in _PASSED_ON if key in own}
        if given:
            try:
                from_conf(f"data/{found.option}", root=self.root, **given)  # what the format takes may be less
            except ConfigError as error:
                raise ConfigError(f"data.{error}; the data is read as data={found.option} ({found.why})") from error
        built: DataSource = cls(**{**values, **own, **found.changes})
        return built


def _below(root: Path, train: str) -> list[Path]:
    """Directories of the two levels below the root that have a known format, none within another one."""
    found: list[Path] = []
    level, seen = _folders_in(root), 0
    for depth in (1, 2):
        following: list[Path] = []
        for folder in level[: _MAX_HINTS - seen]:
            if detected(folder, train):
                found.append(folder)
            elif depth == 1:
                following += _folders_in(folder)
        seen += len(level)
        level = following
    return sorted(found)


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _check_field_of_view(found: Found, splits: Splits) -> None:
    """Raise `DataError` where masks are the same in all images, and another folder beside them may have the objects."""
    noticed = {one.kind: one for one in splits.noticed}
    unread = noticed.get("unread_folder")
    if "same_masks" in noticed and unread is not None and found.changes:
        images, masks = found.changes["images"], found.changes["masks"]
        places = (f"{masks.rpartition('/')[0]}/{unread.names[0]}".lstrip("/"), masks)
        told = [f"data={found.option} {data_words(images=images, masks=place)}" for place in places]
        raise DataError(
            f"{unread.text}. The masks that are read are nearly the same in all images, as a field of "
            f"view is. Say which are meant: {' or '.join(told)}.",
            "ambiguous_mask",
        )


def _as_splits(places: Sequence[Path], train: str) -> tuple[str, ...]:
    """Options by which neighbouring directories are read as splits; none where their layout has no splits."""
    names = [place.name for place in places]
    parents = {place.parent for place in places}
    if not 2 <= len(places) <= len(_ROLES) or len(parents) > 1 or train in names:
        return ()
    matches = detected(parents.pop(), names[0])
    if (
        len(matches) != 1
        or not matches[0].changes.values()
        or not all("{split}" in str(value) for value in matches[0].changes.values() if value)
    ):
        return ()
    roles = {name: next((role for role in _ROLES if _is_called(name, role)), None) for name in names}
    if None not in roles.values() and len(set(roles.values())) == len(names) and "train" in roles.values():
        named = {str(role): name for name, role in roles.items()}
    else:
        named = dict(zip(_ROLES, names, strict=False))
    return tuple(f"data.{role}={named[role]}" for role in _ROLES if role in named)


def _is_called(name: str, role: str) -> bool:
    """Whether the name of a folder begins like a split: `train_val`, `TEST`, `valcrop`."""
    return name.lower().startswith(spellings(role))


def _known(train: str) -> list[Layout]:
    """Every format that is looked for, and what it needs."""
    known = []
    for option, what in formats().items():
        module = importlib.import_module(stored_option(option)[0].rpartition(".")[0])
        known.append(Layout(option, within(what, train), getattr(module, "NEEDS", ())))
    return known
