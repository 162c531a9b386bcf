"""What labelling tools leave in rarer forms: each was read as something else without a word, or refused beside its
neighbours that are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.splits import Splits

from .tool_sets import (
    NAMES,
    SQUARE,
    TOOLS,
    TRIANGLE,
    H,
    W,
    cvat,
    images,
    label_studio,
    labelme,
    polygon,
    put,
    qupath,
    yolo,
)

BOTH = np.stack([polygon(SQUARE), polygon(TRIANGLE)])
HALF = [[2.0, 2.0], [20.0, 2.0], [20.0, 12.0]]

Open = Callable[..., Splits]


def every(splits: Splits) -> dict[str, Any]:
    return {sample.id: sample for source in (splits.train, splits.val, splits.test) for sample in source}


def check(splits: Splits, wanted: Any = BOTH, classes: tuple[str, ...] | None = None) -> None:
    """Four images, each with these objects."""
    samples = every(splits)
    assert len(samples) == 4
    for sample in samples.values():
        assert len(sample.masks) == len(wanted)
        assert all((mask ^ one).sum() <= 2 for mask, one in zip(sample.masks, wanted, strict=True))
        assert classes is None or sample.classes == classes


def kinds(splits: Splits) -> list[str]:
    return [one.kind for one in splits.noticed]


def edited(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Label Studio's tasks, each replaced by what `change` gives."""
    label_studio(root)
    file = root / "project-1-at-2026.json"
    put(file, [change(task) for task in json.loads(file.read_text())])


def minimal(task: dict[str, Any]) -> dict[str, Any]:
    kept = ("original_width", "original_height")
    results = task["annotations"][1]["result"]
    values = [{**one["value"], **{key: one[key] for key in kept}} for one in results]
    return {"image": task["data"]["image"], "id": task["id"], "label": values, "annotator": 1, "annotation_id": 7}


def synced(task: dict[str, Any]) -> dict[str, Any]:
    return {**task["annotations"][1], "task": {"id": task["id"], "data": task["data"]}}


def named_late(task: dict[str, Any]) -> dict[str, Any]:
    return {**task, "data": {"patient": "p 1", "picture": task["data"]["image"]}}


def apart(task: dict[str, Any]) -> dict[str, Any]:
    """<Polygon> beside <Labels>: shape and class are two results of one id."""
    results = []
    for one in task["annotations"][1]["result"]:
        points = {"points": one["value"]["points"]}
        results.append({**one, "type": "polygon", "value": points})
        results.append({**one, "type": "labels", "value": {**points, "labels": one["value"]["polygonlabels"]}})
    return {**task, "annotations": [{"id": 2, "result": results}]}


def second_is_true(task: dict[str, Any]) -> dict[str, Any]:
    good = {**task["annotations"][1], "ground_truth": True}
    points = [[1, 1], [30, 1], [30, 30]]
    bad = {"id": 1, "result": [{**good["result"][0], "value": {"points": points, "polygonlabels": ["ring"]}}]}
    return {**task, "annotations": [bad, good]}


@pytest.mark.parametrize("change", [minimal, synced, named_late, apart, second_is_true])
def test_label_studio_s_other_forms(change: Callable[..., Any], tmp_path: Path, opened: Open) -> None:
    edited(tmp_path, change)
    splits = opened(tmp_path)
    check(splits, classes=("ring", "tri"))
    assert kinds(splits) == (["several_annotations"] if change is second_is_true else [])


def two_images(root: Path, tags: tuple[str, str]) -> None:
    """One task of two images, the square on the first and the triangle on the second."""
    label_studio(root)
    file = root / "project-1-at-2026.json"
    tasks = json.loads(file.read_text())
    pairs = []
    for first, second in (tasks[:2], tasks[2:]):
        square, triangle = first["annotations"][1]["result"]
        results = [{**square, "to_name": tags[0]}, {**triangle, "to_name": tags[1]}]
        data = {"left": first["data"]["image"], "right": second["data"]["image"]}
        pairs.append({"id": first["id"], "data": data, "annotations": [{"id": 1, "result": results}]})
    put(file, pairs)


def test_several_images_in_a_task_of_label_studio(tmp_path: Path, opened: Open) -> None:
    """Objects of both were given to the first one."""
    two_images(tmp_path / "told", ("left", "right"))
    for name, sample in every(opened(tmp_path / "told")).items():
        assert np.array_equal(sample.masks, BOTH[[int(name[-5]) % 2]])
    two_images(tmp_path / "not", ("img-1", "img-2"))
    with pytest.raises(DataError, match=r"has 2 images \(left, right\) and results on img-1, img-2, and does not say"):
        opened(tmp_path / "not")
    edited(tmp_path / "pages", lambda task: {**task, "annotations": [on_page(task, 0), on_page(task, 1)]})
    file = tmp_path / "pages/project-1-at-2026.json"
    tasks = json.loads(file.read_text())
    results = [one for entry in tasks[0]["annotations"] for one in entry["result"]]
    put(file, [{"id": 1, "data": {"pages": list(NAMES)}, "annotations": [{"id": 1, "result": results}]}])
    with pytest.raises(DataError, match="task 1 has results on 2 pages of one list of images, which is not read"):
        opened(tmp_path / "pages")


def on_page(task: dict[str, Any], page: int) -> dict[str, Any]:
    return {"id": page, "result": [{**one, "item_index": page} for one in task["annotations"][1]["result"]]}


def test_tasks_of_one_project_of_cvat_with_the_same_names(tmp_path: Path, opened: Open) -> None:
    """Their images lie in a folder of their subset."""
    cvat(tmp_path)
    text = (tmp_path / "annotations.xml").read_text()
    for number, name in enumerate(NAMES):
        subset, short = "ab"[number % 2], f"x{number // 2}.png"
        (tmp_path / f"images/{subset}").mkdir(exist_ok=True)
        (tmp_path / f"images/{name}").rename(tmp_path / f"images/{subset}/{short}")
        text = text.replace(f'name="{name}"', f'name="{short}" subset="{subset}"')
    put(tmp_path / "annotations.xml", text)
    splits = opened(tmp_path)
    check(splits)
    assert set(every(splits)) == {f"images/{subset}/x{number}.png" for subset in "ab" for number in range(2)}


def coco(root: Path, segmentation: Callable[[int], Any], image: Any = None, **more: Any) -> None:
    images(root / "images/train2017")
    annotations = [
        {"id": 9 * k + j, "image_id": k, "category_id": 1, "segmentation": segmentation(j)} | (more if j else {})
        for k in range(len(NAMES))
        for j in range(2)
    ]
    entries = [{"id": k, "width": W, "height": H, **(image or named)(name)} for k, name in enumerate(NAMES)]
    content = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
    put(root / "annotations/instances_train2017.json", content)


def named(name: str) -> dict[str, str]:
    return {"file_name": name}


def flat(number: int) -> list[list[float]]:
    return [np.ravel((SQUARE, TRIANGLE)[number]).tolist()]


def runs(mask: Any) -> dict[str, Any]:
    """Uncompressed runs along rows."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask.ravel()]).astype(np.int8)))
    return {"size": [H, W], "counts": np.diff(np.concatenate([[0], edges, [H * W]])).tolist()}


def test_coco_runs_along_rows_without_a_box(tmp_path: Path, opened: Open) -> None:
    """Stripes, until now: nothing but a box told the order."""
    coco(tmp_path / "rows", lambda number: runs(BOTH[number]))
    splits = opened(tmp_path / "rows")
    check(splits)
    assert kinds(splits) == ["other_frame"]
    coco(tmp_path / "columns", lambda number: {**runs(BOTH[number].T), "size": [H, W]})
    splits = opened(tmp_path / "columns")
    check(splits)
    assert kinds(splits) == []


def test_coco_annotations_to_be_ignored(tmp_path: Path, opened: Open) -> None:
    coco(tmp_path, flat, ignore=1)
    splits = opened(tmp_path)
    check(splits, BOTH[:1])
    assert kinds(splits) == ["crowds_left_out"]
    sample = next(iter(every(splits).values()))
    assert np.array_equal(sample.ignored, BOTH[1])  # nor background


def test_names_of_lvis_are_urls(tmp_path: Path, opened: Open) -> None:
    coco(tmp_path, flat, lambda name: {"coco_url": f"http://images.cocodataset.org/train2017/{name}"})
    check(opened(tmp_path))


def test_lines_beside_coco_s_polygons_enclose_nothing(tmp_path: Path, opened: Open) -> None:
    coco(tmp_path, lambda number: [*flat(number), [3.0, 3.0, 9.0, 9.0], [5.0, 5.0]])
    check(opened(tmp_path))


def test_oriented_rectangles_of_labelme(tmp_path: Path, opened: Open) -> None:
    corners = [[10, 8], [30, 14], [27, 24], [7, 18]]
    labelme(tmp_path, shapes=[{"label": "a", "shape_type": "oriented_rectangle", "points": corners}])
    check(opened(tmp_path), [polygon(corners)])


def test_labelme_files_of_another_image_than_their_name(tmp_path: Path, opened: Open) -> None:
    """As copies are: read as labelme reads them, with a word."""
    labelme(tmp_path)
    assert kinds(opened(tmp_path)) == []
    for name, other in zip(NAMES[:2], NAMES[1::-1], strict=True):
        labels = json.loads((tmp_path / f"{name[:-4]}.json").read_text())
        put(tmp_path / f"{name[:-4]}.json", {**labels, "imagePath": f"..\\here\\{other}"})
    splits = opened(tmp_path)
    check(splits)
    assert kinds(splits) == ["other_name"]


def test_yolo_labels_that_belong_to_two_images(tmp_path: Path, opened: Open) -> None:
    """Both got them."""
    yolo(tmp_path)
    images(tmp_path / "train/images", ("im0.jpg",))
    with pytest.raises(DataError, match=r"im0\.txt: belongs to .*im0\.jpg and .*im0\.png, which have the same name"):
        opened(tmp_path)


def test_yolo_key_points_are_no_corners(tmp_path: Path, opened: Open) -> None:
    yolo(tmp_path)
    with (tmp_path / "data.yaml").open("a") as file:
        file.write("kpt_shape: [3, 2]\n")
    with pytest.raises(DataError, match="has kpt_shape, so its labels are boxes and key points"):
        opened(tmp_path)


def test_yolo_texts_that_begin_with_a_mark_of_windows(tmp_path: Path, opened: Open) -> None:
    yolo(tmp_path)
    for file in tmp_path.rglob("*.txt"):
        file.write_text(file.read_text(), encoding="utf-8-sig")
    splits = opened(tmp_path)
    assert len(every(splits)) == 5
    assert all((sample.masks ^ BOTH).sum() <= 4 for sample in every(splits).values())


def features(root: Path, change: Callable[[list[Any]], list[Any]], **more: Any) -> None:
    qupath(root)
    for file in root.rglob("*.geojson"):
        content = json.loads(file.read_text())
        put(file, {**content, "features": change(content["features"]), **more})


def feature(points: list[list[float]], kind: str, name: str) -> dict[str, Any]:
    geometry = {"type": "Polygon", "coordinates": [[*points, points[0]]]}
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {"objectType": kind, "classification": {"name": name}},
    }


def test_regions_of_qupath_are_no_objects(tmp_path: Path, opened: Open) -> None:
    """The annotation in which cells were detected was an object that holds them all."""
    frame = [[1.0, 1.0], [58.0, 1.0], [58.0, 38.0], [1.0, 38.0]]

    def cells(found: list[Any]) -> list[Any]:
        for one in found:
            one["properties"]["objectType"] = "detection"
        return [feature(frame, "annotation", "Tumour"), *found, feature(HALF, "annotation", "ring")]

    features(tmp_path / "cells", cells)
    splits = opened(tmp_path / "cells")
    check(splits, [*BOTH, polygon(HALF)])
    assert kinds(splits) == ["crowds_left_out"]
    features(tmp_path / "own", lambda found: [feature(frame, "annotation", "gland"), *found])
    check(opened(tmp_path / "own"), [polygon(frame), *BOTH])  # parts of an object may be labelled too


def test_classes_that_qupath_ignores(tmp_path: Path, opened: Open) -> None:
    features(tmp_path, lambda found: [*found, feature(HALF, "annotation", "Ignore*")])
    splits = opened(tmp_path)
    check(splits)
    assert kinds(splits) == ["crowds_left_out"]


@pytest.mark.parametrize("member", ["crs", "georeference"])
def test_coordinates_of_a_map_are_no_pixels(member: str, tmp_path: Path, opened: Open) -> None:
    features(tmp_path, lambda found: found, **{member: {"type": "name"}})
    with pytest.raises(DataError, match="its coordinates are those of a map, where pixels of the image are needed"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "tool"),
    [
        ("im0.json", {"info": {}, "objects": [{"segmentation": [], "layer": 1.0}]}, "ISAT"),
        ("p.csv", 'id,label\n1,"[{""original_width"": 60}]"\n', "Label Studio, as a table"),
    ],
)
def test_more_tools_are_named(name: str, content: Any, tool: str, tmp_path: Path, opened: Open) -> None:
    images(tmp_path / "images")
    put(tmp_path / name, content)
    with pytest.raises(DataError, match=f"{name} is of {tool}, which is not read: .*export"):
        opened(tmp_path)


CODES = BOTH[0] * np.uint8(1) + BOTH[1] * np.uint8(2)


def test_the_value_that_nnu_net_ignores(tmp_path: Path, opened: Open) -> None:
    """`dataset.json` says so, and it was an object."""
    images(tmp_path / "imagesTr", tuple(f"{name[:-4]}_0000.png" for name in NAMES))
    values = CODES.copy()
    values[-4:] = 3
    for name in NAMES:
        put_picture(tmp_path / "labelsTr" / name, values)
    put(tmp_path / "dataset.json", {"labels": {"background": 0, "ring": 1, "tri": 2, "ignore": 3}})
    splits = opened(tmp_path)
    check(splits)
    assert kinds(splits) == ["void_values"]
    assert np.array_equal(next(iter(every(splits).values())).ignored, values == 3)
    put(tmp_path / "dataset.json", {"labels": {"background": 0, "ring": 1, "tri": 2, "edge": 3}})
    assert len(next(iter(every(opened(tmp_path)).values())).masks) == 3


def put_picture(file: Path, values: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("label_colors.txt", "0 0 0 Void\n128 0 0 ring\n0 128 0 tri\n"),  # of CamVid
        ("class_dict.csv", "name,r,g,b\nUnlabelled,0,0,0\nring,128,0,0\ntri, 0, 128, 0\n\n"),  # of DeepGlobe
    ],
)
def test_tables_of_colours(name: str, table: str, tmp_path: Path, opened: Open) -> None:
    """What is called void covered every image as an object; the table of `name,r,g,b` was not looked at."""
    images(tmp_path / "images")
    for one in NAMES:
        put_picture(tmp_path / "masks" / one, np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)], np.uint8)[CODES])
    put(tmp_path / name, table)
    check(opened(tmp_path), classes=("ring", "tri"))
    put(tmp_path / name, table.replace("tri", "").replace("0 128", "128 0"))
    with pytest.raises(DataError, match=f"{name}: line [34] is"):
        opened(tmp_path)


@pytest.mark.parametrize("data", ["labelme", "cvat", "via"])
def test_masks_are_not_taken_for_images_that_are_not_there(data: str, tmp_path: Path, opened: Open) -> None:
    """Of one name but for the ending: a model would have learned to find masks in masks."""
    TOOLS[data][1](tmp_path)
    pictures = tmp_path / "images" if data == "cvat" else tmp_path
    for name in NAMES:
        (pictures / name).unlink()
        put_picture(tmp_path / "masks" / name, CODES)
    with pytest.raises(
        DataError, match=r"names the image 'im0\.png', and only masks/im0\.png has that name, which seems"
    ):
        opened(tmp_path, data)
    images(tmp_path / "other")
    check(opened(tmp_path, data))


@pytest.mark.parametrize("name", ["background", "Background"])
def test_outlines_of_the_background_are_no_objects(name: str, tmp_path: Path, opened: Open) -> None:
    """As in Datumaro's JSON and in class masks; here they were objects as large as the image."""
    whole = [[0.0, 0.0], [W, 0.0], [W, H], [0.0, H]]
    shapes = [("ring", SQUARE), ("tri", TRIANGLE), (name, whole)]
    entries = [{"label": label, "shape_type": "polygon", "points": points} for label, points in shapes]
    labelme(tmp_path / "labelme", shapes=entries)
    coco(tmp_path / "coco", flat)
    file = tmp_path / "coco/annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    content["categories"].append({"id": 0, "name": name})
    content["annotations"] += [
        {"id": 900 + k, "image_id": k, "category_id": 0, "segmentation": [np.ravel(whole).tolist()]} for k in range(4)
    ]
    put(file, content)
    for root in (tmp_path / "labelme", tmp_path / "coco"):
        splits = opened(root)
        check(splits)
        assert [one.kind for one in splits.noticed if one.kind != "boxes_as_outlines"] == ["background_class"]


def test_yolo_lines_with_a_box_before_the_corners(tmp_path: Path, opened: Open) -> None:
    """The box was read as two corners."""
    yolo(tmp_path)
    for file in tmp_path.rglob("labels/*.txt"):
        lines = []
        for number, points in enumerate((SQUARE, TRIANGLE)):
            corners = np.array(points) / (W, H)
            low, high = corners.min(axis=0), corners.max(axis=0)
            values = [*((low + high) / 2), *(high - low), *corners.ravel()]
            lines.append(f"{number} {' '.join(f'{value:.4f}' for value in values)}\n")
        put(file, "".join(lines))
    assert all((sample.masks ^ BOTH).sum() <= 4 for sample in every(opened(tmp_path)).values())


def test_yolo_tables_of_windows(tmp_path: Path, opened: Open) -> None:
    yolo(tmp_path)
    put(tmp_path / "data.yaml", "path: C:\\me\\set\ntrain: C:\\me\\set\\train\\images\nnames: [ring, tri]\n")
    assert all((sample.masks ^ BOTH).sum() <= 4 for sample in every(opened(tmp_path)).values())
