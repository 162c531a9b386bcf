"""A SAM with an adapter: what trains, how it is saved where it began as a part of the base, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from segment_anything.modeling import Sam

from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.methods import adapted as adapted_module
from lora_sam.models.decoding import decode_masks

IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
BOXES = torch.tensor([[1.0, 2, 30, 40], [9, 5, 60, 60]])


def logits(sam: Sam) -> torch.Tensor:
    with torch.no_grad():
        return decode_masks(sam, sam.image_encoder(IMAGES), boxes=BOXES, points=None, labels=None)[0]


def disturb(adapted) -> None:
    """Move every trainable weight, as training would."""
    generator = torch.Generator().manual_seed(1)
    for parameter in adapted.trainable().values():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


@pytest.mark.parametrize(("init", "rslora"), [("pissa", False), ("olora", True)])
def test_what_started_as_a_part_of_the_base_is_saved_as_what_it_changes(option, tiny_sam, tmp_path, init, rslora):
    adapted = option("method/lora", init=init, rslora=rslora, rank=3, alpha=5.0, decoder="frozen").apply(tiny_sam())
    assert not adapted.reversible
    disturb(adapted)
    adapted.peft.requires_grad_(False)
    tuned, before = logits(adapted.sam), logits(tiny_sam())
    adapted.save(tmp_path / "new" / "folder")
    config = json.loads((tmp_path / "new" / "folder" / "adapter_config.json").read_text())
    assert (config["r"], config["inference_mode"], config["init_lora_weights"]) == (6, True, True)
    assert config["lora_alpha"] == pytest.approx(5 * 2**0.5 if rslora else 10)
    loaded = adapted_module.load(tiny_sam(), tmp_path / "new" / "folder", trains_encoder=True)
    assert loaded.reversible
    assert (logits(loaded.sam) - tuned).abs().max() <= 1e-5
    assert (tuned - before).abs().max() > 1e-3
    with loaded.base():
        assert torch.equal(logits(loaded.sam), before)
    with pytest.raises(AdapterError, match="taken out of the base"):
        adapted.strength()


def test_what_trains_is_in_training_mode_and_nothing_else(option, tiny_sam):
    adapted = option("method/lora", dropout=0.5).apply(tiny_sam())
    decoder = adapted.sam.mask_decoder
    for _ in range(2):
        adapted.train_mode()
        assert decoder.modules_to_save["default"].training
        assert not decoder.original_module.training
        layer = adapted.sam.image_encoder.blocks[0].attn.q
        assert layer.lora_dropout["default"].training
        assert not adapted.sam.image_encoder.blocks[0].norm1.training
        assert not adapted.sam.prompt_encoder.training
        adapted.peft.train()


def test_what_was_inserted_loaded_or_merged_is_ready_to_predict(option, tiny_sam, tmp_path):
    adapted = option("method/lora", dropout=0.5, decoder="frozen").apply(tiny_sam().train())
    assert not any(module.training for module in adapted.peft.modules())
    assert all(".lora_" in name for name in adapted.trainable())
    adapted.save(tmp_path)
    frozen = adapted_module.load(tiny_sam().train(), tmp_path, trains_encoder=True)
    assert not any(module.training for module in frozen.peft.modules())
    assert not frozen.trainable()
    again = adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True, trainable=True)
    assert again.trainable().keys() == adapted.trainable().keys()
    merged = again.merge()
    assert not any(module.training for module in merged.modules())
    assert not any(parameter.requires_grad for parameter in merged.parameters())


def test_of_a_loaded_adapter_with_biases_nobody_knows_what_is_frozen(option, tiny_sam, tmp_path):
    for bias in ("none", "lora_only"):
        option("method/lora", bias=bias, blocks="last:1").apply(tiny_sam()).save(tmp_path / bias)
    known, unknown = (
        adapted_module.load(tiny_sam(), tmp_path / bias, trains_encoder=True) for bias in ("none", "lora_only")
    )
    for loaded in (known, unknown):
        loaded.peft.requires_grad_(False)
    assert known.frozen_stage is not None
    assert known.frozen_stage.block == 1
    assert unknown.frozen_stage is None
    training = adapted_module.load(tiny_sam(), tmp_path / "lora_only", trains_encoder=True, trainable=True)
    assert training.frozen_stage is not None


def test_both_files_of_an_adapter_are_asked_for(option, tiny_sam, tmp_path):
    option("method/lora", decoder="frozen").apply(tiny_sam()).save(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    message = rf"^{tmp_path}: adapter_model\.safetensors is missing; give a directory that holds a saved adapter$"
    with pytest.raises(AdapterError, match=message):
        adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)


def test_surplus_tensors_are_counted(option, tiny_sam, tmp_path):
    from safetensors.torch import load_file, save_file

    option("method/lora", decoder="frozen").apply(tiny_sam()).save(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    saved = load_file(file)
    for count, told in ((1, "has 'x0', whose"), (2, "has 'x0' and 1 more, whose"), (3, "has 'x0' and 2 more, whose")):
        save_file({**saved, **{f"x{number}": torch.ones(1) for number in range(count)}}, file)
        with pytest.raises(AdapterError, match=told):
            adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)


def test_a_base_with_layers_takes_no_other_method_and_no_adapter(option, tiny_sam, tmp_path):
    option("method/lora", decoder="frozen").apply(tiny_sam()).save(tmp_path)
    with_layers = option("method/adaptformer").apply(tiny_sam()).sam
    with pytest.raises(ConfigError, match=r"these weights have layers of method=adaptformer in them, which do not"):
        option("method/lora").apply(with_layers)
    with pytest.raises(ConfigError, match=r"layers of method=adaptformer in them"):
        adapted_module.load(with_layers, tmp_path, trains_encoder=True)


@pytest.mark.parametrize(("name", "layers"), [("adaptformer", True), ("lora_fa", False)])
def test_layers_of_a_method_are_saved_and_merged_with_it(option, tiny_sam, tmp_path, name, layers):
    adapted = option(f"method/{name}", decoder="frozen").apply(tiny_sam())
    disturb(adapted)
    adapted.peft.requires_grad_(False)
    tuned = logits(adapted.sam)
    adapted.save(tmp_path)
    loaded = adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)
    assert torch.equal(logits(loaded.sam), tuned)
    merged = loaded.merge()
    assert (logits(merged) - tuned).abs().max() <= 1e-5
    assert any("inserted" in name for name in merged.state_dict()) == layers
    assert any(name.endswith("attn.qkv.weight") for name in merged.state_dict()) != layers


def test_a_tuner_folds_with_what_was_trained_whole(option, tiny_sam):
    adapted = option("method/loha").apply(tiny_sam())
    disturb(adapted)
    adapted.peft.requires_grad_(False)
    tuned = logits(adapted.sam)
    assert (logits(adapted.merge()) - tuned).abs().max() <= 1e-5


def test_a_long_reason_is_cut(option, tiny_sam, tmp_path, monkeypatch):
    option("method/lora", decoder="frozen").apply(tiny_sam()).save(tmp_path)

    def fail(*_, **__):
        raise RuntimeError("x" * 200 + "\n  " + "y" * 200)

    monkeypatch.setattr("peft.PeftModel.from_pretrained", fail)
    with pytest.raises(AdapterError) as caught:
        adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)
    assert str(caught.value) == (f"{tmp_path}: the adapter cannot be loaded into this model: {'x' * 200} {'y' * 99}")


@pytest.mark.parametrize("name", ["ssf", "lora_fa"])
def test_layers_that_fold_are_gone_once_merged(option, tiny_sam, name):
    adapted = option(f"method/{name}", decoder="frozen").apply(tiny_sam())
    disturb(adapted)
    adapted.peft.requires_grad_(False)
    tuned = logits(adapted.sam)
    plain = option("model/tiny_random").empty().eval()
    plain.load_state_dict(adapted.merge().state_dict(), strict=True)
    assert (logits(plain) - tuned).abs().max() <= 1e-5
