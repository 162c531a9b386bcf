"""Build SAM with LoRA on q and v, save the adapter as a run does, and say how large the file is."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict

from benchmarks.settings import settings_for
from lora_sam.runs.adapter_files import adapter_bytes, save_adapter


def measure(overrides: list[str]) -> dict[str, Any]:
    """Bytes and parameters of the adapter of `method=lora` with these overrides, and what stock PEFT reads back."""
    settings = settings_for("method=lora", "method.decoder=frozen", *overrides)
    torch.manual_seed(settings.seed)
    adapted = settings.method.apply(settings.model.build().sam)
    with torch.no_grad():
        for parameter in adapted.trainable().values():  # B starts as zeros, which would read back from any file
            parameter.normal_()
    saved = get_peft_model_state_dict(adapted.peft)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "adapter"
        save_adapter(adapted, directory, {"schema_version": 1}, "")
        size = adapter_bytes(directory)
        again = get_peft_model_state_dict(PeftModel.from_pretrained(settings.model.build().sam, str(directory)))
    assert saved.keys() == again.keys()
    return {
        "bytes": size,
        "tensors": len(saved),
        "parameters": sum(value.numel() for value in again.values()),
        "trainable_parameters": adapted.count()[0],
        "difference_after_reading": max(float((saved[key] - again[key]).abs().max()) for key in saved),
        "depth": settings.model.depth,
        "embed_dim": settings.model.architecture()["embed_dim"],
        "image_size": settings.model.image_size,
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1:])))
