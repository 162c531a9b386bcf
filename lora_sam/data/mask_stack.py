"""NumPy archives: a mask for each object in `x.npz` beside the image `x.jpg`, as WGISD's grapes have them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.options import FormatOptions
from lora_sam.data.reading.annotation_files import read_lines
from lora_sam.data.reading.images import SUFFIXES, image_size
from lora_sam.data.reading.labelled import check_mask_memory
from lora_sam.data.reading.npy_header import MAX_HEADER, Header, read_header
from lora_sam.data.reading.outline import Outline, encode_mask
from lora_sam.data.reading.outlined import Picture, open_pictures, split_in
from lora_sam.data.reading.paths import data_root, inside
from lora_sam.data.reading.tool_files import LOOKED_AT, files_below
from lora_sam.data.splits import Splits, spellings

_ENDING = ".npz"
_LISTS = ("{split}_masked.txt", "{split}.txt")

NEEDS = ("*.npz", "*.<image>")
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


@dataclass(frozen=True, kw_only=True)
class MaskStack(FormatOptions):
    """Every `.npz` holds one array of masks, [height, width, objects] or [objects, height, width], for the image beside
    it that has its name (Santos et al., 2020, doi:10.1016/j.compag.2020.105247, for the set WGISD).

    Lists of names, `train_masked.txt` or `train.txt` and so on, in `root` or in the folder that `root` lies in, say the
    splits; so do folders called train, val or test. Nothing is unpickled.
    """

    def open(self, seed: int) -> Splits:
        """Read and check all masks and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: anything is missing, damaged or inconsistent; names the file and the remedy.
        """
        root = data_root(self.root, follow_links=self.follow_links)
        found = _stacks_of(root)
        if not found:
            raise DataError(f"{root}: has no .npz beside an image of its name; docs/data.md shows the layouts.")
        names = [name for name in (self.train, self.val, self.test) if name is not None]
        return open_pictures(self, root, _pictures(root, found, _listed(root, names)), seed=seed, what="the .npz files")


def recognise(root: Path) -> str | None:
    """By what a directory is recognised as this format; None where it is not."""
    found = _stacks_of(root, most=LOOKED_AT)
    pair = next(((file, image) for file, image in found.items() if image is not None), None)
    return None if pair is None else f"{pair[0].relative_to(root)} beside {pair[1].name}"


def _stacks_of(root: Path, most: int | None = None) -> dict[Path, Path | None]:
    """The image beside every archive, None where it is missing; nothing where no archive has one."""
    pairs = ((file, next((image for end in sorted(SUFFIXES) if (image := file.with_suffix(end)).is_file()), None))
             for file in sorted(files_below(root, _ENDING, most=most)))  # fmt: skip
    found = dict(pairs)
    return found if any(found.values()) else {}


def _listed(root: Path, names: list[str]) -> dict[str, str]:
    """The split of every name that a list has. Raises `DataError` where two lists have one name."""
    found: dict[str, str] = {}
    for split in names:
        called = [form.format(split=name) for form in _LISTS for name in spellings(split)]
        places = [place / name for name in called for place in (root, root.parent)]
        file = next((place for place in places if place.is_file()), None)
        for name in () if file is None else (line.strip() for line in read_lines(file)):
            if name and found.setdefault(name, split) != split:
                raise DataError(f"{file}: {name} is in the list of {found[name]} too; keep it in one of them.")
    return found


def _pictures(root: Path, found: dict[Path, Path | None], listed: dict[str, str]) -> Iterator[Picture | DataError]:
    known = {file.stem for file in found} & listed.keys()
    for file, image in found.items():
        if image is None:
            yield DataError(
                f"{file}: has no image {file.with_suffix('')}.(png, jpg, ...); add it, or remove the archive.",
                "label_without_image",
            )
            continue
        try:
            size = image_size(inside(root, image.relative_to(root).as_posix(), str(file)))
            masks = _read(inside(root, file.relative_to(root).as_posix(), str(file)), size)
        except DataError as error:
            yield error
            continue
        yield Picture(
            owner=str(file),
            image=image.relative_to(root).as_posix(),
            size=size,
            outlines=[_outline(f"{number}", mask, size) for number, mask in enumerate(masks)],
            # beside lists, what is in none is in no split
            split=listed.get(file.stem, "no split") if known else split_in(image, root),
        )


def _outline(name: str, mask: NDArray[np.bool_], size: tuple[int, int]) -> Outline | DataError:
    if not mask.any():
        return DataError(f"(mask {name}) is empty; take it out of the array.")
    return Outline(name=name, label=None, rle={"size": list(size), "counts": encode_mask(mask).decode("ascii")})


def _read(file: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The masks, bool [N, H, W]. Type, shape and length are checked before memory is taken; nothing is unpickled.

    Raises:
        DataError: it is no archive of one such array, or of another size than its image.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) != 1:
                raise DataError(f"{file}: has {len(members)} arrays; save the masks of its image as one.")
            with archive.open(members[0]) as stream:
                header = read_header(stream)
                axis = _axis_of_objects(file, header, size)
                check_mask_memory(str(file), header.shape[axis], size)
                if members[0].file_size != header.length + header.bytes:
                    raise ValueError(f"{members[0].file_size} bytes, {header.length + header.bytes} expected")
            with archive.open(members[0]) as stream:
                values = np.lib.format.read_array(stream, allow_pickle=False, max_header_size=MAX_HEADER)
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror or error}); restore it.", "unreadable_file"
        ) from error
    except DataError:
        raise
    except Exception as error:  # archives and headers fail in many ways
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(
            f"{file}: is damaged or no .npz file ({reason}); save it again with numpy.savez.", "unreadable_file"
        ) from error
    if values.size and not np.isin(values, (0, values.max())).all():
        raise DataError(
            f"{file}: has values other than 0 and {values.max()}; each mask takes two values, or save one label image.",
            "ambiguous_mask",
        )
    masks: NDArray[np.bool_] = np.ascontiguousarray(np.moveaxis(values, axis, 0)) != 0
    return masks


def _axis_of_objects(file: Path, header: Header, size: tuple[int, int]) -> int:
    shape = header.shape
    fitting = [axis for axis in (2, 0) if len(shape) == 3 and tuple(np.delete(shape, axis).tolist()) == size]
    if header.dtype.kind not in "biu" or header.dtype.hasobject:
        raise DataError(f"{file}: has {header.dtype} values; save masks as bool or uint8.", "ambiguous_mask")
    if len(fitting) != 1:
        raise DataError(
            f"{file}: has the shape {shape}, and its image is {size[1]}x{size[0]} pixels; masks are "
            f"({size[0]}, {size[1]}, objects) or (objects, {size[0]}, {size[1]}).",
            "ambiguous_mask",
        )
    return fitting[0]
