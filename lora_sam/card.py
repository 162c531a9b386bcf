"""The model card of an adapter: what it is, how well it does, how to load it."""

from __future__ import annotations

import json
from typing import Any


def model_card(facts: dict[str, Any], measured: str | None) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        facts: Content of `lora_sam.json`.
        measured: A Markdown table of base and tuned, or None before the evaluation.
    """
    base, method = facts["base"], facts["method"]
    rows = "\n".join(f"| {_escape(key)} | {_escape(json.dumps(value))} |" for key, value in sorted(method.items()))
    return f"""---
library_name: peft
tags:
- segment-anything
- image-segmentation
- lora_sam
pipeline_tag: mask-generation
---

# Fine-tuned Segment Anything: {_escape(str(facts["architecture"]["variant"]))}

An adapter for SAM, made by lora_sam {_escape(facts["versions"]["lora_sam"])} \
with `method={_escape(str(method["name"]))}`.

{measured or "Not evaluated yet."}

## Base

{_escape(str(facts["architecture"]["variant"]))}, `{_escape(str(base["source"]))}`, SHA-256 `{base["sha256"]}`, input \
{facts["image_size"]} px.

## Settings

| setting | value |
|---|---|
{rows}

## Use

```python
from lora_sam import load, read_image

predictor = load("PATH_TO_THIS_DIRECTORY", base="PATH_TO_BASE_CHECKPOINT")
masks = predictor.segment(read_image("image.png"), boxes=[[10, 10, 60, 60]])
print(masks.masks.shape, masks.scores)
```

Or with stock PEFT: `PeftModel.from_pretrained(load_base(directory, base=checkpoint).sam, directory)`, where `load_base` \
of lora_sam builds SAM with separate `q`, `k`, `v` projections.
"""


def _escape(text: str) -> str:
    """Text that cannot start Markdown or HTML of its own."""
    for old, new in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "'"), ("\n", " ")):
        text = text.replace(old, new)
    return text
