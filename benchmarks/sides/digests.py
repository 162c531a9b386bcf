"""Write weights of a model, or load them, with their digests or without."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Answer of one side: `write`, `checked` or `unchecked`, then the model and the file."""
    import torch

    from benchmarks.settings import settings_for
    from lora_sam.core.files import sha256_of
    from lora_sam.models import building
    from lora_sam.models.projections import fuse_projections

    action, model, file = arguments
    if action == "write":
        made = settings_for(f"model={model}", "model.weights=random").model
        torch.save(fuse_projections(made.build().sam).state_dict(), file)
        return {"sha256": sha256_of(Path(file)), "bytes": Path(file).stat().st_size}
    settings = settings_for(f"model={model}", "model.weights=pretrained", f"model.checkpoint={file}")
    Path(file).read_bytes()  # from memory, whichever side comes first
    if action == "unchecked":
        vars(building).update(sha256_of=lambda _: "0" * 64, _digest=lambda *_: "0" * 64)
    start = time.perf_counter()
    base = settings.model.build()
    return {"seconds": time.perf_counter() - start, "sha256": base.sha256}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
