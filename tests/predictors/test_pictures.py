"""Images as people have them in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lora_sam import AutomaticMasks, read_image
from lora_sam.core.errors import DataError
from lora_sam.core.structures import Prompts
from lora_sam.predictors import TorchPredictor
from lora_sam.predictors.pictures import pixels_of

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def test_every_form_is_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(path)
    tensor = torch.from_numpy(PIXELS.copy())
    for form in (PIXELS, path, str(path), Image.fromarray(PIXELS), Image.open(path), tensor, tensor.permute(2, 0, 1)):
        np.testing.assert_array_equal(pixels_of(form), PIXELS)
    assert pixels_of(PIXELS) is PIXELS


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_colours_times_alpha_are_read(mode: str) -> None:
    picture = Image.new(mode, (4, 3), (200, 255) if mode == "LA" else (200, 100, 50, 255))
    assert np.array_equal(pixels_of(picture.convert(mode.replace("A", "a"))), pixels_of(picture))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_files_and_pictures_are_turned_alike(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(path, exif=exif)
    np.testing.assert_array_equal(pixels_of(Image.open(path)), read_image(path))
    np.testing.assert_array_equal(pixels_of(path), read_image(path))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_other_modes_are_read_as_files_of_them_are(mode: str, tmp_path: Path) -> None:
    picture = Image.fromarray(PIXELS).convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    picture.save(path)
    np.testing.assert_array_equal(pixels_of(picture), read_image(path))
    np.testing.assert_array_equal(pixels_of(path), read_image(path))


def _deep(place: Path) -> Path:
    Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 200).save(place / "deep.png")
    return place / "deep.png"


def _deep_colour(place: Path) -> Path:
    imagecodecs = pytest.importorskip("imagecodecs")
    (place / "colour.png").write_bytes(imagecodecs.png_encode(PIXELS.astype(np.uint16) * 200))
    return place / "colour.png"


def _read(path: Path) -> Image.Image:
    picture = Image.open(path)
    picture.load()
    return picture


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (_deep, r"deep\.png has pixels of .*: give the image as lora_sam\.read_image\(path, run\.path\)"),
        (lambda place: Image.open(_deep(place)), "mode I;16, must have 8 bits per channel"),
        (lambda place: Image.open(_deep_colour(place)), "picture of 16-bit colour, must have 8 bits per channel"),
        (lambda place: _read(_deep_colour(place)), "picture of 16-bit colour, must have 8 bits per channel"),
        (lambda place: place / "missing.png", "missing.png"),
        (lambda _: torch.zeros(3, 5, 6), "image is a tensor of float32, must be uint8, 0 to 255"),
        (lambda _: torch.zeros(5, 6, dtype=torch.uint8), r"image is a tensor \[5, 6\], must be \[3, H, W\]"),
        (lambda _: torch.zeros(1, 3, 5, 6, dtype=torch.uint8), r"image is a tensor \[1, 3, 5, 6\], must be"),
        (lambda _: torch.zeros(3, 6, 3, dtype=torch.uint8), "may be the first or the last axis"),
        (lambda _: [[[1, 2, 3]]], "image is a list, must be a NumPy array"),
        (lambda _: None, "image is a NoneType, must be a NumPy array"),
    ],
)
def test_what_is_no_picture_of_8_bits_is_refused_in_one_line(made: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told) as caught:
        pixels_of(made(tmp_path))
    assert "\n" not in str(caught.value)


def test_predictor_and_automatic_masks_take_them(tiny_sam: Any, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(path)
    predictor = TorchPredictor(tiny_sam(), 64)
    automatic = AutomaticMasks(points_per_side=2, predicted_iou=0, stability=0)
    for multimask in (False, True):
        expected = predictor.segment(PIXELS, boxes=[2, 3, 12, 9], multimask=multimask)
        found = predictor.segment(path, boxes=[2, 3, 12, 9], multimask=multimask)
        np.testing.assert_array_equal(found.low_res_logits, expected.low_res_logits)
    assert predictor.embedder.encoded == 1
    np.testing.assert_array_equal(
        automatic.generate(predictor, Image.fromarray(PIXELS)).masks, automatic.generate(predictor, PIXELS).masks
    )


def test_every_way_to_ask_takes_them(tiny_sam: Any, tmp_path: Path) -> None:
    """`segment` took a path, and `predict` beside it refused one."""
    path = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(path)
    prompts = Prompts(boxes=np.array([[2, 3, 12, 9]], np.float32))
    predictor, known = TorchPredictor(tiny_sam(), 64), TorchPredictor(tiny_sam(), 64)
    for picture in (path, str(path), Image.open(path), torch.from_numpy(PIXELS.copy())):
        predictor.set_image(picture)
        np.testing.assert_array_equal(predictor.embedding(picture), known.embedding(PIXELS))
        found = predictor.predict(picture, prompts), predictor.predict_all(picture, prompts)
        expected = known.predict(PIXELS, prompts), known.predict_all(PIXELS, prompts)
        np.testing.assert_array_equal(found[0].masks, expected[0].masks)
        np.testing.assert_array_equal(found[1].logits, expected[1].logits)
        assert predictor.predict(picture, prompts[:0]).masks.shape == (0, 12, 20)
    assert predictor.encoded == 1
    with pytest.raises(DataError, match="image is a list"):
        predictor.predict([[[1, 2, 3]]], prompts)  # type: ignore[arg-type]
