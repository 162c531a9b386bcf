"""What some questions need: the weights that come with the package, and labelled sets."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.record import ROOT, BenchmarkError


def packaged_nano() -> Path:
    """The file of `model=nano model.checkpoint=null`. Raises `BenchmarkError` where it is not there."""
    from lora_sam.models.checkpoints import PACKAGED, packaged_checkpoint

    path = packaged_checkpoint("nano")
    if path is None:
        raise BenchmarkError(
            f"{PACKAGED.name}/nano.safetensors of lora_sam is not there: this is about the weights that come with the "
            "package. Get a checkout or a wheel that has them."
        )
    return path


def labelled_sets() -> Path:
    """Directory where labelled sets are looked for, absolute; whether there are any is another question."""
    return Path(os.environ.get("LORA_SAM_DATA", ROOT.parent / "shared" / "data")).resolve()


def data_directory() -> Path:
    """Directory of the sets, absolute. Raises `BenchmarkError` where one of them is not there."""
    directory = labelled_sets()
    for name in ("nuclei", "rings"):
        if not (directory / name).is_dir():
            raise BenchmarkError(
                f"{directory / name} is not there. This benchmark needs the sets nuclei and rings under "
                "$LORA_SAM_DATA; docs/data.md says what they are and where they come from."
            )
    return directory
