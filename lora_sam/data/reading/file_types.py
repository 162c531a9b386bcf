"""Names of file types that are not read, so that a message can say what a file is and what to do with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

_BY_ENDING = {
    ".heic": "HEIC", ".heif": "HEIF", ".avif": "AVIF", ".jxl": "JPEG XL", ".psd": "Photoshop",
    ".ppm": "Netpbm", ".pgm": "Netpbm", ".pbm": "Netpbm", ".tga": "Targa", ".ico": "icon", ".pcx": "PCX",
    ".jls": "JPEG-LS", ".jxr": "JPEG XR",
    ".svg": "SVG", ".pdf": "PDF", ".eps": "EPS", ".exr": "OpenEXR", ".hdr": "Radiance HDR",
    ".dng": "camera RAW", ".cr2": "camera RAW", ".cr3": "camera RAW", ".nef": "camera RAW", ".arw": "camera RAW",
    ".orf": "camera RAW", ".rw2": "camera RAW", ".raf": "camera RAW", ".raw": "camera RAW",
    ".nii": "NIfTI", ".nii.gz": "NIfTI", ".nrrd": "NRRD", ".dcm": "DICOM",
    ".mha": "MetaImage", ".mhd": "MetaImage",
    ".svs": "whole-slide image", ".ndpi": "whole-slide image", ".mrxs": "whole-slide image",
    ".czi": "Zeiss CZI", ".lif": "Leica LIF", ".nd2": "Nikon ND2", ".oib": "Olympus OIB", ".vsi": "Olympus VSI",
    ".ims": "Imaris", ".zarr": "Zarr", ".h5": "HDF5", ".hdf5": "HDF5", ".nc": "NetCDF", ".img": "ERDAS image",
    ".npz": "NumPy archive", ".pkl": "pickle", ".pt": "pickle",
    ".mat": "MATLAB", ".mp4": "video", ".avi": "video", ".mov": "video", ".mkv": "video",
    ".zip": "archive", ".tar": "archive", ".gz": "archive", ".7z": "archive", ".rar": "archive",
}  # fmt: skip
_JPEG_LS = 0xF7
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_VOLUMES = frozenset({"NIfTI", "NRRD", "MetaImage", "DICOM", "Zarr", "HDF5", "video"})

_BY_START = (
    (b"8BPS", 0, "Photoshop"), (b"%PDF", 0, "PDF"), (b"\x1f\x8b", 0, "archive"),
    (b"PK\x03\x04", 0, "archive"), (b"DICM", 128, "DICOM"), (b"ftyphei", 4, "HEIC"), (b"ftyphev", 4, "HEIC"),
    (b"ftypmif", 4, "HEIF"), (b"ftypavi", 4, "AVIF"), (b"ftyp", 4, "video"), (b"\x89HDF", 0, "HDF5"),
    (b"\x00\x00\x00\x0cJXL ", 0, "JPEG XL"), (b"\xff\x0a", 0, "JPEG XL"), (b"FUJIFILMCCD-RAW", 0, "camera RAW"),
    (b"P4\n", 0, "Netpbm"), (b"P5\n", 0, "Netpbm"), (b"P6\n", 0, "Netpbm"), (b"P2\n", 0, "Netpbm"),
    (b"\x00\x00\x01\x00", 0, "icon"), (b"\x0a\x05\x01", 0, "PCX"), (b"II\xbc\x01", 0, "JPEG XR"),
    (b"<svg", 0, "SVG"), (b"<?xml", 0, "XML"), (b"version https://git-lfs", 0, "pointer of Git LFS"),
)  # fmt: skip


def ending(name: str) -> str:
    """The ending of a file name in lower case, `.nii.gz` as one."""
    lowered = name.lower()
    return ".nii.gz" if lowered.endswith(".nii.gz") else f".{lowered.rpartition('.')[2]}" if "." in lowered else ""


def type_of(name: str, start: bytes = b"") -> str | None:
    """What a file is that is not read as an image, by its first bytes (at least 132 are looked at) or else its name."""
    by_start = next((what for magic, place, what in _BY_START if start[place : place + len(magic)] == magic), None)
    return by_start or _kind_of_jpeg(start) or _BY_ENDING.get(ending(name))


def _kind_of_jpeg(start: bytes) -> str | None:
    """JPEG of a process that is not read, by its frame header (ITU T.81, B.2.2); None for what may be damaged."""
    place = 2 if start[:2] == b"\xff\xd8" else len(start)
    while start[place : place + 1] == b"\xff" and len(start) > place + 4:
        marker, length = start[place + 1], int.from_bytes(start[place + 2 : place + 4])
        if marker == _JPEG_LS:
            return "JPEG-LS"
        if marker in _FRAMES:
            return None if start[place + 4] == 8 else f"JPEG of {start[place + 4]} bits"
        place += 2 + length
    return None


def remedy_for(kind: str) -> str:
    """What to do with files of a type that is not read."""
    if kind == "NIfTI":
        return "train on its slices with data.slices=all, or save them as PNG or TIFF"
    if kind in _VOLUMES:
        return "save their slices or frames as PNG or TIFF"
    if kind == "NumPy archive":
        return "save label images as PNG, TIFF or .npy, or the masks of each image beside it (data=mask_stack)"
    if kind == "pickle":
        return "save label images as PNG, TIFF or .npy"
    if kind == "archive":
        return "unpack them"
    if kind == "pointer of Git LFS":
        return "fetch the files themselves with `git lfs pull`"
    return "save them as PNG, TIFF or JPEG"


def counted_types(names: Iterable[str]) -> str:
    """File names by ending, the most frequent first: `6 .heic (HEIC), 2 .txt`; empty for none."""
    counts = Counter(ending(name) or "without ending" for name in names)
    return ", ".join(
        f"{count} {end} ({_BY_ENDING[end]})" if end in _BY_ENDING else f"{count} {end}"
        for end, count in counts.most_common(4)
    )


def unread_types(names: Iterable[str]) -> str:
    """What to do with files of types that are known and not read, as sentences after a blank; empty for none."""
    kinds = dict.fromkeys(kind for name in names if (kind := _BY_ENDING.get(ending(name))))
    return "".join(f" {kind} is not read: {remedy_for(kind)}." for kind in list(kinds)[:2])
