"""Every format, whole and damaged: it is read, or refused in one line whose remedy was typed here, and works."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lora_sam.core.errors import DataError
from lora_sam.data.detection import formats
from lora_sam.data.splits import Splits

from . import attack_sets
from .test_public_sets import stacks
from .test_tool_formats import by_folder
from .tool_sets import TOOLS

WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    **{name: (name, write) for name, write in attack_sets.WRITERS.items() if name not in ("hf", "hf_disk")},
    **{name: (option, write) for name, (option, write) in TOOLS.items() if name != "via_project"},
    "mask_per_object": ("mask_per_object", by_folder),
    "mask_stack": ("mask_stack", stacks),
}
IMAGES = {"medsam": "imgs/*.npy", "voc": "JPEGImages/*", "supervisely": "**/img/*"}
OF_EACH = {
    "folder": "train/masks/*", "labels": "train/labels/*", "common_semantic": "train/masks/*",
    "voc": "Segmentation*/*", "labelme": "*.json", "qupath": "annotations/*", "supervisely": "**/ann/*.json",
    "yolo": "train/labels/*.txt", "sa1b": "*.json", "medsam": "gts/*.npy", "mask_per_object": "stage1_train/*/masks/*",
    "mask_stack": "data/*.npz",
}  # fmt: skip
"""Label files of formats that have one or more for each image."""
OF_ALL = {
    "coco": "annotations/*.json", "datumaro": "annotations/*.json", "cvat": "annotations.xml",
    "via": "*.json", "via_csv": "*.csv", "label_studio": "*.json",
}  # fmt: skip
"""The one label file of the others."""
OPTION = re.compile(r"data\.(\w+)=([\w./\[\]{}-]*[\w\]}])")


def images_of(name: str, root: Path) -> list[Path]:
    pattern = IMAGES.get(name, "**/*.png")
    never = {"masks", "labels", "SegmentationObject", "SegmentationClass"}
    return sorted(path for path in root.glob(pattern) if not never & set(path.relative_to(root).parts))


def labels_of(name: str, root: Path) -> list[Path]:
    return sorted(path for path in root.glob(OF_EACH.get(name) or OF_ALL[name]) if path.is_file())


def of_image(name: str, root: Path, image: Path) -> list[Path]:
    """The label files of one image."""
    if name == "mask_per_object":
        return sorted((image.parent.parent / "masks").iterdir())
    return [path for path in labels_of(name, root) if path.name.split(".")[0] == image.name.split(".")[0]]


def all_good(name: str, root: Path) -> None:
    """As the tool leaves it."""


def one_missing_image(name: str, root: Path) -> None:
    images_of(name, root)[0].unlink()


def one_broken_label(name: str, root: Path) -> None:
    path = labels_of(name, root)[0]
    content = path.read_bytes()
    if name in OF_EACH:
        path.write_bytes(b"1 0.5 x 0.1 0.2 0.3 0.9" if name == "yolo" else content[: len(content) // 2])
    else:
        broken = {
            "coco": (b"[3, 4, 11, 4, 11, 14, 3, 14]", b'[3, 4, "a"]'),
            "datumaro": (b"[3, 4, 11, 4, 11, 14, 3, 14]", b'[3, 4, "a"]'),
            "cvat": (b'points="4.0,5.0;', b'points="4.0,x;'),
            "via": (b"[4.0, 24.0, 24.0, 4.0]", b'[4.0, "x"]'),
            "via_csv": (b"[4.0, 24.0, 24.0, 4.0]", b"[4.0, null]"),
            "label_studio": (b'{"points": [[', b'{"points": [[null], ['),
        }[name]
        assert broken[0] in content
        path.write_bytes(content.replace(*broken, 1))


def empty_label(name: str, root: Path) -> None:
    first = images_of(name, root)[0]
    if name in OF_EACH:
        for path in of_image(name, root, first):
            path.write_bytes(b"")
    else:
        labels_of(name, root)[0].write_bytes(b"")


def two_images(name: str, root: Path) -> None:
    only_some(name, root, 2)


def one_image(name: str, root: Path) -> None:
    only_some(name, root, 1)


def only_some(name: str, root: Path, count: int) -> None:
    """Keep some images and what belongs to them."""
    for image in images_of(name, root)[count:]:
        if name in OF_EACH:
            for path in of_image(name, root, image):
                path.unlink()
        image.unlink()
    kept = {path.stem for path in images_of(name, root)}
    if name in ("coco", "datumaro"):
        file = labels_of(name, root)[0]
        content = json.loads(file.read_text())
        if name == "datumaro":
            content["items"] = [item for item in content["items"] if item["id"] in kept]
        else:
            content["images"] = content["images"][:count]
            content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] < count]
        file.write_text(json.dumps(content))
    elif name == "voc":
        (root / "ImageSets/Segmentation/train.txt").write_text("".join(f"{stem}\n" for stem in sorted(kept)))
    elif name == "cvat":
        file = root / "annotations.xml"
        parts = re.findall(r"<image .*?</image>", file.read_text(), re.DOTALL)[:count]
        file.write_text(f"<annotations>{''.join(parts)}</annotations>")
    elif name == "via":
        file = root / "via_region_data.json"
        entries = json.loads(file.read_text())
        file.write_text(json.dumps(dict(list(entries.items())[:count])))
    elif name == "via_csv":
        file = root / "via.csv"
        lines = file.read_text().splitlines()
        file.write_text("\n".join([lines[0], *(line for line in lines[1:] if line.partition(".png")[0] in kept)]))
    elif name == "label_studio":
        file = labels_of(name, root)[0]
        file.write_text(json.dumps(json.loads(file.read_text())[:count]))


DAMAGES = (all_good, one_missing_image, one_broken_label, empty_label, two_images, one_image)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", WRITERS)
def test_it_is_read_or_its_remedy_works(
    name: str, damage: Callable[[str, Path], None], tmp_path: Path, option: Callable[..., Any]
) -> None:
    data, write = WRITERS[name]
    if name == "voc" and find_spec("defusedxml") is None:
        pytest.skip("the package defusedxml is not installed")
    write(tmp_path)
    whole = option(f"data/{data}", root=str(tmp_path)).open(0)
    assert whole.skipped == ()
    damage(name, tmp_path)
    steps = list(typed(option, data, tmp_path))
    splits, messages = steps[-1]
    if damage is all_good:
        assert messages == []
    if splits is None:  # nothing is left of the labels: the file has to be restored
        assert name in OF_ALL
        assert damage is empty_label
        assert re.search(r"export the annotations again|[Mm]end them", messages[-1]), messages[-1]
        return
    assert len(messages) <= 2
    images = len(set().union(*(source.ids for source in (splits.train, splits.val, splits.test))))
    expected = {two_images: 2, one_image: 1, all_good: total(whole)}.get(damage, total(whole) - 1)
    assert images in ({expected, total(whole)} if damage in (one_broken_label, empty_label) else {expected})
    if images < total(whole) and damage not in (two_images, one_image):
        assert splits.skipped or any(re.search("left out|no entry", note) for note in splits.notes), splits.notes


def typed(option: Callable[..., Any], data: str, root: Path) -> Iterator[tuple[Splits | None, list[str]]]:
    """What comes of opening it, with the options that each refusal names, until it opens or names none."""
    options: dict[str, Any] = {}
    messages: list[str] = []
    while True:
        try:
            yield option(f"data/{data}", root=str(root), **options).open(0), messages
            return
        except DataError as error:
            message = str(error)
            assert "\n" not in message
            messages.append(message)
            yield None, messages
        more = {key: value for key, value in OPTION.findall(message)}
        if not more or more.items() <= options.items():
            return
        options |= {key: float(value) if re.fullmatch(r"[\d.]+", value) else value for key, value in more.items()}


def total(splits: Splits) -> int:
    return len(set().union(*(source.ids for source in (splits.train, splits.val, splits.test))))


def test_every_format_is_tried() -> None:
    """But for Hugging Face, whose tables have tests of their own, and what another package imports."""
    assert {option for option, _ in WRITERS.values()} == formats().keys() - {"hf"}
