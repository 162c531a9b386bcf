"""The weights that come with the package, for questions about them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.record import BenchmarkError


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
