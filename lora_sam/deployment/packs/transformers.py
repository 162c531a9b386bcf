"""A directory for Hugging Face's transformers: `from_pretrained` of its model and of its processor."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from lora_sam.deployment.packs.packing import Opened, Packed, refuse

PROBE_SEED = 0


@dataclass(frozen=True, kw_only=True)
class TransformersPack:
    """A directory for `from_pretrained` of Hugging Face's model and of its processor."""

    def write(self, packed: Packed, directory: Path) -> Opened:
        """See `lora_sam.deployment.packs.packing.Target`; any size of SAM goes in, `config.json` says which it is."""
        from lora_sam.deployment.proof import answers, compare, probe
        from lora_sam.deployment.transformers_layout import read_transformers, transformers_answers, write_transformers
        from lora_sam.models.family import frame_by, why_not

        reason = why_not(packed.architecture, "transformers")
        if reason is not None:
            remedy = "take SamPredictor(lora_sam.merge.plain_sam(run)), or the parts of `lora-sam export`"
            raise refuse(packed, "transformers", reason, remedy)
        write_transformers(directory, packed.state, packed.architecture)
        questions = probe(frame_by(packed.architecture), PROBE_SEED)
        model = read_transformers(directory)
        agreement = compare(answers(packed.base.sam, questions), transformers_answers(model, questions))
        return Opened(
            host=f"transformers {version('transformers')}",
            by=f"{type(model).__name__}.from_pretrained",
            mask_iou=agreement.mean_mask_iou,
            masks=agreement.masks,
        )
