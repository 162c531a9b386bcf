"""Every method: identity at the start, what trains, round trip through stock PEFT, merging, switching off."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from peft import PeftModel
from segment_anything.modeling import Sam

from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.methods import adapted as adapted_module
from lora_sam.models.decoding import decode_masks

IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
BOXES = torch.tensor([[1.0, 2, 30, 40], [9, 5, 60, 60]])
CASES = {
    "lora": ("method/lora", {}),
    "lora frozen decoder": ("method/lora", {"decoder": "frozen"}),
    "lora in the decoder": ("method/lora", {"decoder": "lora", "targets": ["q", "k", "v", "proj", "mlp"]}),
    "dora": ("method/lora", {"dora": True}),
    "rslora gaussian": ("method/lora", {"rslora": True, "init": "gaussian", "blocks": "last:1"}),
    "lora with dropout": ("method/lora", {"dropout": 0.5, "targets": ["mlp"], "blocks": [0]}),
    "biases": ("method/lora", {"bias": "all"}),
    "biases of adapted layers": ("method/lora", {"bias": "lora_only", "decoder": "frozen"}),
    "decoder": ("method/decoder", {}),
    "full": ("method/full", {}),
}


@pytest.fixture(params=CASES, ids=CASES)
def method(request, option):
    name, changes = CASES[request.param]
    return option(name, **changes)


def logits(sam: Sam) -> torch.Tensor:
    with torch.no_grad():
        embedding = sam.image_encoder(IMAGES)
        return decode_masks(sam, embedding, boxes=BOXES, points=None, labels=None)[0]


def disturb(adapted) -> None:
    """Move every trainable weight, as training would."""
    generator = torch.Generator().manual_seed(1)
    for parameter in adapted.trainable().values():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def test_identity_at_initialisation(method, tiny_sam):
    before = logits(tiny_sam())
    adapted = method.apply(tiny_sam())
    tolerance = 1e-6 if getattr(method, "dora", False) else 0  # DoRA renormalises its columns
    assert (logits(adapted.sam) - before).abs().max() <= tolerance


def test_training_mode_leaves_the_frozen_part_in_eval(method, tiny_sam):
    adapted = method.apply(tiny_sam())
    adapted.train_mode()
    training = {name for name, module in adapted.peft.named_modules() if module.training}
    assert training, "nothing is in training mode"
    assert all(
        ".lora_" in name
        or "modules_to_save" in name
        or ".base_layer" in name
        or "attn." in name
        or "lin" in name
        or "_proj" in name
        for name in training
    ), training
    frozen = [name for name, parameter in adapted.peft.named_parameters() if not parameter.requires_grad]
    trainable = adapted.trainable()
    assert not set(frozen) & set(trainable)


def test_save_and_load_with_stock_peft_is_exact(method, tiny_sam, tmp_path):
    adapted = method.apply(tiny_sam())
    disturb(adapted)
    adapted.peft.save_pretrained(tmp_path, save_embedding_layers=False)
    adapted.peft.requires_grad_(False)  # torch's matmul takes another path, and rounds otherwise, for trainable weights
    expected = logits(adapted.sam)
    loaded = PeftModel.from_pretrained(tiny_sam(), str(tmp_path))
    assert torch.equal(logits(loaded.base_model.model), expected)
    ours = adapted_module.load(tiny_sam(), tmp_path, trains_encoder=adapted.trains_encoder)
    assert torch.equal(logits(ours.sam), expected)
    assert ours.reversible == adapted.reversible


def test_merged_equals_adapted_and_loads_strictly(method, tiny_sam, option):
    adapted = method.apply(tiny_sam())
    disturb(adapted)
    expected = logits(adapted.sam)
    assert (expected - logits(tiny_sam())).abs().max() > 1e-3, "the test would pass without an adapter"
    merged = adapted.merge()
    plain = option("model/tiny_random").empty().eval()
    plain.load_state_dict(merged.state_dict(), strict=True)
    assert (logits(plain) - expected).abs().max() <= 1e-5


def test_switching_off_gives_the_base(method, tiny_sam):
    adapted = method.apply(tiny_sam())
    disturb(adapted)
    before, tuned = logits(tiny_sam()), logits(adapted.sam)
    if not adapted.reversible:
        with pytest.raises(AssertionError, match="build the base once more"), adapted.base():
            pass
        return
    trainable = list(adapted.trainable())
    with adapted.base():
        with adapted.base():
            assert torch.equal(logits(adapted.sam), before)
        assert torch.equal(logits(adapted.sam), before)
    assert torch.equal(logits(adapted.sam), tuned)
    with pytest.raises(ZeroDivisionError), adapted.base():
        raise ZeroDivisionError
    assert torch.equal(logits(adapted.sam), tuned)
    assert list(adapted.trainable()) == trainable


def trained_weights(adapted) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in adapted.peft.state_dict().items()}


@pytest.mark.parametrize("case", ["lora", "rslora gaussian", "lora in the decoder", "decoder", "full"])
def test_strength_goes_from_the_base_to_what_was_trained_and_back(option, tiny_sam, case):
    name, changes = CASES[case]
    adapted = option(name, **changes).apply(tiny_sam())
    disturb(adapted)
    adapted.peft.requires_grad_(False)
    base, tuned, weights = logits(tiny_sam()), logits(adapted.sam), trained_weights(adapted)
    strength = adapted.strength()
    assert strength.alpha == 1
    strength.set(0)
    assert strength.alpha == 0
    assert torch.equal(logits(adapted.sam), base)
    strength.set(0.5)
    half = logits(adapted.sam)
    assert min((half - base).abs().max(), (half - tuned).abs().max()) > 1e-3
    strength.set(1.5)
    assert (logits(adapted.sam) - tuned).abs().max() > 1e-3
    strength.set(1)
    assert torch.equal(logits(adapted.sam), tuned)
    found = trained_weights(adapted)
    assert all(torch.equal(found[key], weights[key]) for key in weights)


def test_half_strength_of_the_decoder_is_the_mean_of_the_weights(option, tiny_sam):
    adapted = option("method/decoder").apply(tiny_sam())
    disturb(adapted)
    wrapped = adapted.sam.mask_decoder
    base, full = (
        {name: value.clone() for name, value in module.named_parameters()}
        for module in (wrapped.original_module, wrapped.modules_to_save["default"])
    )
    adapted.strength().set(0.5)
    for name, value in wrapped.modules_to_save["default"].named_parameters():
        torch.testing.assert_close(value, (base[name] + full[name]) / 2, rtol=0, atol=1e-7)


def test_strength_folds(option, tiny_sam):
    adapted = option("method/lora").apply(tiny_sam())
    disturb(adapted)
    adapted.peft.requires_grad_(False)
    strength = adapted.strength()
    strength.set(0.3)
    expected = logits(adapted.sam)
    merged = adapted.merge()
    plain = option("model/tiny_random").empty().eval()
    plain.load_state_dict(merged.state_dict(), strict=True)
    assert (logits(plain) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("changes", "obstacle"),
    [
        ({"dora": True}, "DoRA (method.dora=true)"),
        ({"bias": "all"}, "trained biases of the base (method.bias=all)"),
        (
            {"dora": True, "bias": "lora_only"},
            "DoRA (method.dora=true) and trained biases of the base (method.bias=lora_only)",
        ),
    ],
)
def test_what_is_no_difference_to_the_base_cannot_be_scaled(option, tiny_sam, changes, obstacle):
    adapted = option("method/lora", **changes).apply(tiny_sam())
    with pytest.raises(AdapterError) as caught:
        adapted.strength()
    assert str(caught.value) == (
        f"an adapter with {obstacle} cannot be scaled or combined: it is not a difference that is added to the base. "
        "Merge it alone, with alpha=1"
    )


def test_counts(option, tiny_sam):
    total = sum(parameter.numel() for parameter in tiny_sam().parameters())
    decoder = sum(parameter.numel() for parameter in tiny_sam().mask_decoder.parameters())
    lora = 2 * 2 * (32 * 8 + 8 * 32)  # 2 blocks, q and v, A and B of rank 8
    assert option("method/full").apply(tiny_sam()).count() == (total, total)
    assert option("method/decoder").apply(tiny_sam()).count() == (decoder, total)
    assert option("method/lora", decoder="frozen").apply(tiny_sam()).count() == (lora, total + lora)
    assert option("method/lora").apply(tiny_sam()).count() == (lora + decoder, total + lora)


def test_block_ranges(option):
    lora = option("method/lora", blocks="last:3")
    assert lora.block_indices(12) == (9, 10, 11)
    assert option("method/lora", blocks="first:2").block_indices(12) == (0, 1)
    assert option("method/lora", blocks=[7, 3, 3]).block_indices(12) == (3, 7)
    assert option("method/lora").block_indices(2) == (0, 1)
    with pytest.raises(ConfigError, match="has only 2 blocks"):
        lora.check_depth(2)
    with pytest.raises(ConfigError, match="numbered 0 to 1"):
        option("method/lora", blocks=[0, 5]).check_depth(2)
    with pytest.raises(ConfigError, match=r"blocks = middle: must be all, first:n, last:n"):
        option("method/lora", blocks="middle").check()
    with pytest.raises(ConfigError, match="name at least one block"):
        option("method/lora", blocks=[]).check()


def test_only_named_layers_are_adapted(option, tiny_sam):
    adapted = option("method/lora", blocks="last:1", targets=["k", "mlp"], decoder="frozen").apply(tiny_sam())
    layers = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in adapted.trainable()}
    assert layers == {f"image_encoder.blocks.1.{name}" for name in ("attn.k", "mlp.lin1", "mlp.lin2")}


def test_damaged_and_foreign_adapters_are_refused(option, tiny_sam, tmp_path):
    with pytest.raises(AdapterError, match=r"adapter_config\.json is missing"):
        adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)
    option("method/lora", decoder="frozen").apply(tiny_sam()).peft.save_pretrained(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(AdapterError, match="cannot be loaded into this model"):
        adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == r"image_encoder\.blocks\.(0|1)\.(attn\.q|attn\.v)"


def test_merging_refuses_nan(option, tiny_sam):
    adapted = option("method/lora", decoder="frozen").apply(tiny_sam())
    next(iter(adapted.trainable().values())).data.fill_(float("nan"))
    with pytest.raises(AdapterError, match="cannot merge"):
        adapted.merge()


def test_an_adapter_with_a_tensor_missing_is_refused(option, tiny_sam, tmp_path):
    """PEFT would warn and go on with a tensor that it drew itself."""
    from safetensors.torch import load_file, save_file

    option("method/lora", decoder="frozen").apply(tiny_sam()).peft.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, tmp_path / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(AdapterError, match="missing adapter keys"):
        adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"target_modules": r".*\.attn\.q"}, None),
        ({"exclude_modules": ["image_encoder.blocks.1.attn.v"]}, None),
        ({}, "image_encoder.blocks.0.attn.k.lora_A.weight"),
        ({}, "mask_decoder.iou_token.weight"),
    ],
)
def test_tensors_that_the_configuration_does_not_name_are_refused(option, tiny_sam, tmp_path, changes, more):
    """PEFT leaves them out without a word, and puts those that the base has into the base."""
    from safetensors.torch import load_file, save_file

    option("method/lora", decoder="frozen").apply(tiny_sam()).save(tmp_path)
    file, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    tensors = {key.replace(".lora_A.", ".lora_A.default."): value for key, value in load_file(file).items()}
    save_file(tensors, file)
    adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)  # names of stock PEFT's own state dict are known
    if more is not None:
        save_file({**tensors, f"base_model.model.{more}": torch.ones(1, 32)}, file)
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    with pytest.raises(AdapterError, match="does not name; restore the configuration"):
        adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)


def test_trained_biases_and_a_whole_decoder_are_all_named(option, tiny_sam, tmp_path):
    option("method/lora", bias="all").apply(tiny_sam()).save(tmp_path)
    adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)


def test_an_adapter_that_is_not_finite_is_refused(option, tiny_sam, tmp_path):
    adapted = option("method/lora", decoder="frozen").apply(tiny_sam())
    next(iter(adapted.trainable().values())).data.fill_(float("inf"))
    adapted.peft.save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match="not finite"):
        adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("megatron_config", {"hidden_size": 1}, "megatron_config"),
        ("peft_type", "ADALORA", "only adapters of LORA, LOHA"),
    ],
)
def test_a_configuration_that_names_code_is_refused(option, tiny_sam, tmp_path, key, value, message):
    option("method/lora", decoder="frozen").apply(tiny_sam()).peft.save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value, "megatron_core": "os"}))
    with pytest.raises(AdapterError, match=message):
        adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)


def test_filters_of_warnings_are_those_of_before(option, tiny_sam, tmp_path):
    before = list(warnings.filters)
    adapted = option("method/lora", bias="all").apply(tiny_sam())
    assert warnings.filters == before
    adapted.peft.save_pretrained(str(tmp_path), save_embedding_layers=False)
    adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)
    assert warnings.filters == before


@pytest.mark.parametrize("error", [ImportError("needs a package"), ValueError("no such target")])
def test_what_peft_refuses_is_told_in_one_line(option, tiny_sam, monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(adapted_module, "get_peft_model", refuse)
    with pytest.raises(ConfigError, match=f"^method: PEFT refuses this configuration: {error}$"):
        option("method/lora").apply(tiny_sam())


def test_a_merge_that_is_not_finite_is_refused_and_names_the_tensor(option, tiny_sam):
    adapted = option("method/decoder").apply(tiny_sam())
    name, value = next((name, value) for name, value in adapted.trainable().items() if value.dim() == 2)
    value.data[0, 0] = float("nan")
    with pytest.raises(AdapterError, match=r"cannot merge: mask_decoder\..* is not finite"):
        adapted.merge()
    assert "mask_decoder" in name
