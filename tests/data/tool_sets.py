"""The same scene as labelling tools write it: small, valid data sets."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_sam.data.reading.coco_masks import EncodedMasks, encode

H, W = 40, 60
SQUARE = [[4.0, 5.0], [24.0, 5.0], [24.0, 21.0], [4.0, 21.0]]
HOLE = [[9.0, 9.0], [16.0, 9.0], [16.0, 15.0], [9.0, 15.0]]
TRIANGLE = [[34.0, 6.0], [55.0, 30.0], [31.0, 33.0]]
NAMES = tuple(f"im{number}.png" for number in range(4))

Write = Callable[[Path], None]


def rle(points: list[list[float]]) -> bytes:
    return encode([[value for point in points for value in point]], (H, W))[0]


def polygon(points: list[list[float]]) -> NDArray[np.bool_]:
    return EncodedMasks((rle(points),)).read((H, W))[0]


def images(folder: Path, names: tuple[str, ...] = NAMES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (H, W, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)


def put(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def png(mask: NDArray[np.bool_]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()


def labelme(root: Path, folder: str = "", **changes: Any) -> None:
    images(root)
    for name in NAMES:
        shapes = [
            {"label": "ring", "shape_type": "polygon", "points": SQUARE, "group_id": None},
            {"label": "tri", "shape_type": "polygon", "points": TRIANGLE, "group_id": None},
        ]
        content = {"version": "5.5", "imagePath": name, "imageHeight": H, "imageWidth": W, "shapes": shapes, **changes}
        put(root / folder / f"{name[:-4]}.json", content)


def cvat(root: Path) -> None:
    images(root / "images")
    shapes = "".join(
        f'<polygon label="{label}" points="{";".join(f"{x},{y}" for x, y in points)}" occluded="0"/>'
        for label, points in (("ring", SQUARE), ("tri", TRIANGLE))
    )
    entries = "".join(
        f'<image id="{n}" name="{name}" width="{W}" height="{H}">{shapes}</image>' for n, name in enumerate(NAMES)
    )
    put(root / "annotations.xml", f"<annotations><version>1.1</version>{entries}</annotations>")


def via_regions() -> list[dict[str, Any]]:
    return [
        {
            "shape_attributes": {
                "name": "polygon",
                "all_points_x": [x for x, _ in points],
                "all_points_y": [y for _, y in points],
            },
            "region_attributes": {"class": label},
        }
        for label, points in (("ring", SQUARE), ("tri", TRIANGLE))
    ]


def via(root: Path) -> None:
    images(root)
    entries = {f"{name}99": {"filename": name, "size": 99, "regions": via_regions()} for name in NAMES}
    put(root / "via_region_data.json", entries)


def via_project(root: Path) -> None:
    images(root / "images")
    # regions of VIA 1 are a mapping
    regions = {str(number): region for number, region in enumerate(via_regions())}
    entries = {f"{name}99": {"filename": name, "size": 99, "regions": regions} for name in NAMES}
    put(root / "project.json", {"_via_settings": {}, "_via_img_metadata": entries, "_via_attributes": {}})


def via_csv(root: Path) -> None:
    images(root)
    lines = ["filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"]
    for name in NAMES:
        for number, region in enumerate(via_regions()):
            cells = [json.dumps(region[key]).replace('"', '""') for key in ("shape_attributes", "region_attributes")]
            lines.append(f'{name},99,"{{}}",2,{number},"{cells[0]}","{cells[1]}"')
    put(root / "via.csv", "\n".join(lines))


def qupath(root: Path) -> None:
    images(root / "images")
    for name in NAMES:
        features = [
            {
                "type": "Feature",
                "id": f"{name}-{label}",
                "geometry": {"type": "Polygon", "coordinates": [[*points, points[0]]]},
                "properties": {"objectType": "annotation", "classification": {"name": label, "color": [1, 2, 3]}},
            }
            for label, points in (("ring", SQUARE), ("tri", TRIANGLE))
        ]
        put(root / "annotations" / f"{name[:-4]}.geojson", {"type": "FeatureCollection", "features": features})


def supervisely(root: Path) -> None:
    images(root / "ds1" / "img")
    put(root / "meta.json", {"classes": [{"title": "ring"}, {"title": "tri"}]})
    triangle = polygon(TRIANGLE)
    rows, columns = np.flatnonzero(triangle.any(1)), np.flatnonzero(triangle.any(0))
    part = triangle[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    data = base64.b64encode(zlib.compress(png(part))).decode()
    objects = [
        {"classTitle": "ring", "geometryType": "polygon", "points": {"exterior": SQUARE, "interior": []}},
        {
            "classTitle": "tri",
            "geometryType": "bitmap",
            "bitmap": {"data": data, "origin": [int(columns[0]), int(rows[0])]},
        },
    ]
    for name in NAMES:
        put(root / "ds1" / "ann" / f"{name}.json", {"size": {"height": H, "width": W}, "objects": objects})


def label_studio(root: Path) -> None:
    names = tuple(f"0123abcd-{name}" for name in NAMES)
    images(root / "images", names)

    def result(label: str, points: list[list[float]]) -> dict[str, Any]:
        scaled = [[100 * x / W, 100 * y / H] for x, y in points]
        return {
            "id": label, "type": "polygonlabels", "from_name": "label", "to_name": "image",
            "original_width": W, "original_height": H, "image_rotation": 0,
            "value": {"points": scaled, "polygonlabels": [label], "closed": True},
        }  # fmt: skip

    tasks = [
        {
            "id": number,
            "data": {"image": f"/data/upload/3/{name}"},
            "annotations": [
                {"id": 1, "was_cancelled": True, "result": []},
                {"id": 2, "was_cancelled": False, "result": [result("ring", SQUARE), result("tri", TRIANGLE)]},
            ],
        }
        for number, name in enumerate(names)
    ]
    put(root / "project-1-at-2026.json", tasks)


def yolo(root: Path) -> None:
    images(root / "train" / "images")
    put(root / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [ring, tri]\n")
    images(root / "valid" / "images", ("other.png",))
    for folder, names in (("train", NAMES), ("valid", ("other.png",))):
        for name in names:
            lines = [
                f"{number} " + " ".join(f"{x / W:.7f} {y / H:.7f}" for x, y in points)
                for number, points in enumerate((SQUARE, TRIANGLE))
            ]
            put(root / folder / "labels" / f"{name[:-4]}.txt", "\n".join(lines) + "\n")


def sa1b(root: Path) -> None:
    images(root)
    for number, name in enumerate(NAMES):
        entries = [
            {"id": place, "segmentation": {"size": [H, W], "counts": rle(points).decode()}}
            for place, points in enumerate((SQUARE, TRIANGLE), start=1)
        ]
        image = {"image_id": number, "width": W, "height": H, "file_name": name}
        put(root / f"{name[:-4]}.json", {"image": image, "annotations": entries})


def medsam(root: Path) -> None:
    for number, name in enumerate(NAMES):
        pixels = np.random.default_rng(number).random((H, W, 3))
        labels = polygon(SQUARE) * np.uint8(1) + polygon(TRIANGLE) * np.uint8(2)
        for folder, values in (("imgs", pixels), ("gts", labels)):
            (root / folder).mkdir(exist_ok=True)
            np.save(root / folder / f"{name[:-4]}.npy", values)


TOOLS: dict[str, tuple[str, Write]] = {
    "medsam": ("medsam", medsam),
    "labelme": ("labelme", labelme),
    "cvat": ("cvat", cvat),
    "via": ("via", via),
    "via_project": ("via", via_project),
    "via_csv": ("via", via_csv),
    "qupath": ("qupath", qupath),
    "supervisely": ("supervisely", supervisely),
    "label_studio": ("label_studio", label_studio),
    "yolo": ("yolo", yolo),
    "sa1b": ("sa1b", sa1b),
}
