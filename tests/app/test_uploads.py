"""Files from a browser: good ones are read, hostile ones cost nothing and get a sentence."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from lora_sam.app import uploads
from lora_sam.app.uploads import read_upload
from lora_sam.core.errors import DataError
from lora_sam.data.reading.pixel_scale import PixelScale

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def file(form: str, image: Image.Image | None = None, **options: object) -> bytes:
    made = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(made, format=form, **options)
    return made.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A valid one-bit PNG of that size, whose pixels compress to nearly nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = zlib.compressobj(9)
    data = b"".join(row.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + row.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_images_are_read(form: str) -> None:
    upload = read_upload("a.png", file(form))
    assert np.array_equal(upload.image, PIXELS)
    assert upload.id.startswith("upload:")


def test_the_id_is_the_content() -> None:
    assert read_upload("a", file("PNG")).id == read_upload("b", file("PNG")).id != read_upload("a", file("BMP")).id


def test_one_pixel_is_an_image() -> None:
    assert read_upload("a", file("PNG", Image.new("1", (1, 1), 1))).image.tolist() == [[[255, 255, 255]]]


def test_a_photograph_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_upload("a.jpg", file("JPEG", exif=exif)).image.shape == (30, 20, 3)


def test_a_large_one_bit_image_is_refused_before_it_is_decoded() -> None:
    content = png_header(12_000, 12_000)
    assert len(content) < 40_000
    tracemalloc.start()
    with pytest.raises(DataError, match=r"bomb.png has 12000 x 12000 pixels, at most 25 megapixels are taken; scale"):
        read_upload("bomb.png", content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def test_25_megapixels_are_taken() -> None:
    assert read_upload("a", png_header(5000, 5000)).image.shape == (5000, 5000, 3)


def test_more_bytes_than_allowed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_BYTES", 2**20)
    with pytest.raises(DataError, match="a has 2 MiB, at most 1 MiB are taken"):
        read_upload("a", bytes(2 * 2**20))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; choose PNG"),
        (b"just a text", "is damaged or not an image; choose PNG, JPEG, WebP, BMP, GIF or TIFF."),
        (file("GIF", save_all=True, append_images=[Image.new("RGB", (30, 20))]), "has 2 pages or frames"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is SVG, which is not taken; choose PNG"),
        (file("PNG")[:200], "cannot be decoded, it is truncated or damaged"),
        (file("JPEG")[:-300], "cannot be decoded, it is truncated or damaged"),
        (file("PNG", save_all=True, append_images=[Image.new("RGB", (30, 20))]), "has 2 pages or frames"),
        (file("TIFF", save_all=True, append_images=[Image.new("RGB", (30, 20))]), "has 2 pages or frames"),
    ],
    ids=["empty", "text", "gif", "svg", "half a png", "half a jpeg", "animated png", "tiff of two pages"],
)
def test_anything_else_gets_a_sentence(content: bytes, message: str) -> None:
    with pytest.raises(DataError) as error:
        read_upload("../\x00evil\n.png", content)
    assert str(error.value).startswith("../ evil .png ")
    assert message in str(error.value)
    assert "/tmp" not in str(error.value)


def test_deep_pixels_are_read_as_the_run_reads_them() -> None:
    deep = np.full((20, 30), 1000, np.uint16)
    deep[:, 10:] = 3000
    content = file("TIFF", Image.fromarray(deep))
    scale = PixelScale((1, 1, 1), (0.0,) * 3, (4000.0,) * 3)
    upload = read_upload("a.tif", content, scale)
    assert upload.deep
    assert np.unique(upload.image).tolist() == [64, 191]
    assert np.unique(read_upload("a.tif", content).image).tolist() == [1000 >> 8, 3000 >> 8]
    shallow = read_upload("a.png", file("PNG"), scale)
    assert not shallow.deep
    assert np.array_equal(shallow.image, PIXELS)


def test_valid_tiffs_are_not_called_damaged() -> None:
    tifffile = pytest.importorskip("tifffile")
    made = io.BytesIO()
    bands = np.random.default_rng(1).integers(0, 2000, (20, 30, 8), np.uint16)
    tifffile.imwrite(made, bands, photometric="minisblack", planarconfig="contig")
    scale = PixelScale((4, 3, 2), (0.0,) * 3, (2000.0,) * 3)
    upload = read_upload("bands.tif", made.getvalue(), scale)
    assert np.abs(upload.image - bands[..., [3, 2, 1]] * (255 / 2000)).max() <= 0.5
    with pytest.raises(DataError, match=r"^bands.tif cannot be read as a picture: has 8 bands, but band 9 is wanted"):
        read_upload("bands.tif", made.getvalue(), PixelScale((9, 9, 9), (0.0,) * 3, (1.0,) * 3))
    made = io.BytesIO()
    with tifffile.TiffWriter(made) as writer:  # an overview is no page
        writer.write(PIXELS, photometric="rgb", subifds=0)
        writer.write(PIXELS[::2, ::2], photometric="rgb", subfiletype=1)
    assert np.array_equal(read_upload("cog.tif", made.getvalue()).image, PIXELS)
