from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_sam.data.reading import duplicates
from lora_sam.data.reading.duplicates import difference_hashes, distances, groups_of_duplicates
from lora_sam.data.reading.images import read_reduced
from lora_sam.data.reading.split_reading import carve


def smooth(seed: int, height: int = 96, width: int = 144) -> np.ndarray:
    """A picture with large shapes, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def test_the_hash_is_that_of_its_definition() -> None:
    picture = np.zeros((8, 9), np.uint8)
    assert difference_hashes(picture[None])[0] == 0
    picture[:] = np.arange(9)
    assert difference_hashes(picture[None])[0] == 2**64 - 1
    picture[:] = 0
    picture[0, 1] = 1  # brighter than the one to its left, and the next one darker
    picture[7, 8] = 1
    assert difference_hashes(picture[None])[0] == 2**63 + 1
    random = np.random.default_rng(0).integers(0, 256, (40, 8, 9), dtype=np.uint8)
    expected = [
        sum(int(row[x + 1] > row[x]) << (63 - 8 * y - x) for y, row in enumerate(one) for x in range(8))
        for one in random
    ]
    assert difference_hashes(random).tolist() == expected


def test_distances_count_bits() -> None:
    draws = np.random.default_rng(0)
    values = draws.integers(0, 2**64, 500, dtype=np.uint64)
    expected = [(int(values[0]) ^ int(value)).bit_count() for value in values]
    assert distances(values[0], values).tolist() == expected
    assert distances(np.uint64(0), np.array([2**64 - 1, 0, 1], np.uint64)).tolist() == [64, 0, 1]


def written(
    folder: Path, pictures: dict[str, np.ndarray], **options: object
) -> tuple[list[Path], list[tuple[int, int]]]:
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / name, **options)
    return [folder / name for name in pictures], [picture.shape[:2] for picture in pictures.values()]


def test_copies_at_another_size_quality_and_brightness_look_alike(tmp_path: Path) -> None:
    first, second = smooth(1), smooth(2)
    smaller = np.asarray(Image.fromarray(first).resize((100, 67)))
    paths, sizes = written(
        tmp_path,
        {
            "a.png": first,
            "b.png": second,
            "a.jpg": first,
            "small.png": smaller,
            "c.png": smooth(3),
            "b.tif": (second * 0.98).astype(np.uint8),
        },
        quality=60,
    )
    assert groups_of_duplicates(paths, sizes) == ((0, 2, 3), (1, 5))


def test_different_pictures_do_not(tmp_path: Path) -> None:
    paths, sizes = written(tmp_path, {f"{seed}.png": smooth(seed) for seed in range(60)})
    assert groups_of_duplicates(paths, sizes) == ()


def test_flat_pictures_of_different_brightness_do_not(tmp_path: Path) -> None:
    pictures = {f"{level}.png": np.full((40, 50, 3), level, np.uint8) for level in (0, 100, 200)}
    paths, sizes = written(tmp_path, {**pictures, "again.png": pictures["100.png"]})
    assert groups_of_duplicates(paths, sizes) == ((1, 3),)


def test_what_cannot_be_read_looks_like_nothing(tmp_path: Path) -> None:
    paths, sizes = written(tmp_path, {"a.png": smooth(1), "b.png": smooth(1), "c.png": smooth(1)})
    paths[1].write_bytes(b"")
    assert groups_of_duplicates(paths, sizes) == ((0, 2),)
    assert groups_of_duplicates(paths[1:2], sizes[1:2]) == ()


def test_large_sets_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, sizes = written(tmp_path, {"a.jpg": smooth(1), "b.jpg": smooth(1)})
    monkeypatch.setattr(duplicates, "MAX_PIXELS", 96 * 144 // 4 - 1)
    assert groups_of_duplicates(paths, sizes) is None
    monkeypatch.setattr(duplicates, "MAX_PIXELS", 96 * 144 // 4)
    assert groups_of_duplicates(paths, sizes) == ((0, 1),)
    monkeypatch.setattr(duplicates, "MAX_IMAGES", 1)
    assert groups_of_duplicates(paths, sizes) is None


def test_a_reduced_picture_is_the_mean_of_its_parts(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (8, 9), dtype=np.uint8)
    large = np.repeat(np.repeat(levels, 64, axis=0), 64, axis=1)
    for name, tolerance in (("a.png", 0), ("a.jpg", 3)):
        Image.fromarray(large).save(tmp_path / name, **({"quality": 95} if name == "a.jpg" else {}))
        reduced = read_reduced(tmp_path / name, 9, 8)
        assert np.abs(reduced.astype(int) - levels).max() <= tolerance
    Image.fromarray(large.astype(np.uint16) * 257).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_reduced(tmp_path / "a.tif", 9, 8), levels)


# --- carving ----------------------------------------------------------------------------------------------------------


def test_without_groups_the_permutation_is_cut() -> None:
    order = [3, 1, 4, 0, 5, 2]
    assert carve(order, {"test": 2, "val": 1}, ()) == ({"test": [3, 1], "val": [4]}, [])
    assert carve(order, {}, ()) == ({}, [])


def test_groups_are_not_parted() -> None:
    order = [3, 1, 4, 0, 5, 2, 6, 7]
    taken, about = carve(order, {"test": 2, "val": 2}, [(0, 1, 2), (4, 5)])
    # 3 alone, the group of 1 is too large, that of 4 does not fit beside 3, and 6 does
    assert taken == {"test": [3, 6], "val": [4, 5]}
    assert about == ["2 groups of images that look alike (5 images) were kept on one side each"]


def test_a_group_larger_than_the_split_goes_there_when_nothing_else_is_left() -> None:
    taken, _ = carve([0, 1, 2, 3, 4, 5], {"test": 1}, [(0, 1, 2), (3, 5), (4,)])
    assert taken == {"test": [4]}
    taken, _ = carve([0, 1, 2, 3, 4, 5], {"test": 1}, [(0, 1, 2, 4), (3, 5)])
    assert taken == {"test": [3, 5]}
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]):
        taken, _ = carve(order, {"test": 3, "val": 1}, [(0, 1, 2, 3)])
        assert sorted(taken) == ["test", "val"]
        assert sum(map(len, taken.values())) < 6
        assert all(taken.values())


def test_images_that_all_look_alike_are_parted_and_it_is_said() -> None:
    taken, about = carve([2, 0, 1, 3], {"test": 1, "val": 1}, [(0, 1, 2, 3)])
    assert taken == {"test": [2], "val": [0]}
    assert about == ["nearly all of the 4 images look alike, and had to be parted: figures will flatter"]


def test_where_nobody_looked_the_order_decides() -> None:
    """That nobody did is told by whoever opens the data: see test_splits.py."""
    assert carve([1, 0], {"test": 1}, ()) == ({"test": [1]}, [])
