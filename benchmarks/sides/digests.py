"""Write weights of a model, or load them, with their digests or without."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Answer of one side: `write`, `checked`, `weights` or `unchecked`, then the model and the file."""
    import torch

    from benchmarks.settings import settings_for
    from lora_sam.core.files import recorded_sha256, sha256_of
    from lora_sam.models import building
    from lora_sam.models.projections import fuse_projections

    action, model, file = arguments
    if action == "write":
        made = settings_for(f"model={model}", "model.weights=random").model
        torch.save(fuse_projections(made.build().sam).state_dict(), file)
        found = sha256_of(Path(file))
        # as steps leave it beside what they wrote, so that loading compares
        Path(file).with_name("manifest.json").write_text(json.dumps({"files": {Path(file).name: found}}))
        return {"sha256": found, "bytes": Path(file).stat().st_size}
    settings = settings_for(f"model={model}", "model.weights=pretrained", f"model.checkpoint={file}")
    Path(file).read_bytes()  # from memory, whichever side comes first
    if action == "unchecked":
        recorded = str(recorded_sha256(Path(file)))
        vars(building).update(sha256_of=lambda _: recorded, _digest=lambda *_: recorded)
    start = time.perf_counter()
    base = settings.model.build()
    tensors = base.tensors if action == "weights" else None
    return {"seconds": time.perf_counter() - start, "sha256": base.sha256, "tensors": tensors}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
