"""A checkpoint for micro-sam, whose `get_sam_model(model_type=..., checkpoint_path=...)` takes it.

Its layout is that of torch_em: the weights under `model_state`, each key with the prefix `sam.`, which micro-sam takes
off (`micro_sam.util._load_checkpoint`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lora_sam.core.errors import AdapterError
from lora_sam.deployment.packs.packing import Opened, Packed
from lora_sam.deployment.packs.sampredictor import check_registered

_STATE, _PREFIX = "model_state", "sam."


@dataclass(frozen=True, kw_only=True)
class MicroSamPack:
    """A `.pt` for micro-sam's `checkpoint_path`."""

    def write(self, packed: Packed, directory: Path) -> Opened:
        """See `lora_sam.deployment.packs.packing.Target`; writes `<variant>.pt`."""
        import torch

        check_registered(packed, "micro_sam")
        path = directory / f"{packed.variant}.pt"
        torch.save({_STATE: {_PREFIX + key: value for key, value in packed.state.items()}}, path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if content[_STATE].keys() != {_PREFIX + key for key in packed.state}:
            raise AdapterError(
                "target = micro_sam: the file that was written lacks weights; nothing was kept, try again"
            )
        return Opened(
            host="micro_sam",
            by="keys and shapes of sam_model_registry, in the layout of torch_em",
            why_not_run="micro_sam is installed with conda, not with this package",
        )
