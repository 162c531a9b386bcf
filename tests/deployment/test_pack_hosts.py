"""Programs of packs by themselves: what of a picture goes into the model."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lora_sam.core.frame import Frame
from lora_sam.deployment.ir_parts import PromptedDecoder
from lora_sam.deployment.packs import model_api
from lora_sam.deployment.packs.hosts.segmenter import Segmenter, pixels_of
from lora_sam.predictors import pictures

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def deep_colour(kind: str) -> bytes:
    """A picture of 16-bit colour, as a camera with 12 bits stores it: nothing is above 4080 of 65535."""
    values = PIXELS.astype(np.uint16) * 16
    if kind == "png":
        return bytes(pytest.importorskip("imagecodecs").png_encode(values))
    file = io.BytesIO()
    pytest.importorskip("tifffile").imwrite(file, values, photometric="rgb")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_colour_of_16_bits_is_refused(kind: str, tmp_path: Path) -> None:
    """Pillow keeps its high bytes: what was trained with a scale of the values got a black picture."""
    content = deep_colour(kind)
    picture = Image.open(io.BytesIO(content))
    assert picture.mode == "RGB"
    with pytest.raises(ValueError, match="has more than 8 bits: save it with 8"):
        pixels_of(picture)
    file = tmp_path / f"deep.{kind}"
    file.write_bytes(content)
    (tmp_path / "use.py").write_text("\n".join(_until_pixels(model_api._USE)))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "use.py"), str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "has more than 8 bits: save it with 8" in done.stderr


def _until_pixels(program: str) -> list[str]:
    """The lines that make pixels of a picture, without those that load Model API and the model."""
    lines = [line for line in program.splitlines() if "model_api" not in line and "parts = " not in line]
    return lines[: next(number for number, line in enumerate(lines) if line.startswith("box = "))]


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
def test_pictures_of_8_bits_are_those_of_our_predictors(mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, "png", exif=exif)
    opened: Any = Image.open(file)
    np.testing.assert_array_equal(pixels_of(opened), pictures.pixels_of(Image.open(file)))
    assert pixels_of(Image.open(file)).shape == (20, 12, 3)


@pytest.mark.parametrize(("side", "size"), [(336, (45, 480)), (448, (640, 45)), (720, (95, 608)), (1024, (3, 4000))])
def test_exported_parts_and_programs_lay_an_image_where_we_do(side: int, size: tuple[int, int]) -> None:
    """Where the shorter side ends in the middle of a pixel, fractions were rounded down, and whole numbers up."""
    wanted = Frame(side, square=False).extent(size)
    exact = [max(1, (2 * length * side + max(size)) // (2 * max(size))) for length in size]
    assert list(wanted) == exact
    parts: Any = SimpleNamespace(square=False, image_size=side)
    assert PromptedDecoder._extent(parts, torch.tensor(size)).tolist() == exact
    program: Any = SimpleNamespace(_square=False, _side=side)
    scale = Segmenter._scale(program, *size)
    np.testing.assert_allclose(scale, [wanted[1] / size[1], wanted[0] / size[0]], rtol=1e-12)


def test_published_weights_at_another_input_are_not_the_published_model() -> None:
    """The adapter named the model of the hub, which computes at 1024 pixels whatever it was trained for."""
    from lora_sam.deployment.packs.peft import published_as
    from lora_sam.models.checkpoints import OFFICIAL

    sha256 = OFFICIAL["vit_b"].sha256
    assert published_as("vit_b", sha256, 1024) == "facebook/sam-vit-base"
    assert published_as("vit_b", sha256, 512) is None
    assert published_as("vit_b", "0" * 64, 1024) is None
    assert published_as("tiny_random", sha256, 1024) is None
