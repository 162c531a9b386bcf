"""The kinds of defects of a data set, and what was found of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""From the worst: training stops at it or its figures are wrong; it may do harm; it is worth knowing."""


@dataclass(frozen=True)
class Defect:
    """A kind of defect.

    Attributes:
        name: Stable name, as in `check.json`.
        severity: How bad it is.
        title: What it is, for people.
        remedy: What to do about it, in one sentence.
    """

    name: str
    severity: Severity
    title: str
    remedy: str


@dataclass(frozen=True)
class Finding:
    """One case of a defect.

    Attributes:
        defect: Name of the defect.
        id: What it was found at: a file, an annotation, a sample with one of its objects, a split, a class.
        detail: What is wrong there, in one line.
        image: Id of a sample that shows it; None where there is none to show.
        objects: Ids of the objects of `image` that are meant; empty for the whole image.
    """

    defect: str
    id: str
    detail: str
    image: str | None = None
    objects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """All cases of one defect, at least one."""

    defect: Defect
    findings: tuple[Finding, ...]


REFUSED, CANNOT_OPEN = "refused", "cannot_open"
"""Defects for what a reader refuses without naming a defect: one thing, or the data as a whole."""

_ERRORS = (
    (CANNOT_OPEN, "Data that cannot be opened", "Mend what the message names, then check again."),
    ("unreadable_file", "Unreadable or truncated files", "Copy the file again from its source, or remove it."),
    ("missing_file", "Files that are named but not there", "Restore the file, or remove its entry from the labels."),
    ("too_large", "Images or masks too large to read", "Scale the image down or cut it into tiles, with its labels."),
    ("image_without_label", "Images without labels", "Add the label file, or remove the image."),
    ("label_without_image", "Labels without an image", "Add the image, or remove the label."),
    (
        "size_mismatch",
        "Image and labels of different size",
        "Export image and labels again at one size; if width and height are swapped, apply the EXIF rotation first.",
    ),
    ("empty_mask", "Empty masks", "Label the object, or remove the annotation."),
    (
        "ambiguous_mask",
        "Mask values that may mean two things",
        "Save masks as PNG with one whole value per object, or set data.mask_values and data.threshold.",
    ),
    ("bad_rle", "RLE that does not fit its image", "Export the annotation again for this image at its own size."),
    (
        "bad_polygon",
        "Polygons that are no polygons",
        "Draw the object again with at least three points inside the image.",
    ),
    ("bad_box", "Boxes outside the image or not finite", "Correct the box, or remove it: masks alone are enough."),
    ("bad_annotation", "Incomplete entries in a label file", "Export the labels again, with the fields named."),
    ("duplicate_id", "Ids that are used twice", "Give every image and every annotation an id of its own."),
    ("path_escape", "Paths that leave the data root", "Use paths relative to the data root, and copy the files there."),
    (REFUSED, "Labels that are refused for another reason", "Mend what the message names, or remove the entry."),
    (
        "leaked_image",
        "The same image in two splits",
        "Remove it from one of the splits: figures on images that were trained on flatter.",
    ),
)
_WARNINGS = (
    (
        "near_duplicate_across_splits",
        "Nearly the same image in two splits",
        "Keep pictures of one scene in one split, else the figures flatter.",
    ),
    (
        "split_is_train",
        "Splits that are the training images",
        "Give them images of their own: figures on images that were trained on flatter.",
    ),
    ("duplicate_image", "The same image twice in a split", "Remove one of them, and merge their labels."),
    ("unlabelled_image", "Listed images without an object", "Label them or remove them: they are not used."),
    ("unlisted_image", "Image files that no label file names", "Add them to the label file or remove them."),
    ("tiny_mask", "Tiny masks", "Look whether they are specks of the labelling tool; data.min_area leaves them out."),
    (
        "whole_image_mask",
        "Masks of nearly the whole image",
        "Look whether object and background are swapped; remove masks of the background.",
    ),
    (
        "box_mask_mismatch",
        "Boxes that do not fit their masks",
        "Compute the boxes from the masks; if many are off, the image was scaled after labelling.",
    ),
    (
        "self_intersecting_polygon",
        "Polygons that cross themselves",
        "Redraw them: which side of a crossing is inside differs between tools.",
    ),
    (
        "polygon_outside_image",
        "Polygons that leave the image",
        "Clip them; if many leave it, the image was scaled or cropped after labelling.",
    ),
    ("duplicate_object", "The same object labelled twice", "Remove one of the two: one prompt would have two truths."),
    (
        "mixed_channels",
        "Grey, colour, transparent and 16-bit images mixed",
        "Save all images in one form, best as 8-bit RGB: a model learns the difference instead of the object.",
    ),
    (
        "low_contrast",
        "Very dark images, or of low contrast",
        "Stretch the values over the whole range; 12-bit data in 16-bit files has to be multiplied by 16.",
    ),
    ("unknown_category", "Classes that are not listed", "Add the class to the list of categories, or correct its id."),
    ("class_imbalance", "Rare classes", "Label more objects of the class, or report it apart from the others."),
    ("unseen_class", "Classes that are never trained", "Have every class of val and test in the training images too."),
    (
        "parted_group",
        "Groups of which two splits have parts",
        "Keep all slices of a volume and all images of a group in one split, else the figures flatter.",
    ),
    (
        "inverted_masks",
        "Masks that seem to mark the background",
        "If they do, set data.invert=true; the preview shows what is read.",
    ),
    (
        "no_background",
        "Label images without a background",
        "If the value that is named is the background, leave it out with data.ignore=[...].",
    ),
    (
        "zero_is_an_object",
        "Label images whose background is not 0",
        "If 0 is an object there, add 1 to every value, so that the background becomes 0.",
    ),
    (
        "instance_encoding",
        "Values that hold a class and an instance",
        "Values without an instance are areas such as road and sky: leave them out with data.ignore=[...].",
    ),
    (
        "ids_at_the_limit",
        "Label images that use every value of 8 bits",
        "If there are more objects, several share a value: save labels with 16 bits.",
    ),
    (
        "gradient_masks",
        "Masks that rise slowly to their largest value",
        "Set data.threshold where the object begins, or export masks of two values.",
    ),
    ("hollow_masks", "Masks of outlines that are not filled", "Fill the outlines, else the inside is background."),
    ("trimap", "Values that seem to be the edges of a trimap", "If they are no objects, set data.ignore=[...]."),
    (
        "masks_of_many_parts",
        "Masks of many separate parts",
        "If the parts are objects, set data.instances=components.",
    ),
    (
        "colours_of_classes",
        "Colours that seem to be classes",
        "If they are, list them in class_dict.csv and use data=common_semantic.",
    ),
    ("same_masks", "Masks that are nearly all the same", "Name the folder of the objects with data.masks."),
    ("boxes_as_outlines", "Outlines that seem to be boxes", "Outline the objects: from boxes no masks are learned."),
    (
        "objects_in_a_quarter",
        "Objects in one quarter of every image",
        "Look at the preview, and export labels and images at one size.",
    ),
    (
        "no_outline",
        "Labels that outline nothing",
        "Outline these objects too: what is not outlined is background; or remove the labels.",
    ),
    ("damaged_parts", "Damaged parts of objects", "Draw the object again where a part of it is missing."),
    ("several_annotations", "Images that were annotated several times", "Keep one annotation of each image."),
    ("unread_folder", "Folders beside the labels that are not read", "If the labels lie there, name that folder."),
    ("unused_label", "Labels that belong to no image", "Give them the name of their image, or remove them."),
    ("unused_split", "Splits that are not used", "Name them in data.train, data.val or data.test, or remove them."),
    ("importer_warning", "Warnings of datumaro", "Mend what it names, and export again."),
    ("too_few_images", "Few images", "Label more images: with so few, intervals are wide and training may overfit."),
)
_INFOS = (
    (
        "missing_split",
        "Splits that were carved out of train",
        "Keep test images apart on disk if others shall compare.",
    ),
    (
        "exif_rotation",
        "Images with an EXIF rotation",
        "Nothing, if the labels fit the upright picture; tools that ignore the tag show it turned.",
    ),
    (
        "image_sizes_vary",
        "Very different image sizes",
        "Cut large images into tiles if their objects get too small: all are scaled to one size.",
    ),
    (
        "small_in_image",
        "Objects that are small in their image",
        "Cut images into tiles as said, for training and prediction alike, if masks of small objects are poor.",
    ),
    ("nested_object", "Objects inside other objects", "Nothing, if parts are labelled on purpose."),
    (
        "many_parts",
        "Objects of many separate parts",
        "If the parts are objects of their own, set data.instances=components or label them one by one.",
    ),
    (
        "many_objects",
        "Images with more objects than a step uses",
        "Raise data.max_objects_per_image if memory allows; else each step draws some of them.",
    ),
    ("unused_category", "Classes without an object", "Nothing, or remove the class from the list."),
    ("small_objects", "Objects that are too small", "Nothing, or lower data.min_area."),
    ("soft_edges", "Masks with soft edges", "Nothing, if the preview fits; data.threshold says where they are cut."),
    ("alpha_masks", "Masks in the alpha channel", "Nothing, if the preview fits; else export masks without alpha."),
    ("void_values", "Values that are taken for void", "Nothing, if they are no objects; else data.ignore=[]."),
    ("background_class", "Masks of a class of background", "Nothing, or rename the class if it is one of objects."),
    ("rectangles", "Rectangles that were read as objects", "Nothing, if objects are rectangles; else outline them."),
    ("crowds_as_objects", "Crowds that were read as objects", "Nothing, or data.crowd=ignore where they are crowds."),
    (
        "crowds_left_out",
        "Crowds and regions that are no objects",
        "Nothing, or data.crowd=objects where each crowd is one object.",
    ),
    ("other_name", "Labels that name another image than their file", "Correct the name in the labels, if it is wrong."),
    ("other_frame", "Outlines in another order, scale or place", "Nothing, if the preview fits: they say so."),
    ("odd_ids", "Annotations without an id of their own", "Nothing: they are told apart by their images and places."),
    ("unread_file", "Files that are no images", "Nothing, or move them out of the folder."),
    ("ungrouped_image", "Images of no group", "Nothing, or let data.group find something in their ids too."),
    (
        "duplicates_not_sought",
        "Images that look alike were not looked for",
        "Give val and test folders of their own, or say with data.group which images belong together.",
    ),
)

DEFECTS: dict[str, Defect] = {
    row[0]: Defect(row[0], severity, row[1], row[2])
    for severity, rows in zip(SEVERITIES, (_ERRORS, _WARNINGS, _INFOS), strict=True)
    for row in rows
}
"""Every defect by its name, the worst first."""


def grouped(findings: Iterable[Finding]) -> tuple[Group, ...]:
    """Findings by defect: errors before warnings before infos, and within them the most frequent first."""
    cases: dict[str, list[Finding]] = {}
    for finding in findings:
        cases.setdefault(finding.defect, []).append(finding)
    groups = [Group(DEFECTS[name], tuple(found)) for name, found in cases.items()]
    names = list(DEFECTS)

    def rank(group: Group) -> tuple[int, int, int]:
        return SEVERITIES.index(group.defect.severity), -len(group.findings), names.index(group.defect.name)

    return tuple(sorted(groups, key=rank))


def total(groups: Sequence[Group], severity: Severity) -> int:
    """How many findings have this severity."""
    return sum(len(group.findings) for group in groups if group.defect.severity == severity)


def of_object(sample: str, object_id: str) -> str:
    """The id of a finding at one object of a sample."""
    return f"{sample}: object {object_id}"
