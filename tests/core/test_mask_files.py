"""Masks as COCO, as a label image and as files: read back, they are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam import Masks
from lora_sam.core import mask_files
from lora_sam.core.errors import ConfigError
from lora_sam.data.reading.coco_masks import EncodedMasks
from lora_sam.predictors.automatic import FoundMasks

SIZE = (20, 31)


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Two that overlap, and one that is empty."""
    masks = np.zeros((3, *SIZE), np.bool_)
    masks[0, 2:10, 3:12] = True
    masks[1, 5:15, 8:20] = True
    return masks, np.array([0.75, 0.5, 0.25], np.float32)


@pytest.fixture(params=["prompted", "automatic"])
def found(request: pytest.FixtureRequest) -> Any:
    masks, scores = arrays()
    if request.param == "prompted":
        return Masks(masks, scores, np.zeros((3, 4, 4), np.float32))
    return FoundMasks(masks, scores, np.ones(3, np.float32), np.zeros((3, 2), np.float32), scores)


def test_coco(found: Any) -> None:
    content = found.to_coco(name="a.png", classes=["cat", "dog", "cat"])
    json.dumps(content)
    assert content["images"] == [{"id": 1, "file_name": "a.png", "height": 20, "width": 31}]
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [(one["id"], one["category_id"], one["score"]) for one in content["annotations"]] == [
        (1, 1, 0.75),
        (2, 2, 0.5),
    ]
    counts = tuple(one["segmentation"]["counts"].encode() for one in content["annotations"])
    assert (EncodedMasks(counts).read(SIZE) == arrays()[0][:2]).all()
    assert content["annotations"][0]["bbox"] == [3, 2, 9, 8]
    assert found.to_coco()["categories"] == [{"id": 1, "name": "object"}]
    with pytest.raises(ConfigError, match="classes has 1 names for 3 masks"):
        found.to_coco(classes=["cat"])


def test_labels_show_the_higher_score(found: Any) -> None:
    masks, _ = arrays()
    labels = found.to_labels()
    assert labels.dtype == np.uint16
    assert ((labels == 1) == masks[0]).all()
    assert ((labels == 2) == (masks[1] & ~masks[0])).all()


def test_files_by_their_ending(found: Any, tmp_path: Path) -> None:
    labels = found.to_labels()
    assert found.save(tmp_path / "deep" / "a.png") == tmp_path / "deep" / "a.png"
    with Image.open(tmp_path / "deep" / "a.png") as file:
        assert (np.asarray(file) == labels).all()
    import tifffile

    assert (tifffile.imread(found.save(tmp_path / "a.tif")) == labels).all()
    assert json.loads(found.save(tmp_path / "a.json", name="x.png").read_text()) == found.to_coco(name="x.png")
    with np.load(found.save(tmp_path / "a.npz")) as stored:
        assert (stored["masks"] == found.masks).all()
        assert (stored["scores"] == found.scores).all()
    folder = found.save(str(tmp_path / "pictures"))
    assert sorted(path.name for path in folder.iterdir()) == ["001.png", "002.png", "003.png"]
    with Image.open(folder / "002.png") as file:
        assert ((np.asarray(file) == 255) == found.masks[1]).all()
    found.save(folder)  # its own pictures are replaced
    # images that are called by their numbers are somebody's
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(tmp_path / "photos" / "001.png")
    with pytest.raises(ConfigError, match=r"has other files, such as 001\.png; give a folder that is not there"):
        found.save(tmp_path / "photos")
    with Image.open(tmp_path / "photos" / "001.png") as file:
        assert (np.asarray(file) == 7).all()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="has other files"):
        found.save(folder)
    with pytest.raises(ConfigError, match=r"cannot be written as \.bmp; end with \.json"):
        found.save(tmp_path / "a.bmp")


def test_more_objects_than_16_bits(found: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_files, "MOST_OF_16_BITS", 2)
    assert found.to_labels().dtype == np.uint32
    with pytest.raises(ConfigError, match=r"3 objects need labels of 32 bits, which PNG has not; end with \.tif"):
        found.save(tmp_path / "a.png")
    found.save(tmp_path / "a.tif")


def test_of_equal_scores_the_first_is_seen() -> None:
    masks, _ = arrays()
    labels = mask_files.labels_of(masks, np.full(3, 0.5, np.float32))
    assert ((labels == 1) == masks[0]).all()
