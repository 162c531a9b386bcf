"""Attacks in what labelling tools leave, and in images and masks of rarer kinds."""

from __future__ import annotations

import base64
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attack_sets as sets
import numpy as np
import tool_sets as tools
from attack_tools import DEEP, INF, NAN, Damage, attack, blank_png, encoded, npy, replaced
from PIL import Image


def yolo(root: Path) -> None:
    tools.yolo(root)
    shutil.rmtree(root / "valid")
    sets.save(root / "data.yaml", "train: train/images\nnames: [ring, tri]\n")


TOOLS: dict[str, Callable[[Path], None]] = {
    "labelme": tools.labelme,
    "cvat": tools.cvat,
    "via": tools.via,
    "qupath": tools.qupath,
    "supervisely": tools.supervisely,
    "label_studio": tools.label_studio,
    "sa1b": tools.sa1b,
    "medsam": tools.medsam,
    "yolo": yolo,
}
FILES = {
    "labelme": "im1.json", "cvat": "annotations.xml", "via": "via_region_data.json", "sa1b": "im1.json",
    "qupath": "annotations/im1.geojson", "supervisely": "ds1/ann/im1.png.json", "yolo": "train/labels/im1.txt",
    "label_studio": "project-1-at-2026.json",
}  # fmt: skip
LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
BILLION = 10**9


def changed(file: str, change: Callable[[Any], None]) -> Damage:
    def damage(root: Path) -> None:
        content = json.loads((root / file).read_text())
        change(content)
        (root / file).write_text(json.dumps(content))

    return damage


def said(file: str, old: str, new: str) -> Damage:
    def damage(root: Path) -> None:
        text = (root / file).read_text()
        assert old in text, old
        (root / file).write_text(text.replace(old, new, 1))

    return damage


def layout_attacks() -> None:
    for name, file in FILES.items():
        if name == "yolo":
            continue
        attack(
            name, "nested without end", replaced(file, "[" * DEEP if name != "cvat" else "<a>" * DEEP), Path(file).name
        )
        attack(name, "bytes that are no text", replaced(file, b'{"\xff\xfe": 3'), Path(file).name)
        attack(name, "empty", replaced(file, ""), Path(file).name)
    of_labelme()
    of_cvat()
    of_json_tools()
    of_yolo()
    of_pixels()


def of_labelme() -> None:
    file = FILES["labelme"]
    bomb = base64.b64encode(blank_png(40_000, 40_000)).decode()
    for title, shape in {
        "points of NaN": {"points": [[NAN, 1], [2, 3], [4, 5]]},
        "endless points": {"points": [[INF, 1], [2, 3], [4, 5]]},
        "points far away": {"points": [[1e300, 1], [2, 3], [4, 5]]},
        "points of text": {"points": [["1", "2"], [2, 3], [4, 5]]},
        "huge integers": {"points": [[10**400, 1], [2, 3], [4, 5]]},
        "points without end": {"points": [[1, 2]] * 2 * 10**5},
        "a bitmap of a billion pixels": {"shape_type": "mask", "points": [[0, 0], [9, 9]], "mask": bomb},
        "a label that is a list": {"label": [DEEP]},
    }.items():
        attack("labelme", title, changed(file, lambda content, s=shape: content["shapes"][0].update(s)), "im1")
    for title, entry in {
        "a path out of the root": {"imagePath": "../../../../etc/passwd"},
        "a path with NUL": {"imagePath": "im1.png\0.png"},
        "no path": {"imagePath": 7},
        "a billion rows": {"imageHeight": BILLION},
        "shapes that are a mapping": {"shapes": {"0": {}}},
    }.items():
        attack("labelme", title, changed(file, lambda content, e=entry: content.update(e)), "im1")


def of_cvat() -> None:
    file = FILES["cvat"]
    start = "<annotations><image id='0' name='{}'/></annotations>"
    laughs = f"<!DOCTYPE x [<!ENTITY a0 'ha'>{LAUGHS}]>{start.format('&a11;')}"
    outside = f"<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>{start.format('&a;')}"
    attack("cvat", "a billion laughs", replaced(file, laughs), file)
    attack("cvat", "an entity from outside", replaced(file, outside), file)
    mask = '<mask label="m" left="3" top="2" width="{}" height="{}" rle="{}"/>'
    polygon = '<polygon label="ring" points="4.0,5.0;'
    for title, old, new in (
        ("points of NaN", polygon, polygon.replace("4.0", "nan")),
        ("endless points", polygon, polygon.replace("4.0", "1e999")),
        ("a mask of a billion columns", "<polygon", mask.format(BILLION, BILLION, "1, 2") + "<polygon"),
        ("a mask that is cut short", "<polygon", mask.format(4, 3, "1, 2") + "<polygon"),
        ("a mask of negative runs", "<polygon", mask.format(4, 3, "-1, 13") + "<polygon"),
        ("an image of a billion columns", 'width="60"', f'width="{BILLION}"'),
        ("a path out of the root", 'name="im0.png"', 'name="../../../etc/passwd"'),
    ):
        attack("cvat", title, said(file, old, new), "annotations.xml|im0")


def region_of(content: Any) -> Any:
    return content["im1.png99"]["regions"][0]["shape_attributes"]


def result_of(content: Any) -> Any:
    return content[1]["annotations"][1]["result"][0]


def of_json_tools() -> None:
    squeezed = base64.b64encode(zlib.compress(b"\0" * 10**8, 9)).decode()
    for name, title, change in (
        ("via", "points of NaN", lambda c: region_of(c).update(all_points_x=[NAN] * 4)),
        ("via", "points without partners", lambda c: region_of(c).update(all_points_x=[1])),
        ("via", "a path out of the root", lambda c: c["im1.png99"].update(filename="/etc/passwd")),
        ("via", "regions that are a number", lambda c: c["im1.png99"].update(regions=7)),
        ("qupath", "rings of NaN", lambda c: c["features"][0]["geometry"].update(coordinates=[[[NAN, 1]] * 4])),
        ("qupath", "rings too deep", lambda c: c["features"][0]["geometry"].update(coordinates=[[[[[[1]]]]]])),
        ("qupath", "features that are a mapping", lambda c: c.update(features={"a": 1})),
        ("supervisely", "a bitmap that expands", lambda c: c["objects"][1]["bitmap"].update(data=squeezed)),
        ("supervisely", "a bitmap beside the image", lambda c: c["objects"][1]["bitmap"].update(origin=[BILLION, 0])),
        ("supervisely", "a bitmap at NaN", lambda c: c["objects"][1]["bitmap"].update(origin=[NAN, 0])),
        ("supervisely", "a billion rows", lambda c: c["size"].update(height=BILLION)),
        ("label_studio", "a billion columns", lambda c: result_of(c).update(original_width=BILLION)),
        ("label_studio", "points of NaN", lambda c: result_of(c)["value"].update(points=[[NAN, 1]] * 4)),
        ("label_studio", "a brush of four billion values", lambda c: c[1]["annotations"][1]["result"].append({
            "type": "brushlabels", "original_width": 60, "original_height": 40,
            "value": {"format": "rle", "rle": [255] * 40, "brushlabels": ["x"]}})),
        ("label_studio", "results that are a text", lambda c: c[1]["annotations"][1].update(result="x")),
        ("sa1b", "RLE of a billion pixels", lambda c: c["annotations"][0]["segmentation"].update(size=[BILLION] * 2)),
        ("sa1b", "RLE that runs on", lambda c: c["annotations"][0]["segmentation"].update(counts="o" * 1000)),
        ("sa1b", "a path out of the root", lambda c: c["image"].update(file_name="../../../../etc/passwd")),
    ):  # fmt: skip
        attack(name, title, changed(FILES[name], change), "im1|via_region|project-1")


def of_yolo() -> None:
    file = FILES["yolo"]
    aliases = "a0: &a0 [x,x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1},*a{n - 1}]\n" for n in range(1, 40))
    for title, line in {
        "NaN": "0 nan 0.1 0.5 0.1 0.5 0.5",
        "an endless number": "0 1e999 0.1 0.5 0.1 0.5 0.5",
        "numbers far away": "0 1e30 0.1 0.5 0.1 0.5 0.5",
        "an odd count": "0 0.1 0.1 0.5 0.1 0.5 0.5 0.2",
        "a class beyond the table": "99999999999999999999 0.1 0.1 0.5 0.1 0.5 0.5",
        "an endless class": "inf 0.1 0.1 0.5 0.1 0.5 0.5",
        "numbers without end": "0" + " 0.5" * 3 * 10**5,
    }.items():
        attack("yolo", f"a line of {title}", replaced(file, line), "im1")
    attack("yolo", "bytes that are no text", replaced(file, b"0 \xff\xfe"), "im1")
    for title, table in {
        "lists of lists without end": f"{aliases}names: *a39\ntrain: train/images\n",
        "Python in it": "!!python/object/apply:os.system ['true']",
        "images outside the root": "train: /etc\nnames: [ring, tri]\n",
        "names that are a number": "train: train/images\nnames: 7\n",
        "nested": "[" * 5000,
    }.items():
        attack("yolo", f"a table with {title}", replaced("data.yaml", table), "data.yaml")


def of_pixels() -> None:
    for title, file, kind, shape in (
        ("pickled labels", "gts", "|O", (40, 60)),
        ("a billion pixels", "gts", "|u1", (40_000, 40_000)),
        ("an image of a billion pixels", "imgs", "|u1", (40_000, 40_000, 3)),
    ):
        header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n"
        attack("medsam", title, replaced(f"{file}/im1.npy", npy(header, b"x")), "im1")
    good = encoded(sets.picture(1), format="JPEG2000")
    place = good.index(b"\xff\x4f\xff\x51") + 8
    huge = good[:place] + (40_000).to_bytes(4) * 2 + good[place + 8 :]
    for title, content in {
        "cut": good[:200],
        "of a billion pixels": huge,
        "without a code stream": good[: place - 8],
    }.items():
        attack("folder", f"a JPEG 2000 {title}", replaced("train/images/p1.png", content), "p1")
        attack("coco", f"a JPEG 2000 {title}", replaced("images/train/p1.png", content), "p1")

    def enlarged(folder: str) -> Damage:
        def damage(root: Path) -> None:
            draws = np.random.default_rng(0)
            for index in range(sets.IMAGES):
                small = np.zeros((30, 40), np.uint8)
                for value, (top, left) in enumerate(((3, 4), (3, 22), (17, 12)), start=1):
                    small[top : top + int(draws.integers(8, 11)), left : left + 12] = value
                large = Image.fromarray(small).resize((160, 120), Image.Resampling.BILINEAR)
                sets.save(root / f"train/images/p{index}.png", encoded(np.asarray(large.convert("RGB"))))
                (root / f"train/{folder}/p{index}.npy").unlink(missing_ok=True)
                sets.save(root / f"train/{folder}/p{index}.png", encoded(np.asarray(large)))

        return damage

    attack("folder", "few labels that were enlarged smoothly", enlarged("masks"), "resized or compressed")
    attack("labels", "few labels that were enlarged smoothly", enlarged("labels"), "resized or compressed")
