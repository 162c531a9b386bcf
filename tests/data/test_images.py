from __future__ import annotations

import platform
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.reading import images
from lora_sam.data.reading.images import image_size, is_jpeg, read_image
from lora_sam.data.reading.mask_values import read_mask

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def saved(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp"])
def test_lossless_formats_give_the_stored_colours(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", RGB, **options)
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, RGB)
    assert image_size(path) == (5, 7)
    assert not is_jpeg(path)


def test_jpeg_is_near_the_stored_colours_and_known_by_its_content(tmp_path: Path) -> None:
    smooth = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    path = saved(tmp_path / "called.png", smooth, format="JPEG", quality=95)
    assert np.abs(read_image(path).astype(int) - smooth).max() <= 3
    assert is_jpeg(path)


def test_grey_palette_bilevel_and_alpha_become_rgb(tmp_path: Path) -> None:
    grey_rgb = np.repeat(GREY[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "l.png", GREY)), grey_rgb)
    alpha = np.dstack((RGB, np.full((5, 7), 10, np.uint8)))
    np.testing.assert_array_equal(read_image(saved(tmp_path / "rgba.png", alpha)), RGB)
    grey_alpha = Image.fromarray(GREY).convert("LA")
    grey_alpha.putalpha(3)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "la.png", grey_alpha)), grey_rgb)
    bilevel = GREY > 128
    expected = np.repeat(bilevel[..., None] * np.uint8(255), 3, axis=2)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "1.png", Image.fromarray(bilevel))), expected)
    palette = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    palette.putpalette([9, 8, 7, 100, 110, 120, 255, 0, 1])
    colours = [[[9, 8, 7], [100, 110, 120]], [[255, 0, 1], [100, 110, 120]]]
    np.testing.assert_array_equal(read_image(saved(tmp_path / "p.png", palette)), colours)
    transparent = saved(tmp_path / "pt.png", palette, transparency=b"\x00\x80\xff")
    np.testing.assert_array_equal(read_image(transparent), colours)
    assert read_image(saved(tmp_path / "cmyk.jpg", Image.fromarray(RGB).convert("CMYK"))).shape == (5, 7, 3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_only_when_they_are_used(tmp_path: Path, suffix: str) -> None:
    wide = np.array([[0, 255], [256, 65535]], np.uint16)
    np.testing.assert_array_equal(read_image(saved(tmp_path / f"w.{suffix}", wide))[..., 1], [[0, 0], [1, 255]])
    narrow = np.array([[0, 255], [7, 200]], np.uint16)
    np.testing.assert_array_equal(read_image(saved(tmp_path / f"n.{suffix}", narrow))[..., 2], narrow)


def test_values_that_are_not_8_or_16_bit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"f\.tif: has floating-point pixels; save it with 8 or 16 bits"):
        read_image(saved(tmp_path / "f.tif", np.ones((2, 2), np.float32)))
    with pytest.raises(DataError, match=r"i\.tif: has values -5 to 1; save it with 8 or 16 bits"):
        read_image(saved(tmp_path / "i.tif", np.array([[-5, 1]], np.int32)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("jpg", {}),
        ("png", {}),
        ("tif", {}),
        ("tif", {"compression": "tiff_lzw"}),
        ("webp", {"lossless": True}),
    ],
)
def test_exif_orientation_is_applied_to_image_size_and_mask(
    tmp_path: Path, suffix: str, options: dict[str, object], orientation: int
) -> None:
    picture = np.zeros((16, 32), np.uint8)
    picture[:8, :8] = 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{suffix}", picture, exif=exif, **options)
    # where the bright top left corner comes to lie, by the definition of the tag
    moved = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.T,
        6: picture.T[:, ::-1],
        7: picture.T[::-1, ::-1],
        8: picture.T[::-1],
    }[orientation]
    assert image_size(path) == moved.shape
    pixels = read_image(path)
    np.testing.assert_allclose(pixels[..., 0].astype(int), moved, atol=3)
    np.testing.assert_allclose(read_mask(path).astype(int), moved, atol=3)


def test_png_orientation_behind_the_pixels_counts_for_the_size_too(tmp_path: Path) -> None:
    content = saved(tmp_path / "plain.png", GREY).read_bytes()
    exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    end = content.index(b"IEND") - 4
    path = tmp_path / "late.png"
    path.write_bytes(content[:end] + chunk + content[end:])
    assert image_size(path) == (7, 5)
    np.testing.assert_array_equal(read_image(path)[..., 0], GREY.T[:, ::-1])


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_truncated_files_are_named(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"a\.{suffix}: .*(truncated|damaged).*copy it again.*leave it out"):
        read_image(path)


def test_missing_wrong_and_odd_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: does not exist; restore it"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="is not a regular file"):
        image_size(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(
        DataError, match=r"text\.png: is damaged or not an image \(PNG, JPEG, TIFF, WEBP, BMP, JPEG2000, GIF are read"
    ):
        read_image(tmp_path / "text.png")
    icon = saved(tmp_path / "a.ico", GREY)
    with pytest.raises(DataError, match=r"a\.ico: is icon, which is not read .*; save them as PNG, TIFF or JPEG"):
        read_image(icon)
    heic = tmp_path / "b.png"  # by its content, whatever it is called
    heic.write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(12))
    with pytest.raises(DataError, match=r"b\.png: is HEIC, which is not read"):
        image_size(heic)
    pages = tmp_path / "pages.tif"
    Image.fromarray(GREY).save(pages, save_all=True, append_images=[Image.fromarray(GREY)])
    with pytest.raises(DataError, match=r"pages\.tif: has 2 pages; save one image per file"):
        image_size(pages)


def test_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = saved(tmp_path / "a.png", GREY)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"a\.png: may not be read; correct its permissions"):
        read_image(path)


def test_pixel_cap_is_judged_by_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def header(width: int, height: int) -> Path:
        content = b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b""))
        )
        path = tmp_path / f"{width}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
        return path

    for width in (8001, 10_000, 100_000):  # over the cap, over Pillow's warning, over Pillow's error
        with pytest.raises(DataError, match=rf"{width}\.png: .*at most 64 megapixels are read"):
            image_size(header(width, 8000))
    assert image_size(header(8000, 8000)) == (8000, 8000)

    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "upright", exhausted)
    with pytest.raises(DataError, match="more than fits into memory"):
        read_image(saved(tmp_path / "small.png", GREY))


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp"])
def test_masks_keep_their_values(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 1, 2], [3, 254, 255]], np.uint8)
    options = {"lossless": True} if suffix == "webp" else {}
    np.testing.assert_array_equal(read_mask(saved(tmp_path / f"l.{suffix}", values, **options)), values)
    rgb = np.repeat(values[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_mask(saved(tmp_path / f"rgb.{suffix}", rgb, **options)), values)


def test_masks_of_other_modes(tmp_path: Path) -> None:
    values = np.array([[0, 300], [65535, 1]], np.uint16)
    for suffix in ("png", "tif"):
        np.testing.assert_array_equal(read_mask(saved(tmp_path / f"w.{suffix}", values)), values)
    bilevel = np.array([[True, False]])
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "1.png", Image.fromarray(bilevel))), [[1, 0]])
    indices = Image.fromarray(np.array([[0, 5], [9, 5]], np.uint8))
    indices.putpalette([17 * (index % 15) for index in range(30)])
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "p.png", indices)), [[0, 5], [9, 5]])
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (7, 7, 7, 255)
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "rgba.png", rgba)), [[7, 0], [0, 0]])
    grey_alpha = Image.fromarray(np.array([[4, 0]], np.uint8)).convert("LA")
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "la.png", grey_alpha)), [[4, 0]])


def test_masks_that_are_no_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"c\.png: a mask with colours; save it as a grey or palette image"):
        read_mask(saved(tmp_path / "c.png", RGB))
    with pytest.raises(DataError, match="colours"):
        read_mask(saved(tmp_path / "c.tif", Image.fromarray(RGB).convert("CMYK")))
    with pytest.raises(DataError, match=r"f\.tif: .* float32 values that are no whole numbers \(0\.5\); save it"):
        read_mask(saved(tmp_path / "f.tif", np.array([[0, 0.5]], np.float32)))
    with pytest.raises(DataError, match=r"negative values \(-1\)"):
        read_mask(saved(tmp_path / "i.tif", np.array([[-1, 2]], np.int32)))


@pytest.mark.parametrize("wrong", [0.25, np.nan, np.inf, 2.0**25])
def test_whole_numbers_of_floating_point_are_labels(wrong: float, tmp_path: Path) -> None:
    values = np.array([[0, 1, 70_000]], np.float32)
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "f.tif", values)), values)
    with pytest.raises(DataError, match="no whole numbers"):
        read_mask(saved(tmp_path / "f.tif", np.array([[0, 1, wrong]], np.float32)))


def test_gif_masks_give_their_greys_however_their_palette_numbers_them(tmp_path: Path) -> None:
    for values in ([[0, 255], [0, 0]], [[255, 255], [255, 255]], [[0, 7], [0, 200]]):
        np.testing.assert_array_equal(read_mask(saved(tmp_path / "a.gif", np.array(values, np.uint8))), values)
    turned = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    turned.putpalette([255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "b.gif", turned)), [[255, 0]])
    coloured = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    coloured.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "c.gif", coloured)), [[0, 1, 2]])
    np.testing.assert_array_equal(read_image(tmp_path / "c.gif")[0], [[0, 0, 0], [128, 0, 0], [0, 128, 0]])


def test_moving_pictures_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (0, 255)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="has 2 pages; save one image per file"):
        read_mask(tmp_path / "a.gif")


def test_labels_in_sixteen_bit_colour_are_refused_because_they_would_merge(tmp_path: Path) -> None:
    row = b"\0" + struct.pack(">6H", 1, 1, 1, 2, 2, 2)  # two pixels, both with high byte 0
    content = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(row)),
            (b"IEND", b""),
        )
    )
    path = tmp_path / "wide.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(DataError, match="a mask with 16-bit colour; save it as a grey or palette image"):
        read_mask(path)


def test_grey_jpeg_masks_may_have_a_little_colour(tmp_path: Path) -> None:
    mask = np.zeros((32, 32, 3), np.uint8)
    mask[8:24, 8:24] = 255
    mask[8, 8, 0] = 240
    values = read_mask(saved(tmp_path / "m.jpg", mask, quality=90))
    assert values.shape == (32, 32)
    np.testing.assert_array_equal(values >= 128, mask[..., 1] >= 128)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have rules of their own")
def test_memory_of_one_image_serves_the_next(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", np.full((1024, 1365, 3), 90, np.uint8))
    code = """
import resource, sys
from lora_sam.core.frame import Frame
from lora_sam.data.reading.images import read_image
from lora_sam.data.transforms import preprocess_array
for number in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    preprocess_array(read_image(sys.argv[1]), Frame(1024, square=False))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # pages of 4 KiB; the image and what is computed of it have more than 10,000
