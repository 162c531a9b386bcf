"""What every family of SAMs has to do, family by check."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lora_sam.core.errors import AdapterError, CheckpointError, ConfigError
from lora_sam.methods import adapted as adapted_module
from lora_sam.models.decoding import decode_masks
from lora_sam.models.family import OPTIONS, family_of, options_of, why_not
from lora_sam.models.projections import fuse_projections, fuse_state_dict, split_projections, split_state_dict
from lora_sam.models.stages import Stage
from lora_sam.training.examples import Example
from lora_sam.training.planning.memory import forward_peak
from lora_sam.training.planning.work import encoder_flops
from lora_sam.training.step import accumulate_gradients

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = {
    "vit": "tiny_random",
    "tiny_vit": "tiny_vit_random",
    "sam2": "sam2_random",
    "sam3": "sam3_random",
    "sam_hq": "sam_hq_random",
}
METHODS = {
    "lora": ("method/lora", {"targets": ["q", "k", "v", "proj", "mlp"], "decoder": "lora"}),
    "dora": ("method/lora", {"dora": True}),
    "late blocks": ("method/lora", {"blocks": "last:1", "rslora": True, "init": "gaussian"}),
    "biases": ("method/lora", {"bias": "all"}),
    "decoder": ("method/decoder", {}),
    "full": ("method/full", {}),
}
# what makes a gradient step is the same for all methods: each learns on one family, two of them on every family
LEARNING = [
    (family, method) for family in VARIANTS for method in METHODS if family == "vit" or method in ("lora", "full")
]
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
BOXES = torch.tensor([[1.0, 2, 30, 40], [9, 5, 60, 60]])


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return f"model/{VARIANTS[request.param]}"


@pytest.fixture
def sam(option: Callable[..., Any], variant: str) -> Callable[[], Any]:
    return lambda: option(variant).build().sam


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest, option: Callable[..., Any]) -> Any:
    name, changes = METHODS[request.param]
    return option(name, **changes)


def logits(sam: Any) -> torch.Tensor:
    with torch.no_grad():
        embedding = sam.image_encoder(IMAGES[:1])
        return decode_masks(sam, embedding, boxes=BOXES, points=None, labels=None)[0]


def alone(tokens: Any) -> torch.Tensor:
    """Without what a family needs beside them."""
    return tokens if isinstance(tokens, torch.Tensor) else tokens[0]


def disturb(adapted: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in adapted.trainable().values():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def examples() -> list[Example]:
    generator = torch.Generator().manual_seed(2)
    targets = torch.zeros(2, 64, 64, dtype=torch.bool)
    for target, (x1, y1, x2, y2) in zip(targets, BOXES.int().tolist(), strict=True):
        target[y1:y2, x1:x2] = True
    images = torch.randn(2, 3, 64, 64, generator=generator)
    return [
        Example(f"{n}.png", image, BOXES, None, None, targets, (64, 64), ("0", "1")) for n, image in enumerate(images)
    ]


def backward(adapted: Any, option: Callable[..., Any], batch: list[Example], **changes: Any) -> float:
    parts = accumulate_gradients(
        adapted,
        option("loss/sam", resolution="low"),
        batch,
        chunk=16,
        multimask_points=False,
        scale=1.0,
        autocast=nullcontext(),
        **changes,
    )
    return parts["loss"]


def test_every_family_is_tried_here() -> None:
    """But for the encoder of one family with the decoder of another: `tests/models/test_sam_hq.py` has it."""
    assert {*VARIANTS, "sam_hq_tiny"} == OPTIONS.keys()


def test_only_models_ask_which_family_it_is() -> None:
    asking = [
        path
        for path in (ROOT / "lora_sam").rglob("*.py")
        if "models" not in path.parts and "family ==" in path.read_text()
    ]
    assert not asking


def test_identity_at_the_start(sam: Callable[[], Any], method: Any) -> None:
    before = logits(sam())
    tolerance = 1e-6 if getattr(method, "dora", False) else 0  # DoRA renormalises its columns
    assert (logits(method.apply(sam()).sam) - before).abs().max() <= tolerance


def test_split_and_fuse_give_the_same_bits(option: Callable[..., Any], variant: str) -> None:
    torch.manual_seed(0)
    plain = option(variant)._random().eval()
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    expected = plain.image_encoder(IMAGES)
    split = split_projections(plain)
    assert (split.image_encoder(IMAGES) - expected).abs().max() < 5e-6
    assert not any("image_encoder" in key and "attn.qkv" in key for key in split.state_dict())
    after = fuse_projections(split).state_dict()
    again = fuse_state_dict(split_state_dict(before))
    assert after.keys() == before.keys() == again.keys()
    assert all(torch.equal(after[key], before[key]) and torch.equal(again[key], before[key]) for key in before)


def test_stock_peft_saves_and_loads_it(sam: Callable[[], Any], method: Any, tmp_path: Path) -> None:
    adapted = method.apply(sam())
    disturb(adapted)
    adapted.peft.save_pretrained(tmp_path, save_embedding_layers=False)
    adapted.peft.requires_grad_(False)
    expected = logits(adapted.sam)
    assert torch.equal(logits(PeftModel.from_pretrained(sam(), str(tmp_path)).base_model.model), expected)
    assert torch.equal(logits(adapted_module.load(sam(), tmp_path, trains_encoder=True).sam), expected)


def test_merged_weights_load_strictly_where_they_came_from(
    option: Callable[..., Any], variant: str, sam: Callable[[], Any], method: Any
) -> None:
    adapted = method.apply(sam())
    disturb(adapted)
    expected = logits(adapted.sam)
    assert (expected - logits(sam())).abs().max() > 1e-3
    plain = option(variant).empty().eval()
    plain.load_state_dict(adapted.merge().state_dict(), strict=True)
    assert (logits(plain) - expected).abs().max() <= 1e-4


def test_a_gradient_reaches_every_weight_that_trains(
    option: Callable[..., Any], sam: Callable[[], Any], method: Any
) -> None:
    adapted = method.apply(sam())
    disturb(adapted)
    adapted.train_mode()
    backward(adapted, option, examples(), multimask="mean")
    still = [
        name
        for name, parameter in adapted.trainable().items()
        if parameter.grad is None or not bool(parameter.grad.abs().max() > 0)
    ]
    # points and rough masks are not among the prompts; a key's bias adds the same to all logits of a query
    assert not [
        name for name in still if "prompt_encoder" not in name and "k.bias" not in name and "k_proj" not in name
    ]
    assert len(still) < len(adapted.trainable())


@pytest.mark.parametrize(("variant", "method"), LEARNING, indirect=True)
def test_the_loss_falls_on_two_images_and_what_is_frozen_stays_as_it_was(
    option: Callable[..., Any], sam: Callable[[], Any], method: Any
) -> None:
    torch.manual_seed(0)
    adapted = method.apply(sam())
    trained = {id(parameter) for parameter in adapted.trainable().values()}
    state = adapted.peft.state_dict(keep_vars=True)
    before = {name: value.detach().clone() for name, value in state.items() if id(value) not in trained}
    adapted.train_mode()
    optimizer = torch.optim.Adam(adapted.trainable().values(), lr=4e-3)
    losses = []
    for _ in range(9):
        optimizer.zero_grad()
        losses.append(backward(adapted, option, examples()))
        optimizer.step()
    assert losses[-1] < 0.95 * losses[0]
    after = adapted.peft.state_dict()
    assert [name for name, value in before.items() if not torch.equal(after[name], value)] == []


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_cached_stage_gives_the_gradients_of_the_whole(
    option: Callable[..., Any], sam: Callable[[], Any], checkpointed: bool
) -> None:
    gradients = []
    for cached in (False, True):
        torch.manual_seed(0)
        adapted = option("method/lora", blocks="last:1").apply(sam())
        disturb(adapted)
        stage, batch = adapted.frozen_stage, examples()
        encoder = adapted.sam.image_encoder
        depth = len(family_of(encoder).blocks(encoder))
        assert stage == Stage(depth - 1)
        if cached:
            images = torch.stack([example.image for example in batch])
            rows = stage.of(encoder, images).detach()
            assert rows.shape[1:] == stage.shape(encoder)
            batch = [
                Example(e.id, None, e.boxes, None, None, e.targets, e.extent, e.object_ids, encoded=row)
                for e, row in zip(batch, rows, strict=True)
            ]
        backward(adapted, option, batch, checkpointed=frozenset(range(depth) if checkpointed else ()))
        gradients.append({name: parameter.grad for name, parameter in adapted.trainable().items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_a_decoder_learns_the_same_from_cached_embeddings(option: Callable[..., Any], sam: Callable[[], Any]) -> None:
    gradients = []
    for cached in (False, True):
        adapted, batch = option("method/decoder").apply(sam()), examples()
        assert adapted.frozen_stage == Stage(None)
        if cached:
            rows = Stage(None).of(adapted.sam.image_encoder, torch.stack([example.image for example in batch]))
            batch = [replace(example, image=None, encoded=row) for example, row in zip(batch, rows, strict=True)]
        backward(adapted, option, batch)
        gradients.append({name: parameter.grad for name, parameter in adapted.trainable().items()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_stage_and_what_follows_are_the_whole_encoder(
    sam: Callable[[], Any], threads: int, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(threads)
    encoder = sam().image_encoder
    whole = encoder(IMAGES)
    for block in (*range(len(family_of(encoder).blocks(encoder)) + 1), None):
        stage = Stage(block)
        values = stage.of(encoder, IMAGES)
        assert values.shape[1:] == stage.shape(encoder)
        assert torch.equal(stage.rest(encoder, values), whole)


def test_the_plan_knows_the_blocks_that_there_are(
    option: Callable[..., Any], variant: str, sam: Callable[[], Any]
) -> None:
    model, encoder = option(variant), sam().image_encoder
    family = family_of(encoder)
    assert model.depth == len(family.blocks(encoder))
    tokens = family.enter(encoder, IMAGES)
    for number, block in enumerate(family.blocks(encoder)):
        shape = model.block_shape(number)
        assert alone(tokens).shape[1:] == (shape.side, shape.side, shape.channels)
        tokens = block(tokens)
        assert alone(tokens).shape[1:] == (shape.then[0], shape.then[0], shape.then[1])
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.empty().image_encoder(torch.empty(1, 3, 64, 64))
    assert encoder_flops(model) == counter.get_total_flops()
    assert forward_peak(model) > 4 * alone(family.enter(encoder, IMAGES[:1])).numel()


def test_a_file_of_its_upstream_package_is_read(option: Callable[..., Any], variant: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = option(variant)._random().state_dict()
    for stored in (state, split_state_dict(state), {f"module.{key}": value for key, value in state.items()}):
        save_file({key: value.contiguous() for key, value in stored.items()}, tmp_path / "w.safetensors")
        base = option(variant, weights="pretrained", checkpoint=str(tmp_path / "w.safetensors")).build()
        found = fuse_projections(base.sam).state_dict()
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)
    assert load_file(tmp_path / "w.safetensors").keys() != state.keys()


def test_weights_of_another_family_are_named_with_the_model_that_takes_them(
    option: Callable[..., Any], tmp_path: Path
) -> None:
    for name, other in VARIANTS.items():
        torch.save(option(f"model/{other}")._random().state_dict(), tmp_path / f"{name}.pt")
    wrong = {
        ("tiny_random", "tiny_vit"): r"holds MobileSAM, or another SAM with a TinyViT, .*: choose model=tiny_vit, or",
        ("tiny_vit_random", "vit"): r"holds a SAM with a plain ViT, .*: choose model=vit_b, vit_l or vit_h, ",
    }
    for (variant, file), message in wrong.items():
        with pytest.raises(CheckpointError, match=message):
            option(f"model/{variant}", weights="pretrained", checkpoint=str(tmp_path / f"{file}.pt")).build()


def test_a_family_that_is_not_known_is_named() -> None:
    with pytest.raises(AdapterError, match="a model of the family 'sam9' is not known here"):
        options_of({"family": "sam9"})
    assert why_not({"family": "vit"}, "transformers") is None
    assert why_not({}, "transformers") is None
    assert "no SAM with a TinyViT" in str(why_not({"family": "tiny_vit"}, "transformers"))


# --- TinyViT ---------------------------------------------------------------------------------------------------------


def test_mobile_sam_has_the_weights_that_were_published(option: Callable[..., Any]) -> None:
    with torch.device("meta"):
        state = option("model/tiny_vit").empty().state_dict()
    # parameters: neither what normalisations know of images, nor the frequencies of positions
    buffers = ("running_mean", "running_var", "num_batches_tracked", "gaussian_matrix")
    weights = {key: value for key, value in state.items() if not key.endswith(buffers)}
    assert sum(value.numel() for value in weights.values()) == 10_130_092
    assert {key: tuple(state[f"image_encoder.{key}"].shape) for key in KEYS} == KEYS


KEYS = {
    "patch_embed.seq.2.bn.num_batches_tracked": (),
    "layers.0.blocks.1.conv2.c.weight": (256, 1, 3, 3),
    "layers.0.downsample.conv3.bn.running_var": (128,),
    "layers.1.blocks.0.attn.attention_biases": (4, 49),
    "layers.2.blocks.5.attn.qkv.weight": (480, 160),
    "layers.2.downsample.conv2.c.weight": (320, 1, 3, 3),
    "layers.3.blocks.1.local_conv.c.weight": (320, 1, 3, 3),
    "layers.3.blocks.1.mlp.fc1.weight": (1280, 320),
    "norm_head.weight": (320,),
    "head.weight": (1000, 320),
    "neck.2.weight": (256, 256, 3, 3),
}


def test_rows_are_laid_out_head_by_head(option: Callable[..., Any]) -> None:
    """As `view(heads, -1).split` of the published code has it; contiguous thirds would be wrong without a word."""
    sam = option("model/tiny_vit_random")._random()
    attention = sam.image_encoder.layers[1].blocks[0].attn
    x, heads, side = torch.randn(5, 9, 16), 2, 3
    q, k, v = attention.qkv(attention.norm(x)).view(5, 9, heads, -1).split([8, 8, 8], dim=3)
    offsets: dict[tuple[int, int], int] = {}
    places = [(row, column) for row in range(side) for column in range(side)]
    index = [offsets.setdefault((abs(a[0] - b[0]), abs(a[1] - b[1])), len(offsets)) for a in places for b in places]
    bias = attention.attention_biases[:, torch.tensor(index).view(9, 9)]
    weights = torch.einsum("bnhd,bmhd->bhnm", q, k) * 8**-0.5 + bias
    expected = attention.proj(torch.einsum("bhnm,bmhd->bnhd", weights.softmax(-1), v).flatten(2))
    assert (attention(x) - expected).abs().max() < 1e-5
    assert (split_projections(sam).image_encoder.layers[1].blocks[0].attn(x) - expected).abs().max() < 1e-5
    thirds = F.linear(attention.norm(x), attention.qkv.weight[:16], attention.qkv.bias[:16])
    assert (thirds - q.flatten(2)).abs().max() > 0.1


def test_no_convolution_gets_an_adapter_and_statistics_never_move(option: Callable[..., Any]) -> None:
    lora = option("method/lora", targets=["q", "k", "v", "proj", "mlp"])
    adapted = lora.apply(option("model/tiny_vit_random").build().sam)
    touched = {
        name.split(".lora_")[0].rpartition(".")[2] for name, _ in adapted.peft.named_parameters() if ".lora_A" in name
    }
    assert touched == {"q", "k", "v", "proj", "fc1", "fc2"}
    full = option("method/full").apply(option("model/tiny_vit_random").build().sam)
    full.train_mode()
    norms = [module for module in full.peft.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) > 20
    assert not any(module.training for module in norms)


def test_biases_that_move_are_used_at_once(option: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    sam = option("model/tiny_vit_random").build().sam
    before = sam.image_encoder(IMAGES)
    with torch.no_grad():
        sam.image_encoder.layers[1].blocks[0].attn.attention_biases.add_(10 * torch.randn(2, 9))
    assert (sam.image_encoder(IMAGES) - before).abs().max() > 1e-3


def test_a_tiny_vit_that_does_not_fit_is_told(option: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"model.embed_dims = \[8, 16, 24, 32\]: 24 must be a multiple of model.num_h"
    ):
        option("model/tiny_vit_random", num_heads=[2, 5, 4]).check()
    torch.save(option("model/tiny_vit_random")._random().state_dict(), tmp_path / "w.pt")
    other = option(
        "model/tiny_vit_random", weights="pretrained", checkpoint=str(tmp_path / "w.pt"), depths=[1, 1, 3, 1]
    )
    with pytest.raises(CheckpointError, match="a SAM with a TinyViT, but not model=tiny_vit_random: .* is missing"):
        other.build()
