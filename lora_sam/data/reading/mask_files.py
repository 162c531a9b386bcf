"""The objects in a mask file: one binary object, connected components, or one object per label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.noticed import Notes
from lora_sam.data.options import Instances, MaskKind, MaskOptions
from lora_sam.data.reading.image_file import ImageFile, place_of
from lora_sam.data.reading.images import is_jpeg
from lora_sam.data.reading.label_map import LabelMap, numbered, stored_values
from lora_sam.data.reading.labelled import check_size
from lora_sam.data.reading.mask_survey import Survey, blended, surveyed, void_of
from lora_sam.data.reading.mask_values import mask_values
from lora_sam.data.reading.mask_warnings import warn
from lora_sam.data.reading.palettes import check_palettes

_SOFT_SHARE = 0.8  # of a mask's foreground at 255, with more values below: rather a soft edge than labels


@dataclass(frozen=True)
class MaskRules:
    """How the values of mask files become objects; fields as in `lora_sam.data.options.MaskOptions`, with everything
    decided that is to be decided for all masks together."""

    mask_values: MaskKind
    instances: Instances
    threshold: int
    min_area: int
    invert: bool = False
    ignore: tuple[int, ...] = ()


def settled(options: MaskOptions, min_area: int, files: Sequence[ImageFile], notes: Notes) -> MaskRules:
    """The rules for all masks of a split, after a look at many of them.

    Args:
        options: What the user said.
        min_area: Least pixels of an object.
        files: The masks.
        notes: Says what was decided, and by which option it is decided otherwise.

    Raises:
        DataError: the masks are label images that were resized or compressed, so that edges have values of their own.
    """
    survey = surveyed(files)
    where = place_of(files)
    given = () if options.ignore == "auto" and options.mask_values == "binary" else options.ignore
    ignore = void_of(survey, given, files, notes)
    check_palettes(files)
    kind = survey.kind(ignore)
    decided = options.mask_values
    if decided == "auto" and kind != "plain":
        decided = _decided(kind, survey, options, where, files, notes)
    threshold = options.threshold
    if kind == "soft" and decided == "binary" and survey.largest(ignore) < threshold and not survey.jpegs:
        threshold = (survey.largest(ignore) + 1) // 2
        notes.found(
            "soft_edges", f"{where}: no mask reaches data.threshold={options.threshold}, so they are cut at {threshold}"
        )
    if survey.transparent:
        notes.found(
            "alpha_masks", f"{where}: masks are read from their alpha channel, as their colours are all the same"
        )
    warn(survey, options, decided, ignore, where, notes)
    return MaskRules(decided, options.instances, threshold, min_area, options.invert, ignore)


def _decided(
    kind: str, survey: Survey, options: MaskOptions, where: str, files: Sequence[ImageFile], notes: Notes
) -> MaskKind:
    """Whether masks with values between others are binary. Raises `DataError` as `settled` does."""
    if kind == "blended":
        if survey.jpegs:
            raise DataError(
                f"{files[0]}: JPEG blurs label values, and there are several; save label masks as PNG or TIFF, or set "
                "data.mask_values=binary for one object at or above data.threshold.",
                "ambiguous_mask",
            )
        otherwise = (
            "data.mask_values=labels takes every value for an object, data.mask_values=binary what is at or above "
        )
        raise blended(files[0], f"{otherwise}data.threshold for one")
    if not survey.jpegs:
        notes.found(
            "soft_edges",
            f"{where}: values between 0 and {survey.largest(())} are soft edges, cut at data.threshold="
            f"{options.threshold}; data.mask_values=labels takes every value for an object",
        )
    return "binary"


@dataclass(frozen=True)
class MaskFile:
    """One mask file, and how to read it."""

    path: ImageFile
    rules: MaskRules

    def read(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Bool [N, H, W] for an image of `size` = (H, W). Raises `DataError` as `label_map` does."""
        return self.mapped(size).masks()

    def mapped(self, size: tuple[int, int]) -> LabelMap:
        """See `lora_sam.data.reading.labelled.StoredAsMap`."""
        return self.label_map(size)

    def ignored_pixels(self, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Pixels of the values in `rules.ignore`, and of objects that are too small, bool [H, W]; None for none."""
        rules = self.rules
        if not rules.ignore and rules.min_area <= 1:
            return None
        whole = MaskFile(self.path, replace(rules, min_area=1)).label_map(size).labels != 0
        neither: NDArray[np.bool_] = whole & (self.label_map(size).labels == 0)
        if rules.ignore:
            neither |= np.isin(mask_values(self.path).values, rules.ignore)
        return neither if neither.any() else None

    def label_map(self, size: tuple[int, int]) -> LabelMap:
        """The objects, named by the stored values ("7", or "7.2" for its second component; "1", ... in binary masks);
        none where every pixel is background.

        Raises:
            DataError: the mask cannot be read, has another size, no pixel that reaches the threshold, or values that
                may mean two things.
        """
        rules = self.rules
        check_size(self.path, size)
        values = mask_values(self.path).values
        if rules.ignore:
            values = np.where(np.isin(values, rules.ignore), 0, values)
        stored = stored_values(values)
        if stored[0] < 0:
            raise DataError(
                f"{self.path}: a mask with negative values ({int(stored[0])}); use 0 for background, labels > 0, or "
                f"leave it out with data.ignore=[{int(stored[0])}].",
                "ambiguous_mask",
            )
        binary = self._is_binary(values, stored)
        if rules.invert and not binary:
            raise DataError(
                f"{self.path}: {len(stored)} values, of which none can be turned into its opposite; data.invert=true "
                "takes masks of two values: leave it out, or set data.mask_values=binary.",
                "ambiguous_mask",
            )
        if binary:
            soft = is_jpeg(self.path) or np.count_nonzero(stored) > 1
            foreground = values >= rules.threshold if soft else values != 0
            if stored[-1] and not foreground.any() and not rules.invert:
                raise DataError(
                    f"{self.path}: an empty mask, without a pixel at or above data.threshold={rules.threshold}; label "
                    "an object, or remove the pair.",
                    "empty_mask",
                )
            objects = LabelMap((foreground != rules.invert).astype(np.int32), ("1",))
        else:
            labels = stored[stored != 0]
            objects = LabelMap(numbered(values, labels), tuple(str(int(value)) for value in labels))
        if not objects.labels.any():
            return LabelMap(objects.labels, ())
        if rules.instances == "whole":
            objects = LabelMap((objects.labels != 0).astype(np.int32), ("1",))
        elif rules.instances == "components":
            objects = objects.components()
        return objects.without_small(rules.min_area)

    def _is_binary(self, values: NDArray[Any], stored: NDArray[Any]) -> bool:
        if is_jpeg(self.path):
            if self.rules.mask_values == "labels":
                raise DataError(
                    f"{self.path}: JPEG blurs label values; save label masks as PNG or TIFF.", "ambiguous_mask"
                )
            return True
        if self.rules.mask_values != "auto":
            return self.rules.mask_values == "binary"
        foreground = stored[stored != 0]
        if len(foreground) > 2 and foreground[-1] == 255:
            share = np.count_nonzero(values == 255) / np.count_nonzero(values)
            if share > _SOFT_SHARE:
                raise DataError(
                    f"{self.path}: {share:.0%} of the foreground is 255, with {len(foreground) - 1} values below it: "
                    "set data.mask_values=binary if these are soft edges, or data.mask_values=labels.",
                    "ambiguous_mask",
                )
        return len(foreground) <= 1
