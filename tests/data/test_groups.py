"""What samples are parts of: volumes, tiled images, and what `data.group` finds in ids; no split parts any of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.config import from_conf
from lora_sam.core.errors import ConfigError, DataError
from lora_sam.core.groups import Parts
from lora_sam.data.reading import duplicates, grouping
from lora_sam.data.semantic import by_class
from lora_sam.data.shots import few_shot
from lora_sam.data.sources import groups_of
from lora_sam.data.tiled import in_tiles
from tests.conftest import make_blobs
from tests.data.test_volumes import DEPTH, stacks

CARVED = {"val": "val", "test": "test", "val_fraction": 0.2, "test_fraction": 0.2}
PATIENT = r"p(\d+)_"


def sides(splits: Any) -> list[set[str | None]]:
    return [set(groups_of(source)) for source in (splits.train, splits.val, splits.test)]


def parted(splits: Any) -> set[str | None]:
    one, two, three = sides(splits)
    return (one & two) | (one & three) | (two & three)


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of each of three patients, and two of nobody, without splits."""
    root = tmp_path_factory.mktemp("patients")
    draws = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for number in range(14):
        name = f"p{number // 4}_{number}.png" if number < 12 else f"other{number}.png"
        mask = np.zeros((48, 64), np.uint8)
        mask[3:12, 4:20] = mask[30:40, 40:60] = 255
        Image.fromarray(draws.integers(0, 256, (48, 64, 3), np.uint8)).save(root / "images" / name)
        Image.fromarray(mask).save(root / "masks" / name)
    return root


def opened(root: Path, **changes: Any) -> Any:
    return from_conf("data/auto", root=str(root), **{**CARVED, **changes}).open(0)


@pytest.mark.parametrize("looked", [True, False])
def test_a_volume_is_never_parted(tmp_path: Path, looked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where images that look alike are not looked for, as the set is too large for that."""
    if not looked:
        monkeypatch.setattr(duplicates, "MAX_IMAGES", 1)
    for seed in range(2):
        root = tmp_path / str(seed)
        splits = from_conf("data/auto", root=str(stacks(root, 5)), slices="all", **CARVED).open(seed)
        assert not parted(splits)
        assert sorted(group for side in sides(splits) for group in side if group) == [
            f"images/v{number}.tif" for number in range(5)
        ]
        assert splits.parts == Parts("volume", "slice")
    assert (not looked) == any("were not looked for" in note for note in splits.notes)


def test_volumes_that_look_alike_are_not_parted_either(tmp_path: Path) -> None:
    """All look alike, so that they cannot stay together; what is parted then are volumes from each other."""
    root = stacks(tmp_path / "set", 4)
    for kind in ("images", "labels"):
        for number in range(1, 4):
            shutil.copy(root / f"{kind}/v0.tif", root / f"{kind}/v{number}.tif")
    splits = opened(root, slices="all")
    assert any("nearly all of the 16 images look alike" in note for note in splits.notes)
    assert not parted(splits)


def test_too_few_volumes_or_groups_are_not_parted(tmp_path: Path, patients: Path) -> None:
    with pytest.raises(DataError, match="2 volumes are too few to set aside 2 splits, as slices of one volume"):
        opened(stacks(tmp_path / "set", 2), slices="all", few_images=0)
    with pytest.raises(DataError, match="2 groups are too few to set aside 2 splits, as images of one group"):
        opened(patients, group="(p|o)", few_images=0)


def test_images_of_one_patient_stay_together(patients: Path) -> None:
    splits = opened(patients, group=PATIENT)
    assert not (parted(splits) - {None})
    assert {group for side in sides(splits) for group in side} == {"0", "1", "2", None}
    assert splits.parts == Parts("group", "image")
    assert "data.group: 12 images of 3 groups" in splits.notes
    assert [(one.kind, one.text) for one in splits.noticed] == [
        ("ungrouped_image", "data.group: finds nothing in the ids of 2 images, of no group")
    ]
    few = few_shot(splits, 3, 0)
    for source in (splits.train, few.train, by_class(splits).train):
        assert [source[place].group for place in range(len(source))] == list(groups_of(source))
    without = opened(patients)
    assert without.parts is None
    assert parted(without) == {None}


def test_a_group_in_two_given_splits_is_told(tmp_path: Path) -> None:
    make_blobs(tmp_path, {"train": 3, "val": 2, "test": 2})
    assert not any("parts of" in note for note in opened(tmp_path).notes)
    notes = opened(tmp_path, group=r"(\d)\.png").notes
    assert "parts of 2 groups are in both train and val (e.g. 1): figures flatter" in notes
    same = opened(tmp_path, group=r"(\d)\.png", val="train").notes
    assert not any("both train and val (e.g. 1)" in note for note in same)


def test_a_pattern_that_would_part_a_volume_cannot(tmp_path: Path) -> None:
    """Of a slice the id of its volume is looked at, not its own, which ends with its number."""
    root = stacks(tmp_path / "set", 4)
    splits = opened(root, slices="all", group=r"(v[01]|v2)")
    assert {group for side in sides(splits) for group in side} == {"v0", "v1", "v2", "images/v3.tif"}
    with pytest.raises(ConfigError, match="finds nothing in any of 4 ids, such as 'images/v0.tif'"):
        opened(root, slices="all", group=r"/(000\d)$")


def test_tiles_are_of_their_image_or_of_what_that_is_part_of(tmp_path: Path, patients: Path) -> None:
    for group, whole in ((None, "image"), (PATIENT, "group")):
        splits = in_tiles(opened(patients, group=group), 32)
        assert splits.parts == Parts(whole, "tile")
        for name, of in zip(splits.train.ids, groups_of(splits.train), strict=True):
            image = name.rpartition("/")[0]
            assert of == (image if group is None or "/p" not in image else image.partition("_")[0][-1])
        assert splits.train[0].group == groups_of(splits.train)[0]
    assert in_tiles(opened(patients), 512).parts is None
    slices = in_tiles(opened(stacks(tmp_path / "set", 5), slices="all"), 32)
    assert slices.parts == Parts("volume", "tile")
    assert not parted(slices)
    assert len(set(groups_of(slices.train))) == 3 < len(slices.train) / DEPTH


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"p(\d+_", r"data.group = .*: is no regular expression \(missing \)"),
        (r"p\d+_", "has no parentheses, .* such as \"data.group='.patient.0-9..._'\"$"),
        (r"p(?:\d+)_", "has no parentheses"),
        (r"^p(\d+)_", "finds nothing in any of 14 ids, such as 'images/.*; an id is the path below data.root"),
        (r"x?(y?)", "finds nothing in any of 14 ids"),
    ],
)
def test_a_pattern_that_names_no_group_is_refused(patients: Path, pattern: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        opened(patients, group=pattern)
    assert "\n" not in str(raised.value)


def test_a_pattern_that_would_take_for_ever_is_stopped(patients: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "SECONDS", 1)
    with pytest.raises(ConfigError, match=r"takes longer than 1 s of a core on 14 ids; repeat nothing"):
        opened(patients, group=r"((.|[^_])+)+_!")


def test_every_format_knows_the_option(option: Callable[..., Any]) -> None:
    from lora_sam.data.detection import formats
    from lora_sam.data.options import FormatOptions

    for name in formats():
        assert option(f"data/{name}", root="x").group is None
        assert isinstance(option(f"data/{name}", root="x", group=PATIENT), FormatOptions)


def test_ids_with_characters_of_any_kind(patients: Path, tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for number, file in enumerate(sorted((patients / folder).iterdir())):
            shutil.copy(file, tmp_path / folder / f"Zoë {number % 5}\n{number}.png")
    splits = opened(tmp_path, group=r"(Zoë \d)")
    assert not parted(splits)
    assert np.unique([group for side in sides(splits) for group in side]).tolist() == [f"Zoë {n}" for n in range(5)]
