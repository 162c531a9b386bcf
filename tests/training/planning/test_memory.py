"""Memory against what autograd keeps, and against peaks that were measured in fresh processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from lora_sam.models.decoding import decode_all_masks
from lora_sam.models.device import autocast
from lora_sam.training.options import checkpointed_blocks
from lora_sam.training.planning.memory import forward_peak, kept_by_decoder, kept_by_encoder, peak_of
from lora_sam.training.planning.workload import trained_in

MIB = 2**20
LATE = {"first_block": 9, "trainable": 4_132_068, "held": 97_867_540}
DECODER = {"first_block": None, "adapted": frozenset(), "trainable": 4_058_340, "held": 97_793_812}
FROZEN_DECODER = {"decoder": False, "trainable": 294_912, "held": 94_030_384}
NANO = {"trainable": 4_095_204, "held": 11_837_012}
NANO_DECODER = {**NANO, "first_block": None, "adapted": frozenset()}
TINY = {"trainable": 42_656, "held": 145_612}
SIXTEEN = {"prompts": 16.0, "most_prompts": 16}
FOUR_OF_FOUR = {"images": 4, "prompts": 4.0, "most_prompts": 4}

# Peak of resident memory in MiB after one or two optimiser steps on a CPU, boxes as prompts; `process` is
# what was resident before, without the weights.
MEASURED = [
    ("sam2_tiny", {"trainable": 139_776, "held": 31_448_656, "decoder": False}, {}, "off", 806, 2195),
    ("tiny_random", TINY, {}, "off", 802, 822),
    ("nano", NANO, {}, "off", 807, 1052),
    ("nano", NANO, {"precision": "bf16"}, "off", 807, 1065),
    ("nano", NANO, FOUR_OF_FOUR, "off", 808, 1528),
    ("nano", NANO, FOUR_OF_FOUR, "all", 808, 1358),
    ("nano", NANO_DECODER, {**SIXTEEN}, "off", 811, 1257),
    ("vit_b", FROZEN_DECODER, {"precision": "fp32"}, "off", 840, 4056),
    ("vit_b", FROZEN_DECODER, {"precision": "bf16"}, "off", 883, 2982),
    ("vit_b", FROZEN_DECODER, {"precision": "bf16"}, "all", 840, 1931),
    ("vit_b", {}, {"precision": "bf16", **SIXTEEN}, "off", 840, 3718),
    ("vit_b", LATE, {"precision": "bf16"}, "off", 840, 1757),
    ("vit_b", LATE, {"precision": "bf16", "encoded": True}, "off", 840, 1812),
    ("vit_b", DECODER, {"precision": "bf16"}, "off", 840, 1595),
    ("vit_b", DECODER, {"precision": "bf16", "encoded": True, **SIXTEEN}, "off", 840, 2173),
]


@pytest.mark.parametrize(("model", "trained", "changes", "checkpointing", "process", "measured"), MEASURED)
def test_peaks_that_were_measured(make_step, model, trained, changes, checkpointing, process, measured):
    step = make_step(model, trained, **changes)
    blocks = checkpointed_blocks(step.model.depth, step.model.global_attention, checkpointing)
    found = peak_of(replace(step, checkpointed=blocks), "cpu", process * MIB)
    # of the total, most is the process and the weights, which are known: what is estimated are the activations
    activations = measured - process - (found.weights + found.optimizer) / MIB
    assert found.activations / MIB == pytest.approx(activations, rel=0.4, abs=64)
    assert found.total / MIB == pytest.approx(measured, rel=0.12)


def kept(run: Callable[[], Any], parameters: set[int]) -> int:
    """Bytes of the tensors, other than parameters, that autograd keeps while `run` runs."""
    found: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        alive = run()
    del alive
    return sum(tensor.untyped_storage().nbytes() for place, tensor in found.items() if place not in parameters)


KEPT = [
    ("nano", "lora", {}),
    ("nano", "lora", {"blocks": "last:2", "decoder": "frozen"}),
    ("nano", "lora", {"targets": ["q", "k", "v", "proj", "mlp"]}),
    ("nano", "full", {}),
    ("tiny_vit", "lora", {"blocks": "last:3", "decoder": "frozen"}),
    ("tiny_vit", "full", {}),
    ("sam2_tiny", "lora", {}),
    ("sam3", "lora", {}),
    ("sam3", "full", {}),
    ("sam_hq_tiny", "lora", {"blocks": "last:3"}),
]
# processors without bf16 take ten times as long for it: the first of all
IN_BF16 = [pytest.param(*one, "bf16", marks=[pytest.mark.slow] if place else []) for place, one in enumerate(KEPT)]


@pytest.mark.parametrize(
    ("name", "method", "changes", "precision"), [*(pytest.param(*one, "fp32") for one in KEPT), *IN_BF16]
)
def test_what_autograd_keeps(option, make_step, name, method, changes, precision):
    """Two images in the encoder, four prompts in the decoder, of a model small enough to count."""
    side = {"sam2_tiny": 256, "sam3": 252, "sam_hq_tiny": 256}.get(name, 512)
    small = {"embed_dim": 192, "mlp_dim": 888, "depth": 5, "num_heads": 3, "global_attention": [2, 4], "window_size": 6}
    model = option(f"model/{name}", weights="random", image_size=side, **(small if name == "sam3" else {}))
    adapted = option(f"method/{method}", **changes).apply(model.build().sam)
    adapted.train_mode()
    sam, device = adapted.sam, torch.device("cpu")
    parameters = {
        tensor.untyped_storage().data_ptr() for tensor in (*adapted.peft.parameters(), *adapted.peft.buffers())
    }
    step = replace(
        make_step(precision=precision, images=2, prompts=2.0, most_prompts=2), model=model, trained=trained_in(adapted)
    )
    embeddings = []

    def encode() -> torch.Tensor:
        with autocast(device, precision):
            embeddings.append(sam.image_encoder(torch.randn(2, 3, side, side)))
        return embeddings[0]

    of_encoder = kept(encode, parameters)
    leaf = embeddings[0].detach().requires_grad_()
    boxes = torch.tensor([[20.0, 20.0, 200.0, 200.0]]).expand(4, 4).contiguous()

    def decode() -> torch.Tensor:
        with autocast(device, precision):
            images = torch.tensor([0, 0, 1, 1])
            return decode_all_masks(sam, leaf, boxes=boxes, points=None, labels=None, images=images)[0]

    of_loss = 4 * (11 * model.frame.mask_side**2 + side**2) * 4
    of_decoder = kept(decode, parameters)
    assert kept_by_encoder(step) == pytest.approx(of_encoder, rel=0.15)
    assert kept_by_decoder(step) - of_loss == pytest.approx(of_decoder, rel=0.25)


def test_memory_falls_with_checkpoints_late_blocks_cache_and_fewer_images(make_step):
    def total(trained=None, **changes):
        return peak_of(make_step("vit_b", trained, **changes), "cpu", 0).total

    whole = total(images=4)
    assert (
        whole
        > total(images=4, checkpointed=frozenset({2, 5, 8, 11}))
        > total(images=4, checkpointed=frozenset(range(12)))
    )
    assert whole > total(images=2) > total(images=1) > total(LATE) > total(DECODER, encoded=True)
    assert total(images=1, precision="bf16") < total(images=1)
    assert total(attention="channels") > total()
    assert total(DECODER, encoded=True, input_loss=True, **SIXTEEN) > total(DECODER, encoded=True, **SIXTEEN)


def test_weights_and_optimizer_are_exact(make_step):
    found = peak_of(make_step(), "cuda", 5)
    assert (found.process, found.weights, found.optimizer) == (5, 98_088_724 * 4, 4_353_252 * 12)
    assert found.total == 5 + found.weights + found.optimizer + found.activations
    assert peak_of(make_step(), "cuda", 5, running_mean=True).optimizer == 4_353_252 * 20


def test_the_bias_of_frozen_attention_is_made_in_parts(make_step):
    """ViT-B at 1024 would need 805 MB for it; queries, keys and values of a block take 63 MB."""
    step = make_step()
    assert 268e6 < forward_peak(step.model) < 450e6
    assert forward_peak(step.model, number=2) < forward_peak(step.model) < forward_peak(step.model, images=4)
