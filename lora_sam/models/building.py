"""Build a SAM of any family: find its weights, read them, refuse what does not fit, split the projections."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lora_sam.core.console import note
from lora_sam.core.errors import CheckpointError, ConfigError
from lora_sam.core.files import recorded_sha256, sha256_of
from lora_sam.core.scores import META, Scores
from lora_sam.models.base_model import BaseModel

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor

    from lora_sam.models.family import SamModel

PATCH_SIZE = 16
KEPT_BY_DECODING = (8.1, 7.5)
"""Of the first SAM's mask decoder, see `lora_sam.models.family.SamModel`."""

PARTS = ("image_encoder", "prompt_encoder", "mask_decoder")
LAYERS = "layers"
"""What the names of tensors of layers that did not fold begin with, in merged weights."""

_Layers: TypeAlias = "tuple[Any, dict[str, Tensor]]"


def build(
    model: SamModel,
    *,
    family: str,
    draw: Callable[[], Sam],
    fill: Callable[[dict[str, Tensor], Path], Sam],
    scores: Scores = META,
    terms: str | None = None,
) -> BaseModel:
    """Build a model and load its weights.

    Args:
        model: The variant.
        family: Name of its family.
        draw: Makes the model with random weights, of torch's generator.
        fill: Makes the model with the weights of a file, or refuses them; gets its path.
        scores: From which score on its masks are good, unless the file says so.
        terms: What is to be said of its published weights before they are downloaded.

    Raises:
        CheckpointError: the file is missing or damaged, is not what it was published as, holds another variant or
            another model, or a tensor that cannot be computed with.
    """
    import torch

    from lora_sam.models.checkpoints import load_scores
    from lora_sam.models.made_for import other_model
    from lora_sam.models.projections import split_projections

    with torch.random.fork_rng(devices=[]):  # layers draw weights that are overwritten at once
        if model.weights == "random":
            torch.manual_seed(model.weights_seed)
            sam, source = draw(), "random"
            sha256 = _digest(sam.state_dict())
            of_tensors: Callable[[], str | None] = partial(str, sha256)
            layers = None
        else:
            path, published = _locate(model, terms)
            source, found = path.name, load_scores(path)
            if (other := other_model(path, model.architecture())) is not None:
                note(other)
            scores = scores if found is META else found
            state, layers = _read(path, family)
            # hashing leaves the interpreter to others, and drawing weights that are overwritten takes one core only
            with ThreadPoolExecutor(1) as aside:
                of_file = aside.submit(sha256_of, path)
                sam = fill(state, path)
                sha256 = of_file.result()
            of_tensors = partial(_digest_in_file, path.absolute(), family, sha256)
            if published not in (None, sha256):
                raise CheckpointError(
                    f"{path} is damaged: its SHA-256 is {sha256[:12]}, it was {published[:12]} when it was "
                    "written; delete it, and get or make it again"
                )
        split = split_projections(sam)
        if layers is not None:
            _put_back(split, layers, path)
        split.eval().requires_grad_(False)
        architecture = model.architecture()
        return BaseModel(split, model.variant, model.image_size, sha256, source, of_tensors, scores, architecture)


def check_weights(model: SamModel) -> None:
    """Raise where the fields that say where weights are contradict each other, or a checkpoint file is not there."""
    if len({value is None for value in (model.url, model.size, model.sha256)}) != 1:
        raise ConfigError(
            f"model.url = {model.url}: a file is known by model.url, model.size and model.sha256 together; set all "
            "three or none"
        )
    if model.weights == "pretrained" and model.checkpoint is not None and not Path(model.checkpoint).is_file():
        raise CheckpointError(
            f"model.checkpoint = {model.checkpoint}: no such file; give the path of a .pth or .safetensors file "
            f"with SAM {model.variant} weights"
        )


def _locate(model: SamModel, terms: str | None = None) -> tuple[Path, str | None]:
    """Path of the weights, and the SHA-256 they had when they were published or a step wrote them, where known."""
    from lora_sam.models.checkpoints import (
        OFFICIAL,
        PACKAGED_SHA256,
        default_directory,
        packaged_checkpoint,
        published,
    )
    from lora_sam.models.download import download_progress, fetch_checkpoint

    if model.checkpoint is not None:
        model.check()
        return Path(model.checkpoint), recorded_sha256(Path(model.checkpoint))
    packaged = packaged_checkpoint(model.variant)
    if packaged is not None:
        return packaged, PACKAGED_SHA256.get(model.variant)
    if model.url is None or model.size is None or model.sha256 is None:
        raise CheckpointError(
            f"model={model.variant} has neither packaged weights nor an official checkpoint; set model.checkpoint "
            f"to a file with its weights (official ones exist for {', '.join(sorted(OFFICIAL))})"
        )
    official = published(model.variant, model.url, model.size, model.sha256)
    with download_progress(official) as progress:
        path = fetch_checkpoint(official, default_directory(), offline=model.offline, progress=progress, terms=terms)
    return path, official.sha256


def _read(path: Path, family: str) -> tuple[dict[str, Tensor], _Layers | None]:
    """The weights in a file, sound, in fp32, with the keys of the upstream package; and layers that did not fold."""
    from lora_sam.models.soundness import check_sound

    state, layers = _stored(path, family)
    if layers is not None:  # a layer may be zero throughout
        check_sound({f"{key}.": value for key, value in layers[1].items()}, path)
        layers = layers[0], {key: value.float() for key, value in layers[1].items()}
    # anything else does not fit, and is refused for that
    own = {key: value for key, value in state.items() if key.partition(".")[0] in PARTS and not is_count(key)}
    check_sound(own, path)
    return {**state, **{key: value.float() for key, value in own.items()}}, layers


def _stored(path: Path, family: str) -> tuple[dict[str, Tensor], _Layers | None]:
    """What `_read` gives, as it is stored."""
    from lora_sam.models.checkpoints import load_layers, load_state_dict
    from lora_sam.models.layouts import plain_state

    found, layers = load_state_dict(path), load_layers(path)
    beside: dict[str, Tensor] = {}
    if layers is not None:
        start = f"{LAYERS}."
        beside = {key.removeprefix(start): found.pop(key) for key in list(found) if key.startswith(start)}
    return plain_state(found, path, family), None if layers is None else (layers, beside)


def _put_back(sam: Sam, layers: _Layers, path: Path) -> None:
    """Put layers that a file has beside its weights into a split `sam`. Raises `CheckpointError` if they do not fit."""
    from lora_sam.models.inserted import Description, put_back

    described, tensors = layers
    try:
        description = Description.from_json(described, {name: value.shape for name, value in tensors.items()})
        put_back(sam, description, tensors)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; merge again") from error


def is_count(key: str) -> bool:
    """Whether a tensor counts batches, as BatchNorm does beside its statistics: no weight, and not computed with."""
    return key.endswith(".num_batches_tracked")


def differences(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> str | None:
    """The first difference between the weights in a file and those of a model; None where they fit.

    Raises:
        CheckpointError: the file holds no SAM, or parts of one.
    """
    missing = sorted(wanted.keys() - state.keys())
    surplus = sorted(state.keys() - wanted.keys())
    misfits = sorted(key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape)
    if not (missing or surplus or misfits):
        return None
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
    if misfits:
        key = misfits[0]
        return f"{key} has the shape {list(state[key].shape)}, where {list(wanted[key].shape)} is needed"
    if missing:
        return f"{missing[0]} is missing" + (f", as are {len(missing) - 1} others" if missing[1:] else "")
    return f"{surplus[0]!r:.150} is not of this model" + (f", nor are {len(surplus) - 1} others" if surplus[1:] else "")


def _digest(state: Mapping[str, Tensor], layers: _Layers | None = None) -> str:
    """SHA-256 of weights in fp32: their names in order, each followed by its values; with layers, of those too."""
    digest = hashlib.sha256()
    if layers is not None:
        digest.update(json.dumps(layers[0], sort_keys=True).encode())
        state = {**state, **{f"{LAYERS}.{key}": value for key, value in layers[1].items()}}
    for key in sorted(state):
        digest.update(key.encode())
        value = state[key]  # one after the other: all in fp32 at once may be as large as the model again
        digest.update((value.float() if value.is_floating_point() else value).reshape(-1).numpy().data)
    return digest.hexdigest()


def _digest_in_file(path: Path, family: str, sha256: str) -> str | None:
    """`_digest` of the weights in a file that was loaded; None where it is not there as it was (its SHA-256) any more.

    Whoever loads weights seldom asks for it, and most of the time of a load would go by with it.
    """
    try:
        found = _digest(*_stored(path, family))
        return found if sha256_of(path) == sha256 else None
    except (CheckpointError, OSError):
        return None


def prompted(
    encoder: Any,
    image_size: int,
    prompt_embed_dim: int,
    decoder_mlp_dim: int,
    *,
    grid: int | None = None,
    prompt_encoder: Callable[..., Any] | None = None,
    mask_decoder: Callable[[int, int], Any] | None = None,
) -> Sam:
    """A SAM around an image encoder.

    Args:
        encoder: The image encoder.
        image_size: Side S of its input.
        prompt_embed_dim: D, channels of what the decoder attends to.
        decoder_mlp_dim: Hidden channels of the decoder's transformer.
        grid: Side of the image embedding; None for S/16.
        prompt_encoder: Makes the prompt encoder, with the arguments of the first SAM's; None takes that.
        mask_decoder: Makes the mask decoder of D and the hidden channels; None takes that of the first SAM.
    """
    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    grid, dim = grid or image_size // PATCH_SIZE, prompt_embed_dim
    return Sam(
        image_encoder=encoder,
        prompt_encoder=(prompt_encoder or PromptEncoder)(
            embed_dim=dim,
            image_embedding_size=(grid, grid),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=decoder_mlp_dim, num_heads=8),
            transformer_dim=dim,
            iou_head_depth=3,
            iou_head_hidden_dim=dim,
        )
        if mask_decoder is None
        else mask_decoder(dim, decoder_mlp_dim),
    )


def draw_positions(sam: Sam, endings: Sequence[str], frequency: float) -> None:
    """Random tables of positions, which packages leave at zero, where neither they nor their resizing could be tested.

    Args:
        sam: The model, in place.
        endings: How the names of its tables of positions end.
        frequency: Standard deviation of the spatial frequencies of the prompt encoder.
    """
    from torch import nn

    for name, parameter in sam.named_parameters():
        if name.endswith(tuple(endings)):
            nn.init.normal_(parameter, std=0.02)
    sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(frequency)
