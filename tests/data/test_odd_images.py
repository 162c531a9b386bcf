"""Valid files of rarer kinds: read as they are, or refused by the name of their kind, never as damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from lora_sam.core.errors import DataError
from lora_sam.data.reading.deep_images import deep_pixels
from lora_sam.data.reading.images import image_size, is_jpeg, pixel_kind, read_image, read_reduced
from lora_sam.data.reading.mask_values import mask_values, read_mask
from lora_sam.data.reading.pixel_scale import PixelScale

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 4000, (40, 60, 3), dtype=np.uint16)
LABELS = np.kron(np.arange(6).reshape(2, 3), np.ones((20, 20), int))
SCALE = PixelScale((1, 2, 3), (0.0,) * 3, (4000.0,) * 3)

needs_jpeg2000 = pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow has no JPEG 2000 here")


def off(path: Path) -> float:
    """How far the picture is from DEEP in the scale, in grey levels, at most."""
    return float(np.abs(read_image(path, SCALE) - DEEP * (255 / 4000)).max())


@needs_jpeg2000
@pytest.mark.parametrize("name", ["a.jp2", "a.j2k", "a.png"])
def test_jpeg_2000_is_read_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    Image.fromarray(RGB).save(path, "JPEG2000", no_jp2=name == "a.j2k")
    assert np.array_equal(read_image(path), RGB)
    assert deep_pixels(path) is None
    assert image_size(path) == (40, 60)
    assert read_reduced(path, 9, 8).shape == (8, 9)
    Image.fromarray(LABELS.astype(np.uint8)).save(path, "JPEG2000", irreversible=False)
    assert np.array_equal(read_mask(path), LABELS)


@needs_jpeg2000
@pytest.mark.parametrize("codec", ["jp2", "j2k"])
def test_jpeg_2000_of_16_bits_keeps_them(codec: str, tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    path = tmp_path / f"a.{codec}"
    path.write_bytes(imagecodecs.jpeg2k_encode(DEEP, codecformat=codec, level=0, reversible=True))
    deep = deep_pixels(path)
    assert deep is not None
    assert np.array_equal(deep.values, DEEP)
    assert off(path) <= 0.51
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match="damaged"):
        read_image(path, SCALE)


def ome(path: Path, tifffile: Any) -> None:
    tifffile.imwrite(path, np.moveaxis(DEEP, -1, 0), ome=True, photometric="minisblack", planarconfig="separate")


def geotiff(path: Path, tifffile: Any) -> None:
    with tifffile.TiffWriter(path) as writer:
        writer.write(DEEP, photometric="rgb", tile=(32, 32), compression="deflate", predictor=True)
        for step in (2, 4):
            writer.write(DEEP[::step, ::step], photometric="rgb", tile=(32, 32), subfiletype=1)


def with_pyramid(path: Path, tifffile: Any) -> None:
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(DEEP, photometric="rgb", subifds=1)
        writer.write(DEEP[::2, ::2], photometric="rgb", subfiletype=1)


def big(path: Path, tifffile: Any) -> None:
    tifffile.imwrite(path, DEEP, photometric="rgb", bigtiff=True)


def fractions(path: Path, tifffile: Any) -> None:
    tifffile.imwrite(path, DEEP.astype(np.float64), photometric="rgb")


@pytest.mark.parametrize("write", [ome, geotiff, with_pyramid, big, fractions])
def test_tiffs_of_microscopes_and_satellites(write: Callable[[Path, Any], None], tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write(path, pytest.importorskip("tifffile"))
    assert image_size(path) == (40, 60)
    assert off(path) <= 0.51


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.int32, np.uint32, np.int16, np.uint16, np.uint8, np.int8])
@pytest.mark.parametrize("compression", [None, "deflate", "zstd"])
def test_labels_of_every_integer_type(kind: type, compression: str | None, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, LABELS.astype(kind), compression=compression)
    assert np.array_equal(mask_values(path).values, LABELS)
    assert not is_jpeg(path)
    assert pixel_kind(path) == "grey"


def test_labels_of_no_integer_type_are_read_where_they_are_whole(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    for kind in (np.float16, np.float32, np.float64):
        tifffile.imwrite(tmp_path / "a.tif", LABELS.astype(kind))
        assert np.array_equal(mask_values(tmp_path / "a.tif").values, LABELS)
        tifffile.imwrite(tmp_path / "a.tif", LABELS.astype(kind) / 4)
        with pytest.raises(
            DataError,
            match=f"a mask with {kind.__name__} values that are no whole numbers .*; save it with 8-bit or 16-bit",
        ):
            mask_values(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", LABELS.astype(np.complex64))
    with pytest.raises(DataError, match="a mask with complex64 values; save it with 8-bit or 16-bit integers"):
        mask_values(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4), 2**63, np.uint64))
    with pytest.raises(DataError, match="a mask with the value 9223372036854775808; use small labels"):
        mask_values(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4, 5), np.int64), photometric="minisblack", planarconfig="contig")
    with pytest.raises(DataError, match="a mask with 5 bands; save it as a grey image"):
        mask_values(tmp_path / "a.tif")


@pytest.mark.parametrize(("form", "kind"), [("PPM", "Netpbm"), ("ICO", "icon"), ("PCX", "PCX"), ("TGA", "Targa")])
def test_other_kinds_are_named(form: str, kind: str, tmp_path: Path) -> None:
    for name in {"a.png", f"a.{form.lower()}"} if form != "TGA" else {"a.tga"}:
        Image.fromarray(RGB).save(tmp_path / name, form)
        with pytest.raises(DataError, match=f"is {kind}, which is not read .*; save them as PNG, TIFF or JPEG"):
            read_image(tmp_path / name)


def test_jpegs_that_are_not_read_are_no_damaged_ones(tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(DEEP, bitspersample=12))
    with pytest.raises(DataError, match="is JPEG of 12 bits, which is not read"):
        read_image(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpegls_encode(RGB))
    with pytest.raises(DataError, match="is JPEG-LS, which is not read"):
        read_image(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00")
    with pytest.raises(DataError, match="is damaged or not an image"):
        read_image(tmp_path / "b.jpg")
