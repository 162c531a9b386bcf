"""What all masks of a set mean together: soft edges, blended labels, void, background, parts; each a whole kind."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from lora_sam.core.errors import DataError
from lora_sam.data.folder import Folder
from lora_sam.data.labels import Labels
from lora_sam.data.reading.mask_survey import Survey
from lora_sam.data.reading.mask_values import mask_values, read_mask

from .conftest import configured

Make = Callable[..., Any]
SIZE = (96, 128)
SETS = range(3)


def blobs(seed: int, count: int = 6, radius: float = 12, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Label image of ellipses that overlap now and then."""
    draws = np.random.default_rng(seed)
    labels = np.zeros(size, np.int64)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for number in range(1, count + 1):
        row, column = draws.random(2) * size
        high, wide = radius * (0.6 + 0.8 * draws.random(2))
        labels[((rows - row) / high) ** 2 + ((columns - column) / wide) ** 2 < 1] = number
    return labels


def cells(seed: int, count: int = 40, reach: float = 12) -> np.ndarray:
    """Label image of cells that touch."""
    points = np.random.default_rng(seed).random((count, 2)) * SIZE
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    apart = (rows[..., None] - points[:, 0]) ** 2 + (columns[..., None] - points[:, 1]) ** 2
    return np.where(apart.min(axis=-1) < reach**2, apart.argmin(axis=-1) + 1, 0)


def rings(seed: int, width: int) -> np.ndarray:
    """Label images of 3 in 2 in 1, as of a tumour, each so many pixels beyond the next."""
    inner = np.asarray(blobs(seed, 3, 12) > 0)
    apart = np.where(inner, 0, ndimage.distance_transform_edt(~inner))
    return np.clip(3 - np.ceil(apart / width), 0, 3).astype(int)


def lines(seed: int, width: int, smooth: bool = True) -> np.ndarray:
    draws = np.random.default_rng(seed)
    scale = 4 if smooth else 1
    image = Image.new("L", (SIZE[1] * scale, SIZE[0] * scale))
    for number in range(6):
        places = [tuple(place) for place in (draws.random((4, 2)) * image.size).tolist()]
        ImageDraw.Draw(image).line(places, fill=255 if smooth else number + 1, width=width * scale)
    return np.asarray(image.resize(SIZE[::-1], Image.Resampling.BOX))


def resized(values: np.ndarray, factor: float) -> np.ndarray:
    image = Image.fromarray(values.astype(np.uint8))
    return np.asarray(
        image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BILINEAR)
    )


def compressed(values: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def binary(seed: int, **changes: Any) -> np.ndarray:
    return (blobs(seed, **changes) > 0) * 255


SOFT: dict[str, Callable[[int], np.ndarray]] = {
    **{f"lines of {width}": lambda seed, width=width: lines(seed, width) for width in (1, 2, 3, 8)},
    "lines up to 250": lambda seed: lines(seed, 3) // 51 * 50,
    "made larger": lambda seed: resized(binary(seed), 2),
    "made a little larger": lambda seed: resized(binary(seed), 1.3),
    "made smaller": lambda seed: resized(binary(seed, radius=40, size=(400, 400)), 0.25),
    "blurred": lambda seed: ndimage.gaussian_filter(binary(seed).astype(float), 3).astype(int),
    **{f"JPEG of {q}": lambda seed, q=q: compressed(binary(seed), q) for q in (50, 75, 90, 95)},
    "lines as JPEG": lambda seed: compressed(lines(seed, 3), 75),
}
BLENDED: dict[str, Callable[[int], np.ndarray]] = {
    **{f"1 to 3, times {f}": lambda seed, f=f: resized(blobs(seed, 3, 15), f) for f in (0.5, 0.7, 1.5, 2, 4, 6, 8)},
    **{f"1 to 2, times {f}": lambda seed, f=f: resized(blobs(seed, 2, 15), f) for f in (2, 4, 8)},
    **{f"40 to 120, times {f}": lambda seed, f=f: resized(40 * blobs(seed, 3, 15), f) for f in (0.5, 2, 4)},
    "1 to 40": lambda seed: resized(blobs(seed, 40, 9, (200, 256)), 2),
    **{f"JPEG of {q}": lambda seed, q=q: compressed(60 * blobs(seed, 3, 15), q) for q in (75, 95)},
}
LABELS: dict[str, Callable[[int], np.ndarray]] = {
    "few": lambda seed: blobs(seed, 3, 15),
    "many small": lambda seed: blobs(seed, 200, 4),
    "tiny": lambda seed: blobs(seed, 300, 2, (200, 256)),
    "touching": lambda seed: cells(seed),
    "touching small": lambda seed: cells(seed, 300, 4),
    "classes": lambda seed: cells(seed, 40, 40) % 5,
    "thin lines": lambda seed: lines(seed, 1, smooth=False),
    "few classes in tiny cells": lambda seed: cells(seed, 300, 4) % 4,
    "few classes in small cells": lambda seed: cells(seed, 200, 6) % 4,
    "few made larger rightly": lambda seed: np.kron(blobs(seed, 3, 15), np.ones((4, 4), int)),
    **{f"rings of {width}": lambda seed, width=width: rings(seed, width) for width in (2, 3, 4, 8)},
    "of high numbers": lambda seed: 20 * blobs(seed, 12, 10),
    "binary": binary,
}


def survey(draw: Callable[[int], np.ndarray]) -> Survey:
    found = Survey()
    for seed in SETS:
        found.add(draw(seed))
    return found


@pytest.mark.parametrize(
    ("draw", "kind"),
    [
        *(pytest.param(draw, "soft", id=f"soft: {name}") for name, draw in SOFT.items()),
        *(pytest.param(draw, "blended", id=f"blended: {name}") for name, draw in BLENDED.items()),
        *(pytest.param(draw, "plain", id=f"plain: {name}") for name, draw in LABELS.items()),
    ],
)
def test_kinds_of_masks(draw: Callable[[int], np.ndarray], kind: str) -> None:
    found = survey(draw)
    assert found.kind() == kind
    assert found.void() == ()


@pytest.mark.parametrize("void", [255, 65535])
@pytest.mark.parametrize(
    "draw", [lambda seed: blobs(seed, 3, 15), lambda seed: blobs(seed, 20, 10), lambda seed: blobs(seed, 1, 30)]
)
def test_void_beside_small_ids(draw: Callable[[int], np.ndarray], void: int) -> None:
    def rimmed(seed: int) -> np.ndarray:
        labels = draw(seed)
        return np.where(ndimage.grey_dilation(labels, size=5) != ndimage.grey_erosion(labels, size=5), void, labels)

    found = survey(rimmed)
    assert found.void() == (void,)
    assert found.kind(found.void()) == "plain"


def test_255_is_a_label_like_any_other_where_labels_come_near_it() -> None:
    assert survey(lambda seed: blobs(seed, 255, 5, (300, 300))).void() == ()
    assert survey(lambda seed: np.array([0, 100, 180, 255])[blobs(seed, 3)]).void() == ()


@pytest.fixture
def written(tmp_path: Path) -> Make:
    """Writes images and masks, `masks(seed)` each, as files that `save` makes."""

    def write(
        draw: Callable[[int], Any], count: int = 4, name: str = "masks", suffix: str = ".png", **options: Any
    ) -> Path:
        for folder in ("images", name):
            (tmp_path / folder).mkdir(exist_ok=True)
        for seed in range(count):
            mask = draw(seed)
            image = mask if isinstance(mask, Image.Image) else Image.fromarray(np.asarray(mask).astype(np.uint8))
            pixels = np.random.default_rng(seed).integers(0, 256, (image.height, image.width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / f"{seed}.png")
            image.save(tmp_path / name / f"{seed}{suffix}", **options)
        return tmp_path

    return write


def opened(root: Path, **changes: Any) -> Any:
    return configured(Folder, "data/folder.yaml", root=str(root), few_images=0, **changes).open(0)


def masks_of(splits: Any) -> dict[int, np.ndarray]:
    sources = (splits.train, splits.val, splits.test)
    samples = [source[index] for source in sources for index in range(len(source))]
    return {int(Path(sample.id).stem): sample.masks for sample in samples}


def test_soft_edges_are_cut_with_a_note(written: Make) -> None:
    root = written(SOFT["lines of 3"])
    splits = opened(root)
    for seed, masks in masks_of(splits).items():
        np.testing.assert_array_equal(masks, [lines(seed, 3) >= 128])
    assert any("soft edges, cut at data.threshold=128; data.mask_values=labels" in note for note in splits.notes)
    assert len(masks_of(opened(root, mask_values="labels"))[0]) > 10  # the remedy does what it says
    written(lambda seed: lines(seed, 3) // 3)
    splits = opened(root)
    assert any("no mask reaches data.threshold=128, so they are cut at 43" in note for note in splits.notes)
    np.testing.assert_array_equal(masks_of(splits)[0], [lines(0, 3) // 3 >= 43])


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_blended_labels_are_refused_with_remedies_that_work(written: Make, suffix: str) -> None:
    root = written(lambda seed: resized(60 * blobs(seed, 3, 15), 2), suffix=suffix)
    with pytest.raises(DataError, match=r"JPEG blurs|resized or compressed") as raised:
        opened(root)
    assert "data.mask_values=binary" in str(raised.value)
    assert all(len(masks) == 1 for masks in masks_of(opened(root, mask_values="binary", threshold=50)).values())
    if suffix == ".png":
        assert "data.mask_values=labels" in str(raised.value)
        assert len(masks_of(opened(root, mask_values="labels"))[0]) > 3


def test_label_images_with_soft_edges_or_blends(written: Make) -> None:
    def labels(root: Path, **changes: Any) -> Any:
        return configured(Labels, "data/labels.yaml", root=str(root), **changes).open(0)

    root = written(SOFT["made larger"], name="labels")
    told = r"soft edges of one object.* data=folder 'data\.images=\{split\}/images' 'data\.masks=\{split\}/labels'\."
    with pytest.raises(DataError, match=told):
        labels(root)
    assert all(
        len(masks) == 1 for masks in masks_of(opened(root, images="{split}/images", masks="{split}/labels")).values()
    )
    written(BLENDED["1 to 40"], name="labels")
    with pytest.raises(DataError, match="resized or compressed"):
        labels(root)
    written(lambda seed: np.where(blobs(seed, 3) == 3, 255, blobs(seed, 3)), name="labels")
    splits = labels(root)
    assert any("255 beside ids up to 2 is taken for void" in note for note in splits.notes)
    assert max(len(masks) for masks in masks_of(splits).values()) == 2
    assert max(len(masks) for masks in masks_of(labels(root, ignore=())).values()) == 3


def test_inverted_masks_are_told_and_turned(written: Make) -> None:
    for share in (9.0, 24.0):
        root = written(lambda seed, share=share: 255 - binary(seed, count=3, radius=share))
        warning = next(note for note in opened(root).notes if "data.invert=true" in note)
        assert "in 4 of 4 masks" in warning
        splits = opened(root, invert=True)
        assert not any("data.invert" in note for note in splits.notes)
        np.testing.assert_array_equal(masks_of(splits)[1], [binary(1, count=3, radius=share) > 0])
    for draw in (SOFT["lines of 8"], binary, lambda seed: lines(seed, 3) > 0):
        assert not any("data.invert" in note for note in opened(written(draw)).notes)
    with pytest.raises(DataError, match=r"data\.invert=true takes masks of two values"):
        opened(written(LABELS["touching"]), invert=True)


def test_trimaps_and_sets_without_a_background_are_told(written: Make) -> None:
    def rim(seed: int) -> np.ndarray:
        whole = blobs(seed, 1, 30) > 0
        return whole * 1 + ndimage.binary_erosion(whole, iterations=3)

    for values in ((0, 128, 255), (0, 1, 2)):
        root = written(lambda seed, values=values: np.array(values)[rim(seed)])
        assert any(
            f"unsure edge of a trimap does; if it is no object, set data.ignore=[{values[1]}]" in note
            for note in opened(root).notes
        )
        assert all(len(masks) == 1 for masks in masks_of(opened(root, ignore=(values[1],))).values())
    root = written(lambda seed: np.array([2, 3, 1])[rim(seed)])  # as the Oxford pets have it: pet, background, border
    assert any("no mask has a pixel of 0, and 2 covers most of the borders" in note for note in opened(root).notes)
    assert not any("warning" in note for note in opened(written(LABELS["touching"])).notes)


def test_many_parts_are_told(written: Make) -> None:
    root = written(lambda seed: 255 * (blobs(seed, 60, 4) > 0))
    note = next(note for note in opened(root).notes if "separate part" in note)
    assert note.endswith("if the parts are objects, set data.instances=components")
    assert len(masks_of(opened(root, instances="components"))[0]) > 20
    assert not any("parts" in note for note in opened(written(lambda seed: binary(seed, count=1))).notes)


def test_stored_values_count_where_tiff_says_that_white_is_zero(tmp_path: Path) -> None:
    for values in (binary(0).astype(np.uint8), blobs(0).astype(np.uint16), binary(0) > 0):
        path = tmp_path / f"{values.dtype}.tif"
        Image.fromarray(values).save(path, tiffinfo={262: 0})
        stored = np.asarray(values).astype(int)
        with Image.open(path) as image:
            assert image.tag_v2[262] == 0
            turned = not np.array_equal(np.asarray(image).astype(int), stored)
        found = read_mask(path).astype(int)
        # Pillow turns 1 and 8 bits over when it writes as when it reads: what lies in the file is the opposite
        expected = stored if not turned and values.dtype == np.uint16 else (1 if values.dtype == bool else 255) - stored
        np.testing.assert_array_equal(found, expected)


def test_masks_in_the_alpha_channel(written: Make, tmp_path: Path) -> None:
    def painted(seed: int, colour: tuple[int, ...], elsewhere: tuple[int, ...], alpha: np.ndarray) -> Image.Image:
        pixels = np.zeros((*alpha.shape, 4), np.uint8)
        pixels[..., :3] = np.where((alpha > 0)[..., None], colour, elsewhere)
        pixels[..., 3] = alpha
        return Image.fromarray(pixels)

    for colour, elsewhere in (
        ((255,) * 3, (255,) * 3),
        ((0,) * 3, (0,) * 3),
        ((200, 0, 0), (200, 0, 0)),
        ((200, 0, 0), (0,) * 3),
    ):
        root = written(lambda seed, c=colour, e=elsewhere: painted(seed, c, e, binary(seed)))
        splits = opened(root)
        np.testing.assert_array_equal(masks_of(splits)[2], [binary(2) > 0])
        assert any("alpha channel" in note for note in splits.notes)
    np.testing.assert_array_equal(
        masks_of(opened(written(lambda seed: painted(seed, (255,) * 3, (255,) * 3, lines(seed, 3)))))[0],
        [lines(0, 3) >= 128],
    )
    pixels = np.array(painted(0, (255,) * 3, (0,) * 3, binary(0)))
    pixels[..., 3] = 255 - pixels[..., 3]
    Image.fromarray(pixels).save(tmp_path / "torn.png")
    with pytest.raises(DataError, match="colours and transparency tell different things; save it as a grey image"):
        mask_values(tmp_path / "torn.png")


def fields_of_view(root: Path, count: int = 5) -> None:
    """As DRIVE has them: `1st_manual` with the objects, `mask` with what the camera sees."""
    for index in range(count):
        values = np.zeros((40, 50), np.uint8)
        values[5 + index : 15, 8 : 20 + index] = 255
        seen = np.zeros((40, 50), np.uint8)
        seen[2:38, 3:47] = 255
        for folder, pixels in (("images", values // 3), ("1st_manual", values), ("mask", seen)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"{index}.png")


def test_fields_of_view_are_warned_of(option: Callable[..., Any], tmp_path: Path) -> None:
    fields_of_view(tmp_path)
    with pytest.raises(DataError, match="not read: 1st_manual .5 files.. The masks that are read are nearly the same"):
        option("data/auto", root=str(tmp_path)).open(0)
    notes = option("data/folder", root=str(tmp_path), images="images", masks="mask").open(0).notes
    assert any("5 masks that were looked at are nearly the same" in note for note in notes)
    assert any("not read: 1st_manual (5 files)" in note for note in notes)
    splits = option("data/folder", root=str(tmp_path), images="images", masks="1st_manual", val="train", test="train")
    read = splits.open(0)
    assert not any("nearly the same" in note for note in read.notes)
    assert {int(read.train[index].masks.sum()) for index in range(5)} == {
        (10 - index) * (12 + index) for index in range(5)
    }


def test_a_second_mask_of_an_image_is_not_dropped(option: Callable[..., Any], tmp_path: Path) -> None:
    for index in range(4):
        values = np.zeros((30, 30), np.uint8)
        values[4:9, 4 : 9 + index] = 255
        for end in ("", "_mask", *(["_mask_1"] if index == 1 else [])):
            Image.fromarray(values).save(tmp_path / f"benign ({index}){end}.png")
    with pytest.raises(DataError, match=r"another mask, benign \(1\)_mask_1\.png; join .* data=mask_per_object"):
        option("data/auto", root=str(tmp_path)).open(0)
    for file in sorted(tmp_path.glob("*.png")):
        folder = tmp_path / ("masks" if "_mask" in file.name else "images")
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    read = option("data/mask_per_object", root=str(tmp_path), val="train", test="train").open(0)
    assert [len(read.train[index].masks) for index in range(4)] == [1, 2, 1, 1]
