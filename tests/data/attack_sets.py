"""A small, valid data set in every format, to be damaged: four images of 20 x 30 pixels with two objects each."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from pydantic import TypeAdapter

CONF = Path(__file__).parents[2] / "conf"
SIZE = (20, 30)
IMAGES, OBJECTS = 4, 8
BOXES = ((3, 4, 8, 10), (15, 4, 8, 10))  # x, y, width, height
NAMES = ("cell", "nucleus")
COLOURS = ((200, 10, 10), (10, 200, 10))


def picture(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def label_map() -> np.ndarray:
    labels = np.zeros(SIZE, np.uint8)
    for value, (x, y, width, height) in enumerate(BOXES, start=1):
        labels[y : y + height, x : x + width] = value
    return labels


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def polygon(box: tuple[int, int, int, int]) -> list[int]:
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def save(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def coco(root: Path) -> None:
    images, annotations = [], []
    for index in range(IMAGES):
        save(root / f"images/train/p{index}.png", png(picture(index)))
        images.append({"id": index, "file_name": f"p{index}.png", "height": SIZE[0], "width": SIZE[1]})
        for part, box in enumerate(BOXES):
            entry = {"id": 10 * index + part, "image_id": index, "category_id": part + 1, "iscrowd": 0}
            annotations.append(entry | {"segmentation": [polygon(box)], "bbox": list(box)})
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    save(root / "annotations/instances_train.json", json.dumps(content))


def datumaro(root: Path) -> None:
    items = []
    for index in range(IMAGES):
        save(root / f"images/train/p{index}.png", png(picture(index)))
        entries = [
            {"id": part, "type": "polygon", "attributes": {}, "group": 0, "label_id": part - 1, "points": polygon(box)}
            for part, box in enumerate(BOXES, start=1)
        ]
        items.append(
            {"id": f"p{index}", "annotations": entries, "image": {"path": f"p{index}.png", "size": list(SIZE)}}
        )
    labels = [{"name": name, "parent": ""} for name in NAMES]
    save(root / "annotations/train.json", json.dumps({"categories": {"label": {"labels": labels}}, "items": items}))


def folder(root: Path) -> None:
    for index in range(IMAGES):
        save(root / f"train/images/p{index}.png", png(picture(index)))
        save(root / f"train/masks/p{index}.png", png(label_map()))


def labels(root: Path) -> None:
    for index in range(IMAGES):
        save(root / f"train/images/p{index}.png", png(picture(index)))
        if index % 2:
            save(root / f"train/labels/p{index}.png", png(label_map()))
        else:
            buffer = io.BytesIO()
            np.save(buffer, label_map())
            save(root / f"train/labels/p{index}.npy", buffer.getvalue())


def common_semantic(root: Path) -> None:
    colours = np.array([(0, 0, 0), *COLOURS], np.uint8)[label_map()]
    for index in range(IMAGES):
        save(root / f"train/images/p{index}.png", png(picture(index)))
        save(root / f"train/masks/p{index}.png", png(colours))
    table = {
        "label_map": {"0": "background", "1": NAMES[0], "2": NAMES[1]},
        "segmentation_colors": [[0, 0, 0], *map(list, COLOURS)],
        "background_label": "0",
    }
    save(root / "dataset_meta.json", json.dumps(table))


def voc(root: Path) -> None:
    for index in range(IMAGES):
        save(root / f"JPEGImages/p{index}.png", png(picture(index)))
        for kind in ("Object", "Class"):
            save(root / f"Segmentation{kind}/p{index}.png", png(label_map()))
        size = f"<size><width>{SIZE[1]}</width><height>{SIZE[0]}</height><depth>3</depth></size>"
        save(root / f"Annotations/p{index}.xml", f"<annotation>{size}</annotation>")
    save(root / "ImageSets/Segmentation/train.txt", "".join(f"p{index}\n" for index in range(IMAGES)))


def hf(root: Path) -> None:
    hf_table(root, [{} for _ in range(IMAGES)])


def hf_table(root: Path, changes: list[dict[str, Any]]) -> None:
    """A parquet file with one row per entry of `changes`, which may replace `image` and `mask`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows: dict[str, list[Any]] = {"image": [], "mask": []}
    for index, change in enumerate(changes):
        rows["image"].append(change.get("image", {"bytes": png(picture(index)), "path": f"p{index}.png"}))
        rows["mask"].append(change.get("mask", {"bytes": png(label_map()), "path": None}))
    (root / "data").mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pydict(rows, schema=pa.schema([("image", cell), ("mask", cell)]))
    pq.write_table(table, root / "data/train-00000-of-00001.parquet")


def hf_disk(root: Path) -> None:
    """The same as `save_to_disk` writes it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    hf(root)
    table = pq.read_table(root / "data/train-00000-of-00001.parquet")
    (root / "data/train-00000-of-00001.parquet").unlink()
    target = str(root / "data-00000-of-00001.arrow")
    with pa.OSFile(target, "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    save(root / "state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None}))


WRITERS: dict[str, Callable[[Path], None]] = {
    "coco": coco,
    "datumaro": datumaro,
    "folder": folder,
    "labels": labels,
    "common_semantic": common_semantic,
    "voc": voc,
    "hf": hf,
    "hf_disk": hf_disk,
}


def opened(name: str, root: Path, **changes: Any) -> Any:
    """The splits of a data set in a format, with the options of conf/."""
    values, adapter = options_of(name.partition("_of_")[0].removesuffix("_disk"))
    text = json.dumps(values | {"root": str(root), "few_images": 0} | changes)
    return adapter.validate_json(text, strict=True).open(0)


@cache
def options_of(name: str) -> tuple[dict[str, Any], TypeAdapter[Any]]:
    values = yaml.safe_load((CONF / f"data/{name}.yaml").read_text())
    module, _, attribute = values.pop("_target_").rpartition(".")
    return values, TypeAdapter(getattr(__import__(module, fromlist=[attribute]), attribute))
