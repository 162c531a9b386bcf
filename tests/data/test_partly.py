"""Samples with some of their objects are those of the whole, bit for bit, and cost what is drawn."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lora_sam.core.frame import Frame
from lora_sam.core.structures import Sample, tight_boxes
from lora_sam.data.partly import some_of
from lora_sam.data.reading import coco_masks
from lora_sam.data.reading.coco_masks import EncodedMasks
from lora_sam.data.reading.label_map import LabelMap, numbered, stored_values
from lora_sam.data.reading.outline import encode_mask
from lora_sam.data.reading.rle import KeptWindows
from lora_sam.data.splits import Subset
from lora_sam.training.examples import TrainingExamples

from . import attack_sets

FORMATS = ("coco", "datumaro", "folder", "labels", "common_semantic", "voc", "hf")
SIDE, GRID = 512, 16


@pytest.mark.parametrize("name", FORMATS)
def test_some_objects_are_those_of_the_whole(name: str, tmp_path: Path) -> None:
    for package in {"hf": ["datasets", "pyarrow"], "voc": ["defusedxml"]}.get(name, []):
        pytest.importorskip(package)
    attack_sets.WRITERS[name](tmp_path)
    train = attack_sets.opened(name, tmp_path).train
    whole = train[0]
    for rows in ([0], [1], [0, 1], [1, 0]):
        chosen = np.array(rows)[np.array(rows) < len(whole.masks)]
        expected = whole.only(chosen)
        for decode in (True, False):
            some, occupied = some_of(train, 0, chosen, decode=decode, union=True)
            assert np.array_equal(some.masks, expected.masks)
            assert (some.id, some.object_ids, some.classes) == (expected.id, expected.object_ids, expected.classes)
            assert (some.ignored is None) == (expected.ignored is None)
            assert np.array_equal(some.image, expected.image) == decode
            assert occupied is not None
            assert np.array_equal(occupied, whole.masks.any(axis=0))
        assert some_of(train, 0, chosen)[1] is None


class Plain:
    """A source that knows only whole samples."""

    def __init__(self, source: Any) -> None:
        self.ids, self.sizes, self.object_counts = source.ids, source.sizes, source.object_counts
        self._samples = [source[index] for index in range(len(source))]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images with 256 discs each, as label images and as COCO."""
    root = tmp_path_factory.mktemp("dense")
    step = SIDE // GRID
    rows, columns = np.mgrid[:SIDE, :SIDE]
    near = (rows % step - step // 2) ** 2 + (columns % step - step // 2) ** 2 < (step // 3) ** 2
    labels = np.where(near, rows // step * GRID + columns // step + 1, 0).astype(np.uint16)
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    for kind in ("labels/images", "labels/labels", "coco/images"):
        (root / kind).mkdir(parents=True)
    for index in range(2):
        pixels = np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        for kind in ("labels", "coco"):
            Image.fromarray(pixels).save(root / kind / "images" / f"{index}.png")
        Image.fromarray(labels).save(root / "labels" / "labels" / f"{index}.png")
        content["images"].append({"id": index, "file_name": f"{index}.png", "height": SIDE, "width": SIDE})
        for value in range(1, GRID**2 + 1):
            flat = (labels == value).T.ravel()
            counts = np.diff(np.flatnonzero(np.diff(flat, prepend=False)), prepend=0, append=flat.size).tolist()
            entry = {"id": 1000 * index + value, "image_id": index, "segmentation": {"size": [SIDE, SIDE]}}
            entry["segmentation"]["counts"] = counts
            content["annotations"].append(entry)
    (root / "coco" / "annotations.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("data", ["labels", "coco"])
@pytest.mark.parametrize("prompt", ["box", "iterative"])
def test_examples_are_the_same_and_only_what_is_drawn_takes_memory(
    data: str, prompt: str, dense: Path, option: Callable[..., Any]
) -> None:
    where = {"labels": {"labels": "labels"}, "coco": {"annotations": "annotations.json"}}[data]
    options = {"images": "images", "val": "train", "test": "train"}
    source = option(f"data/{data}", root=str(dense / data), **options, **where).open(0).train
    changes = {"background_points": 2} if prompt == "iterative" else {}
    made = {"prompt": option(f"prompt/{prompt}", **changes), "augmentation": option("augmentation/flips")}
    made |= {"frame": Frame(64, square=False), "seed": 1, "max_objects": 4}
    ours, whole = (
        TrainingExamples(Subset(source, (1, 0)), **made),
        TrainingExamples(Plain(Subset(source, (1, 0))), **made),
    )
    for key in ((0, 0), (0, 1), (1, 1)):
        one, other = ours[key], whole[key]
        assert one.object_ids == other.object_ids
        assert len(one.object_ids) == 4
        assert torch.equal(one.targets, other.targets)
        assert torch.equal(one.image, other.image)
        np.testing.assert_array_equal(one.boxes, other.boxes)  # NaN for an object without a box
        if prompt == "iterative":
            assert torch.equal(one.background, other.background)
    tracemalloc.start()
    ours[0, 0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * SIDE * SIDE + 2**21  # of all objects it would be more than ten times that


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.int64, np.uint64])
def test_values_are_counted_as_they_are_sorted(kind: type) -> None:
    draws = np.random.default_rng(0)
    for most in (2, 200, 2**40 if kind in (np.int64, np.uint64) else 201):
        values = draws.integers(0, min(most, int(np.iinfo(kind).max)), (30, 40)).astype(kind)
        found = stored_values(values)
        assert found.dtype == values.dtype
        assert np.array_equal(found, np.unique(values))
        wanted = found[1::3]
        expected = sum((place + 1) * (values == value) for place, value in enumerate(wanted))
        assert np.array_equal(numbered(values, wanted), expected if len(wanted) else np.zeros_like(values))
    if np.issubdtype(kind, np.signedinteger):
        values = np.array([[-3, 0, 7]], kind)
        assert stored_values(values).tolist() == [-3, 0, 7]
        assert numbered(values, [-3, 7]).tolist() == [[1, 0, 2]]


def test_masks_of_a_map() -> None:
    labels = np.random.default_rng(3).integers(0, 5, (20, 30)).astype(np.int32)
    objects = LabelMap(labels, tuple("abcd"))
    expected = labels == np.arange(1, 5)[:, None, None]
    assert np.array_equal(objects.masks(), expected)
    assert np.array_equal(objects.masks(np.array([2, 0])), expected[[2, 0]])
    gone = replace(objects, names=tuple("abcde"))  # the last has no pixel
    assert not gone.masks()[4].any()


def test_stored_masks_know_their_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those whose runs go on in the next column, and a frame around the whole image."""
    draws = np.random.default_rng(3)
    masks = draws.random((12, 30, 40)) < np.linspace(0.001, 0.3, 12)[:, None, None]
    masks[:, 4, 5] = True
    masks[0] = False
    masks[0, [0, -1]] = True
    masks[0][:, [0, -1]] = True
    expected = tight_boxes(masks)
    stored = EncodedMasks(tuple(encode_mask(mask) for mask in masks))
    rows = np.array([5, 0])
    for kept in (KeptWindows(1 << 20), KeptWindows(1500), KeptWindows(0)):  # all, two of them, none
        monkeypatch.setattr(coco_masks, "_KEPT", kept)
        for _ in range(2):  # decoded, then as they were kept
            for chosen in (rows, np.array([0]), np.arange(12)):
                windows = stored.windows((30, 40), chosen)
                assert np.array_equal(windows.boxes, expected[chosen])
                assert np.array_equal(windows.masks(), masks[chosen])
        assert np.array_equal(stored.windows((30, 40)).boxes, expected)
        assert len(kept) in (0, 2, 12)
    assert len(stored.windows((30, 40), np.zeros(0, np.int64))) == 0
    labels = np.zeros((30, 40), np.int32)
    labels[2:7, 3:9], labels[20, 30] = 1, 2
    objects = LabelMap(labels, ("1", "2"))
    windows = objects.windows()
    assert windows is not None
    assert np.array_equal(windows.boxes, tight_boxes(objects.masks()))
    assert np.array_equal(windows.masks(), objects.masks())
    assert LabelMap(labels, ("1", "2", "3")).windows() is None
