"""Learning-rate schedule and parameter groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn


def test_cosine_with_warmup(option):
    optim = option("optim/adamw", warmup_steps=4, final_lr_fraction=0.1)
    factors = [optim.factor(step, 21) for step in range(21)]
    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert factors[4] == pytest.approx(1)
    assert factors[12] == pytest.approx(0.55)
    assert factors[20] == pytest.approx(0.1)
    assert factors[4:] == sorted(factors[4:], reverse=True)


def test_linear_and_constant(option):
    linear = option("optim/adamw", warmup_steps=0, schedule="linear", final_lr_fraction=0)
    assert [linear.factor(step, 5) for step in range(5)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    constant = option("optim/adamw", warmup_steps=0, schedule="constant")
    assert {constant.factor(step, 5) for step in range(5)} == {1.0}


def test_one_step_runs_are_defined(option):
    assert option("optim/adamw", warmup_steps=0).factor(0, 1) == pytest.approx(1)


def test_decoder_has_its_own_rate(option):
    parameters = {
        "x.image_encoder.lora_A": nn.Parameter(torch.ones(1)),
        "x.mask_decoder.weight": nn.Parameter(torch.ones(1)),
    }
    optim = option("optim/adamw", lr=1e-2, decoder_lr=1e-4, warmup_steps=0)
    optimizer = optim.build(parameters)
    assert optim.set_rate(optimizer, 0, 10) == pytest.approx(1e-2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-2, 1e-4])
    same = option("optim/adamw", lr=1e-2).build(parameters)
    assert [group["peak_lr"] for group in same.param_groups] == [1e-2, 1e-2]


@pytest.mark.parametrize(("name", "expected"), [("optim/adam", torch.optim.Adam), ("optim/adamw", torch.optim.AdamW)])
def test_adam_and_adamw(option, name, expected):
    optimizer = option(name).build({"w": nn.Parameter(torch.ones(1))})
    assert type(optimizer) is expected
    assert len(optimizer.param_groups) == 1
