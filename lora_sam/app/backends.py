"""What can compute a run's tuned masks: torch, and the exported OpenVINO parts that are there."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lora_sam.core.run_directory import RunDirectory

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor

TORCH = "torch"
PRECISIONS = ("fp32", "fp16", "int8")
_PARTS = ("image_encoder", "mask_decoder")


def backends_of(run: RunDirectory) -> dict[str, Callable[[], Predictor]]:
    """Ways to make a predictor of the tuned model besides torch, by name, in order of falling precision."""
    if find_spec("openvino") is None:
        return {}
    return {
        f"openvino {precision}": lambda precision=precision: _openvino(run, precision)  # type: ignore[misc]
        for precision in PRECISIONS
        if all((run.root / "openvino" / precision / f"{part}.xml").is_file() for part in _PARTS)
    }


def bytes_of(run: RunDirectory, backend: str) -> int | None:
    """Size of the exported files of a back end; None for torch, whose weights are base and adapter."""
    if backend == TORCH:
        return None
    folder = run.root / "openvino" / backend.removeprefix("openvino ")
    return sum(path.stat().st_size for part in _PARTS for path in folder.glob(f"{part}.*"))


def _openvino(run: RunDirectory, precision: str) -> Predictor:
    from lora_sam.predictors.openvino_predictor import OpenVINOPredictor

    folder = run.root / "openvino" / precision
    return OpenVINOPredictor(*(folder / f"{part}.xml" for part in _PARTS))
