"""One part of the reliability benchmark: `python -m benchmarks.sides.reliability <part> [--tries N] [--seconds S]`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

PARTS = ("kills", "resumes", "flips", "disks", "clients", "peaks")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was counted as JSON, in the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--tries", type=int, default=20, help="how many, all kinds together")
    parser.add_argument("--seconds", type=float, default=120.0, help="after which no further try is begun")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="reliability-") as temporary:
        root = Path(temporary)
        os.environ |= {"XDG_CACHE_HOME": str(root / "cache"), "LORA_SAM_EMBEDDINGS": str(root / "embeddings")}
        os.chdir(root)
        from benchmarks.reliability.jobs import prepare

        prepare()
        part = importlib.import_module(f"benchmarks.reliability.{given.part}")
        tally = part.measure(root, given.tries, given.seconds, given.seed)
        for place in Path("/dev/shm").glob(f"reliability-{os.getpid()}-*"):
            shutil.rmtree(place, ignore_errors=True)
    for line in tally.failures:
        sys.stderr.write(f"  {line}\n")
    print(json.dumps(tally.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
