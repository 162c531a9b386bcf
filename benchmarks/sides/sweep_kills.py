"""Kill a sweep that trains, again and again, and count what is wrong after it went on."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reliability.jobs import prepare
from benchmarks.sweeps.kills import measure


def main(arguments: Sequence[str] | None = None) -> int:
    """Print counts and failures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, required=True)
    given = parser.parse_args(arguments)
    prepare()
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(measure(Path(temporary).resolve(), given.kills).to_json()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
