"""From which score on a mask that nobody asked for is worth showing: a property of the weights, kept beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, TypeAlias

METADATA_KEY = "lora_sam"
"""Name of a JSON object in the metadata of a safetensors file; its key `scores` holds `Scores`."""

MaskChoice: TypeAlias = Literal["three", "single"]
"""Which of a model's masks a point gives: the three for ambiguous prompts, or the single one."""

Ranking: TypeAlias = Literal["iou", "iou_stability"]
"""What ranks masks: predicted IoU, or its product with stability."""

CHOICES: dict[str, tuple[str, ...]] = {"masks": ("three", "single"), "ranking": ("iou", "iou_stability")}
"""Texts that `Scores` allows."""

MOST_PER_SIDE = 64
"""Points along each side of an image, at most."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores at which masks of some weights are good, for masks without a prompt.

    A model's logits are as steep, and its predicted IoU as sure of itself, as its training made them. Thresholds of one
    model rule out every mask of another.

    Attributes:
        predicted_iou: Masks whose score is not above this are left out, 0 to 1. The score is the predicted IoU, or
            what `ranking` says.
        stability: Masks whose stability is below this are left out, 0 to 1.
        stability_offset: Stability is the IoU of the mask at the logits +offset and -offset; more than 0.
        box_overlap: Of two masks whose boxes have a higher IoU, that with the lower score is left out, 0 to 1.
        mask_overlap: Of the masks that are left then, two with a higher IoU are the same object: that with the lower
            score is left out, 0 to 1. Specks that lie apart make boxes of equal masks unlike each other. 1 leaves all.
        masks: Which masks of a point are looked at.
        ranking: What the score is.
        points_per_side: Points along each side of an image that find the objects that the weights were trained on.
    """

    predicted_iou: float
    stability: float
    stability_offset: float
    box_overlap: float = 0.7
    mask_overlap: float = 1.0
    masks: MaskChoice = "three"
    ranking: Ranking = "iou"
    points_per_side: int = 16

    def to_json(self) -> dict[str, Any]:
        """As `scores_of` reads it: without what is as it always was, which earlier versions read too."""
        always = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != always[name]}

    def to_metadata(self) -> dict[str, str]:
        """As `from_metadata` reads it."""
        return {METADATA_KEY: json.dumps({"scores": self.to_json()}, sort_keys=True)}


META = Scores(predicted_iou=0.88, stability=0.95, stability_offset=1.0)
"""Those of Meta's weights, the defaults of `SamAutomaticMaskGenerator`; also of weights that say nothing else."""


def scores_of(values: Mapping[str, Any] | None) -> Scores:
    """`Scores` as they were kept; `META` where nothing was. Raises `ValueError` in one line where they cannot be."""
    if values is None:
        return META
    needed = [field.name for field in fields(Scores) if field.default is MISSING]
    further = [field.name for field in fields(Scores) if field.default is not MISSING]
    if not isinstance(values, Mapping) or not set(needed) <= set(values):
        raise ValueError(f"scores need exactly {', '.join(needed)}")
    if unknown := sorted(set(map(str, values)) - {*needed, *further}):
        raise ValueError(
            f"scores need exactly {', '.join(needed)}, and may have {', '.join(further)}: {unknown[0]:.40}?"
        )
    for name, value in values.items():
        if name in CHOICES:
            if value not in CHOICES[name]:
                raise ValueError(f"scores.{name} = {value!r:.40}: must be {' or '.join(CHOICES[name])}")
            continue
        if name == "points_per_side":
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_PER_SIDE:
                raise ValueError(f"scores.{name} = {value!r:.40}: must be a whole number from 1 to {MOST_PER_SIDE}")
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1000:
            raise ValueError(f"scores.{name} = {value!r:.40}: must be a number from 0 on")
        if name != "stability_offset" and value > 1:
            raise ValueError(f"scores.{name} = {value!r:.40}: must be at most 1")
    given: dict[str, Any] = {
        name: float(value) if isinstance(value, int | float) and name != "points_per_side" else value
        for name, value in values.items()
    }
    return Scores(**given)


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
