"""The model card of an adapter: what it is, how well it does, how to load it."""

from __future__ import annotations

import json
import re
from typing import Any

from lora_sam.core.wording import unturned
from lora_sam.models.terms import terms_of
from lora_sam.runs.adapter_files import METHOD_NAMES, method_typed


def model_card(facts: dict[str, Any], measured: str | None) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        facts: Content of `lora_sam.json`.
        measured: A Markdown table of base and tuned, or None before the evaluation.
    """
    base, method = facts["base"], facts["method"]
    variant = str(facts["architecture"]["variant"])
    # random weights are drawn again, there is no file to give
    checkpoint = "" if base["source"] == "random" else ', base="PATH_TO_BASE_CHECKPOINT"'
    # of adapters that are older nobody knows
    warning = (
        "\n**Not better than its base**: no validation beat it, so the weights of step 0 were kept. "
        "This adapter changes nothing.\n"
        if facts.get("better_than_base") is False
        else ""
    )
    begun = facts.get("init_from")
    origin = "" if begun is None else f"\nTraining began with the adapter of {_code(begun['run'])}.\n"
    cut = facts.get("training_tile")
    tiles = (
        ""
        if cut is None
        else f" Trained on tiles of {int(cut)} px: cut larger images into such, or objects look smaller."
    )
    terms = None if base["source"] == "random" else terms_of(facts["architecture"])
    licence, told = (
        ("", "") if terms is None else ("license: other\n", f"\n## Licence\n\n{terms[0].upper()}{terms[1:]}.\n")
    )
    settings = sorted((key, value) for key, value in method.items() if key not in METHOD_NAMES)
    rows = "\n".join(f"| {_escape(key)} | {_escape(json.dumps(value))} |" for key, value in settings)
    return f"""---
library_name: peft
tags:
- segment-anything
- image-segmentation
- lora_sam
pipeline_tag: mask-generation
{licence}---

# Fine-tuned Segment Anything: {_escape(variant)}

An adapter for SAM, made by lora_sam {_escape(facts["versions"]["lora_sam"])} with \
{_code("method=" + method_typed(facts))}.
{warning}{origin}
{measured or "Not evaluated yet."}

## Base

Variant {_escape(variant)} from {_code(base["source"])}, SHA-256 {_code(base["sha256"])}, \
input {int(facts["image_size"])} px.{tiles}
{told}
## Settings

| setting | value |
|---|---|
{rows}

## Use

```python
from lora_sam import load, read_image

predictor = load("PATH_TO_THIS_DIRECTORY"{checkpoint})
masks = predictor.segment(read_image("image.png"), boxes=[[10, 10, 60, 60]])
print(masks.masks.shape, masks.scores)
```

Or with stock PEFT: `PeftModel.from_pretrained(load_base(directory, base=checkpoint).sam, directory)`,
where `load_base` of lora_sam builds SAM with separate `q`, `k`, `v` projections.
"""


def _escape(text: str) -> str:
    """Text in which no HTML, link, image, emphasis or table cell can begin, or a second line."""
    text = (
        unturned(" ".join(text.split()))
        .replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace("`", "'")
    )
    return re.sub(r"([\\\[\]*|])", r"\\\1", text)


def _code(text: str) -> str:
    """A code span, in which only a line break, a backtick and an HTML tag could mean anything."""
    text = " ".join(text.split()).replace("`", "'").replace("<", "‹").replace(">", "›")
    return f"`{text}`"
