"""Volumes and their label volumes as pairs of slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from lora_sam.core.errors import DataError
from lora_sam.core.wording import plural
from lora_sam.data.reading.image_file import ImageFile, SeveralPagesError
from lora_sam.data.reading.nifti import check_alike, is_nifti
from lora_sam.data.reading.paths import inside
from lora_sam.data.reading.volumes import Slice, Slices, chosen, slice_count


@contextmanager
def offering_slices(offered: bool, image: ImageFile | None = None) -> Iterator[None]:
    """Name `data.slices` as a remedy where a TIFF stack is refused and the format has that option.

    Args:
        offered: Whether it has.
        image: Of labels, their image: where that is one picture, its labels are no slices.
    """
    try:
        yield
    except SeveralPagesError as error:
        if not (offered and error.stack):
            raise
        if isinstance(image, Path) and not is_nifti(image) and slice_count(image) == 1:
            said = str(error).partition(";")[0]
            raise DataError(
                f"{said}, and its image one; where each page is an object, join them into one label image with "
                "a value for each object.",
                error.kind,
            ) from error
        raise DataError(
            f"{str(error).rstrip('.')}, or train on the slices with data.slices=all.", error.kind
        ) from error


def sliced(
    images: Mapping[str, list[Path]], labels: Mapping[str, list[Path]], slices: Slices, root: Path, what: str
) -> tuple[dict[str, list[ImageFile]], dict[str, list[ImageFile]]]:
    """Images and labels by name, where volumes are parted into their slices.

    Raises:
        DataError: a volume cannot be read, or does not fit its labels.
    """
    parted: tuple[dict[str, list[ImageFile]], dict[str, list[ImageFile]]] = ({}, {})
    for name in sorted(images.keys() | labels.keys()):
        image, file = (only(files.get(name, []), root) for files in (images, labels))
        if image is None or file is None or not isinstance(image, Path) or not isinstance(file, Path):
            for files, into in zip((images, labels), parted, strict=True):
                if name in files:
                    into[name] = list(files[name])
            continue
        counts, planes = _counts(image, file)
        if counts == (1, 1) and not any(map(is_nifti, (image, file))):
            parted[0][name], parted[1][name] = [image], [file]
            continue
        if counts[0] != counts[1]:
            raise DataError(
                f"{file}: has {plural(counts[1], 'slice')}, and {image.name} has {counts[0]}; a {what} needs "
                "the slices of its image.",
                "size_mismatch",
            )
        check_alike(image, file)
        for index in chosen(slices, counts[0], image):
            place = f"{name}/{index:04d}"
            parted[0][place] = [Slice(image, index, planes=planes[0])]
            parted[1][place] = [Slice(file, index, labels=True, planes=planes[1])]
    return parted


def _counts(image: Path, labels: Path) -> tuple[tuple[int, int], tuple[bool, bool]]:
    """How many slices two files have, and whether those are channels, which they may be where only so they fit."""
    plain = slice_count(image), slice_count(labels)
    if plain[0] == plain[1] > 1 or any(map(is_nifti, (image, labels))):
        return plain, (False, False)
    parted = slice_count(image, planes=True), slice_count(labels, planes=True)
    for planes in ((False, True), (True, False), (True, True)):
        counts = tuple(found[way] for found, way in zip(zip(plain, parted, strict=True), planes, strict=True))
        if counts[0] == counts[1] > 1:
            return (counts[0], counts[1]), planes
    return plain, (False, False)


def only(paths: Sequence[ImageFile], root: Path) -> ImageFile | None:
    """The file of a name; None for none.

    Raises:
        DataError: there are several, or it lies outside the root.
    """
    if not paths:
        return None
    if len(paths) > 1:
        first = paths[0]
        names = " and ".join(path.name for path in paths if isinstance(path, Path))
        raise DataError(
            f"{getattr(first, 'parent', first)}: {names} have the same name but for the ending; keep one of them.",
            "duplicate_id",
        )
    path = paths[0]
    return inside(root, path.relative_to(root).as_posix(), str(path)) if isinstance(path, Path) else path
