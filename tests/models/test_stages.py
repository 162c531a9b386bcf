"""The image encoder in two stages: the same numbers as in one, and where the frozen part ends."""

from __future__ import annotations

import pytest
import torch

from lora_sam.models.stages import Stage, encode, frozen_stage
from lora_sam.training.options import checkpointed_blocks

DEPTH = 2


def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("block", [0, 1, DEPTH, None])
def test_two_stages_are_one_encoder(tiny_sam, block):
    encoder = tiny_sam().image_encoder
    stage = Stage(block)
    with torch.no_grad():
        values = stage.of(encoder, images())
        assert tuple(values.shape[1:]) == stage.shape(encoder)
        assert torch.equal(stage.rest(encoder, values), encoder(images()))
    assert stage.name == ("embedding" if block is None else f"tokens-{block}")


@pytest.mark.parametrize(
    ("method", "changes", "stage"),
    [
        ("decoder", {}, Stage(None)),
        ("lora", {"blocks": "last:1"}, Stage(1)),
        ("lora", {"blocks": (1,), "decoder": "lora"}, Stage(1)),
        ("lora", {}, None),
        ("lora", {"blocks": "last:1", "bias": "all"}, None),
        ("full", {}, None),
    ],
)
def test_where_the_frozen_part_ends(option, tiny_sam, method, changes, stage):
    adapted = option(f"method/{method}", **changes).apply(tiny_sam())
    assert adapted.frozen_stage == stage


def test_a_neck_that_trains_ends_the_frozen_part(tiny_sam):
    encoder = tiny_sam().image_encoder
    encoder.neck[0].weight.requires_grad_(True)
    assert frozen_stage(encoder) == Stage(DEPTH)


def test_a_loaded_adapter_is_not_part_of_the_frozen_base(option, tiny_sam):
    adapted = option("method/lora").apply(tiny_sam())
    adapted.peft.requires_grad_(False)
    assert frozen_stage(adapted.sam.image_encoder) is None


@pytest.mark.parametrize("which", ["off", "global", "all"])
def test_activations_made_again_give_the_same_gradients(option, tiny_sam, which):
    blocks = checkpointed_blocks(DEPTH, (1,), which)
    assert blocks == {"off": frozenset(), "global": {1}, "all": {0, 1}}[which]
    found, kept = [], []
    for checkpointed in (frozenset(), blocks):
        adapted = option("method/lora", dropout=0.3).apply(tiny_sam())
        adapted.train_mode()
        for number, parameter in enumerate(adapted.trainable().values()):
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(number))
        torch.manual_seed(0)  # of dropout, which has to be drawn alike twice
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: (s.append(t.numel()), t)[1], lambda t: t):
            embeddings = encode(adapted.sam.image_encoder, images(), checkpointed)
        kept.append(sum(sizes))
        embeddings.square().sum().backward()
        found.append({name: p.grad.clone() for name, p in adapted.trainable().items() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert any(gradient.abs().max() > 0 for gradient in found[0].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-6, msg=name)
    assert kept[1] < kept[0] or which == "off"
