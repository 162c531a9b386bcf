"""Fold a run's adapter into its base and write plain SAM weights: python scripts/weights_of_run.py <run> <file>.

The file is safetensors with the keys of `segment_anything`, in fp16 unless --fp32 is given, for `model.checkpoint`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lora_sam.core.errors import LoraSamError


def main() -> int:
    """Exit code: 0, or 2 where the run cannot be folded."""
    parser = argparse.ArgumentParser(description="Fold a run's adapter into its base and write plain SAM weights.")
    parser.add_argument("run", help="run directory, or latest")
    parser.add_argument("file", type=Path, help="safetensors file to write")
    parser.add_argument("--fp32", action="store_true", help="write float32 instead of float16")
    arguments = parser.parse_args()
    try:
        write_weights(arguments.run, arguments.file, half=not arguments.fp32)
    except LoraSamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.file}: {arguments.file.stat().st_size / 1e6:.1f} MB")
    return 0


def write_weights(run: str, path: Path, *, half: bool) -> None:
    """Write the merged weights of `run` to `path`.

    Raises:
        AdapterError: there is no such run, or a weight is not finite (in fp16: beyond 65,504), or its method
            does not fold.
        CheckpointError: its base weights are not found.
    """
    import torch
    from safetensors.torch import save_file

    from lora_sam.core.errors import AdapterError
    from lora_sam.core.files import atomic_path
    from lora_sam.models.projections import check_plain
    from lora_sam.runs.loading import load_adapted

    merged = load_adapted(run).merge()
    check_plain(merged)
    state = {key: value.contiguous() for key, value in merged.state_dict().items()}
    if half:
        state = {key: value.half() for key, value in state.items()}
        for key, value in state.items():
            if not bool(torch.isfinite(value).all()):
                raise AdapterError(f"{run}: {key} does not fit into float16; use --fp32")
    with atomic_path(path) as temporary:
        save_file(state, str(temporary))


if __name__ == "__main__":
    sys.exit(main())
