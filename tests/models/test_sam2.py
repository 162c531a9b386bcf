"""SAM 2 held against `transformers.Sam2Model`, and its weights in all layouts that they are passed on in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import Sam2Model, Sam2VideoConfig, Sam2VideoModel

from lora_sam.core.errors import CheckpointError, ConfigError
from lora_sam.core.frame import Frame
from lora_sam.deployment.proof import answers, compare, probe
from lora_sam.deployment.transformers_layout import transformers_answers
from lora_sam.models import decoding
from lora_sam.models.projections import fuse_projections
from lora_sam.models.sam2_layouts import from_transformers, our_state, package_state, transformers_state
from lora_sam.models.sam2_transformers import config

FRAME = Frame(64, square=True)
PUBLISHED = {"sam2_tiny": 38.9e6, "sam2_small": 46e6, "sam2_base_plus": 80.8e6, "sam2_large": 224.4e6}
"""Parameters with the part for videos, as the package `sam2` says them."""


@pytest.fixture(scope="module")
def fused(option: Callable[..., Any]) -> Any:
    return fuse_projections(option("model/sam2_random").build().sam)


@pytest.fixture(scope="module")
def theirs(option: Callable[..., Any], fused: Any) -> Any:
    model = Sam2Model(config(option("model/sam2_random").architecture()))
    model.load_state_dict(transformers_state(package_state(fused.state_dict())), strict=True)
    return model.eval().requires_grad_(False)


def test_maps_and_masks_are_those_of_transformers(option: Callable[..., Any], theirs: Any) -> None:
    sam = option("model/sam2_random").build().sam
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    embedding, maps = sam.image_encoder(images), theirs.get_image_embeddings(images)
    coarse, finer, finest = embedding.split([32, 32, 64], dim=1)
    for found, expected in zip((F.pixel_shuffle(finest, 4), F.pixel_shuffle(finer, 2), coarse), maps, strict=True):
        assert (found - expected).abs().max() < 1e-5
    assert theirs.no_memory_embedding.abs().max() > 1e-3  # it counts
    agreement = compare(answers(sam, probe(FRAME)), transformers_answers(theirs, probe(FRAME)))
    assert agreement.within(1e-5)
    assert agreement.mean_mask_iou >= 0.9999
    assert agreement.masks == 64


def test_the_decoder_itself_computes_the_same(option: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Many clicks go through the decoder's own attention, and a plan counts its own `forward`."""
    sam = option("model/sam2_random").build().sam
    shared = answers(sam, probe(FRAME))
    monkeypatch.setattr(decoding, "can_share", lambda *_: False)
    assert compare(shared, answers(sam, probe(FRAME))).within(1e-5)
    embedding = sam.image_encoder(probe(FRAME).images)
    sparse, dense = sam.prompt_encoder(points=None, boxes=probe(FRAME).prompts[0].boxes, masks=None)
    assert sparse.shape[1] == 3  # a box has a point of padding beside it
    logits, scores = sam.mask_decoder.predict_masks(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense)
    assert (logits - shared.logits[:4]).abs().max() < 1e-5
    assert (scores - shared.scores[:4]).abs().max() < 1e-5
    assert ((scores > 0) & (scores < 1)).all()


def test_prompts_on_several_images_at_once_are_those_of_each(option: Callable[..., Any]) -> None:
    sam = option("model/sam2_random").build().sam
    embeddings = sam.image_encoder(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    boxes, which = probe(FRAME).prompts[0].boxes, torch.tensor([0, 1, 1, 0])
    rough = torch.randn(4, 16, 16)
    for masks in (None, rough):
        together, _ = decoding.decode_all_masks(
            sam, embeddings, boxes=boxes, points=None, labels=None, mask_inputs=masks, images=which
        )
        for row, image in enumerate(which.tolist()):
            alone, _ = decoding.decode_all_masks(
                sam,
                embeddings[image : image + 1],
                boxes=boxes[row : row + 1],
                points=None,
                labels=None,
                mask_inputs=None if masks is None else masks[row : row + 1],
            )
            assert (together[row] - alone[0]).abs().max() < 1e-5


def test_every_key_has_one_name_in_each_layout(fused: Any) -> None:
    state = fused.state_dict()
    package = package_state(state)
    assert our_state(package).keys() == state.keys()
    assert {key.partition(".")[0] for key in package} == {
        "image_encoder",
        "sam_prompt_encoder",
        "sam_mask_decoder",
        "no_mem_embed",
    }
    assert not any("conv_s" in key for key in package if key.startswith("image_encoder"))
    assert {key for key in package if ".mlp.layers." in key and "decoder" in key} == {
        f"sam_mask_decoder.transformer.layers.{layer}.mlp.layers.{place}.{kind}"
        for layer in (0, 1)
        for place in (0, 1)
        for kind in ("weight", "bias")
    }
    again = from_transformers(transformers_state(package), Path("w"))
    assert again.keys() == package.keys()
    assert all(torch.equal(again[key], package[key]) for key in package)


@pytest.mark.parametrize("video", [False, True])
@pytest.mark.parametrize("layout", ["sam2", "transformers"])
def test_files_of_both_packages_are_read(
    option: Callable[..., Any], fused: Any, theirs: Any, layout: str, video: bool, tmp_path: Path, capsys: Any
) -> None:
    package = package_state(fused.state_dict())
    path = tmp_path / "w.safetensors"
    if layout == "transformers":
        state = dict(theirs.state_dict())
        if video:
            whole = config(option("model/sam2_random").architecture()).to_dict()
            parts = {key: whole[key] for key in ("vision_config", "prompt_encoder_config", "mask_decoder_config")}
            with torch.device("meta"):
                names = Sam2VideoModel(Sam2VideoConfig(**parts, memory_attention_hidden_size=32)).state_dict().keys()
            assert len(names - state.keys()) > 50
            state |= {name: torch.zeros(1) for name in names - state.keys()}
    else:
        extra = ("memory_attention.layers.0.norm1.weight", "memory_encoder.fuser.layers.0.gamma", "maskmem_tpos_enc")
        more = ("no_mem_pos_enc", "no_obj_ptr", "obj_ptr_proj.layers.0.weight", "mask_downsample.weight")
        state = package | dict.fromkeys((*extra, *more) if video else (), torch.zeros(1))
    save_file({key: value.clone().contiguous() for key, value in state.items()}, path)
    base = option("model/sam2_random", weights="pretrained", checkpoint=str(path)).build()
    found = package_state(fuse_projections(base.sam).state_dict())
    assert all(torch.equal(found[key], package[key]) for key in package)
    assert ("that SAM 2 has for videos are left out" in capsys.readouterr().err) == video


def test_weights_have_the_size_that_was_published(option: Callable[..., Any]) -> None:
    """Published files differ by their image encoders alone, and a tensor's name and place take up to 500 bytes."""
    counts, tensors, sizes = {}, {}, {}
    for variant in PUBLISHED:
        with torch.device("meta"):
            state = option(f"model/{variant}").empty().state_dict()
        counts[variant], tensors[variant] = sum(value.numel() for value in state.values()), len(state)
        sizes[variant] = option(f"model/{variant}").size
        # what the whole is said to have, less the part for videos
        assert 7.4e6 < PUBLISHED[variant] - counts[variant] < 7.5e6
    for variant in PUBLISHED:
        beyond = sizes[variant] - sizes["sam2_tiny"] - 4 * (counts[variant] - counts["sam2_tiny"])
        assert 0 <= beyond <= 500 * (tensors[variant] - tensors["sam2_tiny"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 15}, "model.embed_dim = 15: must be a multiple of model.num_heads = 2"),
        ({"global_attention": [8]}, r"model.global_attention = \[8\]: blocks are numbered 0 to 7"),
        ({"window_sizes": [6, 4, 6, 3]}, "model.image_size = 64: a quarter of it must be a multiple of .* = 6"),
        ({"window_sizes": [4, 3, 6, 3]}, r"model.window_sizes = \[4, 3, 6, 3\]: 3 must be even"),
    ],
)
def test_what_cannot_be_is_told(option: Callable[..., Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        option("model/sam2_random", **changes).check()


def test_files_that_are_something_else_are_named_with_the_model_that_takes_them(
    option: Callable[..., Any], tmp_path: Path
) -> None:
    def building(variant: str, state: dict[str, torch.Tensor], **changes: Any) -> Any:
        torch.save({"model": state}, tmp_path / "w.pt")
        option(f"model/{variant}", weights="pretrained", checkpoint=str(tmp_path / "w.pt"), **changes).build()

    small = {"image_encoder.trunk.patch_embed.proj.weight": torch.ones(96, 3, 7, 7)}
    small |= {f"image_encoder.trunk.blocks.{number}.norm1.weight": torch.ones(96) for number in range(16)}
    with pytest.raises(CheckpointError, match=r"holds SAM 2, which cannot be the base: choose model=sam2_small$"):
        building("tiny_random", small)
    with pytest.raises(CheckpointError, match=r"a SAM 2, but not model=sam2_random: .*; choose model=sam2_small$"):
        building("sam2_random", {**package_state(option("model/sam2_random")._random().state_dict()), **small})
    memory = {"memory_attention.norm.weight": torch.zeros(1), "maskmem_tpos_enc": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="holds the part of SAM 2 for videos alone: give the weights of the"):
        building("sam2_random", memory)
    with pytest.raises(CheckpointError, match=r"holds SAM 2, .*: it is the part for videos alone; give the weights of"):
        building("tiny_random", memory)
    third = {"detector.backbone.vision_backbone.trunk.patch_embed.proj.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"holds SAM 3, .*: choose model=sam3$"):
        building("sam2_random", third)
    with pytest.raises(CheckpointError, match=r"holds a SAM with a plain ViT, .*: choose model=vit_b"):
        building("sam2_random", option("model/tiny_random").empty().state_dict())


def test_what_is_for_videos_is_kept_and_never_trains(option: Callable[..., Any]) -> None:
    full = option("method/full").apply(option("model/sam2_random").build().sam)
    head = [name for name, _ in full.peft.named_buffers() if "pred_obj_score_head" in name]
    assert len(head) == 12  # weights and biases of three layers, of base and trained copy
    assert not any("pred_obj_score_head" in name for name in full.trainable())
    assert any("obj_score_token" in name for name in full.trainable())
    merged = full.merge().state_dict()
    base = fuse_projections(option("model/sam2_random").build().sam).state_dict()
    assert all(np.array_equal(merged[key], base[key]) for key in base if "pred_obj_score_head" in key)
