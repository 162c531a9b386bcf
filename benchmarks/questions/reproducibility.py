"""Do two runs with one seed end with the same adapter?"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.processes import run
from benchmarks.record import ROOT, BenchmarkError, Outcome, figure
from lora_sam.core.files import sha256_of

QUESTION = "Do two runs with one seed give the same adapter_model.safetensors?"
QUICK = True

_OVERRIDES = ("model=tiny_random", "method=lora", "data=ellipses", "augmentation=flips", "tracker=none")
_DATA = ("data.train=8", "data.val=2", "data.test=2", "data.side=64")


def measure(*, rehearse: bool) -> Outcome:
    """Train twice with one seed and, to see that the comparison can tell, once with another."""
    steps = 2 if rehearse else 40
    with tempfile.TemporaryDirectory() as temporary:
        overrides = [*_OVERRIDES, *_DATA, f"trainer.max_steps={steps}"]
        first, second, other = (
            _train(Path(temporary), name, [*overrides, f"seed={seed}"])
            for name, seed in (("first", 0), ("second", 0), ("other", 1))
        )
    if other == first:
        raise BenchmarkError("a run with another seed gave the same adapter: the runs did not train")
    return Outcome(
        settings={"overrides": overrides, "seeds": [0, 0, 1]},
        checks={"another seed": "gives another file, so equal files mean something"},
        figures=[figure("files", "different adapters from two runs with one seed", len({first, second}), limit=1)],
        details={"sha256": {"first": first, "second": second, "other seed": other}},
    )


def _train(directory: Path, name: str, overrides: list[str]) -> str:
    """SHA-256 of the adapter that one run makes; it runs in `directory`, so that `outputs/latest` here stays."""
    command = [str(ROOT / "train.py"), *overrides, f"hydra.run.dir={directory / name}"]
    run([sys.executable, *command], directory=directory)
    return sha256_of(directory / name / "adapter" / "adapter_model.safetensors")
