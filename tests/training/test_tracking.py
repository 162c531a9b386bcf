from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_sam.core.errors import AdapterError, TrainingError
from lora_sam.core.metrics_log import MetricsLog, read_metrics
from lora_sam.training.tracking import NoTracker, TensorBoard, Tracker


def test_metrics_are_one_json_object_per_line(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    log = MetricsLog(path)
    before = time.time()
    log.append({"step": 1, "epoch": 0, "loss": 0.5, "lr": np.float32(0.25), "norm": math.inf, "iou": math.nan})
    # nothing is held back: the line is there before the next one is written
    first = json.loads(path.read_text())
    log.append({"step": 2, "note": "é", "best": None})
    second = json.loads(path.read_text().splitlines()[1])
    assert before - 0.01 <= first.pop("time") <= second.pop("time") <= time.time() + 0.01
    assert first == {"step": 1, "epoch": 0, "loss": 0.5, "lr": 0.25, "norm": None, "iou": None}
    assert second == {"step": 2, "note": "é", "best": None}
    assert [record["step"] for record in read_metrics(path)] == [1, 2]


def test_no_metrics_yet(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b'{"step": 3}', b"\xff\xfe", b"\x00" * 7])
def test_torn_last_line_is_left_out_and_removed_on_going_on(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = b'{"step": 1}\n{"step": 2}\n'
    path.write_bytes(whole + torn)
    assert [record["step"] for record in read_metrics(path)] == [1, 2]
    log = MetricsLog(path)
    assert path.read_bytes() == whole
    log.append({"step": 3})
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3]


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"step": true}', '{"step": "1"}', ""])
def test_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(AdapterError, match=r"metrics\.jsonl, line 2: damaged; remove this line"):
        read_metrics(path)


def test_truncate_after_forgets_later_steps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.truncate_after(0)
    for step in (1, 2, 2, 3, 4):
        log.append({"step": step, "loss": 0.1 * step})
    kept = path.read_text().splitlines()[:3]
    log.truncate_after(2)
    assert path.read_text().splitlines() == kept
    log.append({"step": 3})
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 2, 3]


def test_disk_full_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"cannot write .*metrics\.jsonl: .*; free some space or choose another"):
        MetricsLog(tmp_path / "file" / "metrics.jsonl")
    full = Path("/dev/full")
    if full.exists():
        log = MetricsLog(tmp_path / "metrics.jsonl")
        log.path = full
        with pytest.raises(TrainingError, match="No space left on device"):
            log.append({"step": 1})


def use(tracker: Tracker) -> None:
    tracker.scalars(1, {"loss": 0.5, "iou": 0.25})
    tracker.image(2, "validation/a.png", np.zeros((4, 6, 3), np.uint8))
    tracker.hyperparameters({"optim.lr": 0.1, "optim.betas": [0.9], "resume": None}, {"iou": 0.5})
    tracker.close()


def test_no_tracker_writes_nothing(tmp_path: Path) -> None:
    use(NoTracker().open(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_scalars_images_and_hyperparameters(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    use(TensorBoard(directory="tensorboard").open(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"tensorboard"}
    assert all(path.is_file() for path in (tmp_path / "tensorboard").iterdir())
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5)]
    (picture,) = events.Images("validation/a.png")
    assert (picture.step, picture.height, picture.width) == (2, 4, 6)
    assert "_hparams_/session_start_info" in events.summary_metadata


@pytest.mark.parametrize("method", ["scalars", "image", "hyperparameters", "close"])
def test_failing_tracker_warns_once_and_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    class Failing:
        def __init__(self, directory: Path) -> None:
            pass

        def __getattr__(self, name: str) -> Any:
            def call(*_: object) -> None:
                if name == method:
                    raise OSError("disk\nfull")

            return call

    monkeypatch.setattr("lora_sam.training.tracking._TensorBoardTracker", Failing)
    tracker = TensorBoard(directory="tensorboard").open(tmp_path)
    with caplog.at_level(logging.WARNING):
        use(tracker)
        use(tracker)
    assert [record.getMessage() for record in caplog.records] == [
        "TensorBoard failed (OSError: disk full) and is off for the rest of this run; metrics.jsonl goes on"
    ]


def test_tracker_that_cannot_start_is_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tensorboard").write_text("a file is in the way")
    with caplog.at_level(logging.WARNING):
        use(TensorBoard(directory="tensorboard").open(tmp_path))
    (record,) = caplog.records
    assert record.getMessage().startswith("TensorBoard failed (")
