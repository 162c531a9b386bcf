"""What is read from masks as it is stored, and may be meant otherwise: notes with the option that mends it."""

from __future__ import annotations

from collections.abc import Sequence

from lora_sam.core.wording import plural
from lora_sam.data.noticed import Notes
from lora_sam.data.options import MaskKind, MaskOptions
from lora_sam.data.reading.mask_survey import MANY_PARTS, Survey

_LIMIT, _NEARLY_ALL = 255, 0.98
_DROPPED = 0.6  # of the pixels above 0: soft edges of thin objects are less
_MOST = 0.8  # of the files
_SAME_FILES = 4  # so many masks are not the same by chance


def warn(
    survey: Survey, options: MaskOptions, decided: MaskKind, ignore: tuple[int, ...], where: str, notes: Notes
) -> None:
    """Notes about what is read as it is stored, and may be meant otherwise."""
    if options.invert or not survey.files:
        return
    values = survey.values(ignore)
    _warn_of_shapes(survey, options, decided, ignore, where, notes)
    if survey.files >= _SAME_FILES and survey.alike == survey.files and not ignore:  # void is alike in many
        notes.found(
            "same_masks",
            f"{where}: warning: the {survey.files} masks that were looked at are nearly the same, as a field of view "
            "is; if the objects lie in another folder, name it with data.masks",
        )
    if survey.framed >= 0.6 * survey.files and (decided == "binary" or len(values) <= 1):
        notes.found(
            "inverted_masks",
            f"{where}: warning: in {survey.framed} of {survey.files} masks the object covers most of the picture and "
            "of its border; if that is the background, set data.invert=true",
        )
        return
    if several := decided != "binary" and len(values) > 1:
        odd_values(survey, ignore, where, notes)
    if options.instances == "auto":
        warn_of_parts(survey, ignore, where, notes, several=several)


def warn_of_parts(survey: Survey, ignored: Sequence[int], where: str, notes: Notes, *, several: bool) -> None:
    """Say so where objects have many separate parts.

    Args:
        survey: Of the masks.
        ignored: Values that are no objects.
        where: Where they lie, for messages.
        notes: Gets what is said.
        several: Whether every value of a mask is an object, and not all that is no background.
    """
    parts = survey.usual_parts_of_values(ignored) if several else survey.usual_parts
    if parts < MANY_PARTS:
        return
    what = f"a {'value' if several else 'mask'} is one object, of {plural(parts, 'separate part')} in the median"
    kind = ", as classes have, and few values for many objects" if several else ""
    notes.found(
        "masks_of_many_parts",
        f"{where}: warning: {what}{kind}; if the parts are objects, set data.instances=components",
    )


def _warn_of_shapes(
    survey: Survey, options: MaskOptions, decided: MaskKind, ignore: tuple[int, ...], where: str, notes: Notes
) -> None:
    warn_of_outlines(survey, where, notes)
    above = sum(count for value, count in survey.counts.items() if value > 0 and value not in ignore)
    below = sum(survey.counts[value] for value in survey.values(ignore) if value < options.threshold)
    if decided == "binary" and survey.largest(ignore) >= options.threshold and below > _DROPPED * above:
        notes.found(
            "gradient_masks",
            f"{where}: warning: {100 * below / above:.0f} % of the pixels above 0 are below data.threshold="
            f"{options.threshold}, as in maps of distances, of probabilities, or in photographs; data.threshold=1 "
            "keeps all of them",
        )


def warn_of_outlines(survey: Survey, where: str, notes: Notes) -> None:
    """Say so where most masks are outlines that are not filled."""
    if survey.files and survey.hollow >= _MOST * survey.files:
        notes.found(
            "hollow_masks",
            f"{where}: warning: in {survey.hollow} of {survey.files} masks the objects are thin outlines, around far "
            "more than they cover; fill them if the inside belongs to the object",
        )


def odd_values(survey: Survey, ignored: Sequence[int], where: str, notes: Notes, *, colours: bool = False) -> None:
    """Notes about values above 0 that are taken for objects, and may be background or the edge of a trimap.

    Args:
        survey: Of the masks.
        ignored: Values that are no objects.
        where: Where they lie, for messages.
        notes: Gets them.
        colours: Whether values are colours.
    """
    values = survey.values(ignored)
    if values and values[-1] == _LIMIT and len(values) >= _NEARLY_ALL * _LIMIT:
        notes.found(
            "ids_at_the_limit",
            f"{where}: warning: {len(values)} of the {_LIMIT} values of 8 bits are used; if an image has more objects, "
            "several have the same: save labels with 16 bits",
        )
    if len(values) < 2 or not survey.files:
        return
    areas = [] if colours else _without_instance(values, survey.no_background == survey.files)
    if areas:
        listed, base = ",".join(map(str, areas)), 1000 if min(areas) < 256 else 256
        notes.found(
            "instance_encoding",
            f"{where}: warning: values seem to be class x {base} + instance, and {listed} have no instance, as areas "
            f"have; if they are no objects, set data.ignore=[{listed}]",
        )
    elif survey.no_background == survey.files:
        outside = survey.on_the_border(values)
        notes.found(
            "no_background",
            f"{where}: warning: no mask has a pixel of 0, and {outside} covers most of the borders; if it is the "
            f"background, set data.ignore=[{outside}]",
        )
    elif len(values) == 2 and survey.is_rim(values[0], values[1]):
        notes.found(
            "trimap",
            f"{where}: warning: {values[0]} lies around {values[1]}, as the unsure edge of a trimap does; if it is no "
            f"object, set data.ignore=[{values[0]}]",
        )


def _without_instance(values: Sequence[int], everywhere: bool) -> list[int]:
    """Values of classes without an instance, where values are class x 1000 + instance (Cityscapes) or class x 256 +
    instance (KITTI); empty where they are not.

    Args:
        values: Those above 0, ascending.
        everywhere: Whether no mask has a pixel of 0.
    """
    small = [value for value in values if value < 256]
    large = [value for value in values if value >= 1000]
    if small and large and len(small) + len(large) == len(values) and large[-1] < 256_000:
        return small
    areas = [value for value in values if value % 256 == 0]
    return areas if everywhere and areas and len(areas) < len(values) and values[0] >= 256 else []
