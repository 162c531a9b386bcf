"""SAM variants: architecture, split and fused projections, positions, checkpoints that do not fit."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry

from lora_sam.core.errors import CheckpointError, ConfigError
from lora_sam.core.files import sha256_of
from lora_sam.models import building
from lora_sam.models.checkpoints import packaged_checkpoint
from lora_sam.models.projections import fuse_projections, fuse_state_dict, split_projections, split_state_dict

GLOBAL_BLOCKS = {"vit_b": (2, 5, 8, 11), "vit_l": (5, 11, 17, 23), "vit_h": (7, 15, 23, 31)}


def random_tiny(option):
    torch.manual_seed(0)
    return option("model/tiny_random")._random()


@pytest.fixture
def original(option):
    """The tiny SAM as segment_anything builds it, before its projections are split."""
    return random_tiny(option).eval()


@pytest.mark.parametrize("variant", ["vit_b", "vit_l", "vit_h"])
def test_official_variants_have_the_keys_and_shapes_of_the_package(option, variant):
    with torch.device("meta"):
        ours = option(f"model/{variant}").empty().state_dict()
        theirs = sam_model_registry[variant]().state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}
    assert option(f"model/{variant}").global_attention == GLOBAL_BLOCKS[variant]


def test_split_encoder_computes_what_the_package_computes(option, original):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    split = option("model/tiny_random").build().sam
    with torch.no_grad():
        expected = original.image_encoder(images)
        assert (split.image_encoder(images) - expected).abs().max() < 5e-6
    split.requires_grad_(True)  # the training path has no bias matrix
    assert (split.image_encoder(images) - expected).abs().max() < 5e-6


def test_gradients_equal_those_of_the_package(option, original):
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(1, 32, 4, 4, generator=torch.Generator().manual_seed(2))
    split = option("model/tiny_random").build().sam.requires_grad_(True)
    original.requires_grad_(True)
    for sam in (split, original):
        (sam.image_encoder(images) * weights).sum().backward()
    gradients = fuse_state_dict({name: parameter.grad for name, parameter in split.image_encoder.named_parameters()})
    for name, parameter in original.image_encoder.named_parameters():
        scale = parameter.grad.abs().max()
        assert (gradients[name] - parameter.grad).abs().max() <= 1e-4 * scale + 1e-7, name


def test_training_keeps_nothing_quadratic(option):
    """At 512 px the 1024 tokens of a global block have 2 x 1024 x 1024 logits; nothing of that size may be kept."""
    sam = option("model/tiny_random", image_size=512).build().sam.requires_grad_(True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        sam.image_encoder(torch.randn(1, 3, 512, 512))
    assert 3 * 512 * 512 <= max(kept) < 1024 * 1024


def test_split_and_fuse_are_bit_exact(original):
    before = {key: value.clone() for key, value in original.state_dict().items()}
    split = split_projections(original)
    assert "image_encoder.blocks.0.attn.q.weight" in split.state_dict()
    after = fuse_projections(split).state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    round_trip = fuse_state_dict(split_state_dict(before))
    assert round_trip.keys() == before.keys()
    assert all(torch.equal(round_trip[key], before[key]) for key in before)


@pytest.mark.parametrize("image_size", [48, 64, 96, 160])
def test_any_multiple_of_16_works_and_positions_follow(option, tmp_path, image_size):
    checkpoint = tmp_path / "tiny.safetensors"
    save_file(random_tiny(option).state_dict(), checkpoint)
    changes = {"weights": "pretrained", "checkpoint": str(checkpoint), "image_size": image_size}
    base = option("model/tiny_random", **changes).build()
    grid = image_size // 16
    assert base.sam.image_encoder.pos_embed.shape == (1, grid, grid, 32)
    assert base.sam.image_encoder.blocks[1].attn.rel_pos_h.shape[0] == 2 * grid - 1
    assert base.sam.image_encoder.blocks[0].attn.rel_pos_h.shape[0] == 2 * 3 - 1  # windows keep their table
    with torch.no_grad():
        out = base.sam.image_encoder(torch.randn(1, 3, image_size, image_size))
    assert out.shape == (1, 32, grid, grid)
    assert torch.isfinite(out).all()


def test_resized_relative_positions_equal_those_the_package_interpolates_while_running(option, original, tmp_path):
    """segment_anything interpolates relative tables at run time; loading must give the same function."""
    from lora_sam.models.vit import resize_positions

    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(3))
    state = resize_positions(original.state_dict(), 6, global_attention=[])
    late = option("model/tiny_random", image_size=96).empty().eval()
    for block in late.image_encoder.blocks:
        if block.window_size == 0:  # keep the old, smaller tables
            block.attn.rel_pos_h = torch.nn.Parameter(torch.zeros(7, 16))
            block.attn.rel_pos_w = torch.nn.Parameter(torch.zeros(7, 16))
    late.load_state_dict(state)
    early = option("model/tiny_random", image_size=96).empty().eval()
    early.load_state_dict(resize_positions(original.state_dict(), 6, global_attention=[1]))
    with torch.no_grad():
        assert torch.equal(late.image_encoder(images), early.image_encoder(images))


def test_positions_that_fit_are_untouched(original):
    from lora_sam.models.vit import resize_positions

    state = original.state_dict()
    resized = resize_positions(state, 4, global_attention=[1])
    assert all(resized[key] is state[key] for key in state)


def test_wrong_checkpoint_for_the_variant_is_named(option, tmp_path):
    checkpoint = tmp_path / "other.safetensors"
    save_file(random_tiny(option).state_dict(), checkpoint)
    with pytest.raises(CheckpointError, match=r"wrong checkpoint for model=nano: it holds a ViT with 32 channels"):
        option("model/nano", checkpoint=str(checkpoint)).build()


def test_something_else_is_not_a_checkpoint(option, tmp_path):
    checkpoint = tmp_path / "other.safetensors"
    save_file({"linear.weight": torch.zeros(3, 3)}, checkpoint)
    with pytest.raises(CheckpointError, match="not a SAM checkpoint"):
        option("model/nano", checkpoint=str(checkpoint)).build()


def test_missing_checkpoint_and_unofficial_variant(option, tmp_path):
    with pytest.raises(CheckpointError, match=r"no such file; give the path"):
        option("model/nano", checkpoint=str(tmp_path / "absent.pth")).build()
    with pytest.raises(
        CheckpointError,
        match=r"model=own has neither packaged weights nor an official checkpoint",
    ):
        option("model/nano", variant="own").build()


def test_contradictory_numbers_are_refused(option):
    with pytest.raises(ConfigError, match=r"model\.embed_dim = 30: must be a multiple of model\.num_heads = 4"):
        option("model/tiny_random", embed_dim=30, num_heads=4).check()
    with pytest.raises(ConfigError, match=r"global_attention = \[7\]: blocks are numbered 0 to 1"):
        option("model/tiny_random", global_attention=[7]).check()


def test_random_weights_depend_on_their_seed_only(option):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = option("model/tiny_random").build()
    assert torch.equal(torch.get_rng_state(), before), "building a model must not move the global generator"
    torch.manual_seed(6)
    assert option("model/tiny_random").build().sha256 == first.sha256
    assert option("model/tiny_random", weights_seed=1).build().sha256 != first.sha256


def test_the_small_sam_comes_with_its_weights(option):
    base = option("model/nano").build()
    path = packaged_checkpoint("nano")
    assert path is not None
    assert path.stat().st_size <= 20e6
    card = (path.parent / "README.md").read_text(encoding="utf-8")
    assert sha256_of(path) in card
    assert f"{sum(parameter.numel() for parameter in base.sam.parameters()):,} parameters" in card
    assert (base.source, base.sha256) == ("nano.safetensors", sha256_of(path))
    assert sum(parameter.numel() for parameter in base.sam.parameters()) == pytest.approx(7.6e6, rel=0.02)
    assert all(parameter.dtype == torch.float32 for parameter in base.sam.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("mask_decoder.iou_token.weight"), "mask_decoder.iou_token.weight is missing"),
        (
            lambda state: state.update({"adapter\n.weight": torch.ones(1), "image_encoder.x": torch.ones(1)}),
            r"'adapter\\n.weight' is not of this model, nor are 1 others",
        ),
        (
            lambda state: state.update({"mask_decoder.iou_token.weight": torch.ones(2, 2)}),
            r"mask_decoder.iou_token.weight has the shape \[2, 2\], where \[1, 32\] is needed",
        ),
        (lambda state: state.update({"image_encoder.pos_embed": torch.ones(3, 3)}), r"has the shape \[3, 3\]"),
    ],
)
def test_a_model_of_the_same_size_is_told_what_differs(option, tmp_path, change, message):
    state = dict(random_tiny(option).state_dict())
    change(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message) as caught:
        option("model/tiny_random", weights="pretrained", checkpoint=str(tmp_path / "w.pth")).build()
    assert "w.pth: a ViT of the size of tiny_random, but not the same model: " in str(caught.value)
    assert "blocks, tiny_random has" not in str(caught.value)


def test_a_part_of_a_sam_is_named(option, tmp_path):
    state = random_tiny(option).state_dict()
    torch.save({key: value for key, value in state.items() if key.startswith("image_encoder.")}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds image_encoder of a SAM without its prompt_encoder and mask_deco"):
        option("model/tiny_random", weights="pretrained", checkpoint=str(tmp_path / "w.pth")).build()


def test_a_published_file_that_has_changed_is_not_used(option, tmp_path, monkeypatch):
    torch.save(random_tiny(option).state_dict(), tmp_path / "w.pth")
    published = sha256_of(tmp_path / "w.pth")
    settings = option("model/tiny_random", weights="pretrained", checkpoint=str(tmp_path / "w.pth"))
    monkeypatch.setattr("lora_sam.models.building._locate", lambda *_: (tmp_path / "w.pth", published))
    assert settings.build().sha256 == published
    data = bytearray((tmp_path / "w.pth").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "w.pth").write_bytes(data)
    with pytest.raises(
        CheckpointError, match=r"w.pth is damaged: its SHA-256 is .*; delete it, and get or make it again"
    ):
        settings.build()


def test_weights_are_hashed_when_somebody_asks(option, tmp_path, monkeypatch):
    state = {key: value.half().float() for key, value in random_tiny(option).state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    save_file({key: value.half() for key, value in state.items()}, tmp_path / "half.safetensors")
    hashed = []
    monkeypatch.setattr(building, "_digest", lambda *given, plain=building._digest: hashed.append(1) or plain(*given))
    built = [
        option("model/tiny_random", weights="pretrained", checkpoint=str(tmp_path / name)).build()
        for name in ("w.pth", "half.safetensors", "w.pth", "w.pth")
    ]
    assert not hashed
    assert built[0].tensors == built[1].tensors == built[0].tensors
    assert len(hashed) == 2
    assert built[0].sha256 == sha256_of(tmp_path / "w.pth") != built[1].sha256
    # a file that is another one by then would say what was never loaded
    state["mask_decoder.iou_token.weight"][0, 0] += 1
    torch.save(state, tmp_path / "w.pth")
    assert built[2].tensors is None
    (tmp_path / "w.pth").unlink()
    assert built[3].tensors is None
    assert built[0].tensors is not None
