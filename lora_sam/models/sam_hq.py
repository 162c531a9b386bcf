"""SAM-HQ (sam_hq_b, sam_hq_l, sam_hq_h, sam_hq_tiny, and both of drawn weights): architecture and weights.

Ke et al., "Segment Anything in High Quality", 2023. The published files are on the Hugging Face Hub, in `lkeab/hq-sam`;
their SHA-256 is not known here, so none is downloaded: `model.checkpoint` names the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_sam.core.errors import CheckpointError, ConfigError
from lora_sam.models.base_model import BaseModel
from lora_sam.models.building import build
from lora_sam.models.tiny_vit import TinyViTSam
from lora_sam.models.vit import ViTSam

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.models.options import WeightOptions

KEPT_BY_DECODING = (9.0, 52.0)
"""See `lora_sam.models.family.SamModel`; of a prompt, the features of its image included."""

FILES = {f"sam_hq_{size}": f"sam_hq_vit_{size}.pth" for size in ("b", "l", "h", "tiny")}
"""Published files by variant."""


@dataclass(frozen=True, kw_only=True)
class SamHQ(ViTSam):
    """Architecture and weights of a SAM-HQ with a plain ViT; fields as those of `ViTSam`.

    One block at least attends to the whole image: what the first such block makes is what masks are refined with.
    """

    def check(self) -> None:
        """Raise `ConfigError` where fields contradict each other, or a checkpoint file is not there."""
        if not self.global_attention:
            raise ConfigError(
                "model.global_attention = []: SAM-HQ takes its early features from such a block; name one"
            )
        super().check()

    @property
    def kept_by_decoding(self) -> tuple[float, float]:
        """See `SamModel`."""
        return KEPT_BY_DECODING

    def architecture(self) -> dict[str, Any]:
        """See `SamModel`."""
        return {"family": "sam_hq", **super().architecture()}

    def build(self) -> BaseModel:
        """See `lora_sam.models.building.build`."""
        require_file(self)
        return build(self, family="sam_hq", draw=self._random, fill=self._filled)

    def empty(self) -> Sam:
        """The modules of this architecture, with weights as torch draws them."""
        from lora_sam.models.sam_hq_decoder import prompted
        from lora_sam.models.sam_hq_encoder import HQViTEncoder

        encoder = HQViTEncoder(**self.encoder_arguments())
        return prompted(encoder, self.image_size, self.prompt_embed_dim, self.decoder_mlp_dim)


@dataclass(frozen=True, kw_only=True)
class TinySamHQ(TinyViTSam):
    """Architecture and weights of a SAM-HQ with a TinyViT; fields as those of `TinyViTSam`."""

    @property
    def kept_by_decoding(self) -> tuple[float, float]:
        """See `SamModel`."""
        return KEPT_BY_DECODING

    def architecture(self) -> dict[str, Any]:
        """See `SamModel`."""
        return {**super().architecture(), "family": "sam_hq_tiny"}

    def build(self) -> BaseModel:
        """See `lora_sam.models.building.build`."""
        require_file(self)
        return build(self, family="sam_hq_tiny", draw=self._random, fill=self._filled)

    def empty(self) -> Sam:
        """The modules of this architecture with the keys of `segment_anything_hq`, weights as torch draws them."""
        from lora_sam.models.sam_hq_decoder import prompted
        from lora_sam.models.sam_hq_encoder import HQTinyViTEncoder

        encoder = HQTinyViTEncoder(**self.encoder_arguments())
        return prompted(encoder, self.image_size, self.prompt_embed_dim, self.decoder_mlp_dim)


def require_file(model: WeightOptions) -> None:
    """Raise `CheckpointError` where weights are wanted and no file of them is named."""
    variant, checkpoint = (getattr(model, name) for name in ("variant", "checkpoint"))
    if model.weights == "pretrained" and checkpoint is None and model.url is None:
        file = FILES.get(variant, "a .pth file")
        raise CheckpointError(
            f"model={variant} has no weights yet: download {file} from huggingface.co/lkeab/hq-sam by hand and set "
            f"model.checkpoint to it (its SHA-256 is not known here, so it is not fetched by itself)"
        )
