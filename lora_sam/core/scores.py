"""From which score on a mask that nobody asked for is worth showing: a property of the weights, kept beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

METADATA_KEY = "lora_sam"
"""Name of a JSON object in the metadata of a safetensors file; its key `scores` holds `Scores`."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores at which masks of some weights are good, for masks without a prompt.

    A model's logits are as steep, and its predicted IoU as sure of itself, as its training made them. Thresholds of one
    model rule out every mask of another.

    Attributes:
        predicted_iou: Masks whose predicted IoU is not above this are left out, 0 to 1.
        stability: Masks whose stability is below this are left out, 0 to 1.
        stability_offset: Stability is the IoU of the mask at the logits +offset and -offset; more than 0.
    """

    predicted_iou: float
    stability: float
    stability_offset: float

    def to_metadata(self) -> dict[str, str]:
        """As `from_metadata` reads it."""
        return {METADATA_KEY: json.dumps({"scores": asdict(self)}, sort_keys=True)}


META = Scores(predicted_iou=0.88, stability=0.95, stability_offset=1.0)
"""Those of Meta's weights, the defaults of `SamAutomaticMaskGenerator`; also of weights that say nothing else."""


def scores_of(values: Mapping[str, Any] | None) -> Scores:
    """`Scores` as they were kept; `META` where nothing was. Raises `ValueError` in one line where they cannot be."""
    if values is None:
        return META
    names = [field.name for field in fields(Scores)]
    if not isinstance(values, Mapping) or sorted(values) != sorted(names):
        raise ValueError(f"scores need exactly {', '.join(names)}")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1000:
            raise ValueError(f"scores.{name} = {value!r:.40}: must be a number from 0 on")
        if name != "stability_offset" and value > 1:
            raise ValueError(f"scores.{name} = {value!r:.40}: must be at most 1")
    return Scores(**{name: float(values[name]) for name in names})


def from_metadata(metadata: Mapping[str, str] | None) -> Scores:
    """`scores_of` what a safetensors file says; `META` where it says nothing. Raises `ValueError` in one line."""
    text = (metadata or {}).get(METADATA_KEY)
    if text is None:
        return META
    try:
        about = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error})") from error
    return scores_of(about.get("scores")) if isinstance(about, dict) else META
