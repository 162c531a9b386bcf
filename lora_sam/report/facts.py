"""What an adapter says of itself: the content of `lora_sam.json`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lora_sam.core.config import plain_fields
from lora_sam.core.version import __version__
from lora_sam.runs.adapter_files import SCHEMA_VERSION
from lora_sam.training.cross_validation import held_out

if TYPE_CHECKING:
    from lora_sam.training.parts import Parts
    from lora_sam.training.state import Progress


def facts_of(parts: Parts, progress: Progress, begun: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Content of `lora_sam.json` before anything is evaluated; `begun`: the adapter that the run began with."""
    settings, base, seen = parts.settings, parts.base, parts.trained_on
    return {
        "schema_version": SCHEMA_VERSION,
        "architecture": settings.model.architecture(),
        "image_size": base.image_size,
        "base": {
            "source": base.source,
            "sha256": base.sha256,
            **({} if base.tensors is None else {"tensors": base.tensors}),
            "weights_seed": settings.model.weights_seed,
            "prompt_frequency": settings.model.prompt_frequency,
        },
        "method": {"name": settings.method.name, "option": settings.method_typed, **plain_fields(settings.method)},
        "trains_encoder": parts.adapted.trains_encoder,
        **({} if parts.splits.scale is None else {"scale": parts.splits.scale.to_json()}),
        "scores": base.scores.to_json(),
        "prompt": plain_fields(settings.prompt),
        "classes": list(seen.classes),
        "training_side": seen.side,
        **({} if (tile := getattr(settings.data, "tile", None)) is None else {"training_tile": tile}),
        "seed": settings.seed,
        "plan": parts.plan.to_json(),
        "attention": parts.attention,
        "steps": progress.step,
        "best_step": progress.best_step,
        "validation_iou": progress.best,
        # False: the images that train chose the weights too
        "validation_held_out": held_out(parts.splits),
        # what step 0 validates is the base only where no adapter was there already
        "validation_base": progress.base if begun is None else None,
        "better_than_base": None if progress.base is None or begun is not None else progress.best_step > 0,
        **({} if begun is None else {"init_from": {**begun, "validation_iou": progress.base}}),
        "metrics": None,
        "versions": {
            "lora_sam": __version__,
            **{name: version(name) for name in ("torch", "peft", "segment-anything")},
        },
    }
