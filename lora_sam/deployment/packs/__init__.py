"""The tuned model as files that other tools open: one module for each tool, and the list of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TARGETS: Mapping[str, str] = MappingProxyType(
    {
        "sampredictor": "lora_sam.deployment.packs.sampredictor",
        "transformers": "lora_sam.deployment.packs.transformers",
        "micro_sam": "lora_sam.deployment.packs.micro_sam",
    }
)
"""The module of each target by its name; it has a function `write` as in `lora_sam.deployment.packs.packing.Writer`."""
