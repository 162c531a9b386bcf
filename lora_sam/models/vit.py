"""Build SAM with a plain ViT image encoder (vit_b, vit_l, vit_h, nano, tiny_random) and load its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lora_sam.core.errors import CheckpointError, ConfigError
from lora_sam.core.files import recorded_sha256, sha256_of
from lora_sam.core.scores import META, Scores

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor

PATCH_SIZE = 16
PARTS = ("image_encoder", "prompt_encoder", "mask_decoder")


@dataclass(frozen=True)
class BaseModel:
    """A SAM with split projections, and which base it is.

    Attributes:
        sam: Keys as in `segment_anything`, but `attn.q|k|v` for `attn.qkv`; fp32, `eval()`, nothing requires gradients.
        variant: Name of the architecture.
        image_size: Side S of the square input in pixels.
        sha256: SHA-256 of the checkpoint file, or of the drawn weights when they are random.
        source: Name of the checkpoint file, or `random`.
        tensors: SHA-256 of the weights themselves: equal whatever file, layout or precision holds the same numbers.
            None where the file is the one that was expected, so that nobody has to know.
        scores: From which score on its masks are good.
    """

    sam: Sam
    variant: str
    image_size: int
    sha256: str
    source: str
    tensors: str | None
    scores: Scores = META


@dataclass(frozen=True, kw_only=True)
class ViTSam:
    """Architecture and weights of a SAM whose image encoder is a plain ViT (Kirillov et al., 2023, appendix A).

    Attributes:
        variant: Name of the architecture; `vit_b`, `vit_l` and `vit_h` have official checkpoints.
        image_size: Side of the square input in pixels, a multiple of 16; positions are interpolated where it differs
            from the checkpoint's.
        embed_dim: Channels of the ViT.
        depth: Number of its blocks.
        num_heads: Attention heads of a block.
        global_attention: Indices of the blocks that attend to the whole image; the others attend within windows.
        window_size: Side of a window in tokens.
        prompt_embed_dim: Channels of image and prompt embeddings, a multiple of 8.
        decoder_mlp_dim: Hidden channels of the mask decoder's transformer.
        prompt_frequency: Standard deviation of the random spatial frequencies that encode positions in the prompt
            encoder (Tancik et al., 2020); only random weights are drawn with it, a checkpoint brings its own.
        weights: `pretrained`, or `random` (drawn with `weights_seed`; for tests and benchmarks).
        weights_seed: Seed of random weights.
        checkpoint: Path of a `.safetensors`, `.pth`, `.pt`, `.bin` or `.ckpt` file with the weights of such a SAM, in
            any layout that `lora_sam.models.layouts.plain_state` knows; null takes the file that comes with the package
            (`nano`), or the official one of the variant from the cache directory, downloading it once.
        offline: Never download.
        url: Where weights are published, https; null where they are not. The end of it is the name of the file.
        size: Of that file in bytes.
        sha256: Of that file, 64 hexadecimal digits.
    """

    variant: Annotated[str, Field(min_length=1, pattern=r"^[a-z0-9_]+$")]
    image_size: Annotated[int, Field(ge=32, le=4096, multiple_of=PATCH_SIZE)]
    embed_dim: Annotated[int, Field(ge=8, le=2048)]
    depth: Annotated[int, Field(ge=1, le=64)]
    num_heads: Annotated[int, Field(ge=1, le=64)]
    global_attention: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=64)]
    window_size: Annotated[int, Field(ge=1, le=256)]
    prompt_embed_dim: Annotated[int, Field(ge=32, le=2048, multiple_of=8)]
    decoder_mlp_dim: Annotated[int, Field(ge=1, le=16384)]
    prompt_frequency: Annotated[float, Field(gt=0, le=100)]
    weights: Literal["pretrained", "random"]
    weights_seed: Annotated[int, Field(ge=0, lt=2**63)]
    checkpoint: str | None
    offline: bool
    url: Annotated[str, Field(pattern=r"^https?://[^\s]+/[A-Za-z0-9_.-]+\.(pth|pt|safetensors)$")] | None
    size: Annotated[int, Field(ge=1)] | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None

    def check(self) -> None:
        """Raise `ConfigError` where fields contradict each other, or a checkpoint file is not there."""
        if self.embed_dim % self.num_heads:
            raise ConfigError(
                f"model.embed_dim = {self.embed_dim}: must be a multiple of model.num_heads = {self.num_heads}"
            )
        if len({value is None for value in (self.url, self.size, self.sha256)}) != 1:
            raise ConfigError(
                f"model.url = {self.url}: a file is known by model.url, model.size and model.sha256 together; set all "
                "three or none"
            )
        outside = [block for block in self.global_attention if block >= self.depth]
        if outside:
            raise ConfigError(
                f"model.global_attention = {list(self.global_attention)}: blocks are numbered 0 to {self.depth - 1}"
            )
        if self.weights == "pretrained" and self.checkpoint is not None and not Path(self.checkpoint).is_file():
            raise CheckpointError(
                f"model.checkpoint = {self.checkpoint}: no such file; give the path of a .pth or .safetensors file "
                f"with SAM {self.variant} weights"
            )

    def architecture(self) -> dict[str, Any]:
        """The fields that fix shapes, as saved beside an adapter."""
        names = ("variant", "image_size", "embed_dim", "depth", "num_heads", "global_attention", "window_size")
        return {name: getattr(self, name) for name in (*names, "prompt_embed_dim", "decoder_mlp_dim")}

    def build(self, expected: str | None = None) -> BaseModel:
        """Build the model and load its weights.

        Args:
            expected: SHA-256 of the file that is expected; of any other file the weights themselves are hashed too.

        Raises:
            CheckpointError: the file is missing or damaged, is not what it was published as, holds another variant or
                another model, or a tensor that cannot be computed with.
        """
        import torch

        from lora_sam.models.checkpoints import load_scores
        from lora_sam.models.projections import split_projections

        with torch.random.fork_rng(devices=[]):  # layers draw weights that are overwritten at once
            if self.weights == "random":
                torch.manual_seed(self.weights_seed)
                sam, source, scores = self._random(), "random", META
                sha256 = _digest(sam.state_dict())
                tensors: str | None = sha256
            else:
                path, published = self._locate()
                source, scores = path.name, load_scores(path)
                # hashing leaves the interpreter to others: it is over before the layers are there
                with ThreadPoolExecutor(1) as aside:
                    of_file = aside.submit(sha256_of, path)
                    state = self._read(path)
                    of_tensors = None if expected is not None else aside.submit(_digest, state)
                    sam = self._filled(state, path)
                    sha256 = of_file.result()
                    if of_tensors is not None:
                        tensors = of_tensors.result()
                    else:
                        tensors = None if sha256 == expected else _digest(state)
                if published not in (None, sha256):
                    raise CheckpointError(
                        f"{path} is damaged: its SHA-256 is {sha256[:12]}, it was {published[:12]} when it was "
                        "written; delete it, and get or make it again"
                    )
            split = split_projections(sam).eval().requires_grad_(False)
            return BaseModel(split, self.variant, self.image_size, sha256, source, tensors, scores)

    def _locate(self) -> tuple[Path, str | None]:
        """Path of the weights, and the SHA-256 they had when they were published or a step wrote them, where known."""
        from lora_sam.models.checkpoints import (
            OFFICIAL,
            PACKAGED_SHA256,
            default_directory,
            packaged_checkpoint,
            published,
        )
        from lora_sam.models.download import download_progress, fetch_checkpoint

        if self.checkpoint is not None:
            self.check()
            return Path(self.checkpoint), recorded_sha256(Path(self.checkpoint))
        packaged = packaged_checkpoint(self.variant)
        if packaged is not None:
            return packaged, PACKAGED_SHA256.get(self.variant)
        if self.url is None or self.size is None or self.sha256 is None:
            raise CheckpointError(
                f"model={self.variant} has neither packaged weights nor an official checkpoint; set model.checkpoint "
                f"to a file with its weights (official ones exist for {', '.join(sorted(OFFICIAL))})"
            )
        official = published(self.variant, self.url, self.size, self.sha256)
        with download_progress(official) as progress:
            path = fetch_checkpoint(official, default_directory(), offline=self.offline, progress=progress)
        return path, official.sha256

    def _read(self, path: Path) -> dict[str, Tensor]:
        """The weights in a file, sound, in fp32, with the keys of `segment_anything`."""
        from lora_sam.models.checkpoints import load_state_dict
        from lora_sam.models.layouts import plain_state
        from lora_sam.models.soundness import check_sound

        state = plain_state(load_state_dict(path), path)
        # anything else does not fit, and is refused for that
        own = {key: value for key, value in state.items() if key.partition(".")[0] in PARTS}
        check_sound(own, path)
        return {**state, **{key: value.float() for key, value in own.items()}}

    def _filled(self, state: dict[str, Tensor], path: Path) -> Sam:
        """The model with these weights."""
        sam = self.empty()
        state = resize_positions(state, self.image_size // PATCH_SIZE, global_attention=self.global_attention)
        self._check_fits(state, sam.state_dict(), path)
        sam.load_state_dict(state, strict=True)
        return sam

    def _check_fits(self, state: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> None:
        missing = sorted(wanted.keys() - state.keys())
        surplus = sorted(state.keys() - wanted.keys())
        misfits = sorted(key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape)
        if not (missing or surplus or misfits):
            return
        there = [part for part in PARTS if any(key.startswith(f"{part}.") for key in state)]
        if not there:
            raise CheckpointError(
                f"{path}: not a SAM checkpoint: {len(missing)} of {len(wanted)} tensors are missing, e.g. {missing[0]}"
            )
        if len(there) < len(PARTS):
            absent = " and ".join(part for part in PARTS if part not in there)
            raise CheckpointError(
                f"{path} holds {' and '.join(there)} of a SAM without its {absent}; give the weights of the whole model"
            )
        patch = state.get("image_encoder.patch_embed.proj.weight")
        channels = None if patch is None else patch.shape[0]
        blocks = len({key.split(".")[2] for key in state if key.startswith("image_encoder.blocks.")})
        if misfits:
            key = misfits[0]
            first = f"{key} has the shape {list(state[key].shape)}, where {list(wanted[key].shape)} is needed"
        elif missing:
            first = f"{missing[0]} is missing" + (f", as are {len(missing) - 1} others" if missing[1:] else "")
        else:
            first = f"{surplus[0]!r:.150} is not of this model" + (
                f", nor are {len(surplus) - 1} others" if surplus[1:] else ""
            )
        if (channels, blocks) != (self.embed_dim, self.depth):
            found = "another architecture" if channels is None else f"a ViT with {channels} channels"
            raise CheckpointError(
                f"{path}: wrong checkpoint for model={self.variant}: it holds {found} and {blocks} blocks, "
                f"{self.variant} has {self.embed_dim} and {self.depth} (first difference: {first}); "
                "choose the matching model= or another model.checkpoint"
            )
        raise CheckpointError(
            f"{path}: a ViT of the size of {self.variant}, but not the same model: {first}; give weights of the plain "
            f"SAM {self.variant}, or set what differs under model="
        )

    def _random(self) -> Sam:
        from torch import nn

        sam = self.empty()
        for name, parameter in sam.named_parameters():
            # the package leaves them at zero, where neither positions nor their interpolation could be tested
            if name.endswith(("pos_embed", "rel_pos_h", "rel_pos_w")):
                nn.init.normal_(parameter, std=0.02)
        sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(self.prompt_frequency)
        return sam

    def empty(self) -> Sam:
        """The modules of this architecture, with weights as torch draws them."""
        from functools import partial

        from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
        from torch import nn

        grid = self.image_size // PATCH_SIZE
        dim = self.prompt_embed_dim
        return Sam(
            image_encoder=ImageEncoderViT(
                img_size=self.image_size,
                patch_size=PATCH_SIZE,
                embed_dim=self.embed_dim,
                depth=self.depth,
                num_heads=self.num_heads,
                mlp_ratio=4,
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
                qkv_bias=True,
                use_rel_pos=True,
                global_attn_indexes=self.global_attention,
                window_size=self.window_size,
                out_chans=dim,
            ),
            prompt_encoder=PromptEncoder(
                embed_dim=dim,
                image_embedding_size=(grid, grid),
                input_image_size=(self.image_size, self.image_size),
                mask_in_chans=16,
            ),
            mask_decoder=MaskDecoder(
                num_multimask_outputs=3,
                transformer=TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=self.decoder_mlp_dim, num_heads=8),
                transformer_dim=dim,
                iou_head_depth=3,
                iou_head_hidden_dim=dim,
            ),
        )


def _digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights in fp32: their names in order, each followed by its values."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].reshape(-1).numpy().data)
    return digest.hexdigest()


def resize_positions(
    state: Mapping[str, Tensor], grid: int, *, global_attention: Collection[int], prefix: str = "image_encoder."
) -> dict[str, Tensor]:
    """A copy of a `Sam` state dict whose position parameters fit a `grid` x `grid` token map.

    The absolute embedding [1, G, G, C] is interpolated bicubically (as ViT and ViTDet do); the relative tables
    [2G-1, c] of the blocks with global attention linearly, which is what `get_rel_pos` of `segment_anything` does at
    run time. Windowed blocks do not depend on the input size. Nothing changes where the size fits already.
    """
    from torch.nn import functional as F

    resized = dict(state)
    key = f"{prefix}pos_embed"
    if key in state and state[key].ndim == 4 and state[key].shape[1] != grid:
        table = state[key].float().permute(0, 3, 1, 2)
        table = F.interpolate(table, size=(grid, grid), mode="bicubic", align_corners=False)
        resized[key] = table.permute(0, 2, 3, 1).to(state[key].dtype)
    for block in global_attention:
        for axis in ("h", "w"):
            key = f"{prefix}blocks.{block}.attn.rel_pos_{axis}"
            if key in state and state[key].ndim == 2 and state[key].shape[0] != 2 * grid - 1:
                table = state[key].float().T.unsqueeze(0)
                table = F.interpolate(table, size=2 * grid - 1, mode="linear")
                resized[key] = table.squeeze(0).T.contiguous().to(state[key].dtype)
    return resized
