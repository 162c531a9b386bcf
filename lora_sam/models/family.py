"""What a family of SAMs says about itself, so that nothing outside `models/` has to ask which one it is.

A family is the kind of image encoder (and, where they differ, prompt encoder and decoder) that a SAM has. It is one
module beside this one; a variant of it is one file in `conf/model/`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from lora_sam.core.errors import AdapterError
from lora_sam.core.frame import CELL, Colour, Frame

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor, nn

    from lora_sam.models.base_model import BaseModel
    from lora_sam.models.block_shape import BlockShape

Tokens: TypeAlias = "Tensor | tuple[Tensor, ...]"
"""What goes from block to block: tokens [B, side, side, C], and with some families what they need beside them."""

Block: TypeAlias = "Callable[[Any], Any]"
"""`Tokens` to `Tokens` of the same family."""
Linear: TypeAlias = Literal["q", "k", "v", "proj", "lin1", "lin2"]
"""The Linears of a block by what they do, whatever a family calls them: attention, then both layers of the MLP."""

OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "vit": "lora_sam.models.vit.ViTSam",
        "tiny_vit": "lora_sam.models.tiny_vit.TinyViTSam",
        "sam2": "lora_sam.models.sam2.Sam2",
        "sam3": "lora_sam.models.sam3.Sam3",
        "sam_hq": "lora_sam.models.sam_hq.SamHQ",
        "sam_hq_tiny": "lora_sam.models.sam_hq.TinySamHQ",
    }
)
"""The class of `conf/model/` that describes a variant, by the name of its family."""

# those whose image encoder is also one of another family stand before that one
_FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "sam_hq": "lora_sam.models.sam_hq_family.HQViTFamily",
        "sam_hq_tiny": "lora_sam.models.sam_hq_family.HQTinyViTFamily",
        "vit": "lora_sam.models.vit_family.ViTFamily",
        "tiny_vit": "lora_sam.models.tiny_vit_family.TinyViTFamily",
        "sam2": "lora_sam.models.sam2_family.Sam2Family",
        "sam3": "lora_sam.models.sam3_family.Sam3Family",
    }
)
FIRST = "vit"
"""The family of adapters that do not name one."""


class SamModel(Protocol):
    """A variant: the options of a file in `conf/model/`; `lora_sam.models.vit.ViTSam` says what each means."""

    def __hash__(self) -> int: ...

    @property
    def variant(self) -> str:
        """Name of the architecture."""
        ...

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        ...

    @property
    def prompt_embed_dim(self) -> int:
        """Channels of image and prompt embeddings."""
        ...

    @property
    def prompt_frequency(self) -> float:
        """Standard deviation of the frequencies of positions in random weights."""
        ...

    @property
    def weights(self) -> Literal["pretrained", "random"]:
        """Where weights come from."""
        ...

    @property
    def weights_seed(self) -> int:
        """Seed of random weights."""
        ...

    @property
    def checkpoint(self) -> str | None:
        """Path of the weights."""
        ...

    @property
    def offline(self) -> bool:
        """Never download."""
        ...

    @property
    def url(self) -> str | None:
        """Where weights are published."""
        ...

    @property
    def size(self) -> int | None:
        """Of the published file in bytes."""
        ...

    @property
    def sha256(self) -> str | None:
        """Of the published file."""
        ...

    @property
    def depth(self) -> int:
        """Transformer blocks of the image encoder: those that `method.blocks` counts."""
        ...

    @property
    def global_attention(self) -> tuple[int, ...]:
        """Blocks that attend to the whole image."""
        ...

    @property
    def frame(self) -> Frame:
        """How images come to lie in the input."""
        ...

    @property
    def stem(self) -> tuple[int, int]:
        """Numbers that are alive at once before the first block, for an image, and those kept if all of it trains."""
        ...

    @property
    def kept_by_neck(self) -> tuple[float, float]:
        """What follows the blocks keeps of an image for its backward pass; numbers as of `kept_by_decoding`."""
        ...

    @property
    def kept_by_decoding(self) -> tuple[float, float]:
        """What decoding a prompt keeps for its backward pass, in maps of (pixels of the embedding x its channels).

        Numbers of fp32, and numbers in the arithmetic of the step, counted with
        `torch.autograd.graph.saved_tensors_hooks`.
        """
        ...

    def check(self) -> None:
        """Raise `ConfigError` where fields contradict each other, or a checkpoint file is not there."""
        ...

    def architecture(self) -> dict[str, Any]:
        """The fields that fix shapes, as saved beside an adapter; `family` names any but the first."""
        ...

    def block_shape(self, block: int) -> BlockShape:
        """The shape of a transformer block."""
        ...

    def build(self) -> BaseModel:
        """Build the model and load its weights; see `lora_sam.models.building.build`."""
        ...

    def empty(self) -> Sam:
        """The modules of this architecture, projections fused, weights as torch draws them."""
        ...


class Family(Protocol):
    """How the image encoder of a family is taken apart, and put together again as its upstream package has it."""

    name: str
    """As in `OPTIONS`."""

    transformers: str | None
    """Module that describes the family's model in `transformers`: `MODEL`, `config`, `state_of` and `processor`; see
    `lora_sam.models.vit_transformers`."""

    square: bool
    """Whether images are squeezed into the input; see `lora_sam.core.frame.Frame`."""

    colours: tuple[Colour, Colour]
    """What is subtracted from an image, and what it is then divided by; see `lora_sam.core.frame.Frame`."""

    cannot: Mapping[str, str]
    """What this family cannot do, and why: `transformers` (merge with `format=transformers`), `model_api` and
    `x_anylabeling` (packs for these), `frame` (pre-training with `method.frame`), `SamPredictor` (being given to that
    class), `flat` (tuners of PEFT that want tokens of three dimensions), `prompt_tokens` (method=vpt)."""

    def owns(self, encoder: nn.Module) -> bool:
        """Whether `encoder` is an image encoder of this family."""
        ...

    def enter(self, encoder: nn.Module, images: Tensor) -> Tokens:
        """What the first transformer block gets of images [B, 3, S, S]."""
        ...

    def blocks(self, encoder: nn.Module) -> Sequence[Block]:
        """The steps from there on, one for each transformer block."""
        ...

    def leave(self, encoder: nn.Module, tokens: Any) -> Tensor:
        """The image embedding [B, C, S/16, S/16] of what the last block returned."""
        ...

    def as_kept(self, tokens: Any) -> Tensor:
        """What a block gets in one tensor [B, side, side, C], without loss, to be kept."""
        ...

    def as_made(self, encoder: nn.Module, block: int, kept: Tensor) -> Tokens:
        """The inverse, laid out in memory as the block gets it, so that sums round as they do there."""
        ...

    def shape(self, encoder: nn.Module, block: int | None) -> tuple[int, ...]:
        """Shape of what a block gets, of one image, as it is kept; of the embedding for None."""
        ...

    def block_of(self, encoder: nn.Module, parameter: str) -> int | None:
        """The block a parameter of the encoder is part of; their number for what follows them; None before them."""
        ...

    def linear_of(self, parameter: str) -> Linear | None:
        """The Linear of a block that a parameter of the model belongs to, by what it does."""
        ...

    def target_pattern(self, encoder: nn.Module, blocks: Iterable[int], targets: Iterable[str]) -> str:
        """Regular expression of the full names of the Linears of these blocks; targets are q, k, v, proj and mlp."""
        ...

    def modules(self, encoder: nn.Module) -> Mapping[str, nn.Module]:
        """The modules that are compiled on their own, by their names in the model."""
        ...

    def split(self, encoder: nn.Module) -> None:
        """Give every attention `q`, `k`, `v` for its fused `qkv`, in place; weights are rows of the old."""
        ...

    def fuse(self, encoder: nn.Module) -> None:
        """The inverse of `split`: afterwards `published` knows the keys."""
        ...

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a fused model under the keys of its upstream package; tensors are shared."""
        ...


@cache
def family(name: str) -> Family:
    """The family of a name in `OPTIONS`."""
    made: Family = _named(_FAMILIES[name])()
    return made


def family_of(encoder: nn.Module) -> Family:
    """The family that an image encoder belongs to, whether PEFT has wrapped it or not."""
    plain = getattr(encoder, "original_module", encoder)
    for name in _FAMILIES:
        if family(name).owns(plain):
            return family(name)
    raise AssertionError(f"no family has the image encoder {type(plain).__name__}")


def frame_of(sam: Sam) -> Frame:
    """How images come to lie in the input of a model, whether PEFT has wrapped its image encoder or not."""
    encoder = getattr(sam.image_encoder, "original_module", sam.image_encoder)
    return _frame(family_of(encoder), encoder.img_size, getattr(encoder, "patch_size", CELL))


def options_of(architecture: Mapping[str, Any]) -> type[Any]:
    """The class of `conf/model/` that an architecture, as saved beside an adapter, is made of.

    Raises:
        AdapterError: this version knows no such family.
    """
    name = architecture.get("family", FIRST)
    if not isinstance(name, str) or name not in OPTIONS:
        raise AdapterError(f"a model of the family {name!r:.60} is not known here (known are {', '.join(OPTIONS)})")
    options: type[Any] = _named(OPTIONS[name])
    return options


def frame_by(architecture: Mapping[str, Any]) -> Frame:
    """How images come to lie in the input of a model with this architecture, as saved beside an adapter."""
    options_of(architecture)
    found = family(architecture.get("family", FIRST))
    return _frame(found, architecture["image_size"], architecture.get("patch_size", CELL))


def _frame(found: Family, side: int, cell: int) -> Frame:
    return Frame(int(side), found.square, int(cell), *found.colours)


def why_not(architecture: Mapping[str, Any], what: str) -> str | None:
    """Why a model with this architecture cannot do `what`; None where it can."""
    options_of(architecture)
    return family(architecture.get("family", FIRST)).cannot.get(what)


def transformers_module(architecture: Mapping[str, Any]) -> ModuleType:
    """The module that describes a model with this architecture in `transformers`, see `Family.transformers`."""
    options_of(architecture)
    name = family(architecture.get("family", FIRST)).transformers
    assert name is not None, "asked for without `why_not`"
    return importlib.import_module(name)


def _named(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)
