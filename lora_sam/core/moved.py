"""What is elsewhere or otherwise than it was when an older run wrote its settings down."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# Settings classes that lived elsewhere in a version whose runs, and whose users' files in conf/, are still about.
MOVED: Mapping[str, str] = MappingProxyType(
    {
        "lora_sam.losses.SamLoss": "lora_sam.training.losses.SamLoss",
        "lora_sam.losses.DiceCELoss": "lora_sam.training.losses.DiceCELoss",
        "lora_sam.losses.points.PointSampledLoss": "lora_sam.training.losses.points.PointSampledLoss",
        "lora_sam.losses.weighted.WeightedLoss": "lora_sam.training.losses.weighted.WeightedLoss",
        "lora_sam.optim.Adam": "lora_sam.training.optim.Adam",
        "lora_sam.tracking.TensorBoard": "lora_sam.training.tracking.TensorBoard",
        "lora_sam.tracking.NoTracker": "lora_sam.training.tracking.NoTracker",
        "lora_sam.cache.options.CacheOptions": "lora_sam.predictors.embeddings.options.CacheOptions",
        "lora_sam.data.procedural.Procedural": "lora_sam.data.drawn.procedural.Procedural",
        "lora_sam.data.demo.Washers": "lora_sam.data.drawn.washers.Washers",
        "lora_sam.data.synthetic.Ellipses": "lora_sam.data.drawn.synthetic.Ellipses",
    }
)

# What runs without these keys did, where the default of today is another.
BEFORE: Mapping[str, Any] = MappingProxyType(
    {
        "optim.pretrained_lr_fraction": 1.0,
        "optim.warmup_fraction": 0.0,
        "loss.cldice": 0.0,
        "data.few_images": 0,
        "trainer.cross_validate": 0,
        "trainer.least_rise": 0.0,
        "trainer.validation_clicks": 0,
    }
)


def with_new_names(config: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A configuration in which every `_target_` names its class where it lives now.

    Returns:
        The configuration, and a line for every name that has moved.
    """
    result: dict[str, Any] = {}
    notes: list[str] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            result[key], inner = with_new_names(value)
            notes += (f"{key}.{line}" for line in inner)
        elif key == "_target_" and isinstance(value, str) and value in MOVED:
            result[key] = MOVED[value]
            notes.append(f"_target_ = {value} has moved; write {MOVED[value]}")
        else:
            result[key] = value
    return result, tuple(notes)
