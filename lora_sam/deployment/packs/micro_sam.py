"""A checkpoint for micro-sam, whose `get_sam_model(model_type=..., checkpoint_path=...)` takes it.

Its layout is that of torch_em: the weights under `model_state`, each key with the prefix `sam.`, which micro-sam takes
off (`micro_sam.util._load_checkpoint`).
"""

from __future__ import annotations

from pathlib import Path

from lora_sam.core.errors import AdapterError
from lora_sam.deployment.packs.packing import Opened, Packed
from lora_sam.deployment.packs.sampredictor import check_registered

_STATE, _PREFIX = "model_state", "sam."


def write(packed: Packed, directory: Path) -> Opened:
    """See `lora_sam.deployment.packs.packing.Writer`; writes `<variant>.pt`."""
    import torch
    from segment_anything import sam_model_registry

    check_registered(packed, "micro_sam")
    path = directory / f"{packed.variant}.pt"
    torch.save({_STATE: {_PREFIX + key: value for key, value in packed.state.items()}}, path)
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    with torch.device("meta"):
        registered = sam_model_registry[packed.variant]().state_dict()
    shapes = {key.removeprefix(_PREFIX): value.shape for key, value in content[_STATE].items()}
    if shapes != {key: value.shape for key, value in registered.items()}:
        raise AdapterError(f"target = micro_sam: the weights are not those of {packed.variant}; nothing was written")
    return Opened(
        host="micro_sam",
        by="keys and shapes of sam_model_registry, in the layout of torch_em",
        why_not_run="micro_sam is installed with conda, not with this package",
    )
