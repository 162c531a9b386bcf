"""Architectures, what trains in them, and steps, without building models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lora_sam.training.planning.machine import Machine
from lora_sam.training.planning.workload import Step, Trained

LORA = Trained(
    trainable=4_353_252,
    total=94_030_384,
    held=98_088_724,
    first_block=0,
    whole_encoder=False,
    adapted=frozenset({"q", "v"}),
    attention_alone=True,
    decoder=True,
)


@pytest.fixture(scope="session")
def make_step(option: Callable[..., Any]) -> Callable[..., Step]:
    """A step of LoRA on one image with one prompt; `trained` changes what trains, anything else the step."""
    from dataclasses import replace

    def make(model: str = "vit_b", trained: dict[str, Any] | None = None, **changes: Any) -> Step:
        values: dict[str, Any] = {
            "model": option(f"model/{model}"),
            "trained": replace(LORA, **(trained or {})),
            "precision": "fp32",
            "images": 1,
            "prompts": 1.0,
            "most_prompts": 1,
            "chunk": 16,
        }
        return Step(**{**values, **changes})

    return make


@pytest.fixture
def machine() -> Machine:
    """Two cores with 24 GiB of free memory."""
    return Machine(kind="cpu", process_bytes=900 << 20, free_bytes=24 << 30, rates={"fp32": 200e9, "bf16": 430e9})
