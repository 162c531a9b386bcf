"""How large is a LoRA adapter of rank 8 on q and v of ViT-B?"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.processes import run_side
from benchmarks.record import ROOT, BenchmarkError, Outcome, figure

QUESTION = "How large is a LoRA adapter of rank 8 on q and v of ViT-B, without the mask decoder?"
QUICK = True

RANK = 8
LIMIT_BYTES = 1.25e6


def measure(*, rehearse: bool) -> Outcome:
    """Save an adapter as a run does, read it back with stock PEFT, and look at the file."""
    overrides = ["model=tiny_random" if rehearse else "model=vit_b", "model.weights=random"]
    side = run_side("adapter_size", [*overrides, f"method.rank={RANK}"], threads=1)
    expected = lora_parameters(depth=side["depth"], dim=side["embed_dim"], rank=RANK, targets=2)
    if not side["parameters"] == side["trainable_parameters"] == expected:
        raise BenchmarkError(
            f"the saved adapter has {side['parameters']} parameters, {side['trainable_parameters']} train, "
            f"and {expected} were expected"
        )
    if side["difference_after_reading"] != 0:
        raise BenchmarkError(f"read back, the adapter differs by {side['difference_after_reading']}")
    figures = [
        figure("bytes", "file of the adapter", side["bytes"] / 1e6, unit="MB", limit=LIMIT_BYTES / 1e6),
        figure("parameters", "its parameters", side["parameters"]),
        figure("per_parameter", "bytes per parameter (4 of them the fp32 value)", side["bytes"] / side["parameters"]),
    ]
    checks = {
        "parameters in the file": f"{side['parameters']:,}, as many as train, as depth x targets x rank x 2 dim gives",
        "read back by stock PEFT": "difference 0",
    }
    other = _third_party()
    if other is not None and not rehearse:
        bytes_of_other, parameters_of_other = other
        if parameters_of_other != side["parameters"]:
            raise BenchmarkError(f"Sam_LoRA's file has {parameters_of_other} parameters, ours {side['parameters']}")
        figures.append(figure("sam_lora", "Sam_LoRA's own file of rank 8", bytes_of_other / 1e6, unit="MB"))
        figures.append(figure("against_sam_lora", "ours / Sam_LoRA's", side["bytes"] / bytes_of_other))
    return Outcome(
        settings={"overrides": overrides, "rank": RANK, "targets": ["q", "v"], "decoder": "frozen"},
        checks=checks,
        figures=figures,
        details=side,
    )


def lora_parameters(*, depth: int, dim: int, rank: int, targets: int) -> int:
    """Parameters of LoRA, A [r, dim] and B [dim, r], on `targets` square Linears in each of `depth` blocks."""
    return depth * targets * rank * 2 * dim


def _third_party() -> tuple[int, int] | None:
    """(bytes, parameters) of Sam_LoRA's adapter of the same rank, if it is there."""
    data = Path(os.environ.get("LORA_SAM_DATA", ROOT.parent / "shared" / "data"))
    path = data / "third_party_adapters" / f"lora_rank{RANK}.safetensors"
    if not path.is_file():
        return None
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:  # shapes only: torch stays out of this process
        shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118  not a mapping
    return path.stat().st_size, sum(rows * columns for rows, columns in shapes)
