"""Weighted mean of SAM weights: python scripts/average_weights.py <file to write> <file>:<weight> <file>:<weight> ...

For files of one training that went on from each other ("model soup", Wortsman et al., 2022). Positions are interpolated
to the last file's input size; the result is safetensors in fp16, with the keys of `segment_anything`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lora_sam.core.errors import CheckpointError, LoraSamError

GLOBAL_ATTENTION = (2, 5)  # of nano
USAGE = "usage: python scripts/average_weights.py OUT.safetensors FILE:WEIGHT FILE:WEIGHT ..."


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 once the mean is written, 2 after a mistake."""
    parts = [argument.rpartition(":") for argument in arguments[1:]]
    try:
        weights = {Path(path): float(weight) for path, _, weight in parts}
    except ValueError:
        weights = {}
    if len(weights) < 2 or abs(sum(weights.values()) - 1) > 1e-6:
        print(f"{USAGE}; at least two files, and weights that add up to 1", file=sys.stderr)
        return 2
    try:
        write_mean(Path(arguments[0]), weights)
    except LoraSamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write_mean(path: Path, weights: dict[Path, float]) -> None:
    """Write the mean of the files in `weights`, each with its weight.

    Raises:
        CheckpointError: a file is missing, damaged, or of another architecture.
    """
    import torch
    from safetensors.torch import save_file

    from lora_sam.core.files import atomic_path
    from lora_sam.models.checkpoints import load_state_dict
    from lora_sam.models.vit import resize_positions

    states = {file: {key: value.float() for key, value in load_state_dict(file).items()} for file in weights}
    last = next(reversed(states.values()))
    side = last["image_encoder.pos_embed"].shape[1]
    mean = {key: torch.zeros_like(value) for key, value in last.items()}
    for file, state in states.items():
        resized = resize_positions(state, side, global_attention=GLOBAL_ATTENTION)
        if resized.keys() != mean.keys() or any(resized[key].shape != mean[key].shape for key in mean):
            raise CheckpointError(f"{file}: its tensors are not those of the others; average files of one training")
        for key, value in resized.items():
            mean[key] += weights[file] * value
    with atomic_path(path) as temporary:
        save_file({key: value.half().contiguous() for key, value in mean.items()}, str(temporary))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
