"""Faults that labelling tools, microscopes and people leave in masks and annotation files: read right, or told."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion, distance_transform_edt

from lora_sam.core.config import from_conf
from lora_sam.core.errors import ConfigError, DataError
from lora_sam.data.reading.reach import Reach

H, W, COUNT = 60, 80, 6
IN_TRAIN = {"val": "train", "test": "train"}


def objects(number: int) -> NDArray[np.bool_]:
    """A disc, a triangle, a block at the border, and a second disc, bool [4, H, W]."""
    rows, columns = np.mgrid[:H, :W]
    return np.stack(
        [
            (columns - 18 - number) ** 2 + (rows - 18) ** 2 <= 100,
            (rows > 38) & (rows < 56) & (columns > 6 + (rows - 38) // 2) & (columns < 40 - number),
            (columns >= 66) & (rows >= 44),
            (columns - 56) ** 2 + (rows - 20 - number) ** 2 <= 80,
        ]
    )


def labels(
    number: int, values: Sequence[int] = (1, 2, 3, 4), dtype: Any = np.uint8, background: int = 0
) -> NDArray[Any]:
    drawn = np.full((H, W), background, dtype)
    for mask, value in zip(objects(number), values, strict=True):
        drawn[mask] = value
    return drawn


def written(root: Path, kind: str, draw: Callable[[int], Any], ending: str = "png") -> Path:
    """Images of noise, and label files that `draw` gives by number."""
    for folder in ("images", kind):
        (root / folder).mkdir(parents=True)
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 256, (H, W, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"images/a{number}.png")
        values = draw(number)
        if ending == "tif":
            tifffile.imwrite(root / f"{kind}/a{number}.tif", values, photometric="minisblack")
        else:
            (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(
                root / f"{kind}/a{number}.png"
            )
    return root


def opened(root: Path, typed: str = "") -> Any:
    """The data, with what a message said to type."""
    changes: dict[str, Any] = {}
    data = "auto"
    for word in shlex.split(typed):
        key, _, value = word.partition("=")
        if key == "data":
            data = value
        else:
            parsed = json.loads(value) if re.fullmatch(r"[\[\d].*|true", value) else value
            changes[key.removeprefix("data.")] = tuple(parsed) if isinstance(parsed, list) else parsed
    return from_conf(f"data/{data}", root=str(root), **{**IN_TRAIN, **changes}).open(0)


def told(splits: Any, kind: str) -> str:
    """The remedy, `data.key=value`, of the only note of a kind; the rest of the note where it has none."""
    (text,) = [one.text for one in splits.noticed if one.kind == kind]
    found = re.search(r"data\.\w+=\S*[\w\]](?=$|[\s;.])(?!.*data\.\w+=\S)", text)
    return found[0] if found else text


def test_what_a_format_does_not_take_is_refused(tmp_path: Path) -> None:
    """`data.ignore` and others go to the format that was found."""
    root = written(tmp_path, "labels", labels)
    with pytest.raises(DataError, match=r"is read as data=labels .*, which has no invert; leave data.invert out"):
        opened(root, "data.invert=true")
    with pytest.raises(
        ConfigError, match="data.instances = whole: must be one of values, components; the data is read as data=labels"
    ):
        opened(root, "data.instances=whole")
    assert len(opened(root, "data.ignore=[2]").train[0].masks) == 3
    assert len(opened(root, "data.instances=components").train[0].masks) == 4


def check_all(splits: Any) -> None:
    """Every object of every image, and no other."""
    for index, name in enumerate(splits.train.ids):
        masks, expected = splits.train[index].masks, objects(int(Path(name).stem[1:]))
        assert len(masks) == len(expected)
        for one in expected:
            assert any(np.array_equal(one, mask) for mask in masks)


def paletted(number: int, order: Sequence[int]) -> Image.Image:
    """Five colours, black among them for the background, numbered in an order."""
    colours = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    image = Image.fromarray(np.array(order, np.uint8)[labels(number)], "P")
    palette = [0] * 15
    for colour, value in zip(colours, order, strict=True):
        palette[3 * value : 3 * value + 3] = colour
    image.putpalette(palette)
    return image


@pytest.mark.parametrize("kind", ["labels", "masks"])
def test_palettes_that_number_the_background_differently(kind: str, tmp_path: Path) -> None:
    """As programs write that reduce colours: 0 is an object in some files. Other palettes say nothing."""
    mixed = written(tmp_path / "mixed", kind, lambda number: paletted(number, np.roll([0, 1, 2, 3, 4], number)))
    with pytest.raises(
        DataError, match="its palette has the colour .* as value .*; save masks as grey images"
    ) as caught:
        opened(mixed)
    assert "\n" not in str(caught.value)

    def objects_alone(number: int) -> Image.Image:
        return paletted(number, [0, *np.roll([1, 2, 3, 4], number)])

    check_all(opened(written(tmp_path / "objects", kind, objects_alone)))


@pytest.mark.parametrize("kind", ["labels", "masks"])
def test_an_object_of_0_on_a_background_of_255(kind: str, tmp_path: Path) -> None:
    """Object 0 would be background, and the background void, without a word."""
    root = written(tmp_path / "set", kind, lambda number: labels(number, (0, 1, 2, 3), background=255))
    with pytest.raises(DataError, match="255 covers most of the borders, and 0 lies inside") as caught:
        opened(root)
    remedy = re.search(r"data\.ignore=\[255\]", str(caught.value))
    assert remedy
    splits = opened(root, remedy[0])
    assert [one.kind for one in splits.noticed] == ["zero_is_an_object"]
    assert splits.train[0].ignored.mean() > 0.5
    check_all(opened(written(tmp_path / "added", kind, labels)))
    # a frame of void around a background of 0 is none

    def framed(number: int) -> NDArray[Any]:
        values = labels(number)
        values[[0, -1]] = values[:, [0, -1]] = 255
        return values

    assert [one.kind for one in opened(written(tmp_path / "frame", kind, framed)).noticed] == ["void_values"]


def test_minus_1_for_the_background_is_told_once_its_remedy_is_typed(tmp_path: Path) -> None:
    root = written(tmp_path, "labels", lambda number: labels(number, dtype=np.int32) - 1, "tif")
    with pytest.raises(DataError, match=r"has negative values \(-1\)") as caught:
        opened(root)
    remedy = re.search(r"data\.ignore=\[-1\]", str(caught.value))
    assert remedy
    assert [one.kind for one in opened(root, remedy[0]).noticed] == ["zero_is_an_object"]


@pytest.mark.parametrize(
    ("values", "areas", "base"),
    [((24_000, 24_001, 26_000, 26_001), (7, 23), 1000), ((6657, 6658, 6145, 6146), (1792, 2048), 256)],
    ids=["cityscapes", "kitti"],
)
def test_values_of_class_and_instance(values: Any, areas: tuple[int, int], base: int, tmp_path: Path) -> None:
    """Road and sky are no objects: which values they have is said, and what to type leaves them out."""

    def draw(number: int) -> NDArray[Any]:
        drawn = labels(number, values, np.uint16, areas[0])
        drawn[:6][drawn[:6] == areas[0]] = areas[1]
        return drawn

    root = written(tmp_path, "labels", draw)
    splits = opened(root)
    assert f"class x {base} + instance" in splits.noticed[0].text
    check_all(opened(root, told(splits, "instance_encoding")))


def test_ids_above_1000_are_no_code(tmp_path: Path) -> None:
    root = written(tmp_path, "labels", lambda number: labels(number, (1, 999, 1000, 1200), np.uint16))
    assert not opened(root).noticed


def test_maps_of_distances_are_no_soft_edges(tmp_path: Path) -> None:
    def draw(number: int) -> NDArray[Any]:
        far = sum(distance_transform_edt(one) for one in objects(number))
        return np.ceil(far / far.max() * 255).astype(np.uint8)

    root = written(tmp_path, "masks", draw)
    splits = opened(root)
    every = opened(root, told(splits, "gradient_masks"))
    assert np.array_equal(every.train[0].masks[0], objects(0).any(axis=0))
    assert splits.train[0].masks.sum() < 0.4 * every.train[0].masks.sum()


@pytest.mark.parametrize("kind", ["labels", "masks"])
def test_outlines_that_are_not_filled(kind: str, tmp_path: Path) -> None:
    def draw(number: int) -> NDArray[Any]:
        values = np.zeros((H, W), np.uint8)
        for value, one in enumerate(objects(number), 1):
            values[one & ~binary_erosion(one)] = value if kind == "labels" else 255
        return values

    assert "fill them" in told(opened(written(tmp_path / "set", kind, draw)), "hollow_masks")
    whole = opened(written(tmp_path / "whole", kind, lambda number: labels(number)))
    assert not any(one.kind == "hollow_masks" for one in whole.noticed)


def test_many_parts_of_the_only_label(tmp_path: Path) -> None:
    """A class in the label image of each object's place: what data=folder says of masks holds here too."""
    root = written(tmp_path, "labels", lambda number: (labels(number) > 0).astype(np.uint8))
    splits = opened(root)
    assert len(splits.train[0].masks) == 1
    check_all(opened(root, f"data=labels {told(splits, 'masks_of_many_parts')}"))


def test_ids_that_went_round(tmp_path: Path) -> None:
    """Of 400 objects in 8 bits some share a value."""

    def draw(number: int) -> NDArray[Any]:
        places = np.arange(15 * 20).reshape(15, 20) % 255 + 1
        return (np.kron(places, np.ones((4, 4))) * (np.mgrid[:H, :W] % 4 > 0).all(axis=0)).astype(np.uint8)

    assert "16 bits" in told(opened(written(tmp_path / "8", "labels", draw)), "ids_at_the_limit")
    wide = written(tmp_path / "16", "labels", lambda number: draw(number).astype(np.uint16) * 2)
    assert not opened(wide).noticed


@pytest.mark.parametrize("kind", ["labels", "masks"])
def test_a_page_for_each_object(kind: str, tmp_path: Path) -> None:
    """No slices: the image is one picture, and `data.slices=all` would not help."""
    root = written(tmp_path, kind, lambda number: (objects(number) * 255).astype(np.uint8), "tif")
    with pytest.raises(DataError, match="has 4 pages, and its image one; where each page is an object, join") as caught:
        opened(root)
    assert "data.slices" not in str(caught.value)
    for number in range(COUNT):
        tifffile.imwrite(root / f"{kind}/a{number}.tif", labels(number))
    check_all(opened(root))


def turned(angle: float, width: float = 20, height: float = 9) -> NDArray[np.float64]:
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) - (width / 2, height / 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray((corners @ turn.T + (40, 30)).round(2))


def test_turned_boxes_are_boxes() -> None:
    """As of detectors of oriented objects, whose labels have four corners."""
    moved = np.array([[0, 0], [0, 0], [2, 1], [0, 0]])
    for shape, boxes in ((turned, True), (lambda angle: turned(angle) + moved, False)):
        reach = Reach()
        for angle in np.linspace(0, 3, 9):
            reach.add(0, shape(angle), (H, W))
        assert reach.are_boxes() == boxes


def coco(root: Path, file: str, folder: str = "images", name: str = "a{}.png", encoding: str = "utf-8") -> Path:
    """COCO instances of uncompressed runs; the images lie in `folder` as `a0.png` and so on."""
    entries, annotations = [], []
    (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 256, (H, W, 3), np.uint8)
        Image.fromarray(pixels).save(
            root / folder / f"a{number}.png" if "%" not in name else root / folder / f"a {number}.png"
        )
        entries.append({"id": number, "file_name": name.format(number), "height": H, "width": W})
        for mask in objects(number):
            flat = np.concatenate([[False], mask.T.ravel(), [False]])
            changes = np.flatnonzero(flat[1:] != flat[:-1]).tolist()
            runs = np.diff([0, *changes, H * W]).tolist()
            segmentation = {"size": [H, W], "counts": [run for run in runs if run or run is runs[0]]}
            entry = {"id": len(annotations), "image_id": number, "category_id": 1, "iscrowd": 0}
            annotations.append({**entry, "segmentation": segmentation})
    content = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(json.dumps(content).encode(encoding))
    return root


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_annotations_in_the_encodings_of_windows(encoding: str, tmp_path: Path) -> None:
    check_all(opened(coco(tmp_path, "annotations.json", encoding=encoding)))


def test_names_with_percent_20(tmp_path: Path) -> None:
    splits = opened(coco(tmp_path, "annotations.json", name="a%20{}.png"))
    assert splits.train.ids[0] == "images/a 0.png"
    assert np.array_equal(splits.train[0].masks, objects(0))


def test_annotations_in_no_known_place_are_named_with_what_to_type(tmp_path: Path) -> None:
    """One of a name of its own, with images below folders of their own; and two exports beside each other."""
    first = coco(tmp_path / "one", "livecell_coco_train.json", "images/livecell_train_val_images/A172")
    second = coco(tmp_path / "two", "annotations/instances_default.json")
    (second / "annotations/instances_default (1).json").write_bytes(
        (second / "annotations/instances_default.json").read_bytes()
    )
    for root in (first, second):
        with pytest.raises(DataError, match="COCO: data=coco data.annotations=") as caught:
            opened(root)
        assert "\n" not in str(caught.value)
        remedy = re.search(r"data=coco data\.annotations=\S+ data\.images=\S+(?=\. )", str(caught.value))
        assert remedy
        check_all(opened(root, remedy[0]))


def test_panoptic_coco_is_named(tmp_path: Path) -> None:
    root = coco(tmp_path, "panoptic.json")
    content = json.loads((root / "panoptic.json").read_text())
    content["annotations"] = [
        {"image_id": number, "file_name": f"a{number}.png", "segments_info": [{"id": 1, "category_id": 1}]}
        for number in range(COUNT)
    ]
    (root / "panoptic.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="is COCO panoptic, .* is not read; make COCO instances of it") as caught:
        opened(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", ["train", "training"])
def test_labels_beside_their_images_in_a_folder_of_a_split(folder: str, tmp_path: Path) -> None:
    """However the split is spelled, and where the message for the folder above says to look."""
    made = written(tmp_path / "made", "labels", labels)
    place = tmp_path / "set/images" / folder
    place.mkdir(parents=True)
    for number in range(COUNT):
        (made / f"images/a{number}.png").rename(place / f"a{number}.png")
        (made / f"labels/a{number}.png").rename(place / f"a{number}_label.png")
    with pytest.raises(DataError, match="so set data.root=") as caught:
        opened(tmp_path / "set")
    remedy = re.search(r"data\.root=(\S+)\. ", str(caught.value))
    assert remedy
    check_all(opened(Path(remedy[1])))
