from __future__ import annotations

import io
import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.data.reading import hf_tables

Option = Callable[..., Any]
SIZE = (20, 30)
SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The package, with a cache of its own."""
    package = pytest.importorskip("datasets", reason="the package datasets is not installed")
    monkeypatch.setattr(package.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    package.disable_progress_bars()
    return package


def png(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def picture(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def square(top: int, left: int, value: int = 255) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + 6, left : left + 6] = value
    return mask


def two_labels() -> np.ndarray:
    return square(1, 1, 3) + square(10, 12, 8)


def rows_of(
    datasets: Any, masks: list[Any], kind: Any, name: str = "mask", offset: int = 0, path: str = "p{}.png"
) -> Any:
    """A table with a picture and a mask per row."""
    import pyarrow as pa

    features = datasets.Features({"image": datasets.Image(), name: kind, "note": datasets.Value("string")})
    rows = {
        "image": [{"bytes": png(picture(offset + row)), "path": path.format(row)} for row in range(len(masks))],
        name: masks,
        "note": ["x"] * len(masks),
    }
    table = pa.Table.from_pydict(rows, schema=features.arrow_schema)
    return datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint=f"set{offset}")


def cell(pixels: np.ndarray) -> dict[str, Any]:
    return {"bytes": png(pixels), "path": None}


def write_parquet(root: Path, splits: dict[str, Any]) -> Path:
    (root / "data").mkdir(parents=True)
    for split, rows in splits.items():
        rows.to_parquet(str(root / "data" / f"{split}-00000-of-00001.parquet"))
    return root


def write_disk(root: Path, rows: Any) -> None:
    """What `save_to_disk` writes, for pictures that are paths, which it would look for."""
    import pyarrow as pa

    root.mkdir(exist_ok=True)
    with pa.OSFile(str(root / "x.arrow"), "wb") as file, pa.ipc.new_stream(file, rows.data.schema) as writer:
        writer.write_table(rows.data.table)
    (root / "state.json").write_text(json.dumps({"_data_files": [{"filename": "x.arrow"}], "_split": None}))


@pytest.fixture
def parquet(datasets: Any, tmp_path: Path) -> Path:
    """Three splits of three rows with a binary mask."""
    masks = [cell(square(1 + row, 2)) for row in range(3)]
    splits = {split: rows_of(datasets, masks, datasets.Image(), offset=3 * n) for n, split in enumerate(SPLITS)}
    return write_parquet(tmp_path / "set", splits)


def test_parquet_files_become_samples(option: Option, parquet: Path) -> None:
    splits = option("data/hf", root=str(parquet)).open(0)
    assert splits.train.ids == tuple(f"train/p{row}.png" for row in range(3))
    assert splits.val.ids[0] == "validation/p0.png"
    assert splits.test.sizes == (SIZE,) * 3
    assert splits.train.object_counts == (1, 1, 1)
    assert splits.notes == splits.skipped == ()
    sample = splits.test[2]
    assert sample.object_ids == ("1",)
    np.testing.assert_array_equal(sample.image, picture(8))
    np.testing.assert_array_equal(sample.masks, square(3, 2)[None] > 0)


def test_what_save_to_disk_wrote(option: Option, datasets: Any, tmp_path: Path) -> None:
    one = rows_of(datasets, [cell(two_labels())] * 5, datasets.Image(), "label")
    datasets.DatasetDict(train=one, test=one).save_to_disk(str(tmp_path / "set"), num_shards={"train": 2, "test": 1})
    splits = option("data/hf", root=str(tmp_path / "set"), few_images=0).open(0)
    assert [len(source) for source in (splits.train, splits.val, splits.test)] == [4, 1, 5]
    sample = splits.test[4]
    assert sample.object_ids == ("3", "8")
    np.testing.assert_array_equal(sample.masks, [square(1, 1) > 0, square(10, 12) > 0])
    np.testing.assert_array_equal(sample.image, picture(4))
    assert "5 images are in both" not in " ".join(splits.notes)
    alone = tmp_path / "set/test"
    splits = option("data/hf", root=str(alone), few_images=0).open(0)
    assert [len(source) for source in (splits.train, splits.val, splits.test)] == [3, 1, 1]


def test_lists_of_masks_may_overlap(option: Option, datasets: Any, tmp_path: Path) -> None:
    masks = [[cell(square(1, 1)), cell(square(3, 3, 1)), cell(square(2, 20))], [], [cell(square(0, 0)[:, :])]]
    root = write_parquet(
        tmp_path / "set", {"train": rows_of(datasets, masks * 2, datasets.List(datasets.Image()), path="x.png")}
    )
    splits = option("data/hf", root=str(root), min_area=36).open(0)
    assert "train: 2 images without an object were left out" in splits.notes
    everything = {sample.id: sample for source in (splits.train, splits.val, splits.test) for sample in source}
    sample = everything["train/0"]  # names that are there twice are not used
    np.testing.assert_array_equal(sample.masks, [square(1, 1) > 0, square(3, 3) > 0, square(2, 20) > 0])
    assert sample.object_ids == ("1", "2", "3")
    assert len(everything) == 4


OBJECTS = {
    "id": [4, 5, 6, 7],
    "bbox": [[1.0, 1.0, 6.0, 6.0]] * 4,
    "category": [0, 1, 1, 0],
    "iscrowd": [0, 0, 1, 0],
    "segmentation": [
        [[1.0, 1.0, 7.0, 1.0, 7.0, 7.0, 1.0, 7.0]],
        [[12.0, 10.0, 18.0, 10.0, 18.0, 16.0, 12.0, 16.0], [0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0]],
        [[1.0, 1.0, 7.0, 1.0, 7.0, 7.0, 1.0, 7.0]],
        [[1.0, 1.0, 2.0, 1.0, 2.0, 2.0, 1.0, 2.0]],
    ],
}


def objects_feature(datasets: Any, segmentation: Any = None) -> dict[str, Any]:
    number, listed = datasets.Value("float64"), datasets.List
    return {
        "id": listed(datasets.Value("int64")),
        "bbox": listed(listed(number)),
        "category": listed(datasets.ClassLabel(names=["cell", "nucleus"])),
        "iscrowd": listed(datasets.Value("int64")),
        "segmentation": listed(segmentation or listed(listed(number))),
    }


def test_objects_with_polygons(option: Option, datasets: Any, tmp_path: Path) -> None:
    rows = rows_of(datasets, [OBJECTS, OBJECTS, None, OBJECTS], objects_feature(datasets), "objects")
    splits = option("data/hf", root=str(write_parquet(tmp_path / "set", {"train": rows})), min_area=5).open(0)
    sample = splits.train[0]
    assert sample.object_ids == ("4", "5")
    assert sample.classes == ("cell", "nucleus")
    second = square(10, 12) > 0
    second[:2, :2] = True
    np.testing.assert_array_equal(sample.masks, [square(1, 1) > 0, second])
    assert splits.notes[:3] == (
        "train: 3 crowd objects (iscrowd) are not objects",
        "train: 3 objects smaller than data.min_area=5 pixels were left out",
        "train: 1 images without an object were left out",
    )


def test_objects_with_rle_in_a_list_of_mappings(option: Option, datasets: Any, tmp_path: Path) -> None:
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray((square(4, 5) > 0).astype(np.uint8)))
    kind = datasets.List(
        {
            "segmentation": {"size": datasets.List(datasets.Value("int32")), "counts": datasets.Value("binary")},
            "label": datasets.Value("string"),
        }
    )
    objects = [{"segmentation": {"size": list(SIZE), "counts": rle["counts"]}, "label": name} for name in ("a", None)]
    rows = rows_of(datasets, [objects] * 3, kind, "things")
    root = write_parquet(tmp_path / "set", {"train": rows})
    sample = option("data/hf", root=str(root), mask_column="things").open(0).train[0]
    np.testing.assert_array_equal(sample.masks, [square(4, 5) > 0] * 2)
    assert sample.classes == ("a", "unlabelled")
    assert sample.object_ids == ("1", "2")


def test_plain_bytes_are_pictures_too(option: Option, tmp_path: Path, datasets: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"a": [png(picture(row)) for row in range(3)], "seg": [png(square(1, row)) for row in range(3)]})
    (tmp_path / "set/train").mkdir(parents=True)
    pq.write_table(table, tmp_path / "set/train/0000.parquet")
    splits = option("data/hf", root=str(tmp_path / "set"), mask_column="seg").open(0)
    assert splits.train.ids[0].startswith("train/")
    row = int(splits.train.ids[0].split("/")[1])
    np.testing.assert_array_equal(splits.train[0].masks[0], square(1, row) > 0)


def test_pictures_beside_the_table_stay_under_the_root(option: Option, tmp_path: Path, datasets: Any) -> None:
    rows = rows_of(datasets, [{"bytes": None, "path": "masks/m.png"}] * 3, datasets.Image())
    write_disk(tmp_path / "set", rows)
    (tmp_path / "set/masks").mkdir()
    (tmp_path / "set/masks/m.png").write_bytes(png(square(1, 1)))
    sample = option("data/hf", root=str(tmp_path / "set")).open(0).train[0]
    np.testing.assert_array_equal(sample.masks[0], square(1, 1) > 0)
    for path in ("../m.png", "/etc/passwd", "https://example.org/m.png", "absent.png"):
        write_disk(tmp_path / "set", rows_of(datasets, [{"bytes": None, "path": path}] * 3, datasets.Image()))
        with pytest.raises(DataError, match=r"row 0, mask: |absent\.png"):
            option("data/hf", root=str(tmp_path / "set")).open(0)


def test_split_names_are_found(tmp_path: Path) -> None:
    for name in ("a/train-00000-of-00002.parquet", "a/train-00001-of-00002.parquet", "a/val.parquet"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/other.parquet").touch()
    assert {split: len(files) for split, files in hf_tables.find_tables(tmp_path, tmp_path).items()} == {
        "train": 2,
        "val": 1,
    }
    (tmp_path / "b/val").mkdir(parents=True)
    (tmp_path / "b/val/0000.parquet").touch()
    with pytest.raises(DataError, match=r"has val in several folders \(a, b\); set data.root to one of them"):
        hf_tables.find_tables(tmp_path, tmp_path)
    assert list(hf_tables.find_tables(tmp_path / "b", tmp_path / "b")) == ["val"]


def test_the_only_split_trains_and_others_are_noted(option: Option, parquet: Path) -> None:
    notes = option("data/hf", root=str(parquet), val=None).open(0).notes
    assert "the split validation is not used" in notes
    for split in ("train", "test"):
        (parquet / f"data/{split}-00000-of-00001.parquet").unlink()
    splits = option("data/hf", root=str(parquet), few_images=0).open(0)
    assert [len(source) for source in (splits.train, splits.val, splits.test)] == [1, 1, 1]
    assert splits.notes[0] == "train: taken from the split validation"


def test_columns_that_cannot_be_used(option: Option, datasets: Any, parquet: Path, tmp_path: Path) -> None:
    def refused(message: str, root: Path = parquet, **changes: Any) -> None:
        with pytest.raises(DataError, match=message):
            option("data/hf", root=str(root), **changes).open(0)

    refused(
        r"data\.mask_column: .*parquet has no column 'masks'; there are image \(picture\), mask \(picture\), note",
        mask_column="masks",
    )
    refused(r"images in image and masks in note cannot be read", mask_column="note")
    refused(r"images in mask and masks in mask cannot be read", image_column="mask", mask_column="mask")
    rows = rows_of(datasets, [3] * 3, datasets.Value("int64"), "label")
    root = write_parquet(tmp_path / "labels", {"train": rows})
    refused(r"no column is known to hold masks: image \(picture\), label \(other\), note", root)
    rows = rows_of(datasets, [cell(square(1, 1))] * 3, datasets.Image()).rename_column("image", "x")
    rows = rows.add_column("y", [b"abc"] * 3, feature=datasets.Value("binary"), new_fingerprint="y")
    root = write_parquet(tmp_path / "two", {"train": rows})
    refused(r"no column is known to hold images: .*; name it with data\.image_column", root)
    assert len(option("data/hf", root=str(root), image_column="x").open(0).train) == 2


def test_bad_rows_stop_or_are_skipped(option: Option, datasets: Any, tmp_path: Path) -> None:
    masks = [cell(square(1, 1))] * 150
    masks[3] = cell(np.ones((3, 4), np.uint8))
    masks[5] = cell(np.zeros(SIZE, np.uint8))
    root = write_parquet(tmp_path / "set", {"train": rows_of(datasets, masks, datasets.Image())})
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet: row 3, mask: is 4x3 pixels"):
        option("data/hf", root=str(root)).open(0)
    splits = option("data/hf", root=str(root), on_error="skip").open(0)
    assert len(splits.skipped) == 1
    assert "train: 1 images without an object were left out" in splits.notes
    assert len(splits.train) + len(splits.val) + len(splits.test) == 148


def edited(**changes: Any) -> dict[str, Any]:
    return {key: changes.get(key, value) for key, value in OBJECTS.items()}


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (edited(category=[0, 1, 1, 5]), r"objects\[3\] has the class 5; there are 2"),
        (edited(bbox=[[1.0, float("nan"), 1.0, 1.0]] * 4), r"row 0, objects\[0\] has the box"),
        (edited(id=[1, 2]), r"row 0, objects: id, bbox, .* are not lists of one length"),
        (edited(segmentation=[[[1.0, 2.0]]] * 4), r"objects\[0\] has a polygon of 2 numbers"),
        (edited(segmentation=[None] * 4), r"objects\[0\] has no segmentation"),
    ],
)
def test_bad_objects(option: Option, datasets: Any, tmp_path: Path, objects: Any, message: str) -> None:
    rows = rows_of(datasets, [objects] * 3, objects_feature(datasets), "objects")
    with pytest.raises(DataError, match=message):
        option("data/hf", root=str(write_parquet(tmp_path / "set", {"train": rows}))).open(0)


def test_damaged_tables(option: Option, datasets: Any, parquet: Path, tmp_path: Path) -> None:
    file = parquet / "data/train-00000-of-00001.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet: truncated or damaged"):
        option("data/hf", root=str(parquet)).open(0)
    rows_of(datasets, [cell(square(1, 1))] * 3, datasets.Image()).save_to_disk(str(tmp_path / "disk"))
    state = tmp_path / "disk/state.json"
    for change, message in (
        ({"_data_files": [{"filename": "../x.arrow"}]}, r"state\.json: the path '\.\./x\.arrow' has"),
        ({"_data_files": [{"filename": "x.exe"}]}, r"state\.json: has the file .'filename': 'x\.exe'"),
        ({"_data_files": [{"filename": "x.arrow"}]}, r"x\.arrow: truncated or damaged"),
        ({"_indices_data_files": ["i.arrow"]}, "was written by an old version of datasets"),
        ({"_data_files": 3}, 'has no list "_data_files"'),
    ):
        original = state.read_text()
        state.write_text(json.dumps(json.loads(original) | change))
        with pytest.raises(DataError, match=message):
            option("data/hf", root=str(tmp_path / "disk")).open(0)
        state.write_text(original)
    arrow = next((tmp_path / "disk").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:300])
    with pytest.raises(DataError, match=r"\.arrow: truncated or damaged"):
        option("data/hf", root=str(tmp_path / "disk")).open(0)


def test_tables_with_too_many_rows(option: Option, parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_tables, "MAX_ROWS", 2)
    with pytest.raises(DataError, match="has 3 rows; at most 2 are read"):
        option("data/hf", root=str(parquet)).open(0)


def test_the_hub_is_asked_only_when_told_to(
    option: Option, parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="the package huggingface_hub is not installed")
    asked: list[Any] = []
    snapshot = tmp_path / "hub/datasets--owner--name/snapshots/abc"

    def download(name: str, **options: Any) -> str:
        asked.append((name, options["revision"], options["allow_patterns"]))
        snapshot.mkdir(parents=True, exist_ok=True)
        if options["revision"] is not None:
            shutil.copytree(parquet, tmp_path / "hub/datasets--owner--name/blobs", dirs_exist_ok=True)
            for file in (tmp_path / "hub/datasets--owner--name/blobs/data").iterdir():
                (snapshot / file.name).symlink_to(file)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(DataError, match=r"does not exist; .* is fetched with data\.download=true only"):
        option("data/hf", root="owner/name").open(0)
    with pytest.raises(DataError, match="'a/b/c' is neither a directory nor the name of a data set, owner/name"):
        option("data/hf", root="a/b/c", download=True).open(0)
    assert asked == []
    splits = option("data/hf", root="owner/name", download=True).open(0)
    assert asked == [("owner/name", None, ["*.parquet"]), ("owner/name", "refs/convert/parquet", ["*.parquet"])]
    assert len(splits.train) == 3
    option("data/hf", root=str(parquet), download=True).open(0)
    assert len(asked) == 2

    def fail(*_: Any, **__: Any) -> str:
        raise OSError("no\nnetwork")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(DataError, match=r"owner/name cannot be fetched \('no network'\); check the name, the network"):
        option("data/hf", root="owner/name", download=True).open(0)


def test_without_the_package_the_error_says_how_to_install_it(
    option: Option, parquet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"data=hf needs the package datasets .* poetry install --extras hf\.$"):
        option("data/hf", root=str(parquet)).open(0)


def test_directories_without_tables(option: Option, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no parquet file, and was not written by save_to_disk"):
        option("data/hf", root=str(tmp_path)).open(0)
    (tmp_path / "dataset_dict.json").write_text('{"splits": [3]}')
    with pytest.raises(DataError, match=r"dataset_dict\.json: has the splits \[3\]"):
        option("data/hf", root=str(tmp_path)).open(0)
