"""Images of more than 8 bits and of many bands: one scale for the whole data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.labels import Labels
from lora_sam.data.reading.images import read_image
from lora_sam.data.reading.pixel_scale import PixelScale, measured

from .conftest import configured

SIZE = (40, 60)


def grey(seed: int, low: int = 5, high: int = 250) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high + 1, SIZE).astype(np.float64)


def written(root: Path, images: list[np.ndarray]) -> Path:
    for folder in ("images", "labels"):
        (root / folder).mkdir(exist_ok=True)
    for number, values in enumerate(images):
        Image.fromarray(values).save(root / "images" / f"{number}.tif")
        labels = np.zeros(SIZE, np.uint8)
        labels[5:20, 5:30] = 1
        Image.fromarray(labels).save(root / "labels" / f"{number}.png")
    return root


def opened(root: Path, **changes: Any) -> Any:
    return configured(Labels, "data/labels.yaml", root=str(root), few_images=0, **changes).open(0)


def pictures(splits: Any) -> dict[int, np.ndarray]:
    sources = (splits.train, splits.val, splits.test)
    samples = [source[index] for source in sources for index in range(len(source))]
    return {int(Path(sample.id).stem): sample.image[..., 0].astype(float) for sample in samples}


@pytest.mark.parametrize(
    ("kind", "factor", "white"),
    [
        (np.uint16, 4, 1023),  # cameras of 10, 11, 12 and 16 bits
        (np.uint16, 8, 2047),
        (np.uint16, 16, 4095),
        (np.uint16, 257, 65535),
        (np.int32, 16, 4095),
        (np.float32, 1 / 255, 1.0),
        (np.float32, 1.0, 255.0),
    ],
)
def test_every_image_has_the_scale_of_the_set(tmp_path: Path, kind: Any, factor: float, white: float) -> None:
    images = [grey(seed, 5, 250 if seed % 2 else 60) for seed in range(6)]  # some dark, and to stay so
    splits = opened(written(tmp_path, [(image * factor).astype(kind) for image in images]))
    assert splits.scale == PixelScale((1, 1, 1), (0.0,) * 3, (white,) * 3)
    for number, shown in pictures(splits).items():
        assert np.abs(shown - images[number]).max() <= 2
    assert any(
        f"values 0 to {white:g} become 0 to 255, as data.scale=[0,{white:g}] does" in note for note in splits.notes
    )
    assert splits.to_json()["scale"] == {"bands": (1, 1, 1), "low": (0.0,) * 3, "high": (white,) * 3}


def test_values_around_255_keep_their_order(tmp_path: Path) -> None:
    images = [(grey(seed, 40, 200 if seed % 2 else 380)).astype(np.uint16) for seed in range(6)]
    shown = pictures(opened(written(tmp_path, images)))
    factors = [np.polyfit(images[number].ravel(), shown[number].ravel(), 1)[0] for number in range(6)]
    assert np.ptp(factors) < 0.02
    assert np.mean(factors) > 0.6


def test_images_of_8_bits_have_no_scale(tmp_path: Path) -> None:
    splits = opened(written(tmp_path, [grey(seed).astype(np.uint8) for seed in range(4)]))
    assert splits.scale is None
    assert "scale" not in splits.to_json()
    assert not any("scale" in note for note in splits.notes)


def test_options_say_the_scale(tmp_path: Path) -> None:
    root = written(tmp_path, [(16 * grey(seed)).astype(np.uint16) for seed in range(4)])
    assert opened(root, scale=(100.0, 900.0)).scale.high == (900.0,) * 3
    assert opened(root, scale="dtype").scale.high == (65535.0,) * 3
    assert opened(root, scale="minmax").scale.high == (4000.0,) * 3
    with pytest.raises(DataError, match=r"data\.scale=\[9.0, 1.0\]: the first value becomes black"):
        opened(root, scale=(9.0, 1.0))
    with pytest.raises(DataError, match=r"data\.bands=\[1, 2, 5\]: images have 1 bands; give one or three"):
        opened(root, bands=(1, 2, 5))


def test_the_file_of_a_scaled_image_has_another_digest(tmp_path: Path) -> None:
    root = written(tmp_path, [(16 * grey(seed)).astype(np.uint16) for seed in range(4)])
    one, other = (opened(root, scale=scale).train for scale in ("auto", "dtype"))
    assert one.ids == other.ids
    assert one.source.file_digest(0) != other.source.file_digest(0)  # so no row of a cache serves both


def test_bands_nodata_and_bright_data() -> None:
    bands = np.stack([grey(0), 10 * grey(1), 3000 + grey(2)], axis=-1)
    bands[:5] = -9999.0
    found = measured([bands], "auto", None, [-9999.0])
    assert found.bands == (1, 2, 3)
    assert found.low[0] == found.low[1] == 0.0
    assert found.low[2] > 2900  # black is not 0 where all is bright
    assert found.high[1] == pytest.approx(2500, rel=0.03)
    bands[7, 7] = np.nan
    shown = found.applied(bands)
    assert shown[7, 7].tolist() == [0, 0, 0]
    assert (shown[:5] == 0).all()
    assert measured([bands], "auto", (3,), [None]).bands == (3, 3, 3)


def test_overviews_are_no_pages_and_pages_are_refused(tmp_path: Path) -> None:
    first, second = (Image.fromarray(grey(seed).astype(np.uint8)) for seed in (0, 1))
    small = second.resize((30, 20))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    first.save(tmp_path / "overview.tif", save_all=True, append_images=[small])
    with Image.open(tmp_path / "overview.tif") as image:
        image.seek(1)
        assert image.tag_v2[254] == 1
    np.testing.assert_array_equal(read_image(tmp_path / "overview.tif")[..., 0], np.asarray(first))
    first.save(tmp_path / "stack.tif", save_all=True, append_images=[second])
    with pytest.raises(DataError, match="has 2 pages; save one image per file"):
        read_image(tmp_path / "stack.tif")


def test_a_picture_is_read_with_the_scale_of_a_run(tmp_path: Path) -> None:
    scale = PixelScale((1, 1, 1), (0.0,) * 3, (4095.0,) * 3)
    (tmp_path / "adapter").mkdir()
    facts = tmp_path / "adapter" / "lora_sam.json"
    facts.write_text(json.dumps({"scale": scale.to_json()}))
    Image.fromarray(np.full(SIZE, 160, np.uint16)).save(tmp_path / "dark.tif")
    assert read_image(tmp_path / "dark.tif", tmp_path).max() == 10
    assert read_image(tmp_path / "dark.tif", scale).max() == 10
    assert read_image(tmp_path / "dark.tif").max() == 160
    facts.write_text(json.dumps({"scale": {"bands": [1], "low": [0], "high": "x"}}))
    with pytest.raises(DataError, match=r"lora_sam\.json: is damaged"):
        read_image(tmp_path / "dark.tif", tmp_path)
    with pytest.raises(DataError, match=r"has no lora_sam\.json; give the directory of a finished run"):
        read_image(tmp_path / "dark.tif", tmp_path / "nowhere")


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_many_bands(tmp_path: Path, planar: bool, kind: Any) -> None:
    tifffile = pytest.importorskip("tifffile")
    factor = {np.uint8: 1, np.uint16: 16, np.float32: 1 / 255}[kind]
    root = written(tmp_path, [grey(0).astype(np.uint8)] * 4)
    truth = [np.stack([grey(8 * seed + band) for band in range(8)], axis=-1) for seed in range(4)]
    for number, values in enumerate(truth):
        stored = (values * factor).astype(kind)
        tifffile.imwrite(
            root / "images" / f"{number}.tif",
            np.moveaxis(stored, -1, 0) if planar else stored,
            photometric="minisblack",
            planarconfig="separate" if planar else "contig",
        )
    for bands in (None, (4, 3, 2)):
        splits = opened(root, bands=bands)
        for source in (splits.train, splits.val, splits.test):
            number = int(Path(source[0].id).stem)
            wanted = truth[number][..., [0, 1, 2] if bands is None else [3, 2, 1]]
            assert np.abs(source[0].image - wanted).max() <= 2
    assert any("images have 8 bands, of which 4,3,2 are shown; data.bands=[...]" in note for note in splits.notes)
