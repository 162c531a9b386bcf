"""The same scene as eight labelling tools write it gives the same masks; what is damaged is refused by name."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.splits import Splits

from .tool_sets import (
    HOLE,
    NAMES,
    SQUARE,
    TOOLS,
    TRIANGLE,
    H,
    W,
    Write,
    cvat,
    images,
    label_studio,
    labelme,
    medsam,
    png,
    polygon,
    put,
    qupath,
    yolo,
)


def samples(splits: Splits) -> dict[str, Any]:
    found = {}
    for source in (splits.train, splits.val, splits.test):
        for index in range(len(source)):
            sample = source[index]
            assert sample.id not in found
            found[sample.id] = sample
    return found


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_s_files_give_the_same_masks(name: str, tmp_path: Path, opened) -> None:
    option, write = TOOLS[name]
    write(tmp_path)
    splits = opened(tmp_path)
    assert splits.notes[0].startswith(f"read as data={option}: ")
    found = samples(splits)
    assert len(found) == 4 + (name == "yolo")
    for sample in found.values():
        for mask, expected in zip(sample.masks, (SQUARE, TRIANGLE), strict=True):
            difference = int((mask ^ polygon(expected)).sum())
            # shares of the image are rounded
            assert difference <= (2 if option in ("yolo", "label_studio") else 0)
        assert sample.classes == (() if option in ("sa1b", "medsam") else ("ring", "tri"))
    assert samples(opened(tmp_path, option)).keys() == found.keys()


def one(splits: Splits) -> Any:
    return next(iter(samples(splits).values()))


def test_holes_are_holes(tmp_path: Path, opened) -> None:
    qupath(tmp_path)
    for name in NAMES:
        geometry = {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [TRIANGLE]]}
        put(
            tmp_path / "annotations" / f"{name[:-4]}.geojson",
            {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": geometry, "properties": {}}]},
        )
    sample = one(opened(tmp_path))
    expected = (polygon(SQUARE) & ~polygon(HOLE)) | polygon(TRIANGLE)
    assert (sample.masks == expected).all()
    assert sample.classes == ()


def test_labelme_groups_circles_masks_and_what_has_no_area(tmp_path: Path, opened) -> None:
    bitmap = np.zeros((5, 7), bool)
    bitmap[1:4, 2:6] = True
    shapes = [
        {"label": "a", "shape_type": "polygon", "points": SQUARE, "group_id": 3},
        {"label": "a", "shape_type": "polygon", "points": TRIANGLE, "group_id": 3},
        {"label": "a", "shape_type": "polygon", "points": TRIANGLE[:2], "group_id": 3},  # a slip of the mouse
        {"label": "b", "shape_type": "circle", "points": [[20.0, 20.0], [26.0, 20.0]], "group_id": None},
        {"label": "c", "shape_type": "mask", "points": [[30, 10], [36, 14]], "group_id": None,
         "mask": base64.b64encode(png(bitmap)).decode()},
        {"label": "d", "shape_type": "rectangle", "points": [[2, 3], [10, 12]], "group_id": None},
        {"label": "e", "shape_type": "linestrip", "points": SQUARE, "group_id": None},
    ]  # fmt: skip
    labelme(tmp_path, shapes=shapes)
    splits = opened(tmp_path)
    sample = one(splits)
    assert sample.classes == ("a", "b", "c", "d")
    assert (sample.masks[0] == polygon(SQUARE) | polygon(TRIANGLE)).all()
    assert sample.masks[1].sum() == pytest.approx(np.pi * 36, rel=0.05)
    assert sample.masks[2].sum() == bitmap.sum()
    assert sample.masks[2][11:14, 32:36].all()
    assert sample.masks[3].sum() == 8 * 9
    told = "\n".join(splits.notes)
    assert "train: 4 shapes of type linestrip outline nothing" in told
    assert "train: 4 damaged parts beside the rest of their object were left out" in told
    assert "train: 4 rectangles were read as objects of that shape" in told


def test_cvat_masks_run_along_rows_and_ellipses_turn(tmp_path: Path, opened) -> None:
    images(tmp_path / "images")
    shapes = (
        '<mask label="m" left="3" top="2" width="4" height="3" rle="1, 2, 3, 4, 2"/>'
        '<ellipse label="e" cx="40" cy="20" rx="12" ry="4" rotation="90"/>'
        '<box label="b" xtl="1" ytl="1" xbr="5" ybr="5"/>'
    )
    entries = "".join(f'<image id="0" name="{name}" width="{W}" height="{H}">{shapes}</image>' for name in NAMES)
    put(tmp_path / "annotations.xml", f"<annotations>{entries}</annotations>")
    splits = opened(tmp_path)
    sample = one(splits)
    expected = np.repeat([0, 1, 0, 1, 0], [1, 2, 3, 4, 2]).reshape(3, 4).astype(bool)
    assert (sample.masks[0][2:5, 3:7] == expected).all()
    assert sample.masks[0].sum() == 6
    rows, columns = np.nonzero(sample.masks[1])
    assert np.ptp(rows) > 2 * np.ptp(columns)
    assert "train: 4 shapes of type box outline nothing" in splits.notes


def brush(mask: NDArray[np.bool_]) -> list[int]:
    """Label Studio's bytes of a mask, one run at a time."""
    values = np.repeat(mask.ravel()[:, None].astype(np.uint8) * 255, 4, axis=1).ravel()
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in (2, 4, 8, 16))
    starts = np.flatnonzero(np.diff(values, prepend=values[0] ^ 1))
    for start, end in zip(starts, [*starts[1:], len(values)], strict=True):
        length, value = end - start, values[start]
        if length == 8:  # values that do not repeat, to read those too
            bits += f"0{1:02b}{length - 1:04b}" + f"{value:08b}" * length
        else:
            bits += f"1{3:02b}{length - 1:016b}{value:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def test_label_studio_s_brush(tmp_path: Path, opened) -> None:
    label_studio(tmp_path)
    mask = polygon(TRIANGLE)
    mask[2, 10:12] = True
    file = next(tmp_path.glob("*.json"))
    tasks = json.loads(file.read_text())
    for task in tasks:
        task["annotations"][1]["result"] = [
            {"type": "brushlabels", "from_name": "x", "original_width": W, "original_height": H,
             "value": {"format": "rle", "rle": brush(mask), "brushlabels": ["cell"]}}
        ]  # fmt: skip
    put(file, tasks)
    sample = one(opened(tmp_path))
    assert (sample.masks == mask).all()
    assert sample.classes == ("cell",)
    tasks[0]["annotations"][1]["result"][0]["value"]["rle"] = brush(mask)[:20]
    put(file, tasks)
    with pytest.raises(DataError, match="task 0: object number 1 has a brush mask that is cut short"):
        opened(tmp_path)


def test_splits_of_folders_and_of_cvat_s_subsets(tmp_path: Path, opened) -> None:
    for split in ("train", "Validation", "test"):
        labelme(tmp_path / "a" / split)
    splits = opened(tmp_path / "a")
    assert [len(source) for source in (splits.train, splits.val, splits.test)] == [4, 4, 4]
    cvat(tmp_path / "b")
    file = tmp_path / "b" / "annotations.xml"
    text = file.read_text()
    for number, subset in enumerate(("train", "train", "val", "test")):
        text = text.replace(f'<image id="{number}"', f'<image id="{number}" subset="{subset}"')
    file.write_text(text)
    splits = opened(tmp_path / "b")
    assert [len(source) for source in (splits.train, splits.val, splits.test)] == [2, 1, 1]


@pytest.mark.parametrize(
    "name",
    [
        "C:\\Users\\me\\data\\{}",
        "..\\..\\media\\upload\\{}",
        "/srv/pictures/{}",
        "https://example.org/files/{}?token=1",
        "/data/local-files/?d=some/folder/{}",
        "IM{number}.PNG",
        "im{number}.jpg",
    ],
)
def test_images_are_found_by_the_name_that_another_machine_wrote(name: str, tmp_path: Path, opened) -> None:
    labelme(tmp_path, "json")
    for number, image in enumerate(NAMES):
        file = tmp_path / "json" / f"{image[:-4]}.json"
        put(file, {**json.loads(file.read_text()), "imagePath": name.format(image, number=number)})
    assert set(samples(opened(tmp_path))) == set(NAMES)


def test_two_images_of_one_name_are_not_guessed_between(tmp_path: Path, opened) -> None:
    labelme(tmp_path, "json")
    images(tmp_path / "more")
    (tmp_path / "im0.png").rename(tmp_path / "more" / "a.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "more" / "im0.png").rename(tmp_path / "b" / "im0.png")
    images(tmp_path / "c", ("im0.png",))
    with pytest.raises(DataError, match=r"im0.json names the image 'im0.png', which may be b/im0.png and c/im0.png"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("data", "damage", "words"),
    [
        ("labelme", lambda root: put(root / "im1.json", '{"shapes": ['), "im1.json: is not valid JSON"),
        ("labelme", lambda root: labelme(root, imageWidth=W + 1), f"is {W}x{H} pixels .* but {W + 1}x{H} according to"),
        (
            "labelme",
            lambda root: labelme(root, imagePath="gone.png"),
            "names the image 'gone.png', and no file",
        ),
        (
            "labelme",
            lambda root: labelme(root, shapes=[{"label": 3, "points": SQUARE}]),
            "object number 1 has the lab",
        ),
        ("labelme", lambda root: labelme(root, shapes=[]), "the split 'train' is empty"),
        ("cvat", lambda root: put(root / "annotations.xml", "<annotations><image"), "is not valid XML"),
        (
            "cvat",
            lambda root: put(
                root / "annotations.xml",
                '<!DOCTYPE a [<!ENTITY x "y">]><annotations><image name="&x;" width="1" height="1"/></annotations>',
            ),
            "is not valid XML",
        ),
        (
            "via",
            lambda root: put(root / "via.csv", "filename,region_shape_attributes\nim0.png,{"),
            "line 2 has no",
        ),
        (
            "yolo",
            lambda root: put(root / "train/labels/im0.txt", "0 0.1 0.1 30 0.1 30 40"),
            "from 0.1 to 40",
        ),
        ("yolo", lambda root: put(root / "train/labels/im0.txt", "7 0.1 0.1 0.3 0.1 0.3 0.4"), "has the class 7, and"),
        ("yolo", lambda root: put(root / "train/labels/im0.txt", "a b c"), "is 'a b c'; it takes a class and shares"),
        (
            "yolo",
            lambda root: put(root / "data.yaml", "train: [1]\nnames: [a]"),
            "names the images 1; it takes",
        ),
        ("sa1b", lambda root: put(root / "im0.json", {"image": {}, "annotations": []}), 'has no "image" with width'),
        ("supervisely", lambda root: put(root / "ds1/ann/im0.png.json", {}), 'has no "size" and "objects"'),
        ("qupath", lambda root: put(root / "annotations/im0.geojson", {"a": 1}), 'has no list "features"'),
        (
            "medsam",
            lambda root: np.save(root / "imgs/im0.npy", np.full((H, W, 3), 7.0)),
            "no pixels .float64 values from 7 to 7",
        ),
        ("medsam", lambda root: np.save(root / "imgs/im0.npy", np.zeros((H, W, 5))), r"has the shape \(40, 60, 5\)"),
        ("medsam", lambda root: np.save(root / "imgs/im0.npy", np.array({}, object)), "is damaged or no .npy file"),
        ("medsam", lambda root: (root / "gts/im0.npy").unlink(), "has no labels .*gts/im0.npy; add them"),
    ],
)
def test_what_is_damaged_is_named(data: str, damage: Write, words: str, tmp_path: Path, opened) -> None:
    TOOLS[data][1](tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        opened(tmp_path, data)
    assert "\n" not in str(caught.value)


def test_boxes_alone_are_refused(tmp_path: Path, opened) -> None:
    yolo(tmp_path)
    for file in tmp_path.rglob("*.txt"):
        file.write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match="its 5 labels are boxes .* boxes alone cannot train masks"):
        opened(tmp_path)


def test_nothing_outside_the_root_is_read(tmp_path: Path, opened) -> None:
    images(tmp_path / "outside", ("secret.png",))
    labelme(tmp_path / "root", imagePath="../../outside/secret.png")
    (tmp_path / "root" / "secret.png").symlink_to(tmp_path / "outside" / "secret.png")
    with pytest.raises(DataError, match="no file of that name is under"):
        opened(tmp_path / "root", "labelme")


def test_skipping_counts_objects_and_images(tmp_path: Path, opened) -> None:
    labelme(tmp_path)
    file = tmp_path / "im0.json"
    content = json.loads(file.read_text())
    content["shapes"][0]["points"] = [[900, 900], [901, 900], [901, 901]]
    put(file, content)
    splits = opened(tmp_path, "labelme", on_error="skip", max_skipped=0.5)
    assert len(samples(splits)["im0.png"].masks) == 1
    assert len(splits.skipped) == 1
    assert "far outside the image" in splits.skipped[0]


def masks(folder: Path, names: dict[str, list[list[float]]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, points in names.items():
        (folder / name).write_bytes(png(polygon(points)))


def by_folder(root: Path) -> None:
    for name in NAMES:
        images(root / "stage1_train" / name[:-4] / "images", (name,))
        masks(root / "stage1_train" / name[:-4] / "masks", {"a1.png": SQUARE, "b2.png": TRIANGLE})


def by_inner_folder(root: Path) -> None:
    images(root / "images")
    for name in NAMES:
        masks(root / "masks" / name[:-4], {"0.png": SQUARE, "1.png": TRIANGLE})


def by_beginning(root: Path) -> None:
    images(root / "images", ("im1.png", "im1_b.png", "im10.png", "im2.png"))
    for name in ("im1", "im1_b", "im10", "im2"):
        masks(root / "masks", {f"{name}_0.png": SQUARE, f"{name}-1.png": TRIANGLE})


def by_task(root: Path) -> None:
    images(root / "images", ("photo 7.png", "photo 8.png", "photo 10.png", "photo 11.png"))
    for number in (7, 8, 10, 11):
        stem = f"task-{number}-annotation-{number + 20}-by-1-tag-"
        masks(root / "masks", {f"{stem}ring-0.png": SQUARE, f"{stem}tri-0.png": TRIANGLE})


def by_table(root: Path) -> None:
    images(root / "images")
    lines = ["image_id,mask_id,class_name"]
    for stem in (name[:-4] for name in NAMES):
        masks(root / "masks", {f"{stem}_3fa9c01b.png": SQUARE, f"{stem}_7bd41e77.png": TRIANGLE})
        lines += [f"{stem},{stem}_3fa9c01b,ring", f"{stem},{stem}_7bd41e77,tri, three corners"]
    (root / "instance_mask_annotations.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("write", [by_folder, by_inner_folder, by_beginning, by_task, by_table])
def test_a_mask_file_for_each_object(write: Write, tmp_path: Path, opened) -> None:
    write(tmp_path)
    splits = opened(tmp_path)
    assert splits.notes[0].startswith("read as data=mask_per_object: 2 masks of ")
    found = samples(splits)
    assert len(found) == 4
    for sample in found.values():
        assert sorted(map(int, sample.masks.sum((1, 2)))) == sorted([polygon(SQUARE).sum(), polygon(TRIANGLE).sum()])
        assert sample.classes == {by_task: ("ring", "tri"), by_table: ("ring", "tri, three corners")}.get(write, ())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("im0,im0_3fa9c01b,ring", "gives 'im0_3fa9c01b' a second class"),
        ("im0,im0_77", "it takes an image, its mask and a class"),
        ("photo,im0_3fa9c01b,tri", "it takes an image, its mask and a class"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(line: str, said: str, tmp_path: Path, opened) -> None:
    by_table(tmp_path)
    file = tmp_path / "instance_mask_annotations.csv"
    file.write_text(file.read_text().replace("im0_3fa9c01b,ring", "im0_3fa9c01b,tri") + line + "\n")
    with pytest.raises(DataError, match=said):
        opened(tmp_path)


def test_a_mask_that_the_table_leaves_out_is_named(tmp_path: Path, opened) -> None:
    by_table(tmp_path)
    masks(tmp_path / "masks", {"im0_00000000.png": SQUARE})
    with pytest.raises(DataError, match=r"\(im0_00000000.png\) is not in .*instance_mask_annotations.csv"):
        opened(tmp_path)


def test_tasks_that_do_not_fit_the_images_are_not_guessed(tmp_path: Path, opened) -> None:
    by_task(tmp_path)
    (tmp_path / "images" / "photo 7.png").rename(tmp_path / "images" / "photo.png")
    with pytest.raises(DataError):
        opened(tmp_path)
    with pytest.raises(DataError, match="has no masks that are named after images"):
        opened(tmp_path, "mask_per_object")


def test_a_mask_that_is_one_file_for_each_image_is_no_such_layout(tmp_path: Path, opened) -> None:
    images(tmp_path / "images")
    masks(tmp_path / "masks", {name: SQUARE for name in NAMES})
    assert opened(tmp_path).notes[0].startswith("read as data=folder")


@pytest.mark.parametrize(
    ("pictures", "labels"),
    [
        ("train_images", "train_masks"),
        ("img_dir/train", "ann_dir/train"),
        ("images", "annotations"),
        ("Images", "Gt"),
        ("train/image", "train/gt"),
        ("Images", "Masks"),
    ],
)
def test_folders_by_other_names(pictures: str, labels: str, tmp_path: Path, opened) -> None:
    images(tmp_path / pictures)
    masks(tmp_path / labels, {name: SQUARE for name in NAMES})
    found = samples(opened(tmp_path))
    assert len(found) == 4
    assert all((sample.masks == polygon(SQUARE)).all() for sample in found.values())


def test_names_of_classes_of_older_labelme2voc(tmp_path: Path, opened) -> None:
    images(tmp_path / "JPEGImages")
    classes = polygon(SQUARE) * np.uint8(1) + polygon(TRIANGLE) * np.uint8(2)
    for kind in ("Class", "Object"):
        (tmp_path / f"Segmentation{kind}").mkdir()
        (tmp_path / f"Segmentation{kind}PNG").mkdir()
        for name in NAMES:
            np.save(tmp_path / f"Segmentation{kind}" / f"{name[:-4]}.npy", classes)
            Image.fromarray(classes).save(tmp_path / f"Segmentation{kind}PNG" / name)
    put(tmp_path / "class_names.txt", "_background_\nring\ntri\n")
    for sample in samples(opened(tmp_path)).values():
        assert sample.classes == ("ring", "tri")
        assert (sample.masks[0] == polygon(SQUARE)).all()


def suffixed(suffix: str) -> Write:
    def write(root: Path) -> None:
        images(root / "images", tuple(f"{name[:-4]}.jpg" for name in NAMES))
        masks(root / "masks", {f"{name[:-4]}{suffix}.png": SQUARE for name in NAMES})

    return write


def beside(suffix: str, folder: str = "") -> Write:
    def write(root: Path) -> None:
        images(root / folder)
        masks(root / folder, {f"{name[:-4]}{suffix}.png": SQUARE for name in NAMES})

    return write


def nnu_net(root: Path) -> None:
    images(root / "imagesTr", tuple(f"{name[:-4]}_0000.png" for name in NAMES))
    masks(root / "labelsTr", {name: SQUARE for name in NAMES})


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (suffixed("_mask"), "masks: masks are named as their images with _mask behind (data.mask_suffix)"),
        (suffixed("-gt"), "masks: masks are named as their images with -gt behind (data.mask_suffix)"),
        (suffixed("_segmentation"), "with _segmentation behind"),
        (beside("_masks", "train"), "train: label images are named as their images with _masks behind"),
        (beside("_mask"), "masks are named as their images with _mask behind"),
        (nnu_net, "read as data=labels: imagesTr and labelsTr"),
    ],
)
def test_names_with_something_behind(write: Write, told: str, tmp_path: Path, opened) -> None:
    write(tmp_path)
    splits = opened(tmp_path)
    found = samples(splits)
    assert len(found) == 4
    assert all((sample.masks == polygon(SQUARE)).all() for sample in found.values())
    assert told in "\n".join(splits.notes)


def test_a_suffix_may_be_given(tmp_path: Path, opened) -> None:
    images(tmp_path / "all")
    masks(tmp_path / "all", {f"{name[:-4]}.seg.png": SQUARE for name in NAMES})
    splits = opened(tmp_path, "folder", images="all", masks="all", mask_suffix=".seg")
    assert len(samples(splits)) == 4
    with pytest.raises(DataError, match=r"so every image would be its own label; .* data\.mask_suffix=_mask"):
        opened(tmp_path, "folder", images="all", masks="all")


def test_names_that_begin_with_others_are_no_suffix(tmp_path: Path, opened) -> None:
    names = ("im1.png", "im1_b.png", "im2.png", "im3.png")
    images(tmp_path / "images", names)
    masks(tmp_path / "masks", {name: SQUARE for name in names})
    assert len(samples(opened(tmp_path))) == 4


def test_pickles_of_cellpose_are_refused(tmp_path: Path, opened) -> None:
    images(tmp_path)
    np.save(tmp_path / "im0_seg.npy", np.array({"masks": 1}, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"has cellpose's _seg\.npy, which hold pickled .*cellpose --save_tif"):
        opened(tmp_path)


def test_pixels_of_medsam_are_shown_as_they_are(tmp_path: Path, opened) -> None:
    medsam(tmp_path)
    sample = samples(opened(tmp_path))["imgs/im2.npy"]
    expected = np.random.default_rng(2).random((H, W, 3)) * 255
    assert np.abs(sample.image - expected).max() <= 0.5
