"""Attacks in annotation files: JSON, XML, lists of classes, and tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attack_sets as sets
import numpy as np
from attack_tools import DEEP, INF, NAN, attack, blank_png, edited, encoded, linked, replaced

MANY = 10**6
PATHS = {
    "above the root": "../../../../etc/passwd",
    "above the root, hidden": "a/../../../secret.png",
    "absolute": "/etc/passwd",
    "of a drive": "C:\\secret.png",
    "of a share": "\\\\host\\share\\x.png",
    "of another protocol": "http://example.org/x.png",
    "with a NUL": "p0.png\0.txt",
    "empty": "",
    "too long": "a" * 5000,
    "of too many folders": "a/" * 3000,
    "half a character": "\ud800.png",
    "a number": 7,
    "a list": ["p0.png"],
}
SIDES = {
    "NaN": NAN,
    "infinite": INF,
    "huge": 10**9,
    "negative": -20,
    "true": True,
    "text": "20",
    "a list": [20],
    "zero": 0,
}
BOXES = {
    "NaN": [NAN, 4, 8, 10],
    "infinite": [3, 4, INF, 10],
    "an integer without end": [3, 4, 10**400, 10],
    "three numbers": [3, 4, 8],
    "text": ["3", "4", "8", "10"],
    "negative": [3, 4, -8, 10],
    "nested": [[3, 4], [8, 10]],
    "text alone": "3 4 8 10",
}
PIXELS = sets.SIZE[0] * sets.SIZE[1]
RLES: dict[str, Any] = {
    "of a huge size": {"size": [10**9, 10**9], "counts": [10**18]},
    "of a huge size, compressed": {"size": [10**9, 10**9], "counts": "0" * 100},
    "of another size": {"size": [30, 20], "counts": [PIXELS]},
    "too long": {"size": [20, 30], "counts": [100, 10, PIXELS]},
    "too short": {"size": [20, 30], "counts": [100, 10]},
    "that overflows": {"size": [20, 30], "counts": [2**62, 2**62, 2**62, 2**62 + PIXELS]},
    "negative": {"size": [20, 30], "counts": [-10, PIXELS + 10]},
    "of fractions": {"size": [20, 30], "counts": [0.5, PIXELS - 0.5]},
    "of NaN": {"size": [20, 30], "counts": [NAN]},
    "of text in a list": {"size": [20, 30], "counts": ["600"]},
    "of ten million runs": {"size": [20, 30], "counts": [0] * 10**6},
    "of garbage": {"size": [20, 30], "counts": "\x7f\x01é"},
    "that goes on": {"size": [20, 30], "counts": "oooo"},
    "of a value without end": {"size": [20, 30], "counts": "o" * 50 + "0"},
    "of a long text": {"size": [20, 30], "counts": "0" * 10**7},
    "without counts": {"size": [20, 30]},
    "empty": {"size": [20, 30], "counts": ""},
    "that is background": {"size": [20, 30], "counts": [PIXELS]},
}
POLYGONS: dict[str, Any] = {
    "of two points": [1, 1, 5, 5],
    "of an odd count": [1, 1, 5, 5, 3],
    "with NaN": [1, 1, NAN, 5, 3, 3],
    "with infinity": [1, 1, INF, 5, 3, 3],
    "far away": [1, 1, 1e9, 1, 1e9, 1e9],
    "at the end of numbers": [1, 1, 1e308, 1, -1e308, 1e308],
    "of large integers": [1, 1, 10**400, 1, 5, 5],
    "of text": ["1", "1", "5", "5", "3", "3"],
    "of lists": [[1, 1], [5, 5], [3, 3]],
    "of half a million points": [1, 1, 5, 5, 3, 3] * 170_000,
    "outside the image": [-20, -10, -15, -10, -15, -5],
    "of no area": [1, 1, 1, 1, 1, 1],
}
ZIGZAG = [value for index in range(30_000) for value in (0, index % 2 * 15_000, index % 2 * 15_000, 0)]

COCO_FILE, DATUMARO_FILE = "annotations/instances_train.json", "annotations/train.json"


def json_attacks() -> None:
    for title, path in PATHS.items():
        attack(
            "coco", f"path {title}", edited(COCO_FILE, lambda c, p=path: c["images"][0].update(file_name=p)), "image 0"
        )
        if path != "":  # then the id is the name
            edit = edited(DATUMARO_FILE, lambda c, p=path: c["items"][0]["image"].update(path=p))
            attack("datumaro", f"path {title}", edit, "item p0|p0.png")
    for title, side in SIDES.items():
        attack(
            "coco", f"height {title}", edited(COCO_FILE, lambda c, s=side: c["images"][0].update(height=s)), "image 0"
        )
        edit = edited(DATUMARO_FILE, lambda c, s=side: c["items"][0]["image"].update(size=[s, 30]))
        attack("datumaro", f"height {title}", edit, "item p0")
    for title, box in BOXES.items():
        edit = edited(COCO_FILE, lambda c, b=box: c["annotations"][1].update(bbox=b))
        attack("coco", f"box {title}", edit, "annotation 1")
        added = {"id": 9, "type": "bbox", "label_id": 0, "group": 0, "bbox": box}
        edit = edited(DATUMARO_FILE, lambda c, a=added: c["items"][0]["annotations"].append(a))
        attack("datumaro", f"box {title}", edit, "item p0: annotation 9")
    for title, rle in RLES.items():
        edit = edited(COCO_FILE, lambda c, r=rle: c["annotations"][1].update(segmentation=r))
        attack("coco", f"RLE {title}", edit, "annotation 1")
        added = {"type": "mask", "rle": rle}
        edit = edited(DATUMARO_FILE, lambda c, a=added: c["items"][0]["annotations"][0].update(a))
        attack("datumaro", f"RLE {title}", edit, "item p0: annotation 1")
    for title, points in POLYGONS.items():
        edit = edited(COCO_FILE, lambda c, p=points: c["annotations"][1].update(segmentation=[p]))
        attack("coco", f"polygon {title}", edit, "annotation 1")
        edit = edited(DATUMARO_FILE, lambda c, p=points: c["items"][0]["annotations"][0].update(points=p))
        attack("datumaro", f"polygon {title}", edit, "item p0: annotation 1")
    large = {"height": 8000, "width": 8000}

    def enlarge(content: Any, polygons: Any) -> None:
        content["images"][0].update(large)
        content["annotations"][0].update(segmentation=polygons, bbox=None)

    attack("coco", "a polygon with a long outline", edited(COCO_FILE, lambda c: enlarge(c, [ZIGZAG])), "annotation 0")
    attack(
        "coco",
        "a hundred thousand polygons",
        edited(COCO_FILE, lambda c: enlarge(c, [[0, 0, 9, 0, 9, 9]] * 100_000)),
        "annotation 0",
    )

    def stretch(content: Any) -> None:
        content["items"][0]["image"]["size"] = [8000, 8000]
        content["items"][0]["annotations"] = [
            {"id": 7, "type": "ellipse", "points": [-7000.0, -7000.0, 15000.0, 1e12], "label_id": 0, "group": 0}
        ]

    attack("datumaro", "an ellipse without end", edited(DATUMARO_FILE, stretch), "item p0: annotation 7")
    for kind, file in (("coco", COCO_FILE), ("datumaro", DATUMARO_FILE), ("common_semantic", "dataset_meta.json")):
        name = file.rsplit("/", 1)[-1]
        for title, content in {
            "cut off": b'{"images": [], "annotations": [',
            "empty": b"",
            "a number": b"3",
            "null": b"null",
            "bad UTF-8": b'{"images": "\xff\xfe\xfd"}',
            "half a character in UTF-8": b'{"images": "\xed\xa0\x80"}',
            "nested lists": b"[" * DEEP,
            "nested mappings": b'{"a":' * DEEP,
            "a number without end": b'{"images": ' + b"9" * 10_000 + b"}",
            "a NUL": b"\0" * 1000,
            "a picture": sets.png(sets.picture(0)),
        }.items():
            attack(kind, f"JSON: {title}", replaced(file, content), name)
    twice = '{"images": [], "annotations": [], "images": [], "items": [], "items": [], "categories": {}}'
    attack("coco", "JSON: a key twice", replaced(COCO_FILE, twice), "images")
    attack("datumaro", "JSON: a key twice", replaced(DATUMARO_FILE, twice), "twice")
    table = '{"label_map": {"0": "background", "1": "cell", "2": "nucleus", "2": "vessel"}}'
    attack("common_semantic", "JSON: a key twice", replaced("dataset_meta.json", table), "'2' is there twice")

    def million(text: str, count: int = MANY) -> Callable[[], str]:
        ids = lambda: '},{"id":'.join(map(str, range(count)))  # noqa: E731
        return lambda: text % ('[{"id":' + ids() + "}]")

    text = million('{"annotations": [], "images": %s}')
    attack("coco", "a million ids", replaced(COCO_FILE, text), "image 0")
    text = million('{"categories": {}, "items": %s}')
    attack("datumaro", "a million ids", replaced(DATUMARO_FILE, text), "item 0")
    same = '{"images": [{"id": 0, "file_name": "p0.png", "height": 20, "width": 30}], "annotations": %s}'
    attack("coco", "orphans by the hundred thousand", replaced(COCO_FILE, million(same, MANY // 2)), "annotation 0 ")
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    for key in ("id", "image_id", "bbox", "segmentation"):
        edit = edited(COCO_FILE, lambda c, k=key: c["annotations"][3].update({k: deep}))
        attack("coco", f"{key} of nested lists", edit, "annotation (11|number 3)")
    for key in ("id", "type", "group", "label_id", "attributes", "points"):
        edit = edited(DATUMARO_FILE, lambda c, k=key: c["items"][1]["annotations"][1].update({k: deep}))
        attack("datumaro", f"{key} of nested lists", edit, "annotation (2|number 1)", min_area=1 if key != "id" else 2)
    same_id = edited(COCO_FILE, lambda c: c["annotations"][3].update(id=10))
    attack("coco", "an id twice", same_id, "annotation 10 is listed twice")
    attack(
        "datumaro", "an id twice", edited(DATUMARO_FILE, lambda c: c["items"][1].update(id="p0")), "item p0 is listed"
    )
    for kind in ("coco", "datumaro"):
        attack(kind, "a link out of the root", linked("images/train/p0.png", "/etc/hostname"), "p0.png")
        attack(kind, "a link to itself", linked("images/train/p0.png", "p0.png"), "p0")


def xml_attacks() -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    size = "<size><width>30</width><height>{}</height></size>"
    for title, content in {
        "a billion laughs": f'<!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]><annotation>&l9;</annotation>',
        "an external entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
        "an entity from the network": '<!DOCTYPE a SYSTEM "http://example.org/a.dtd"><annotation/>',
        "cut off": "<annotation><size>",
        "empty": "",
        "nested": "<annotation>" + "<a>" * 200_000,
        "two megabytes": "<annotation>" + " " * 2**21 + "</annotation>",
        "bad UTF-8": b"<annotation>\xff</annotation>",
        "an unknown encoding": '<?xml version="1.0" encoding="x-none"?><annotation/>',
        "a height of NaN": f"<annotation>{size.format('NaN')}</annotation>",
        "a huge height": f"<annotation>{size.format('9' * 400)}</annotation>",
        "a negative height": f"<annotation>{size.format('-20')}</annotation>",
        "another height": f"<annotation>{size.format('21')}</annotation>",
    }.items():
        attack("voc", f"XML: {title}", replaced("Annotations/p1.xml", content), "p1")
    for title, content in {
        "above the root": "p0\n../../../../etc/passwd\n",
        "absolute": "/etc/passwd\n",
        "a NUL": "p0\n\0\n",
        "bad UTF-8": b"p0\n\xff\n",
        "an image that is absent": "p0\np9\n",
        "an image twice": "p0\np0\n",
        "empty": "",
        "two megabytes": "p0\n" * 10**6,
        "a long name": "a" * 5000 + "\n",
    }.items():
        file = "ImageSets/Segmentation/train.txt"
        attack("voc", f"a list: {title}", replaced(file, content), "train|p0|p9")
    for title, content in {
        "bad UTF-8": b"\xff:1,1,1::",
        "a colour of NaN": "cell:NaN,1,1::",
        "a huge colour": "cell:999,1,1::",
        "a class twice": "cell:1,1,1::\ncell:2,2,2::",
        "a colour twice": "a:1,1,1::\nb:1,1,1::",
        "two megabytes": "#\n" * 2**20,
    }.items():
        attack("voc", f"labelmap.txt: {title}", replaced("labelmap.txt", content), "labelmap.txt")


def class_attacks() -> None:
    for title, change in {
        "an index that is none": {"label_map": {"x": "cell"}},
        "a huge index": {"label_map": {"9" * 400: "cell"}},
        "a name that is none": {"label_map": {"1": 7}},
        "a colour of NaN": {"segmentation_colors": [[NAN, 0, 0]] * 3},
        "a huge colour": {"segmentation_colors": [[10**9, 0, 0]] * 3},
        "too few colours": {"segmentation_colors": [[0, 0, 0]]},
        "colours that are text": {"segmentation_colors": "red"},
        "a colour twice": {"segmentation_colors": [[0, 0, 0], [1, 1, 1], [1, 1, 1]]},
        "only background": {"label_map": {"0": "background"}},
    }.items():
        edit = edited("dataset_meta.json", lambda c, change=change: c.update(change))
        attack("common_semantic", f"classes: {title}", edit, "dataset_meta.json")
    attack("common_semantic", "classes above the root", lambda root: None, "data.classes", classes="../classes.json")
    attack("coco", "annotations above the root", lambda root: None, "data.annotations", annotations="../{split}.json")
    attack("folder", "images above the root", lambda root: None, "data.images", images="../{split}")
    attack("datumaro", "a split above the root", lambda root: None, "data.train", train="../train")
    pixels = np.array([(0, 0, 0), *sets.COLOURS], np.uint8)[sets.label_map()]
    pixels[0, 0] = (201, 10, 10)
    attack("common_semantic", "a colour that is not listed", replaced("train/masks/p1.png", encoded(pixels)), "p1")


def table_attacks() -> None:
    table = "data/train-00000-of-00001.parquet"
    cell = {"bytes": sets.png(sets.label_map()), "path": None}
    for title, change in {
        "no mask": {"mask": None},
        "no image": {"image": None},
        "neither bytes nor path": {"image": {"bytes": None, "path": None}},
        "a path above the root": {"image": {"bytes": None, "path": "../../../etc/passwd"}},
        "an absolute path": {"mask": {"bytes": None, "path": "/etc/passwd"}},
        "an address": {"mask": {"bytes": None, "path": "https://example.org/mask.png"}},
        "an archive in the network": {"mask": {"bytes": None, "path": "zip://a::https://example.org/a.zip"}},
        "an image that is a pickle": {"image": {"bytes": b"cposix\nsystem\n(S'true'\ntR.", "path": "p1.pkl"}},
        "a mask of 64 megapixels": {"mask": {"bytes": blank_png(8000, 8000, 8, 2), "path": None}},
        "an image of a billion pixels": {"image": {"bytes": blank_png(40_000, 40_000), "path": "p1.png"}},
        "a truncated image": {"image": {"bytes": sets.png(sets.picture(1))[:-300], "path": "p1.png"}},
        "a mask of another size": {"mask": {"bytes": encoded(np.zeros((3, 4), np.uint8)), "path": None}},
    }.items():
        damage = lambda root, change=change: sets.hf_table(root, [{}, change, {}, {"mask": cell}])  # noqa: E731
        attack("hf", title, damage, "row 1")

    def cut(root: Path, share: float) -> None:
        content = (root / table).read_bytes()
        (root / table).write_bytes(content[: int(len(content) * share)])

    for share in (0.0, 0.1, 0.9, 0.999):
        attack("hf", f"a table cut at {share:.1%}", lambda root, s=share: cut(root, s), "train-00000")
    attack("hf", "a table of a picture", replaced(table, sets.png(sets.picture(0))), "train-00000")

    def rows(root: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(
            pa.table({"image": pa.nulls(2 * 10**7, pa.binary()), "mask": pa.nulls(2 * 10**7, pa.binary())}),
            root / table,
        )

    attack("hf", "twenty million rows", rows, "train-00000")
    attack("hf", "a link to itself", linked(table, "train-00000-of-00001.parquet"), "train-00000")
    attack("hf", "a link out of the root", linked(table, "/etc/hostname"), "train-00000")
    for title, state in {
        "a file above the root": {"_data_files": [{"filename": "../../x.arrow"}]},
        "an absolute file": {"_data_files": [{"filename": "/tmp/x.arrow"}]},
        "a file that is absent": {"_data_files": [{"filename": "x.arrow"}]},
        "no files": {"_data_files": []},
        "files of another type": {"_data_files": [7]},
    }.items():
        attack("hf_disk", title, replaced("state.json", json.dumps(state)), "state.json|x.arrow")
    attack("hf_disk", "nested", replaced("state.json", "[" * DEEP), "state.json")
    attack("hf_disk", "a table of zeros", replaced("data-00000-of-00001.arrow", b"\0" * 1000), "data-00000")
