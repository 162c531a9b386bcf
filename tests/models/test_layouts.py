"""The checkpoints that people have: read in every layout of SAM, and named for what they are where they are not SAM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_sam.core.console import note
from lora_sam.core.errors import CheckpointError
from lora_sam.models.layouts import plain_state, transformers_state
from lora_sam.models.projections import split_state_dict

PATH = Path("weights.pth")


@pytest.fixture(scope="module")
def plain(option: Callable[..., Any]) -> dict[str, Tensor]:
    """Weights of a tiny SAM with the keys of segment_anything."""
    torch.manual_seed(0)
    return dict(option("model/tiny_random")._random().state_dict())


def assert_same(found: dict[str, Tensor], plain: dict[str, Tensor]) -> None:
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[key], plain[key]) for key in plain)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "sam.", "module.sam.", "net.sam_model."])
@pytest.mark.parametrize("layout", ["segment_anything", "transformers", "split"])
def test_every_layout_gives_the_same_weights(plain: dict[str, Tensor], layout: str, prefix: str) -> None:
    change = {"segment_anything": dict, "transformers": transformers_state, "split": split_state_dict}[layout]
    stored = {f"{prefix}{key}": value for key, value in change(plain).items()}
    assert stored.keys() != plain.keys() or (layout, prefix) == ("segment_anything", "")
    assert_same(plain_state(stored, PATH), plain)


@pytest.mark.parametrize("variant", ["nano", "vit_b", "vit_h"])
def test_the_names_of_transformers_are_undone(option: Callable[..., Any], variant: str) -> None:
    with torch.device("meta"):
        state = option(f"model/{variant}").empty().state_dict()
    renamed = transformers_state(state)
    assert len(renamed) == len(state) + 1
    del renamed["prompt_encoder.shared_embedding.positional_embedding"]  # safetensors stores tied tensors once
    assert plain_state(renamed, PATH).keys() == state.keys()


def test_positions_that_disagree_are_told(plain: dict[str, Tensor]) -> None:
    stored = transformers_state(plain)
    name = "prompt_encoder.shared_embedding.positional_embedding"
    stored[name] = stored[name] + 1
    with pytest.raises(CheckpointError, match=f"{name} differ, where SAM has one tensor"):
        plain_state(stored, PATH)


def test_what_lies_beside_the_model_is_left_out_with_a_note(
    plain: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    note.cache_clear()
    lightning = {f"model.{key}": value for key, value in plain.items()}
    lightning |= {"loss.weight": torch.ones(2), "metric.total": torch.zeros(())}
    for _ in range(2):
        assert_same(plain_state(lightning, PATH), plain)
    assert capsys.readouterr().err == (
        "'weights.pth': the weights under 'model.' are taken; 2 other tensors are left out ('loss.weight')\n"
    )


def test_of_two_models_none_is_chosen(plain: dict[str, Tensor]) -> None:
    both = {f"{prefix}.{key}": value for prefix in ("student", "ema.module") for key, value in plain.items()}
    with pytest.raises(CheckpointError, match=r"holds 2 models, under 'ema.module.', 'student.': save the state dict"):
        plain_state(both, PATH)


@pytest.mark.parametrize("scale", [1, 255])
def test_the_usual_normalisation_is_taken_off(plain: dict[str, Tensor], scale: int) -> None:
    stored = {
        "pixel_mean": torch.tensor([123.675, 116.28, 103.53]).reshape(3, 1, 1) / scale,
        "pixel_std": torch.tensor([58.395, 57.12, 57.375]).reshape(1, 3, 1, 1) / scale,
        **plain,
    }
    assert_same(plain_state({f"sam.{key}": value for key, value in stored.items()}, PATH), plain)


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [127.5, 127.5, 127.5], [0.5, 0.5, 0.5], [float("nan")] * 3, [1.0]])
def test_another_normalisation_is_refused(plain: dict[str, Tensor], values: list[float]) -> None:
    with pytest.raises(CheckpointError, match=r"its pixel_mean is \[.*these weights want other pixels than"):
        plain_state({**plain, "pixel_mean": torch.tensor(values)}, PATH)


# keys of the published files and of `transformers`
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("SAM-HQ", ["image_encoder.patch_embed.proj.weight", "mask_decoder.hf_token.weight"]),
        ("SAM-HQ", ["image_encoder.blocks.0.norm1.weight", "mask_decoder.compress_vit_feat.0.weight"]),
        ("SAM-HQ", ["vision_encoder.patch_embed.projection.weight", "mask_decoder.hq_token.weight"]),
        ("SAM-HQ", ["vision_encoder.pos_embed", "mask_decoder.hq_mask_mlp.proj_in.weight"]),
        ("SAM-HQ with a TinyViT", ["image_encoder.patch_embed.seq.0.c.weight", "mask_decoder.hf_mlp.layers.0.weight"]),
        ("HQ-SAM 2", ["image_encoder.trunk.blocks.0.attn.qkv.weight", "sam_mask_decoder.hf_token.weight"]),
        ("MobileSAM, or another SAM with a TinyViT", ["image_encoder.patch_embed.seq.0.c.weight"]),
        ("MobileSAM, or another SAM with a TinyViT", ["module.image_encoder.layers.1.blocks.0.attn.qkv.weight"]),
        ("SAM 2", ["image_encoder.trunk.blocks.0.attn.qkv.weight", "sam_mask_decoder.iou_token.weight"]),
        ("SAM 2", ["sam_mask_decoder.conv_s0.weight", "maskmem_tpos_enc"]),
        ("SAM 2", ["memory_attention.layers.0.self_attn.q_proj.weight"]),
        ("SAM 2", ["vision_encoder.backbone.blocks.0.attn.qkv.weight", "mask_decoder.iou_token.weight"]),
        ("SAM 3", ["detector.backbone.vision_backbone.trunk.blocks.0.attn.qkv.weight", "tracker.maskmem_tpos_enc"]),
        ("SAM 3", ["backbone.vision_backbone.trunk.pos_embed", "tracker.sam_mask_decoder.iou_token.weight"]),
        ("SAM 3", ["vision_encoder.backbone.layers.0.attention.q_proj.weight", "detr_decoder.query_embed.weight"]),
        ("SAM 3", ["vision_encoder.neck.fpn_layers.0.proj1.weight", "vision_encoder.backbone.layers.0.mlp.fc1.bias"]),
        ("SAM 3", ["image_encoder.backbone.layers.0.attention.q_proj.weight", "mask_decoder.iou_token.weight"]),
        ("SAM 3.1", ["detector.backbone.vision_backbone.interactive_convs.0.conv_1x1.weight", "tracker.no_mem_embed"]),
        ("EfficientSAM", ["image_encoder.patch_embed.proj.weight", "image_encoder.blocks.0.mlp.fc1.weight"]),
        ("a SAM with another image encoder than a plain ViT", ["image_encoder.features.0.0.c.weight"]),
        ("an adapter", ["w_a_000", "w_b_000"]),
        ("an adapter", ["base_model.model.image_encoder.blocks.0.attn.q.lora_A.weight"]),
        ("an adapter", ["base_model.model.mask_decoder.iou_token.weight"]),
        ("an adapter", ["image_encoder.blocks.0.attn.qkv.linear_a_q.weight"]),
    ],
)
def test_other_models_are_named(name: str, keys: list[str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        plain_state({key: torch.ones(1) for key in keys}, PATH)
    remedy = "choose model=tiny_vit, or another model.checkpoint" if name.startswith("MobileSAM") else "give "
    if name == "SAM 2":
        videos = keys[0].startswith("memory")
        remedy = "it is the part for videos alone" if videos else "choose model=sam2_tiny, sam2_small, "
    if name == "SAM 3":
        remedy = "it is the detector alone" if "detr" in keys[1] else "choose model=sam3"
    if name == "SAM 3.1":
        remedy = "no model= takes it"
    if name.startswith("SAM-HQ"):
        remedy = "choose model=sam_hq_tiny" if "TinyViT" in name else "choose model=sam_hq_b, sam_hq_l or sam_hq_h, "
    assert str(caught.value).startswith(f"weights.pth holds {name}, which cannot be the base: {remedy}")


@pytest.mark.parametrize(
    ("model", "name"), [("SamHQ", "SAM-HQ"), ("Sam2", "SAM 2"), ("Sam2Video", "SAM 2"), ("Sam3Tracker", "SAM 3")]
)
def test_models_of_transformers_are_named(model: str, name: str) -> None:
    import transformers

    with torch.device("meta"):
        state = getattr(transformers, f"{model}Model")(getattr(transformers, f"{model}Config")()).state_dict()
    with pytest.raises(CheckpointError, match=f"holds {name}, which cannot be the base"):
        plain_state(state, PATH)


def test_what_is_no_model_stays_as_it_is() -> None:
    state = {"linear.weight": torch.ones(2, 2)}
    assert plain_state(state, PATH) == state
