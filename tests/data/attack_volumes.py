"""Attacks in volumes: stacks of TIFF pages, and NIfTI with headers that lie."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attack_sets as sets
import numpy as np
from attack_tools import Damage, attack, linked, replaced

DEPTH = 3
MIDDLE = {"slices": "middle"}


def volume(seed: int | None) -> np.ndarray:
    """Values [D, H, W] of an image, or of its labels."""
    draws = np.random.default_rng(seed or 0)
    slices = [sets.label_map() if seed is None else draws.integers(0, 256, sets.SIZE, np.uint8) for _ in range(DEPTH)]
    return np.stack(slices)


def stack(values: np.ndarray, **options: Any) -> bytes:
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **{"photometric": "minisblack", **options})
    return buffer.getvalue()


def nifti(values: np.ndarray) -> bytes:
    import nibabel

    return bytes(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([1.0, 1.0, 3.0, 1.0])).to_bytes())


def stacks(root: Path) -> None:
    for seed in range(sets.IMAGES):
        sets.save(root / f"images/v{seed}.tif", stack(volume(seed)))
        sets.save(root / f"labels/v{seed}.tif", stack(volume(None)))


def niftis(root: Path) -> None:
    for seed in range(sets.IMAGES):
        sets.save(root / f"images/v{seed}.nii", nifti(volume(seed)))
        sets.save(root / f"labels/v{seed}.nii.gz", gzip.compress(nifti(volume(None))))


VOLUMES: dict[str, Callable[[Path], None]] = {"labels_of_stacks": stacks, "labels_of_nifti": niftis}


def header(*changes: tuple[int, str, Any], behind: int | None = None) -> bytes:
    """A NIfTI file with other values at some places of its header (https://nifti.nimh.nih.gov/nifti-1)."""
    content = bytearray(nifti(volume(None)))
    for place, kind, value in changes:
        struct.pack_into(f"<{kind}", content, place, value)
    return bytes(content if behind is None else content[:behind])


def sides(*dim: int) -> list[tuple[int, str, Any]]:
    return [(40 + 2 * place, "h", side) for place, side in enumerate(dim)]


NAN, INF = float("nan"), float("inf")
AFFINE = [280 + 4 * place for place in range(12)]


def headers() -> dict[str, bytes]:
    return {
        "of huge sides": header(*sides(3, 32767, 32767, 32767)),
        "of huge slices without end": header(*sides(3, 8000, 8000, 32767)),
        "of four thousand million values": header(*sides(3, 4000, 4000, 256)),
        "of many thin slices": header(*sides(3, 1, 1, 32767)),
        "of negative sides": header(*sides(3, -30, -20, -3)),
        "without sides": header(*sides(3, 0, 0, 0)),
        "of no axes": header(*sides(0, 30, 20, 3)),
        "of a hundred axes": header(*sides(100, 30, 20, 3)),
        "of negative axes": header(*sides(-3, 30, 20, 3)),
        "of seven axes": header(*sides(7, 3, 3, 3, 3, 3, 3, 3)),
        "of time": header(*sides(4, 30, 10, 3, 2)),
        "of an unknown type": header((70, "h", 9999)),
        "of complex numbers": header((70, "h", 32), (72, "h", 64)),
        "of colours": header((70, "h", 128), (72, "h", 24)),
        "of bits": header((70, "h", 1), (72, "h", 1)),
        "with a NaN in its axes": header(*((place, "f", NAN) for place in AFFINE)),
        "with endless axes": header(*((place, "f", INF) for place in AFFINE)),
        "with axes of zeros": header(*((place, "f", 0.0) for place in AFFINE)),
        "with an endless offset of values": header((112, "f", 1.0), (116, "f", INF)),
        "with a scale far away": header((112, "f", 3e38)),
        "with a scale of fractions": header((112, "f", 0.3)),
        "with values far behind": header((108, "f", 3e9)),
        "with values before the start": header((108, "f", -3e9)),
        "with values at NaN": header((108, "f", NAN)),
        "of another magic": header((344, "4s", b"abc\0")),
        "of a header and nothing else": header(behind=352),
        "cut in its values": header(behind=-200),
        "cut in its header": header(behind=100),
        "that is empty": b"",
        "that is text": b"not a volume" * 60,
    }


def nifti_attacks() -> None:
    for title, content in headers().items():
        for file in ("images/v1.nii", "labels/v1.nii.gz"):
            packed = gzip.compress(content) if file.endswith("gz") else content
            if file.startswith("images") and title.startswith("with a scale"):
                continue  # which pixels may have
            attack("labels_of_nifti", f"{file} {title}", replaced(file, packed), "v1", **MIDDLE)
    whole = gzip.compress(nifti(volume(None)))
    gone = b"\0" * 2**20
    for title, packed in {
        "cut": whole[:-20],
        "of another sum": whole[:-8] + b"\1\2\3\4" + whole[-4:],
        "with bytes that are turned": whole[:60] + bytes(255 - one for one in whole[60:80]) + whole[80:],
        "that is not packed": nifti(volume(None)),
        "packed twice": gzip.compress(whole),
        "whose header expands": lambda: gzip.compress(gone * 300, 1),
        "whose values lie behind what expands": lambda: gzip.compress(
            header((108, "f", 3e8)) + gone * 300 + nifti(volume(None)), 1
        ),
        "of zeros that expand": lambda: gzip.compress(header(*sides(3, 8000, 8000, 60), behind=352) + gone * 200, 1),
    }.items():
        attack("labels_of_nifti", f"gz {title}", replaced("labels/v1.nii.gz", packed), "v1", **MIDDLE)
    attack("labels_of_nifti", "an image out of the root", linked("images/v1.nii", "/etc/hostname"), "v1", **MIDDLE)
    attack("labels_of_nifti", "an image that links to itself", linked("images/v1.nii", "v1.nii"), "v1", **MIDDLE)


def overwritten(content: bytes, tag: int, value: int) -> bytes:
    """With another value of a tag of the first page, counted as LONG (TIFF 6.0, section 2)."""
    start = struct.unpack_from("<I", content, 4)[0]
    for index in range(struct.unpack_from("<H", content, start)[0]):
        place = start + 2 + 12 * index
        if struct.unpack_from("<H", content, place)[0] == tag:
            return content[: place + 2] + struct.pack("<HII", 4, 1, value) + content[place + 12 :]
    raise AssertionError(tag)


def round_and_round(content: bytes) -> bytes:
    """With a last page that is followed by the first one."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        last = tiff.pages[-1].offset
    place = last + 2 + 12 * struct.unpack_from("<H", content, last)[0]
    first = content[4:8]
    return content[:place] + first + content[place + 4 :]


OME = (
    '<?xml version="1.0" encoding="UTF-8"?>{doctype}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="30" '
    'SizeY="20" SizeZ="{depth}" SizeC="1" SizeT="1">{data}</Pixels></Image></OME>'
)
ELSEWHERE = "".join(
    f'<TiffData FirstZ="{z}" PlaneCount="1" IFD="{z}"><UUID FileName="{{}}">urn:uuid:{z}</UUID></TiffData>'
    for z in range(DEPTH)
)


def stack_attacks() -> None:
    good = stack(volume(None))
    pages = stack(volume(None), metadata=None)
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    several = io.BytesIO()
    for shape in ((20, 30), (10, 30), (20, 30)):
        sets_stack(several, shape)
    for title, content in {
        "cut": good[:-700],
        "cut in its last page": pages[:-100],
        "cut in its head": good[:60],
        "of a billion columns": overwritten(pages, 256, 10**9),
        "of no rows": overwritten(pages, 257, 0),
        "of strips beyond the file": overwritten(pages, 273, 2**31),
        "of an unknown packing": overwritten(pages, 259, 60_000),
        "of 7 bits": overwritten(pages, 258, 7),
        "of pages of several sizes": several.getvalue(),
        "of pages that expand": lambda: stack(np.zeros((3, 9000, 9000), np.uint8), compression="zlib"),
        "of more than it says": stack(volume(None), metadata={"axes": "ZYX"}).replace(
            b'"shape": [3, 20, 30]', b'"shape": [9, 99, 99]'
        )[:-900],
        "that says it is ImageJ's": stack(
            volume(None), metadata=None, description="ImageJ=1.54\nimages=1000000000\nslices=1000000000\n"
        )[:-900],
        "of fractions": stack(volume(None) * np.float32(0.4)),
        "of complex numbers": stack(volume(None).astype(np.complex64)),
        "of colours": stack(np.stack([volume(None), volume(1), volume(2)], -1), photometric="rgb"),
        "of two channels": stack(np.repeat(volume(None)[:, None], 2, 1), imagej=True, metadata={"axes": "ZCYX"}),
    }.items():
        attack("labels_of_stacks", f"labels {title}", replaced("labels/v1.tif", content), "v1", slices=[0])
    for title, text in {
        "of other files": OME.format(doctype="", depth=DEPTH, data=ELSEWHERE.replace("{}", "../../outside.tif")),
        "of files that are not there": OME.format(doctype="", depth=9, data=ELSEWHERE.replace("{}", "gone.tif")),
        "of a billion slices": OME.format(doctype="", depth=10**9, data="<TiffData/>"),
        "of a billion laughs": OME.format(doctype=f"<!DOCTYPE x [<!ENTITY a0 'ha'>{laughs}]>", depth=3, data="&a11;"),
    }.items():
        content = stack(volume(None)[:2], metadata=None, description=text)
        attack("labels_of_stacks", f"OME {title}", beside("labels/v1.tif", content), "v1", **MIDDLE)
    missing = OME.format(doctype="", depth=DEPTH, data="<TiffData/>")

    def without_the_last(root: Path) -> None:
        for folder, values in (("images", volume(1)), ("labels", volume(None))):
            sets.save(root / f"{folder}/v1.tif", stack(values[:2], metadata=None, description=missing))

    attack("labels_of_stacks", "OME of slices that are not there", without_the_last, "v1", slices=[2])
    attack("labels_of_stacks", "labels out of the root", linked("labels/v1.tif", "/etc/hostname"), "v1", **MIDDLE)


def sets_stack(buffer: io.BytesIO, shape: tuple[int, int]) -> None:
    import tifffile

    buffer.seek(0)
    tifffile.imwrite(buffer, np.ones(shape, np.uint8), append=buffer.getbuffer().nbytes > 0, metadata=None)


def beside(file: str, content: bytes) -> Damage:
    """With `content` in place of a file, and labels beyond the root that must never be read."""

    def damage(root: Path) -> None:
        sets.save(root / file, content)
        sets.save(root.parent / "outside.tif", stack(volume(None)))

    return damage


def volume_attacks() -> None:
    nifti_attacks()
    stack_attacks()
