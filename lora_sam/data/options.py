"""The options that every format of labelled images has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from lora_sam.core.tile_grid import LEAST_TILE

MAX_PATTERN = 200
"""Characters of `data.group`."""

MaskKind = Literal["auto", "binary", "labels"]
Instances = Literal["auto", "whole", "components"]


@dataclass(frozen=True, kw_only=True)
class FormatOptions:
    """Where the data is, which splits it has, and what is done about what is wrong in it.

    Attributes:
        root: Directory of the data set; nothing outside it is read.
        train: Name of the training split.
        val: Name of the validation split; a name that is not there carves it out of train, or takes all of train where
            images are few (`few_images`); null always carves it.
        test: Name of the test split; null, or a name that is not there, carves it out of train.
        val_fraction: Share of the training images that becomes an absent val split.
        test_fraction: Share of the training images that becomes an absent test split.
        few_images: A train split of at most so many images is not parted further for an absent val split: those that
            train validate too; 0 always parts it.
        on_error: `raise` stops at the first bad image or label, `skip` leaves it out and lists it.
        max_skipped: Share of images or of objects that `skip` may leave out before it stops.
        min_area: Objects with fewer pixels are left out.
        max_objects_per_image: Training uses at most this many objects of an image per step; null for all.
        check: `full` also decodes every image once, which finds truncated files before training; `header` trusts them.
            Masks in files of their own are always decoded, to know their objects.
        scale: Which values of images with more than 8 bits become black and white, for all of them alike: `auto` finds
            it in some of them (docs/data.md), `minmax` takes the least and the largest value, `dtype` the range of the
            type; [low,high] says it.
        bands: Which bands of images with more than three become red, green and blue, such as [4,3,2]; null for the
            first three.
        follow_links: Whether symbolic links may lead out of `root`, as to images on another disk. What annotations name
            stays below `root` all the same.
        tile: Side in pixels of the tiles that larger images are cut into, for training and evaluation alike; null
            leaves images whole. Each object belongs to one tile: where it is whole, with the most around it. All tiles
            of an image are in one split.
        group: Regular expression whose first group in parentheses, found in the id of an image, names what the image is
            part of, such as `(patient[0-9]+)_`; null for none. Images of one are on one side of a split that is carved,
            and drawn together where intervals are found. Of a slice the id of its volume is looked at.
    """

    root: str
    train: str
    val: str | None
    test: str | None
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    test_fraction: Annotated[float, Field(gt=0, lt=1)]
    few_images: Annotated[int, Field(ge=0)]
    on_error: Literal["raise", "skip"]
    max_skipped: Annotated[float, Field(ge=0, le=1)]
    min_area: Annotated[int, Field(ge=1)]
    max_objects_per_image: Annotated[int, Field(ge=1)] | None
    check: Literal["full", "header"]
    scale: Literal["auto", "dtype", "minmax"] | tuple[float, float]
    bands: tuple[Annotated[int, Field(ge=1)], ...] | None
    follow_links: bool
    tile: Annotated[int, Field(ge=LEAST_TILE)] | None
    group: Annotated[str, Field(min_length=1, max_length=MAX_PATTERN)] | None


@dataclass(frozen=True, kw_only=True)
class IgnoreOptions:
    """Which values of label files are no objects.

    Attributes:
        ignore: Values that are background beside 0, such as [255]; `auto` takes 255, 65535 or -1 for that where
            they are plainly no labels, and says so.
    """

    ignore: tuple[int, ...] | Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class NameOptions:
    """How label files are named.

    Attributes:
        mask_suffix: What the name of a label file has behind that of its image, such as `_mask`; null finds it out.
    """

    mask_suffix: str | None


@dataclass(frozen=True, kw_only=True)
class SliceOptions:
    """Which images of a volume are used.

    Attributes:
        slices: Of a TIFF stack or a NIfTI volume: `all`, `middle`, or numbers from 0 such as [10,20]; null refuses
            volumes. Slices of one volume stay on one side of a split that is carved.
    """

    slices: Literal["all", "middle"] | tuple[Annotated[int, Field(ge=0)], ...] | None


@dataclass(frozen=True, kw_only=True)
class MaskOptions(IgnoreOptions):
    """What the values of mask files mean.

    Attributes:
        mask_values: `binary`: any object or none; `labels`: every value but 0 is an object; `auto`: by the values of
            all masks together (docs/data.md), and JPEG is binary.
        instances: `whole`: all that is not background is one object; `components`: every connected component (of a
            binary mask, or of each label) is one; `auto`: a binary mask is one object, every label is one object.
        threshold: Foreground of a binary mask with more than two values (JPEG, soft edges) is at or above this.
        invert: Whether 0 is the object, and everything else background.
    """

    mask_values: MaskKind
    instances: Instances
    threshold: Annotated[int, Field(ge=1, le=65535)]
    invert: bool
