"""Peak memory of one back end: `python -m lora_sam.deployment.peak_memory` is the process that is measured."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lora_sam.core.memory import peak_rss
from lora_sam.evaluation.backends.names import BACK_ENDS, BackEnd


def peak_memory_of(
    back_end: BackEnd, place: Path, size: tuple[int, int], *, base: Path | None, threads: int | None
) -> int | None:
    """Most bytes that a new process holds to load a back end and segment one object of one image.

    Args:
        back_end: What to measure.
        place: Run directory for torch, directory of the IR parts for OpenVINO.
        size: (height, width) of the image.
        base: Checkpoint of the base weights for torch; None takes the file that the run used.
        threads: As in `OpenVINOPredictor`, and for torch alike.

    Returns:
        Bytes, or None where the process failed, e.g. because there is not so much memory.
    """
    arguments = [back_end.name, str(place), *map(str, size)]
    arguments += [] if base is None else ["--base", str(base)]
    arguments += [] if threads is None else ["--threads", str(threads)]
    done = subprocess.run(
        [sys.executable, "-m", "lora_sam.deployment.peak_memory", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return int(json.loads(done.stdout.splitlines()[-1])["peak_memory_bytes"])
    except (IndexError, ValueError, KeyError, TypeError):
        return None


def main(arguments: Sequence[str]) -> int:
    """Load a back end, segment an image of noise, and print the peak as JSON."""
    from lora_sam.core.structures import Prompts
    from lora_sam.runs.backends import open_alone

    parser = argparse.ArgumentParser(prog="python -m lora_sam.deployment.peak_memory", description=main.__doc__)
    parser.add_argument("name", choices=list(BACK_ENDS))
    parser.add_argument("place", type=Path, help="run directory, or directory of the IR parts")
    parser.add_argument("height", type=int)
    parser.add_argument("width", type=int)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args(arguments)
    predictor = open_alone(BACK_ENDS[given.name], given.place, base=given.base, threads=given.threads)
    image = np.random.default_rng(0).integers(0, 256, (given.height, given.width, 3), np.uint8)
    box = np.array([[given.width / 4, given.height / 4, given.width * 3 / 4, given.height * 3 / 4]], np.float32)
    predictor.predict(image, Prompts(boxes=box))
    print(json.dumps({"peak_memory_bytes": peak_rss()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
