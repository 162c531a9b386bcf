"""`python -m benchmarks.pictures [run]`: the README's picture, from the overlays of a finished run."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from benchmarks.record import ROOT
from lora_sam.artifacts import RunDirectory, find_run
from lora_sam.errors import AdapterError, LoraSamError
from lora_sam.files import atomic_path

PICTURE = ROOT / "docs" / "images" / "nuclei.png"
_WIDTH = 1400


def write_picture(run: RunDirectory, picture: Path = PICTURE) -> None:
    """Draw the run's median case, neither its best nor its worst, at the width of a page.

    Raises:
        AdapterError: the run has no overlays.
    """
    source = run.overlays / "median.png"
    if not source.is_file():
        raise AdapterError(f"{source} is missing: give a finished run, e.g. of python train.py experiment=nuclei_lora")
    with Image.open(source, formats=["PNG"]) as strip:
        height = round(strip.height * _WIDTH / strip.width)
        small = strip.convert("RGB").resize((_WIDTH, height), Image.Resampling.LANCZOS)
    picture.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(picture) as temporary:
        small.quantize(256, dither=Image.Dither.NONE).save(temporary, format="PNG", optimize=True)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 2 with one line if there is no such run."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        write_picture(find_run(given[0] if given else "latest"))
    except LoraSamError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"wrote {PICTURE.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
