"""SAM-HQ held against `transformers.SamHQModel`, its published layout, and that of both encoders nothing is lost."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import SamPredictor
from transformers import SamHQConfig, SamHQModel
from transformers.models.sam_hq import modeling_sam_hq

from lora_sam.core.errors import CheckpointError, ConfigError
from lora_sam.core.frame import Frame
from lora_sam.core.structures import Prompts
from lora_sam.deployment.proof import ProbePrompts, probe
from lora_sam.models import decoding
from lora_sam.models.family import family_of, why_not
from lora_sam.models.layouts import transformers_state
from lora_sam.models.projections import fuse_projections, fuse_state_dict
from lora_sam.models.stages import Stage
from lora_sam.models.vit_transformers import config
from lora_sam.predictors.torch_predictor import TorchPredictor

FRAME = Frame(64, square=False)
VARIANTS = ("sam_hq_random", "sam_hq_tiny_random")
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
BOXES = torch.tensor([[1.0, 2, 30, 40], [9, 5, 60, 60], [4, 4, 50, 20]])
PARTS = ("hf_token", "hf_mlp", "compress_vit_feat", "embedding_encoder", "embedding_maskfeature")


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return f"model/{request.param}"


def masks(sam: Any, embedding: torch.Tensor, **changes: Any) -> torch.Tensor:
    with torch.no_grad():
        return decoding.decode_all_masks(sam, embedding, boxes=BOXES, points=None, labels=None, **changes)[0]


def decoded_by(model: Any, early: Any, prompts: ProbePrompts) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [N, 4, h, w] and predicted IoU [N, 4] of `SamHQModel`, the three masks as it sorts them."""
    outputs = [
        model(
            image_embeddings=early[0],
            intermediate_embeddings=early[1],
            input_points=None if prompts.points is None else prompts.points[None],
            input_labels=None if prompts.labels is None else prompts.labels[None],
            input_boxes=None if prompts.boxes is None else prompts.boxes[None],
            multimask_output=several,
        )
        for several in (False, True)
    ]
    logits = torch.cat([output.pred_masks[0] for output in outputs], dim=1)
    return logits, torch.cat([output.iou_scores[0] for output in outputs], dim=1)


def sorted_as_theirs(logits: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    order = torch.cat([torch.zeros(len(scores), 1).long(), 1 + scores[:, 1:].sort(descending=True).indices], 1)
    return logits.gather(1, order[:, :, None, None].expand_as(logits)), scores.gather(1, order)


def test_masks_are_those_of_transformers_but_for_one_line_of_it(
    option: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It forgets what its attention made of the image. Once it does not, `cannot` of the family may go."""
    settings = option("model/sam_hq_random")
    sam = settings.build().sam
    parts = {name: part for name, part in config(settings.architecture()).to_dict().items() if name.endswith("_config")}
    for part in parts.values():
        part.pop("model_type")
    theirs: Any = SamHQModel(
        SamHQConfig(**{**parts, "mask_decoder_config": parts["mask_decoder_config"] | {"vit_dim": 32}})
    )
    theirs.load_state_dict(transformers_state(fuse_state_dict(sam.state_dict())), strict=True)
    theirs.eval().requires_grad_(False)
    asked = probe(FRAME)
    early, own = theirs.get_image_embeddings(asked.images), sam.image_encoder(asked.images)
    assert torch.cat([early[0], early[1][0].permute(0, 3, 1, 2)], 1).sub(own).abs().max() < 1e-5
    source = textwrap.dedent(inspect.getsource(modeling_sam_hq.SamHQMaskDecoder.forward))
    forgotten, kept = (f"point_embedding, {name} = self.transformer(" for name in ("iou_token_out", "image_embeddings"))
    assert forgotten in source
    space: dict[str, Any] = {}
    exec(source.replace(forgotten, kept), vars(modeling_sam_hq), space)
    for right in (False, True):
        if right:
            monkeypatch.setattr(modeling_sam_hq.SamHQMaskDecoder, "forward", space["forward"])
        for prompts in asked.prompts[:3]:
            found = decoded_by(theirs, early, prompts)
            wanted = sorted_as_theirs(
                *decoding.decode_all_masks(
                    sam, own, boxes=prompts.boxes, points=prompts.points, labels=prompts.labels, mask_inputs=None
                )
            )
            assert (found[1] - wanted[1]).abs().max() < 1e-5
            assert ((found[0] - wanted[0]).abs().max() < 1e-5) == right
            assert not right or ((found[0] > 0) == (wanted[0] > 0)).float().mean() > 0.9999


def test_every_way_through_the_decoder_computes_the_same(
    option: Callable[..., Any], variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shared one, that of many clicks and of exported parts, and the one that `SamPredictor` calls."""
    sam = option(variant).build().sam
    embeddings = sam.image_encoder(IMAGES)
    shared = masks(sam, embeddings[:1])
    which = torch.tensor([0, 1, 0])
    of_two = masks(sam, embeddings, images=which)
    assert (of_two[1] - masks(sam, embeddings[1:])[1]).abs().max() < 1e-5
    assert (of_two[0] - shared[0]).abs().max() < 1e-5
    monkeypatch.setattr(decoding, "can_share", lambda *_: False)
    assert (masks(sam, embeddings[:1]) - shared).abs().max() < 1e-5
    assert (masks(sam, embeddings, images=which) - of_two).abs().max() < 1e-5
    sparse, dense = sam.prompt_encoder(points=None, boxes=BOXES, masks=None)
    own, _ = sam.mask_decoder.predict_masks(embeddings[:1], sam.prompt_encoder.get_dense_pe(), sparse, dense)
    assert (own - shared).abs().max() < 1e-5


def test_the_early_block_counts_and_is_kept_beside_the_tokens(option: Callable[..., Any], variant: str) -> None:
    sam = option(variant).build().sam
    encoder, dim = sam.image_encoder, 32
    family = family_of(encoder)
    whole = encoder(IMAGES[:1])
    early = encoder.early_block
    for block in (early, early + 1, len(family.blocks(encoder)), None):
        values = Stage(block).of(encoder, IMAGES[:1])
        assert values.shape[1:] == Stage(block).shape(encoder)
        assert torch.equal(Stage(block).rest(encoder, values), whole)
    last = Stage(len(family.blocks(encoder))).of(encoder, IMAGES[:1])
    kept = Stage(early + 1).of(encoder, IMAGES[:1])
    assert torch.equal(last[..., -encoder.early_channels :], kept[..., : encoder.early_channels])
    other = whole.clone()
    other[:, dim:] = 0
    assert (masks(sam, other) - masks(sam, whole)).abs().max() > 1e-3
    with torch.no_grad():
        sam.mask_decoder.hf_mlp.layers[-1].weight.zero_()
        sam.mask_decoder.hf_mlp.layers[-1].bias.zero_()
    plain = masks(sam, whole)
    assert torch.equal(masks(sam, other), plain)  # what is left are the masks of the first SAM


def test_a_decoder_alone_trains_what_is_high_quality_and_goes_back(
    option: Callable[..., Any], variant: str, tmp_path: Path
) -> None:
    adapted = option("method/decoder").apply(option(variant).build().sam)
    assert adapted.frozen_stage == Stage(None)
    embedding = adapted.sam.image_encoder(IMAGES[:1]).detach()
    logits, _ = decoding.decode_all_masks(adapted.sam, embedding, boxes=BOXES, points=None, labels=None)
    logits[:, 0].square().mean().backward()
    for part in PARTS:
        gradients = [value.grad for name, value in adapted.trainable().items() if f".{part}." in name]
        assert gradients, part
        assert all(gradient.abs().max() > 0 for gradient in gradients), part
    torch.optim.SGD(adapted.trainable().values(), lr=0.5).step()
    tuned = masks(adapted.sam, embedding)
    merged = adapted.merge()
    assert (masks(merged, embedding) - tuned).abs().max() <= 1e-4
    save_file({key: value.contiguous() for key, value in merged.state_dict().items()}, tmp_path / "w.safetensors")
    again = option(variant, weights="pretrained", checkpoint=str(tmp_path / "w.safetensors")).build().sam
    assert (masks(again, embedding) - tuned).abs().max() <= 1e-4
    assert (tuned - masks(option(variant).build().sam, embedding)).abs().max() > 1e-3


def test_its_own_token_is_among_those_of_the_decoder(option: Callable[..., Any]) -> None:
    adapted = option("method/decoder_tokens").apply(option("model/sam_hq_random").build().sam)
    embedding = adapted.sam.image_encoder(IMAGES[:1]).detach()
    logits, scores = decoding.decode_all_masks(adapted.sam, embedding, boxes=BOXES, points=None, labels=None)
    (logits.square().mean() + scores.square().mean()).backward()
    trained = adapted.trainable()
    assert sum("hf_token" in name or "hf_mlp" in name for name in trained) == 7
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in trained.values())


def test_the_published_files_have_these_weights(option: Callable[..., Any]) -> None:
    """Shapes of `segment_anything_hq` 0.3; how many parameters it adds is that of SAM-HQ's mask decoder alone."""
    added = {}
    for variant, plain in (
        ("sam_hq_b", "vit_b"),
        ("sam_hq_l", "vit_l"),
        ("sam_hq_h", "vit_h"),
        ("sam_hq_tiny", "tiny_vit"),
    ):
        with torch.device("meta"):
            state, before = (option(f"model/{name}").empty().state_dict() for name in (variant, plain))
        assert state.keys() >= before.keys()
        assert {key.split(".")[1] for key in state.keys() - before.keys()} == set(PARTS)
        added[variant] = sum(state[key].numel() for key in state.keys() - before.keys())
        early = {"sam_hq_b": 768, "sam_hq_l": 1024, "sam_hq_h": 1280, "sam_hq_tiny": 160}[variant]
        assert state["mask_decoder.compress_vit_feat.0.weight"].shape == (early, 256, 2, 2)
    assert state["mask_decoder.hf_mlp.layers.2.weight"].shape == (32, 256)
    assert state["mask_decoder.embedding_encoder.3.weight"].shape == (64, 32, 2, 2)
    assert state["mask_decoder.embedding_maskfeature.0.weight"].shape == (64, 32, 3, 3)
    per_channel = 4 * 256
    assert added["sam_hq_h"] - added["sam_hq_b"] == 512 * per_channel
    assert added["sam_hq_l"] - added["sam_hq_tiny"] == 864 * per_channel


def test_a_file_of_transformers_is_read(option: Callable[..., Any], tmp_path: Path) -> None:
    state = fuse_state_dict(option("model/sam_hq_random", weights_seed=5).build().sam.state_dict())
    stored = transformers_state(state)
    assert not any(".hf_" in key or "embedding_maskfeature" in key for key in stored)
    save_file({key: value.clone().contiguous() for key, value in stored.items()}, tmp_path / "w.safetensors")
    base = option("model/sam_hq_random", weights="pretrained", checkpoint=str(tmp_path / "w.safetensors")).build()
    found = fuse_projections(base.sam).state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_the_usual_predictor_takes_it(option: Callable[..., Any]) -> None:
    """`segment_anything.SamPredictor`: images are padded as those of the first SAM, and the embedding is one tensor."""
    sam = option("model/sam_hq_random").build().sam
    picture = np.random.default_rng(1).integers(0, 256, (50, 64, 3), np.uint8)
    box = np.array([[3, 4, 40, 30]], np.float32)
    wanted = TorchPredictor(sam, 64).predict(picture, Prompts(boxes=box))
    usual = SamPredictor(fuse_projections(sam))
    usual.set_image(picture)
    _, scores, low_res = usual.predict(box=box[0], multimask_output=False)
    assert np.abs(low_res - wanted.low_res_logits).max() < 1e-5
    assert np.abs(scores - wanted.scores).max() < 1e-5


def test_files_of_other_families_are_named_both_ways(option: Callable[..., Any], tmp_path: Path) -> None:
    def refused(variant: str, state: dict[str, torch.Tensor]) -> str:
        torch.save(state, tmp_path / "w.pt")
        with pytest.raises(CheckpointError) as caught:
            option(f"model/{variant}", weights="pretrained", checkpoint=str(tmp_path / "w.pt")).build()
        text = str(caught.value)
        assert "\n" not in text
        return text.partition(" holds ")[2]

    own, tiny = (option(f"model/{name}").empty().state_dict() for name in VARIANTS)
    with torch.device("meta"):
        shape = option("model/sam_hq_b").empty().state_dict()["image_encoder.patch_embed.proj.weight"].shape
    of_b = {**own, "image_encoder.patch_embed.proj.weight": torch.zeros(shape)}
    where = "which cannot be the base: choose model="
    assert refused("tiny_random", of_b) == f"SAM-HQ, {where}sam_hq_b"
    assert refused("tiny_random", transformers_state(of_b)) == f"SAM-HQ, {where}sam_hq_b"
    assert refused("sam_hq_tiny_random", own) == f"SAM-HQ, {where}sam_hq_b, sam_hq_l or sam_hq_h, whichever they are of"
    assert refused("tiny_vit_random", tiny) == f"SAM-HQ with a TinyViT, {where}sam_hq_tiny"
    assert refused("sam_hq_random", tiny) == f"SAM-HQ with a TinyViT, {where}sam_hq_tiny"
    plain = option("model/tiny_random").empty().state_dict()
    assert refused("sam_hq_random", plain).startswith(f"a SAM with a plain ViT, {where}vit_b, vit_l or vit_h")
    mobile = option("model/tiny_vit_random").empty().state_dict()
    assert refused("sam_hq_tiny_random", mobile).startswith(
        f"MobileSAM, or another SAM with a TinyViT, {where}tiny_vit"
    )
    second = {"sam_mask_decoder.hf_token.weight": torch.zeros(1), "image_encoder.trunk.pos_embed": torch.zeros(1)}
    assert refused("sam2_random", second) == ("HQ-SAM 2, which cannot be the base: give weights of SAM 2 or SAM 2.1")


def test_what_cannot_be_is_told(option: Callable[..., Any]) -> None:
    with pytest.raises(
        CheckpointError, match=r"download sam_hq_vit_b.pth from huggingface.co/lkeab/hq-sam by hand and"
    ):
        option("model/sam_hq_b").build()
    with pytest.raises(ConfigError, match=r"model.global_attention = \[\]: SAM-HQ takes its early features"):
        option("model/sam_hq_random", global_attention=[]).check()
    plain, tiny = (str(why_not(option(f"model/{name}").architecture(), "transformers")) for name in VARIANTS)
    assert "SamHQModel of transformers makes masks of an image that its attention has not changed" in plain
    assert "no SAM-HQ with a TinyViT" in tiny
