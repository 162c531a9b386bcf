"""Washers and smears: the same files for everybody, labels as described, and a directory that appears whole."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.core.seeds import generator_for
from lora_sam.data.drawn.generated import generated_directory
from lora_sam.data.drawn.washers_scene import MAX_OBJECTS, MIN_OBJECTS, draw
from lora_sam.data.drawn.washers_shapes import band, bar, disc, hexagon, split_band

SMALL = {"train": 3, "val": 1, "test": 2, "side": 128}


@pytest.fixture(scope="module")
def washers(option, tmp_path_factory):
    """A small set on disk, and its splits."""
    root = tmp_path_factory.mktemp("demo") / "data" / "washers"
    return root, option("data/demo", root=str(root), **SMALL).open(0)


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(4))
def test_a_scene_has_visible_washers_that_do_not_overlap(index):
    picture, masks = draw(generator_for(index), 256)
    assert (picture.shape, picture.dtype) == ((256, 256, 3), np.uint8)
    assert MIN_OBJECTS <= len(masks) <= MAX_OBJECTS
    assert masks.sum(0).max() == 1
    assert masks.any((1, 2)).all()
    # metal too narrow would be lost in mask logits, which have a quarter of the input's resolution
    assert min(_width(mask) for mask in masks) >= 4


def test_most_labels_leave_out_the_middle_of_the_box():
    """What makes the task: a base that fills what the box encloses is wrong."""
    holes = fills = 0
    for index in range(6):
        _, masks = draw(generator_for("middle", index), 256)
        for mask in masks:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if {rows[0], columns[0]} & {0} or {rows[-1], columns[-1]} & {255}:
                continue  # cut by the border
            middle = mask[(rows[0] + rows[-1]) // 2, (columns[0] + columns[-1]) // 2]
            holes += not middle
            fills += mask.sum() / (len(rows) * len(columns)) < 0.6
    assert holes >= 35
    assert fills >= 0.7 * holes


def test_scenes_depend_on_the_generator_only():
    first, again, other = (draw(generator_for(name), 128) for name in ("a", "a", "b"))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_outlines_enclose_the_areas_of_geometry():
    y, x = np.mgrid[-50:50, -50:50].astype(np.float32) + np.float32(0.5)
    areas = {
        "disc": (disc(30), np.pi * 900),
        "band": (band(40, 20), np.pi * 1200),
        "bar": (bar(60, 10, 0.7), 600),
        "hexagon": (hexagon(20, 0.3), 2 * np.sqrt(3) * 400),
        "split": (split_band(40, 20, 8, 2.0, 0), np.pi * 1200 - 20 * 8),
    }
    for name, (shape, area) in areas.items():
        assert (shape(x, y) < 0).sum() == pytest.approx(area, rel=0.02), name
    cut = split_band(40, 20, 8, 0, 0)(x, y)
    assert cut[50, 80] > 0  # on the x axis, between the radii
    assert cut[50, 20] < 0


def _width(mask: np.ndarray) -> float:
    """Diameter of the largest disc within, in pixels."""
    from scipy.ndimage import distance_transform_edt

    return float(2 * distance_transform_edt(mask).max())


@pytest.fixture(scope="module")
def smears(option):
    """The set of smears, which draws without writing."""
    return option("data/demo_smears", side=256)


def test_labels_of_a_smear_are_the_white_cells_with_their_nuclei(smears):
    """Each has a dark nucleus within; red cells, as many again, and bare nuclei without a body have no label."""
    for index in range(4):
        picture, masks = smears.draw(generator_for(index))
        assert (picture.shape, picture.dtype) == ((256, 256, 3), np.uint8)
        assert len(masks) >= 1
        assert masks.sum(0).max() == 1
        green = picture[..., 1].astype(int)
        ground = np.median(green)
        dark = green < 0.45 * ground
        stained = green < 0.85 * ground
        for mask in masks:
            assert 0.1 < dark[mask].mean() < 0.98  # a nucleus, and a body around it
            assert stained[mask].mean() > 0.9
        unlabelled = stained & ~masks.any(0)
        assert unlabelled.sum() > masks.sum()
        assert (dark & ~masks.any(0)).any()


def test_smears_depend_on_the_generator_only(smears):
    first, again, other = (smears.draw(generator_for(name)) for name in ("a", "a", "b"))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


# --- files ------------------------------------------------------------------------------------------------------------


def test_files_are_coco(washers, option):
    root, splits = washers
    assert splits.notes == (f"generated in {root}",)
    assert splits.train.ids == ("images/train/0000.png", "images/train/0001.png", "images/train/0002.png")
    assert (len(splits.val), len(splits.test)) == (1, 2)
    read = option("data/coco", root=str(root)).open(0)
    for index in range(2):
        _, masks = draw(generator_for(0, "washers", "test", index), 128)
        assert np.array_equal(read.test[index].masks, masks)
        assert np.array_equal(splits.test[index].masks, masks)
        picture = np.asarray(Image.open(root / "images" / "test" / f"000{index}.png"))
        assert np.array_equal(splits.test[index].image, picture)
    content = json.loads((root / "annotations" / "instances_train.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "washer"}]
    assert {entry["iscrowd"] for entry in content["annotations"]} == {0}


def test_smears_are_coco_too(option, tmp_path):
    root = tmp_path / "set"
    splits = option("data/demo_smears", root=str(root), **SMALL).open(0)
    read = option("data/coco", root=str(root)).open(0)
    picture, masks = option("data/demo_smears", **SMALL).draw(generator_for(0, "smears", "test", 1))
    assert np.array_equal(read.test[1].masks, masks)
    assert np.array_equal(splits.test[1].image, picture)
    content = json.loads((root / "annotations" / "instances_val.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "white cell"}]
    with pytest.raises(DataError, match=r"was generated with data=lora_sam smears \(not lora_sam washers\)"):
        option("data/demo", root=str(root), **SMALL).open(0)


def test_the_seed_of_the_run_changes_nothing(washers, option, tmp_path):
    root, _ = washers
    option("data/demo", root=str(tmp_path / "set"), **SMALL).open(7)
    assert files_of(tmp_path / "set") == files_of(root)


def test_a_finished_set_is_read_again(washers, option):
    root, splits = washers
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    again = option("data/demo", root=str(root), **SMALL, max_objects_per_image=2).open(1)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert again.notes == ()
    assert again.train.ids == splits.train.ids


def test_a_set_of_other_settings_is_left_alone(washers, option):
    root, _ = washers
    before = files_of(root)
    with pytest.raises(
        DataError, match=r"was generated with seed=0 \(not 3\), test=2 \(not 4\); remove that directory"
    ):
        option("data/demo", root=str(root), **(SMALL | {"test": 4, "seed": 3})).open(0)
    assert files_of(root) == before


def test_removed_files_are_put_back_and_others_kept(washers, option, tmp_path):
    shutil.copytree(washers[0], tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "images" / "test")
    (tmp_path / "set" / "annotations" / "instances_val.json").unlink()
    (tmp_path / "set" / "mine.txt").write_text("kept")
    option("data/demo", root=str(tmp_path / "set"), **SMALL).open(0)
    assert files_of(tmp_path / "set") == files_of(washers[0]) | {"mine.txt": b"kept"}
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


# --- a directory that appears whole -----------------------------------------------------------------------------------

RECIPE = {"data": "numbers", "count": 3}


def write(root: Path) -> None:
    for number in range(3):
        (root / str(number)).mkdir()
        (root / str(number) / "file").write_text(str(number))


@pytest.mark.parametrize("there", [False, True], ids=["absent", "empty"])
def test_a_directory_is_written_once(tmp_path, there):
    root = tmp_path / "deep" / "set"
    if there:
        root.mkdir(parents=True)
    assert generated_directory(root, RECIPE, write)
    assert (root / "2" / "file").read_text() == "2"
    assert not generated_directory(root, RECIPE, lambda _: pytest.fail("written again"))
    assert [path.name for path in root.parent.iterdir()] == ["set"]


def test_a_link_to_an_empty_directory_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "set").symlink_to("disk")
    assert generated_directory(tmp_path / "set", RECIPE, write)
    assert (tmp_path / "disk" / "1" / "file").read_text() == "1"
    assert not generated_directory(tmp_path / "set", RECIPE, write)


def test_a_crash_leaves_nothing_that_is_used(tmp_path):
    def crash(root: Path) -> None:
        write(root)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generated_directory(tmp_path / "set", RECIPE, crash)
    assert list(tmp_path.iterdir()) == []
    # what a killed process leaves behind
    (tmp_path / ".set.abc.tmp" / "content").mkdir(parents=True)
    assert generated_directory(tmp_path / "set", RECIPE, write)
    assert (tmp_path / "set" / "0" / "file").is_file()


def test_two_at_once_both_end_well(tmp_path):
    both = threading.Barrier(2, timeout=20)
    outcomes = []

    def slow(root: Path) -> None:
        write(root)
        both.wait()  # neither goes on to rename before both have written

    def call() -> None:
        outcomes.append(generated_directory(tmp_path / "set", RECIPE, slow))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True, True]
    assert not generated_directory(tmp_path / "set", RECIPE, write)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("content", ["photo.jpg", "generated.json"])
def test_other_content_is_refused_and_kept(tmp_path, content):
    root = tmp_path / "set"
    root.mkdir()
    (root / content).write_text("[]")
    with pytest.raises(DataError, match=r"data.root: .*set holds something else than generated data, and is left as"):
        generated_directory(root, RECIPE, write)
    assert files_of(root) == {content: b"[]"}
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_file_in_the_way_is_refused_and_kept(tmp_path):
    (tmp_path / "set").write_text("mine")
    with pytest.raises(DataError, match=r"holds something else"):
        generated_directory(tmp_path / "set", RECIPE, write)
    with pytest.raises(
        DataError, match=r"cannot use .*below \(.*\); free some space or choose another place with data"
    ):
        generated_directory(tmp_path / "set" / "below", RECIPE, write)
    assert (tmp_path / "set").read_text() == "mine"
