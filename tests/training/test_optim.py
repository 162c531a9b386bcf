"""Learning-rate schedule and parameter groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lora_sam.core.errors import ConfigError
from lora_sam.models.stages import blocks_of
from lora_sam.training import optim as optim_module


def test_cosine_with_warmup(option):
    optim = option("optim/adamw", warmup_steps=4, warmup_fraction=0, final_lr_fraction=0.1)
    factors = [optim.factor(step, 21) for step in range(21)]
    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert factors[4] == pytest.approx(1)
    assert factors[12] == pytest.approx(0.55)
    assert factors[20] == pytest.approx(0.1)
    assert factors[4:] == sorted(factors[4:], reverse=True)


def test_the_warm_up_takes_its_share_of_a_long_run_and_its_steps_of_a_short_one(option):
    optim = option("optim/adamw", warmup_steps=4, warmup_fraction=0.25, final_lr_fraction=0.1)
    assert [optim.factor(step, 40) for step in (0, 4, 9, 10)] == pytest.approx([1 / 11, 5 / 11, 10 / 11, 1])
    assert [optim.factor(step, 8) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert option("optim/adamw", warmup_steps=0, warmup_fraction=1).factor(7, 8) == pytest.approx(8 / 9)
    assert option("optim/adamw").factor(0, 1) <= 1


def test_linear_and_constant(option):
    linear = option("optim/adamw", warmup_steps=0, warmup_fraction=0, schedule="linear", final_lr_fraction=0)
    assert [linear.factor(step, 5) for step in range(5)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    constant = option("optim/adamw", warmup_steps=0, warmup_fraction=0, schedule="constant")
    assert {constant.factor(step, 5) for step in range(5)} == {1.0}


def test_one_step_runs_are_defined(option):
    assert option("optim/adamw", warmup_steps=0, warmup_fraction=0).factor(0, 1) == pytest.approx(1)


def test_decoder_has_its_own_rate(option):
    parameters = {
        "x.image_encoder.lora_A": nn.Parameter(torch.ones(1)),
        "x.mask_decoder.weight": nn.Parameter(torch.ones(1)),
    }
    optim = option("optim/adamw", lr=1e-2, decoder_lr=1e-4, warmup_steps=0, warmup_fraction=0)
    optimizer = optim.build(parameters)
    assert optim.set_rate(optimizer, 0, 10) == pytest.approx(1e-2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-2, 1e-4])
    same = option("optim/adamw", lr=1e-2).build(parameters)
    assert [group["peak_lr"] for group in same.param_groups] == [1e-2, 1e-2]


def test_what_is_trained_as_it_is_in_the_base_has_a_share_of_the_rate(option):
    names = (
        "image_encoder.q.lora_A.default.weight",
        "mask_decoder.modules_to_save.default.weight",
        "mask_decoder.q_proj.lora_A.default.weight",
        "image_encoder.modules_to_save.default.weight",
        "image_encoder.blocks.0.inserted.modules_to_save.default.down.weight",
    )
    parameters = {name: nn.Parameter(torch.zeros(2)) for name in names}

    def rates(**options):
        optimizer = option("optim/adamw", lr=1e-2, **options).build(parameters)
        found = {id(one): group["peak_lr"] for group in optimizer.param_groups for one in group["params"]}
        return [found[id(parameters[name])] for name in names]

    assert rates(pretrained_lr_fraction=0.1) == pytest.approx([1e-2, 1e-3, 1e-2, 1e-3, 1e-2])
    assert rates(pretrained_lr_fraction=0.1, decoder_lr=5e-3) == pytest.approx([1e-2, 5e-3, 5e-3, 1e-3, 1e-2])
    assert rates(pretrained_lr_fraction=1.0) == pytest.approx([1e-2] * 5)


@pytest.mark.parametrize("method", ["lora", "adaptformer", "vpt", "decoder_tokens", "full", "loha"])
def test_only_what_is_in_the_base_takes_the_share(option, tiny_sam, method):
    """A part of the base that trains is a copy: its values are found in the base."""
    base = {tuple(value.shape): [] for value in tiny_sam().state_dict().values()}
    for value in tiny_sam().state_dict().values():
        base[tuple(value.shape)].append(value)
    parameters = option(f"method/{method}").apply(tiny_sam()).trainable()
    optimizer = option("optim/adamw", lr=1.0, pretrained_lr_fraction=0.5).build(parameters)
    slow = {id(one) for group in optimizer.param_groups if group["peak_lr"] == 0.5 for one in group["params"]}
    assert slow
    for name, parameter in parameters.items():
        known = any(torch.equal(parameter, value) for value in base.get(tuple(parameter.shape), []))
        if id(parameter) in slow or parameter.std() > 0:  # zeros and ones may be in the base by chance
            assert (id(parameter) in slow) == known, name


@pytest.mark.parametrize(("name", "expected"), [("optim/adam", torch.optim.Adam), ("optim/adamw", torch.optim.AdamW)])
def test_adam_and_adamw(option, name, expected):
    optimizer = option(name).build({"w": nn.Parameter(torch.ones(1))})
    assert type(optimizer) is expected
    assert len(optimizer.param_groups) == 1


def trained(option, name, device_types, monkeypatch, steps=20, clip=None):
    """Weights after some steps down a bowl, and the optimiser."""
    monkeypatch.setattr(optim_module, "_FUSED", device_types)
    torch.manual_seed(0)
    parameters = {"image_encoder.a": nn.Parameter(torch.randn(300, 7)), "mask_decoder.b": nn.Parameter(torch.randn(5))}
    optimizer = option(name, lr=1e-2, decoder_lr=3e-3, weight_decay=0.1).build(parameters)
    for step in range(steps):
        sum((value * (1 + step % 3)).square().sum() for value in parameters.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return parameters, optimizer


@pytest.mark.parametrize("name", ["optim/adam", "optim/adamw"])
def test_one_kernel_steps_as_many_do(option, monkeypatch, name):
    fused, optimizer = trained(option, name, ("cpu",), monkeypatch)
    plain, other = trained(option, name, (), monkeypatch)
    assert [group["fused"] for group in optimizer.param_groups] == [True, True]
    assert [group["fused"] for group in other.param_groups] == [None, None]
    for key, value in fused.items():
        torch.testing.assert_close(value, plain[key], rtol=1e-5, atol=1e-6)
        assert optimizer.state[value].keys() == other.state[plain[key]].keys() == {"step", "exp_avg", "exp_avg_sq"}
        for moment in ("step", "exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(
                optimizer.state[value][moment], other.state[plain[key]][moment], rtol=1e-4, atol=1e-6
            )


def test_parameters_elsewhere_are_stepped_in_the_usual_way(option):
    parameters = {"a": nn.Parameter(torch.ones(2)), "b": nn.Parameter(torch.ones(2, device="meta"))}
    assert [group["fused"] for group in option("optim/adamw").build(parameters).param_groups] == [None]


def test_counters_from_a_file_are_moved_to_their_parameters():
    parameter = nn.Parameter(torch.ones(2, device="meta"))
    optimizer = torch.optim.AdamW([parameter])
    optimizer.state[parameter] = {"step": torch.tensor(3.0)}
    optim_module._counters_beside_parameters(optimizer, (), {})
    assert optimizer.state[parameter]["step"].device.type == "meta"


def test_lora_plus_is_a_rate_of_its_own_for_b(option):
    names = ("image_encoder.q.lora_A.default.weight", "image_encoder.q.lora_B.default.weight", "mask_decoder.weight")
    parameters = {name: nn.Parameter(torch.zeros(2)) for name in names}
    optimizer = option("optim/adamw", lr=1e-3, decoder_lr=1e-4, lora_plus=16, warmup_steps=0).build(parameters)
    rates = {id(group["params"][0]): group["peak_lr"] for group in optimizer.param_groups}
    assert [rates[id(parameters[name])] for name in names] == [1e-3, 16e-3, 1e-4]
    assert len(option("optim/adamw").build(parameters).param_groups) == 2


@pytest.mark.parametrize("model", ["tiny_random", "tiny_vit_random", "sam2_random", "sam3_random"])
@pytest.mark.parametrize("method", ["lora", "full", "adaptformer", "ia3"])
def test_each_block_has_a_share_of_the_rate_of_the_next(option, model, method):
    base = option(f"model/{model}")
    adapted = option(f"method/{method}").apply(base.build().sam)
    encoder, parameters = adapted.sam.image_encoder, adapted.trainable()
    blocks = blocks_of(encoder, parameters)
    assert set(blocks) == {name for name in parameters if "image_encoder" in name}
    # every block of these models trains
    assert set(range(base.depth)) <= set(blocks.values())
    assert set(blocks.values()) - set(range(base.depth)) == ({-1, base.depth} if method == "full" else set())
    for name, block in blocks.items():
        if not 0 <= block < base.depth:
            assert ("neck" in name or "conv_s" in name or "no_mem" in name) == (block == base.depth), name
            assert not any(part in name for part in (".attn.", ".mlp.", ".attention.")), name

    settings = {"lr": 1.0, "pretrained_lr_fraction": 0.5, "decoder_lr": 0.25, "warmup_steps": 0, "warmup_fraction": 0}
    optim = option("optim/adamw", layer_decay=0.5, **settings)
    optimizer = optim.build(parameters, blocks)
    rates = {id(one): group["peak_lr"] for group in optimizer.param_groups for one in group["params"]}
    assert len(rates) == len(parameters)
    own, last = 0.5 if method == "full" else 1.0, max(blocks.values())
    for name, parameter in parameters.items():
        block = blocks.get(name)
        if block is None:
            assert rates[id(parameter)] == (0.25 if "mask_decoder" in name else own), name
        else:
            assert rates[id(parameter)] == own * 0.5 ** (last - block), name
    # what is recorded as the rate is that of what trains furthest back, as without a decay
    assert optim.set_rate(optimizer, 0, 10) == own
    plain = option("optim/adamw", **settings).build(parameters, blocks)
    assert plain.param_groups[0]["peak_lr"] == own
    assert len(plain.param_groups) == 2
    assert [len(group["params"]) for group in option("optim/adamw", **settings).build(parameters).param_groups] == [
        len(group["params"]) for group in plain.param_groups
    ]


def test_places_of_known_layers(option):
    """Written out by hand; a neck may take what comes out of early blocks, and is behind all of them."""
    plain = {"neck.0.weight": 2, "blocks.1.mlp.lin1.weight": 1, "blocks.0.norm1.bias": 0, "pos_embed": -1}
    pyramid = {"neck.convs.0.conv.weight": 5, "neck.convs.3.conv.weight": 5, "conv_s0.weight": 5, "trunk.pos_embed": -1}
    for model, expected in (("tiny_random", plain), ("sam2_random", pyramid)):
        encoder = option(f"model/{model}").build().sam.image_encoder
        depth = option(f"model/{model}").depth
        names = [f"base_model.model.image_encoder.modules_to_save.default.{name}" for name in expected]
        found = blocks_of(encoder, [*names, "base_model.model.mask_decoder.blocks.0.weight"])
        assert list(found.values()) == [depth if place == 5 else place for place in expected.values()]


def test_rates_by_block_need_blocks(option):
    optim = option("optim/adamw", layer_decay=0.8)
    with pytest.raises(ConfigError, match=r"optim\.layer_decay = 0\.8: method=decoder trains no block of the image"):
        optim.check_blocks({}, "decoder")
    optim.check_blocks({"x": 3}, "lora")
    option("optim/adamw").check_blocks({}, "decoder")
