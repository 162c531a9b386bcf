"""What each variant costs by its plan, as docs/models.md has it: memory and minutes, from shapes alone.

`python scripts/figures_of_models.py` prints the lines of the table. Nothing is trained, and no weights are read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import TypeAdapter

from lora_sam.core.config import class_of
from lora_sam.models.projections import split_projections
from lora_sam.training.planning.memory import peak_of
from lora_sam.training.planning.work import seconds_per_image, seconds_to_encode
from lora_sam.training.planning.workload import Step, trained_in

CONF = Path(__file__).resolve().parents[1] / "conf"
VARIANTS = ("nano", "tiny_vit", "sam_hq_tiny", "sam2_tiny", "sam2_small", "sam2_base_plus", "vit_b", "sam_hq_b")
LARGE = ("sam2_large", "vit_l", "sam_hq_l", "vit_h", "sam_hq_h", "sam3")
GPU, CPU = 1e14, 5e11
"""FLOP/s of large matrix products in bf16."""

PROMPTS, IMAGES = 4, 1000
PROCESS = 900 << 20


def option(group: str, name: str) -> Any:
    """The object of a file of `conf/`."""
    values = yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))
    cls = class_of(group, values.pop("_target_"))
    return TypeAdapter(cls).validate_json(json.dumps(values), strict=True)


def step_of(model: Any, method: str) -> Step:
    """A step of one image with four prompts in bf16."""
    with torch.device("meta"):
        adapted = option("method", method).apply(split_projections(model.empty()))
    return Step(
        model=model,
        trained=trained_in(adapted),
        precision="bf16",
        images=1,
        prompts=float(PROMPTS),
        most_prompts=PROMPTS,
        chunk=16,
        encoded=method == "decoder",
    )


def main() -> int:
    """Print the table."""
    heads = "LoRA: GPU memory", "1,000 images on the GPU", "decoder alone: memory", "1,000 images encoded on the CPU"
    print(f"| `model=` | {' | '.join(heads)} |")
    print("|---|---:|---:|---:|---:|")
    for name in (*VARIANTS, *LARGE):
        model = option("model", name)
        lora, decoder = step_of(model, "lora"), step_of(model, "decoder")
        memory = peak_of(lora, "cuda", PROCESS).total / 1e9
        minutes = IMAGES * seconds_per_image(lora, "cuda", GPU, 4) / 60
        alone = peak_of(decoder, "cpu", PROCESS).total / 1e9
        encoding = IMAGES * seconds_to_encode(model, "cpu", CPU) / 60
        print(f"| `{name}` | {memory:.1f} GB | {minutes:.1f} min | {alone:.1f} GB | {encoding:.0f} min |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
