"""Two processes that train together: one is killed, or both are told to end, and the next part has the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_sam.core.metrics_log import read_metrics

SCRIPTS = Path(sys.executable).parent
# as docs/usage.md and docs/scale.md type it
TORCHRUN = (str(SCRIPTS / "torchrun"), "--standalone", "--nproc-per-node=2", str(SCRIPTS / "lora-sam"), "train")
STEPS = 12
WORDS = (
    *("model=tiny_random", "method.dropout=0.1", "trainer.device=cpu", "trainer.precision=fp32", "tracker=none"),
    *("trainer.overlays=0", "trainer.max_epochs=null", f"trainer.max_steps={STEPS}", "trainer.save_every_steps=1"),
    *("trainer.log_every_steps=1", "trainer.early_stopping.patience=null"),
)


def begun(place: Path, *words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    with (place / "said.txt").open("ab") as said:
        return subprocess.Popen([*TORCHRUN, *WORDS, *words], cwd=place, env=environment, stdout=said, stderr=said)


def worker(command: int, rank: int) -> int:
    """The process that `torchrun` has started with this rank."""
    for child in Path(f"/proc/{command}/task/{command}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"no process with rank {rank}")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the processes under /proc")
@pytest.mark.parametrize("how", ["one is killed", "both are told to end"])
def test_two_processes_go_on_with_the_bits_of_those_that_were_left_alone(
    how: str, tmp_path: Path, blobs: Path, trained_weights: Callable[[Path], Any]
) -> None:
    data = f"data.root={blobs}"
    assert begun(tmp_path, data, "hydra.run.dir=whole").wait(300) == 0, (tmp_path / "said.txt").read_text()[-2000:]
    command = begun(tmp_path, data, "hydra.run.dir=part")
    log, deadline = tmp_path / "part" / "metrics.jsonl", time.monotonic() + 240
    while not (log.exists() and log.read_bytes().count(b"\n") >= 4) and time.monotonic() < deadline:
        time.sleep(0.01)
    if how == "one is killed":
        os.kill(worker(command.pid, 1), signal.SIGKILL)
    else:
        command.terminate()
    assert command.wait(120) != 0
    steps = [line["step"] for line in read_metrics(log)]
    assert 3 <= max(steps) < STEPS
    assert not (tmp_path / "part" / "adapter").exists()
    assert begun(tmp_path, "resume=part", "hydra.run.dir=on").wait(300) == 0, (tmp_path / "said.txt").read_text()[
        -2000:
    ]
    whole, found = (trained_weights(tmp_path / name) for name in ("whole", "on"))
    assert whole.keys() == found.keys()
    assert all(torch.equal(whole[name], found[name]) for name in whole)
    losses = [
        {line["step"]: line["loss"] for line in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in line}
        for name in ("whole", "on")
    ]
    assert losses[0] == losses[1]
    assert sorted(losses[1]) == list(range(1, STEPS + 1))
