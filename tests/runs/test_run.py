"""A run as an object: each method does what its command does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lora_sam import Run, load
from lora_sam.core.errors import AdapterError, ConfigError, DataError
from lora_sam.runs.loading import load_adapted, predictors_for
from lora_sam.runs.run import Run as OfItsModule

IMAGE = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
BOXES = [[10, 10, 40, 40]]


@pytest.fixture
def run(exported_run: Callable[[Path], Path], tmp_path: Path) -> Run:
    return Run(exported_run(tmp_path / "run"))


def test_the_predictors_are_those_of_the_run(run: Run) -> None:
    assert OfItsModule is Run
    tuned = run.predictor().segment(IMAGE, boxes=BOXES)
    assert (tuned.masks == load(run.path).segment(IMAGE, boxes=BOXES).masks).all()
    base = run.predictor(adapter=False).segment(IMAGE, boxes=BOXES)
    expected = predictors_for(load_adapted(run.path), 64)["base"].segment(IMAGE, boxes=BOXES)
    assert (base.scores == expected.scores).all()
    assert (base.scores != tuned.scores).any()
    exported = run.predictor("fp32").segment(IMAGE, boxes=BOXES)
    assert np.allclose(exported.scores, tuned.scores, atol=1e-4)


def test_the_steps_give_their_places(run: Run, tmp_path: Path) -> None:
    assert run.merge() == run.path / "merged"
    assert run.export(precision="fp16") == run.path / "openvino" / "fp16"
    elsewhere = run.merge(output=str(tmp_path / "elsewhere"))
    assert elsewhere == tmp_path / "elsewhere" / "merged"
    assert elsewhere.is_dir()
    with pytest.raises(ConfigError, match=r"unknown key precison; did you mean precision\?"):
        run.export(precison="fp16")


def test_predict_over_a_folder(run: Run, blobs: Path, tmp_path: Path) -> None:
    images = tmp_path / "photos"
    shutil.copytree(blobs / "images" / "test", images)
    (images / "9.png").write_bytes(b"broken")
    done = run.predict(images, output=tmp_path / "out", points_per_side=2, predicted_iou=0.0, stability=0.0)
    assert set(done.counts) == {"1.png", "2.png", "3.png"}
    assert list(done.failures) == ["9.png"]
    assert len(done.coco()["annotations"]) == sum(done.counts.values()) > 0
    assert done.files == {"coco": tmp_path / "out" / "coco.json"}
    assert done.page.is_file()
    labels = run.predict(images, output=tmp_path / "labels", formats=["labels"], points_per_side=2)
    with pytest.raises(DataError, match=r"coco\.json: is not a regular file"):
        labels.coco()


def test_what_is_not_there(run: Run, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"int8: not there yet; make it with: python -m lora_sam\.quantize run="):
        run.predictor("int8")
    with pytest.raises(ConfigError, match=r"backend = int9: must be one of torch, base, .*; did you mean int8\?"):
        run.predictor("int9")
    with pytest.raises(ConfigError, match="device = cuda:9: not available here"):
        run.predictor(device="cuda:9")
    with pytest.raises(AdapterError, match="no such run directory"):
        Run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AdapterError, match="no adapter there"):
        Run(tmp_path / "empty")
