"""The figures of a run, one line of JSON a step: written so that a kill tears at most the last."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

from lora_sam.core.errors import AdapterError, TrainingError
from lora_sam.core.files import write_text

if TYPE_CHECKING:
    pass


class MetricsLog:
    """`metrics.jsonl`: one JSON object per line, `{"step": 10, "time": 1700000000.0, "loss": 0.5, ...}`.

    `step` is the optimiser step and `time` the seconds since 1970; NaN and infinity are written as null. Every line
    is flushed when it is written.
    """

    def __init__(self, path: Path) -> None:
        """Go on with the log at `path`, which need not exist; a last line torn by a crash is removed.

        Raises:
            TrainingError: the file cannot be written.
        """
        self.path = path
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            _drop_torn_line(path)

    def append(self, values: Mapping[str, SupportsFloat | str | None]) -> None:
        """Add one line; `values` has the key `step`. Raises `TrainingError` if the disk is full."""
        record = {"step": values["step"], "time": round(time.time(), 3), **values}
        line = json.dumps({key: _finite(value) for key, value in record.items()}, allow_nan=False) + "\n"
        # one write to a file opened for appending: a reader sees whole lines, whatever happens to this process
        with self._writing(), self.path.open("ab", buffering=0) as file:
            file.write(line.encode())

    def truncate_after(self, step: int, epoch: int | None = None) -> None:
        """Forget everything later than `step`, for a run that goes on from its state at `step`.

        Args:
            step: The step of that state.
            epoch: Its epoch: a validation of `step` that ended a later one was not in the state yet, and is done again.

        Raises:
            AdapterError: the log is damaged.
            TrainingError: the file cannot be written.
        """
        kept = [
            record
            for record in read_metrics(self.path)
            if record["step"] < step
            or (record["step"] == step and (epoch is None or (record.get("epoch") or 0) <= epoch))
        ]
        write_text(self.path, "".join(f"{json.dumps(record)}\n" for record in kept))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"cannot write {self.path}: {error.strerror or error}; free some space or choose another place with "
                "hydra.run.dir=..., then go on with resume=latest"
            ) from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`, in order; none if there is no such file. A torn last line is left out.

    Raises:
        AdapterError: another line is not an object with an integer `step`.
    """
    if not path.is_file():
        return []
    # what comes after the last newline is a line that was never finished
    lines = path.read_bytes().split(b"\n")[:-1]
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:  # not JSON, or not UTF-8
            record = None
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            raise AdapterError(f"{path}, line {number}: damaged; remove this line, or start a new run without resume=")
        records.append(record)
    return records


def _drop_torn_line(path: Path) -> None:
    if path.is_file():
        text = path.read_bytes()
        complete = text.rfind(b"\n") + 1
        if complete < len(text):
            os.truncate(path, complete)


def _finite(value: SupportsFloat | str | None) -> float | str | None:
    if value is None or isinstance(value, str | int):
        return value
    number = float(value)  # NumPy's numbers are not JSON's
    return number if math.isfinite(number) else None
