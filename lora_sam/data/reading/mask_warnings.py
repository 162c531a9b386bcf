"""What is read from masks as it is stored, and may be meant otherwise: notes with the option that mends it."""

from __future__ import annotations

from collections.abc import Sequence

from lora_sam.core.wording import plural
from lora_sam.data.noticed import Notes
from lora_sam.data.options import MaskKind, MaskOptions
from lora_sam.data.reading.mask_survey import MANY_PARTS, Survey

_SAME_FILES = 4  # so many masks are not the same by chance


def warn(
    survey: Survey, options: MaskOptions, decided: MaskKind, ignore: tuple[int, ...], where: str, notes: Notes
) -> None:
    """Notes about what is read as it is stored, and may be meant otherwise."""
    if options.invert or not survey.files:
        return
    values = survey.values(ignore)
    if survey.files >= _SAME_FILES and survey.alike == survey.files:
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
    if decided != "binary" and len(values) > 1:
        odd_values(survey, ignore, where, notes)
    elif options.instances == "auto" and survey.usual_parts >= MANY_PARTS:
        notes.found(
            "masks_of_many_parts",
            f"{where}: warning: a mask is one object, of {plural(survey.usual_parts, 'separate part')} in the median; "
            "if the parts are objects, set data.instances=components",
        )


def odd_values(survey: Survey, ignored: Sequence[int], where: str, notes: Notes) -> None:
    """Notes about values above 0 that are taken for objects, and may be background or the edge of a trimap.

    Args:
        survey: Of the masks.
        ignored: Values that are no objects.
        where: Where they lie, for messages.
        notes: Gets them.
    """
    values = survey.values(ignored)
    if len(values) < 2 or not survey.files:
        return
    if survey.no_background == survey.files:
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
