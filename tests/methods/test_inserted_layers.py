"""Layers of a method: in every family, merged and exported with the model if they do not fold, refused if damaged."""

from __future__ import annotations

import copy
import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lora_sam.cli.step import run_step
from lora_sam.core.errors import AdapterError, CheckpointError, ConfigError
from lora_sam.core.run_directory import RunDirectory
from lora_sam.deployment.merging import plain_sam
from lora_sam.methods import adapted as adapted_module
from lora_sam.methods.peft_config import WEIGHTS
from lora_sam.models.decoding import decode_masks
from lora_sam.runs.loading import load_adapted, load_base
from lora_sam.runs.merged import load_merged
from lora_sam.runs.starting import begin_with
from lora_sam.training.planning.workload import trained_in

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("adaptformer", "serial_adapter", "ssf", "conv_lora", "vpt", "cat_sam", "salt", "lora_fa", "decoder_tokens")
STAY = ("adaptformer", "serial_adapter", "conv_lora", "vpt", "cat_sam")


def masks(sam: Any, side: int = 64) -> torch.Tensor:
    with torch.no_grad():
        image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        boxes = torch.tensor([[1.0, 2, 30, 40]])
        return decode_masks(sam, sam.image_encoder(image), boxes=boxes, points=None, labels=None)[0]


def moved(adapted: Any) -> Any:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.trainable().values():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    adapted.peft.requires_grad_(False)
    return adapted


@pytest.mark.parametrize("model", ["tiny_vit_random", "sam2_random", "sam3_random", "sam_hq_random"])
def test_every_family(option: Any, tmp_path: Path, model: str) -> None:
    base = option(f"model/{model}")
    for name in METHODS:
        part = "tokens" if name == "cat_sam" else "frozen"
        blocks = {} if name == "decoder_tokens" else {"blocks": "last:2", "decoder": part}
        method, sam = option(f"method/{name}", **blocks), base.build().sam
        if name in ("vpt", "cat_sam") and model in ("sam2_random", "sam3_random"):
            why = f"method = {name}: attention of SAM (2 pools its queries|3 turns keys)"
            with pytest.raises(ConfigError, match=why):
                method.apply(sam)
            continue
        before, adapted = masks(sam, base.image_size), method.apply(sam)
        assert (masks(sam, base.image_size) - before).abs().max() == 0, name
        stage = adapted.frozen_stage
        assert stage is not None
        assert stage.block == (None if name == "decoder_tokens" else base.depth - 2)
        after = masks(moved(adapted).sam, base.image_size)
        assert (after - before).abs().max() > 1e-4, name
        adapted.save(tmp_path / name)
        loaded = adapted_module.load(base.build().sam, tmp_path / name, trains_encoder=True)
        assert (masks(loaded.sam, base.image_size) - after).abs().max() <= (1e-6 if name == "salt" else 0), name
        scale = after.abs().max()
        assert (masks(loaded.merge(), base.image_size) - after).abs().max() <= 1e-5 * scale, name


@pytest.mark.parametrize("name", STAY)
def test_what_does_not_fold_is_merged_and_exported_with_its_layers(
    finished_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    adapted = finished_run(tmp_path / "run", name)
    run, expected = RunDirectory(tmp_path / "run"), masks(adapted.sam)
    assert run_step("merge", "lora-sam merge", [f"run={run.root}"]) == 0
    merged = load_merged(run)
    assert (masks(merged.sam) - expected).abs().max() == 0
    assert any(key.startswith("layers.image_encoder.") for key in load_file(run.merged / "sam.safetensors"))
    assert f"method {name} does not fold" in capsys.readouterr().out
    # in no other program's SAM, and not trained on
    with pytest.raises(AdapterError, match=f"method {name} does not fold"):
        plain_sam(run)
    with pytest.raises(ConfigError, match=rf"these weights have layers of method={name} in them"):
        finished_run(tmp_path / "again", "lora", run.merged / "sam.safetensors")
    write_weights = runpy.run_path(str(ROOT / "scripts" / "weights_of_run.py"))["write_weights"]
    with pytest.raises(AdapterError, match=f"method {name} does not fold"):
        write_weights(str(run.root), tmp_path / "plain.safetensors", half=True)
    assert not (tmp_path / "plain.safetensors").exists()
    # PEFT reads it with the layers in
    stock = load_base(run.root).sam
    PeftModel.from_pretrained(stock, str(run.adapter)).eval().requires_grad_(False)
    assert (masks(stock) - expected).abs().max() == 0

    if name in ("conv_lora", "vpt", "cat_sam"):  # the other two are made of what these are made of
        # the parts are compared with the model on prompts when they are written
        assert run_step("export", "lora-sam export", [f"run={run.root}", "precision=fp32"]) == 0
        assert "mean mask IoU with torch 1.00000" in capsys.readouterr().out
    assert run_step("merge", "lora-sam merge", [f"run={run.root}", "format=transformers"]) == 2
    assert f"method {name} does not fold" in capsys.readouterr().err
    assert run_step("merge", "lora-sam merge", [f"run={run.root}", "alpha=0.5"]) == 2
    assert f"layers of its own (method {name}) cannot be scaled" in capsys.readouterr().err


def test_salt_and_lora_fa_are_lora_once_saved(option: Any, tiny_sam: Any, tmp_path: Path) -> None:
    for name, rank in (("salt", 20), ("lora_fa", 8)):
        adapted = moved(option(f"method/{name}").apply(tiny_sam()))
        after = masks(adapted.sam)
        adapted.save(tmp_path / name)
        loaded = adapted_module.load(tiny_sam(), tmp_path / name, trains_encoder=True)
        assert loaded.peft.peft_config["default"].r == rank
        strength = loaded.strength()
        strength.set(0)
        assert (masks(loaded.sam) - masks(tiny_sam())).abs().max() == 0
        strength.set(1)
        assert (masks(loaded.sam) - after).abs().max() <= 1e-6


def test_the_frozen_half_of_lora_fa_stays_frozen(option: Any, tiny_sam: Any) -> None:
    adapted = option("method/lora_fa").apply(tiny_sam())
    names = set(adapted.trainable())
    with adapted.base():
        pass
    assert set(adapted.trainable()) == names
    assert not [name for name in names if "lora_A" in name]


def test_the_rest_of_the_spectrum_keeps_out_of_the_largest_values(option: Any, tiny_sam: Any) -> None:
    adapted = option("method/salt", top=4, rank=2, decoder="frozen").apply(tiny_sam())
    layer = adapted.sam.image_encoder.blocks[0].attn.q.inserted.modules_to_save["default"]
    with torch.no_grad():
        layer.b.normal_()
        layer.scale.mul_(2)
    a, b = layer.factors()
    u, s, v = torch.linalg.svd(tiny_sam().image_encoder.blocks[0].attn.q.weight)
    inside = (u.T @ (b @ a) @ v.T).detach()
    assert torch.allclose(inside[:4, :4], s[:4].diag(), atol=1e-5)
    assert inside[:4, 4:].abs().max() < 1e-5
    assert inside[4:, :4].abs().max() < 1e-5
    assert inside[4:, 4:].abs().max() > 1e-2


def test_memory_is_planned_for_inputs_that_layers_keep(option: Any, tiny_sam: Any) -> None:
    for name, linears in (
        ("adaptformer", {"lin1"}),
        ("vpt", {"q"}),
        ("cat_sam", {"q"}),
        ("serial_adapter", {"proj", "lin2"}),
        ("conv_lora", {"q", "v"}),
    ):
        assert trained_in(option(f"method/{name}").apply(tiny_sam())).adapted == linears


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: None, "the description of the layers is missing"),
        (lambda text: "{", "the description of the layers is damaged"),
        (lambda text: text.replace("adaptformer", "of_tomorrow"), "layers of the kind 'of_tomorrow' are not known"),
        (lambda text: text.replace("adaptformer", "salt"), "layers of the kind 'salt' are not known"),
        (lambda text: text.replace('"width": 64', '"width": 4096'), "width = 4096 does not fit the tensors"),
        (lambda text: text.replace('"width": 64', '"width": "64"'), "width: Input should be a valid integer"),
        (lambda text: text.replace("blocks.0.mlp", "blocks.7.mlp"), "are not those of the described places"),
        (lambda text: text.replace("blocks.0.mlp", "blocks.0.norm1"), "are not those of the described places"),
        (lambda text: text.replace('"image_encoder.blocks.0.mlp", ', ""), "are not those of the described places"),
    ],
)
def test_a_damaged_description_is_refused(
    option: Any, tiny_sam: Any, tmp_path: Path, change: Any, message: str
) -> None:
    option("method/adaptformer").apply(tiny_sam()).save(tmp_path)
    with safe_open(tmp_path / WEIGHTS, framework="pt") as file:
        text = change(file.metadata()["layers"])
    save_file(load_file(tmp_path / WEIGHTS), tmp_path / WEIGHTS, None if text is None else {"layers": text})
    with pytest.raises(AdapterError, match=message):
        adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)


def test_layers_somewhere_else_are_refused(option: Any, tiny_sam: Any, tmp_path: Path) -> None:
    """Tensors and description agree, but no such layer goes there."""
    option("method/serial_adapter").apply(tiny_sam()).save(tmp_path)
    state = {key.replace("attn.proj", "norm1"): value for key, value in load_file(tmp_path / WEIGHTS).items()}
    with safe_open(tmp_path / WEIGHTS, framework="pt") as file:
        text = file.metadata()["layers"].replace("attn.proj", "norm1")
    save_file(state, tmp_path / WEIGHTS, {"layers": text})
    with pytest.raises(AdapterError, match=r"blocks\.0\.norm1 is nothing that layers of the kind serial_adapter"):
        adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)


def test_merged_weights_with_damaged_layers_are_refused(option: Any, finished_run: Any, tmp_path: Path) -> None:
    finished_run(tmp_path / "run", "adaptformer")
    run = RunDirectory(tmp_path / "run")
    assert run_step("merge", "lora-sam merge", [f"run={run.root}"]) == 0
    file = run.merged / "sam.safetensors"
    with safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["lora_sam"])
    state = load_file(file)
    gone = {key: value for key, value in state.items() if "blocks.1.mlp.up.bias" not in key or "layers." not in key}
    for tensors, facts, message in (
        (gone, about, "does not fit its tensors"),
        (state, {**about, "layers": None}, "is not of this model"),
    ):
        save_file(tensors, tmp_path / "sam.safetensors", {"lora_sam": json.dumps(facts)})
        model = option("model/tiny_random", weights="pretrained", checkpoint=str(tmp_path / "sam.safetensors"))
        with pytest.raises(CheckpointError, match=message):
            model.build()
    # the base with layers is not the base: an adapter is not loaded into it
    with pytest.raises(AdapterError, match="give the base it was trained on"):
        load_adapted(run.root, base=file)


@pytest.mark.parametrize("name", ["adaptformer", "lora_fa"])
def test_a_new_run_begins_with_the_weights_of_such_an_adapter(
    option: Any, tiny_sam: Any, tmp_path: Path, name: str
) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    trained = moved(option(f"method/{name}").apply(tiny_sam()))
    trained.save(tmp_path)
    torch.manual_seed(5)
    fresh = option(f"method/{name}").apply(tiny_sam())
    saved = load_file(tmp_path / WEIGHTS)
    set_peft_model_state_dict(fresh.peft, saved)
    present = get_peft_model_state_dict(fresh.peft, save_embedding_layers=False)
    assert present.keys() == saved.keys()
    fresh.peft.requires_grad_(False)
    assert (masks(fresh.sam) - masks(trained.sam)).abs().max() == 0


@pytest.mark.parametrize("name", ["cat_sam", "salt"])
def test_a_new_run_does_not_begin_with_layers_that_were_saved_as_others(
    option: Any, finished_run: Any, tmp_path: Path, name: str
) -> None:
    finished_run(tmp_path / "run", name)
    model = option("model/tiny_random", weights="random")
    settings = SimpleNamespace(init_from=tmp_path / "run", model=model, method=option(f"method/{name}"))
    base = model.build()
    with pytest.raises(AdapterError, match=rf"layers of method={name} were saved as (plain LoRA|prompts)"):
        begin_with(settings.method.apply(base.sam), base, settings)


@pytest.mark.parametrize("decoder", ["tokens", "train"])
def test_prompts_are_made_of_the_tokens_that_train(option: Any, tiny_sam: Any, tmp_path: Path, decoder: str) -> None:
    adapted = option("method/cat_sam", decoder=decoder).apply(tiny_sam())
    parameters = adapted.trainable()
    (name,) = (key for key in parameters if ".mask_tokens." in key)
    assert not [key for key in parameters if "image_encoder" in key and "token" in key]
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = adapted.sam.image_encoder(image)
        for key, parameter in parameters.items():
            if key.endswith(".gate"):
                parameter.fill_(0.5)
    # through the encoder alone, whose result no mask was made of
    adapted.sam.image_encoder(image).square().mean().backward()
    assert parameters[name].grad is not None
    assert parameters[name].grad.abs().max() > 0
    adapted.peft.requires_grad_(False)
    opened = adapted.sam.image_encoder(image)
    copied = copy.deepcopy(adapted)
    parameters[name].neg_()
    changed = adapted.sam.image_encoder(image)
    assert (changed - opened).abs().max() > 1e-4
    # a copy has tokens of its own
    assert (copied.sam.image_encoder(image) - opened).abs().max() == 0
    with adapted.base():
        assert (adapted.sam.image_encoder(image) - before).abs().max() == 0
    # to save it draws nothing
    state = torch.random.get_rng_state()
    adapted.save(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    # of the bridge nothing is in the file
    names = {key.rpartition(".")[2] for key in load_file(tmp_path / WEIGHTS) if ".inserted." in key}
    assert names == {"prompts", "gate"}


@pytest.mark.parametrize("name", [*STAY, "ssf", "salt"])
def test_bf16_computes_what_fp32_does(option: Any, tiny_sam: Any, name: str) -> None:
    adapted = option(f"method/{name}", decoder="tokens" if name == "cat_sam" else "frozen").apply(tiny_sam())
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in adapted.trainable().values():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        exact = adapted.sam.image_encoder(image)
    with torch.autocast("cpu", torch.bfloat16):
        rough = adapted.sam.image_encoder(image)
        rough.float().square().mean().backward()
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all()
        for key, parameter in adapted.trainable().items()
        if "mask_decoder" not in key or key.endswith("mask_tokens.modules_to_save.default.weight")
    )
