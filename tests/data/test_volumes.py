"""TIFF stacks and NIfTI volumes: every slice with its own label, and all of a volume on one side of a split."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.reading import volume_limits
from lora_sam.data.reading.volumes import Slice, slice_count

DEPTH, HEIGHT, WIDTH = 5, 24, 40
ALL = {"val": "train", "test": "train"}


def labels(seed: int, depth: int = DEPTH) -> NDArray[np.uint16]:
    """Two objects a slice, that move; slice 2 has none."""
    values = np.zeros((depth, HEIGHT, WIDTH), np.uint16)
    for k in range(depth):
        values[k, 2 + k : 9 + k, 3 + seed : 12 + seed] = 1
        values[k, 12:20, 20 + k : 30 + k] = 700
    values[2] = 0
    return values


def pixels(seed: int, depth: int = DEPTH) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (depth, HEIGHT, WIDTH), dtype=np.uint8)


@pytest.fixture
def opened(option: Callable[..., Any]) -> Callable[..., Any]:
    def make(root: Path, kind: str = "auto", **changes: Any) -> Any:
        return option(f"data/{kind}", root=str(root), **{**ALL, **changes}).open(0)

    return make


def stacks(root: Path, count: int = 2, **options: Any) -> Path:
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for seed in range(count):
        tifffile.imwrite(root / f"images/v{seed}.tif", pixels(seed), photometric="minisblack", **options)
        tifffile.imwrite(root / f"labels/v{seed}.tif", labels(seed), photometric="minisblack", **options)
    return root


def niftis(root: Path, count: int = 2, end: str = ".nii.gz", dtype: Any = np.int16) -> Path:
    import nibabel

    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for seed in range(count):
        for name, values in (("images", pixels(seed).astype(np.int16) * 100), ("labels", labels(seed).astype(dtype))):
            image = nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([1.0, 1.0, 3.0, 1.0]))
            nibabel.save(image, root / name / f"v{seed}{end}")
    return root


def check(splits: Any, count: int, *, deep: bool = False) -> None:
    """Every slice but the empty one is there, with its own pixels and labels."""
    assert len(splits.train) == count * (DEPTH - 1)
    for index, name in enumerate(splits.train.ids):
        sample = splits.train[index]
        volume, k = Path(name).parent.name, int(Path(name).name)
        seed = int(volume[1])
        truth = labels(seed)[k]
        assert sample.object_ids == ("1", "700")
        for mask, value in zip(sample.masks, (1, 700), strict=True):
            assert np.array_equal(mask, truth == value)
        image = pixels(seed)[k].astype(float)
        assert sample.image.shape == (HEIGHT, WIDTH, 3)
        if deep:  # on the scale of all
            assert np.corrcoef(sample.image[..., 0].ravel(), image.ravel())[0, 1] > 0.99
        else:
            assert np.array_equal(sample.image[..., 0], image)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"compression": "zlib"},
    ],
    ids=["pages", "imagej", "ome", "zlib"],
)
def test_slices_of_a_stack(tmp_path: Path, opened: Callable[..., Any], options: dict[str, Any]) -> None:
    root = stacks(tmp_path / "set", **options)
    check(opened(root, slices="all"), 2)


@pytest.mark.parametrize(("end", "dtype"), [(".nii.gz", np.int16), (".nii", np.float32)])
def test_slices_of_nifti(tmp_path: Path, opened: Callable[..., Any], end: str, dtype: Any) -> None:
    """Rows run along the second axis of the file, for image and labels alike; labels may be stored as fractions."""
    check(opened(niftis(tmp_path / "set", end=end, dtype=dtype), slices="all"), 2, deep=True)


def test_nnunet(tmp_path: Path, opened: Callable[..., Any]) -> None:
    root = niftis(tmp_path / "set")
    (root / "images").rename(root / "imagesTr")
    (root / "labels").rename(root / "labelsTr")
    for file in (root / "imagesTr").iterdir():
        file.rename(file.with_name(file.name.replace(".nii", "_0000.nii")))
    splits = opened(root, slices="all")
    assert len(splits.train) == 2 * (DEPTH - 1)
    assert np.array_equal(splits.train[0].masks[0], labels(0)[0] == 1)


def test_masks_of_a_stack(tmp_path: Path, opened: Callable[..., Any]) -> None:
    root = stacks(tmp_path / "set", 1)
    (root / "labels").rename(root / "masks")
    tifffile.imwrite(root / "masks/v0.tif", ((labels(0) > 0) * 255).astype(np.uint8), photometric="minisblack")
    splits = opened(root, slices="all", min_area=1)
    assert len(splits.train) == DEPTH - 1
    assert np.array_equal(splits.train[0].masks[0], labels(0)[0] > 0)


@pytest.mark.parametrize(("slices", "expected"), [("middle", [3]), ((1, 4), [1, 4])])
def test_some_slices(tmp_path: Path, opened: Callable[..., Any], slices: Any, expected: list[int]) -> None:
    root = tmp_path / "set"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    tifffile.imwrite(root / "images/a.tif", pixels(0, 6), photometric="minisblack")
    tifffile.imwrite(root / "labels/a.tif", labels(0, 6), photometric="minisblack")
    ids = opened(root, slices=slices).train.ids
    assert [int(Path(name).name) for name in ids] == expected
    assert all(name.startswith("images/a.tif/") for name in ids)


def test_channels_are_bands(tmp_path: Path, opened: Callable[..., Any]) -> None:
    root = stacks(tmp_path / "set", 1)
    values = np.random.default_rng(1).integers(0, 256, (DEPTH, 2, HEIGHT, WIDTH), dtype=np.uint8)
    tifffile.imwrite(root / "images/v0.tif", values, imagej=True, metadata={"axes": "ZCYX"})
    sample = opened(root, slices="all", bands=(2,)).train[1]
    assert np.array_equal(sample.image[..., 0], values[1, 1])


def test_a_volume_is_on_one_side(tmp_path: Path, opened: Callable[..., Any]) -> None:
    root = stacks(tmp_path / "set", 6)
    splits = opened(root, slices="all", val="val", test="test", val_fraction=0.2, test_fraction=0.2)
    sides = [{Path(name).parent.name for name in source.ids} for source in (splits.train, splits.val, splits.test)]
    assert all(sides)
    assert sum(map(len, sides)) == len(set.union(*sides)) == 6


def test_too_few_volumes(tmp_path: Path, opened: Callable[..., Any]) -> None:
    root = stacks(tmp_path / "set", 2)
    with pytest.raises(DataError, match=r"2 volumes are too few .* data\.val=train data\.test=train"):
        opened(root, slices="all", val="val", test="test", few_images=0)


@pytest.mark.parametrize("make", [stacks, niftis])
def test_without_the_option_the_remedy_is_told(
    tmp_path: Path, opened: Callable[..., Any], make: Callable[[Path], Path]
) -> None:
    root = make(tmp_path / "set")
    with pytest.raises(DataError, match=r"data\.slices=all") as caught:
        opened(root)
    assert "\n" not in str(caught.value)


def test_what_has_no_volumes_says_so(tmp_path: Path, opened: Callable[..., Any], blobs: Path) -> None:
    with pytest.raises(DataError, match=r"data=coco .* no volumes; leave data\.slices out"):
        opened(blobs, slices="all")


def test_images_that_are_none_stay_as_they_are(tmp_path: Path, opened: Callable[..., Any]) -> None:
    root = stacks(tmp_path / "set", 1)
    tifffile.imwrite(root / "images/flat.tif", pixels(9)[0])
    tifffile.imwrite(root / "labels/flat.tif", labels(9)[0])
    assert "images/flat.tif" in opened(root, slices="all").train.ids


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: tifffile.imwrite(root / "labels/v0.tif", labels(0, 4), photometric="minisblack"), "has 4 slices"),
        (lambda root: tifffile.imwrite(root / "labels/v0.tif", labels(0)[0]), "has 1 slice, and v0.tif has 5"),
        (lambda root: (root / "images/v0.tif").write_bytes((root / "images/v0.tif").read_bytes()[:300]), "damaged"),
        (
            lambda root: tifffile.imwrite(root / "labels/v0.tif", labels(0)[:, :20], photometric="minisblack"),
            "20",
        ),
    ],
    ids=["fewer slices", "one slice", "cut", "another size"],
)
def test_what_does_not_fit(tmp_path: Path, opened: Callable[..., Any], damage: Any, words: str) -> None:
    root = stacks(tmp_path / "set", 1)
    damage(root)
    with pytest.raises(DataError, match=words) as caught:
        opened(root, slices="all")
    assert "\n" not in str(caught.value)


def test_pages_of_several_sizes(tmp_path: Path, opened: Callable[..., Any]) -> None:
    root = stacks(tmp_path / "set", 1)
    with tifffile.TiffWriter(root / "images/v0.tif") as file:
        file.write(pixels(0)[0])
        file.write(pixels(0)[1, :10])
    with pytest.raises(DataError, match="different sizes"):
        opened(root, slices="all")


def test_a_slice_that_is_not_there(tmp_path: Path, opened: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=r"has 5 slices, from 0 to 4; .* asks for 9"):
        opened(stacks(tmp_path / "set", 1), slices=(0, 9))


def test_labels_that_lie_otherwise_are_refused(tmp_path: Path, opened: Callable[..., Any]) -> None:
    import nibabel

    root = niftis(tmp_path / "set", 1)
    turned = nibabel.Nifti1Image(labels(0).astype(np.int16).transpose(2, 1, 0), np.diag([-1.0, 1.0, 3.0, 1.0]))
    nibabel.save(turned, root / "labels/v0.nii.gz")
    with pytest.raises(DataError, match="axes run to LAS, those of v0.nii.gz to RAS"):
        opened(root, slices="all")


def test_labels_between_numbers_are_refused(tmp_path: Path, opened: Callable[..., Any]) -> None:
    root = niftis(tmp_path / "set", 1, dtype=np.float32)
    import nibabel

    soft = nibabel.Nifti1Image(labels(0).astype(np.float32).transpose(2, 1, 0) / 3, np.diag([1.0, 1.0, 3.0, 1.0]))
    nibabel.save(soft, root / "labels/v0.nii.gz")
    with pytest.raises(DataError, match="no whole numbers"):
        opened(root, slices="all")


def test_limits(tmp_path: Path, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import nibabel

    root = niftis(tmp_path / "set", 1)
    monkeypatch.setattr(volume_limits, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="as a whole"):
        opened(root, slices="all")
    four = nibabel.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), np.eye(4))
    nibabel.save(four, tmp_path / "four.nii")
    with pytest.raises(DataError, match="three axes"):
        slice_count(tmp_path / "four.nii")
    (tmp_path / "bad.nii.gz").write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(DataError, match="damaged"):
        slice_count(tmp_path / "bad.nii.gz")


def test_the_same_slice_has_the_same_bytes(tmp_path: Path) -> None:
    root = stacks(tmp_path / "set", 1)
    one, other = (Slice(root / "images/v0.tif", 1).open("rb").read() for _ in range(2))
    assert one == other
    assert one != Slice(root / "images/v0.tif", 2).open("rb").read()


def test_the_scale_of_a_volume_counts(tmp_path: Path, opened: Callable[..., Any]) -> None:
    """nibabel takes slope and offset out of the header that it returns; labels of which 300 mean 1 are 1."""
    import nibabel

    root = niftis(tmp_path / "set", 1)
    stored = nibabel.Nifti1Image(labels(0).transpose(2, 1, 0).astype(np.int16) * 2, np.diag([1.0, 1.0, 3.0, 1.0]))
    stored.header.set_slope_inter(0.5, 0)
    content = bytearray(stored.to_bytes())
    content[112:120] = np.array([0.5, 0], "<f4").tobytes()
    (root / "labels/v0.nii.gz").write_bytes(gzip.compress(content))
    assert opened(root, slices="all").train[0].object_ids == ("1", "700")
    content[112:120] = np.array([0.3, 0], "<f4").tobytes()
    (root / "labels/v0.nii.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match="no whole numbers"):
        opened(root, slices="all")


def test_turned_bits_of_a_packed_volume_are_found(tmp_path: Path, opened: Callable[..., Any]) -> None:
    root = niftis(tmp_path / "set", 1)
    content = (root / "labels/v0.nii.gz").read_bytes()
    (root / "labels/v0.nii.gz").write_bytes(content[:-8] + b"\1\2\3\4" + content[-4:])
    with pytest.raises(DataError, match="CRC check failed"):
        opened(root, slices="all")


@pytest.mark.parametrize("shown", ["images", "labels"])
def test_labels_on_another_grid_are_refused_before_they_are_unpacked(
    tmp_path: Path, opened: Callable[..., Any], shown: str
) -> None:
    import nibabel

    root = niftis(tmp_path / "set", 1)
    small = nibabel.Nifti1Image(np.zeros((20, 12, DEPTH), np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))
    nibabel.save(small, root / shown / "v0.nii.gz")
    with pytest.raises(DataError, match="has slices of .* pixels, and v0.nii.gz of .*; resample the labels"):
        opened(root, slices="all")


@pytest.mark.parametrize("depth", [3, 4])
def test_stacks_that_tifffile_took_for_colour(tmp_path: Path, opened: Callable[..., Any], depth: int) -> None:
    """Three or four pages become planes of one RGB page, or channels; labels have neither."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    tifffile.imwrite(tmp_path / "images/v0.tif", pixels(0, depth), metadata={"axes": "CYX"}, photometric="minisblack")
    tifffile.imwrite(tmp_path / "labels/v0.tif", labels(0, depth), photometric="rgb", planarconfig="separate")
    with tifffile.TiffFile(tmp_path / "labels/v0.tif") as file:
        assert file.series[0].axes == "SYX"
    splits = opened(tmp_path, slices="all")
    assert [int(Path(name).name) for name in splits.train.ids] == [k for k in range(depth) if k != 2]
    for k, sample in zip((0, 1), splits.train, strict=False):
        assert np.array_equal(sample.masks[1], labels(0)[k] == 700)
        assert np.array_equal(sample.image[..., 0], pixels(0, depth)[k])
