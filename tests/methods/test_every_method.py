"""Whatever lies in conf/method/: identity at the start, gradients, saving, stock PEFT, folding. Found by globbing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.methods import adapted as adapted_module
from lora_sam.methods.layer_files import put_in_saved
from lora_sam.methods.peft_config import check_config
from lora_sam.methods.tuners import REFUSED, TUNERS
from lora_sam.models.decoding import decode_masks
from lora_sam.models.projections import fuse_projections

NAMES = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "conf" / "method").glob("*.yaml"))
IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
BOXES = torch.tensor([[1.0, 2, 30, 40], [9, 5, 60, 60]])
POINTS = torch.tensor([[[9.0, 9], [40, 30]]])
# how far from the base a method may start, where its factors are not exactly the identity in floating point
ROUNDING = {"pissa": 1e-6, "olora": 1e-6, "hra": 1e-6, "dora": 1e-6}
# layers that do not fold into weights
STAY = ("adaptformer", "serial_adapter", "conv_lora", "vpt", "cat_sam")
# parts that no prompt of this test reaches: masks as prompts, and a head that SAM leaves unused
UNREACHED = ("mask_downscaling", "no_mask_embed", "not_a_point_embed", "pe_layer")


def logits(sam: Any, *, gradients: bool = False) -> torch.Tensor:
    """What boxes and points with both labels give, and all masks of each."""
    with torch.set_grad_enabled(gradients):
        embedding = sam.image_encoder(IMAGES)
        parts = []
        for prompts in (
            {"boxes": BOXES, "points": None, "labels": None},
            {"boxes": None, "points": POINTS, "labels": torch.tensor([[1, 0]])},
        ):
            for multimask in (False, True):
                masks, scores = decode_masks(sam, embedding, **prompts, multimask=multimask)
                parts += [masks.flatten(), scores.flatten()]
        return torch.cat(parts)


def trained(adapted: Any, steps: int = 2) -> set[str]:
    """Train a little; the names of the weights that no step gave a gradient to."""
    parameters = adapted.trainable()
    optimizer = torch.optim.Adam(parameters.values(), 3e-3)
    silent = set(parameters)
    for _ in range(steps):
        optimizer.zero_grad()
        logits(adapted.sam, gradients=True).square().mean().backward()
        silent -= {name for name in silent if parameters[name].grad is not None and parameters[name].grad.any()}
        optimizer.step()
    return silent


@pytest.mark.parametrize("name", NAMES)
def test_every_method(option: Any, tiny_sam: Any, tmp_path: Path, name: str) -> None:
    method = option(f"method/{name}")
    if hasattr(method, "check"):
        method.check()
    before = logits(tiny_sam())
    torch.manual_seed(0)
    adapted = method.apply(tiny_sam())
    assert (logits(adapted.sam) - before).abs().max() <= ROUNDING.get(name, 0), "it does not start as the base"
    stage = adapted.frozen_stage

    silent = trained(adapted)
    assert not [key for key in silent if not any(part in key for part in UNREACHED)], "no gradient"
    adapted.peft.requires_grad_(False)
    after = logits(adapted.sam)
    assert (after - before).abs().max() > 1e-4
    if adapted.reversible:
        with adapted.base():
            assert (logits(adapted.sam) - before).abs().max() == 0

    adapted.save(tmp_path)
    # what was saved as a difference to the base rounds once more
    tolerance = 1e-6 if adapted.taken or name == "salt" else 0
    check_config(tmp_path)
    loaded = adapted_module.load(tiny_sam(), tmp_path, trains_encoder=adapted.trains_encoder)
    loaded.peft.requires_grad_(False)
    assert (logits(loaded.sam) - after).abs().max() <= tolerance
    # a loaded adapter is frozen, but what it changes is not the base's
    assert loaded.frozen_stage == stage
    stock = tiny_sam()
    put_in_saved(stock, tmp_path)
    PeftModel.from_pretrained(stock, str(tmp_path)).eval().requires_grad_(False)
    assert (logits(stock) - after).abs().max() <= tolerance

    merged = loaded.merge()
    if name in STAY:
        assert (logits(merged) - after).abs().max() == 0
        with pytest.raises(AdapterError, match=f"method {name} does not fold"):
            fuse_projections(merged)
        return
    plain = option("model/tiny_random").empty().eval()
    plain.load_state_dict(merged.state_dict(), strict=True)
    assert (logits(plain) - after).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ["ia3", "ln_tuning", "oft"])
def test_a_tuner_reaches_every_block_of_tiny_vit(option: Any, name: str) -> None:
    """Its blocks have other names, and its tokens three dimensions."""
    sam = option("model/nano", image_size=256).build().sam
    adapted = option(f"method/{name}", blocks="last:1").apply(sam)
    encoder = {key for key in adapted.trainable() if ".image_encoder." in key}
    assert encoder
    stage = adapted.frozen_stage
    assert stage is not None
    with torch.no_grad():
        assert sam.image_encoder(torch.zeros(1, 3, 256, 256)).isfinite().all()


def test_tuners_on_sam_2(option: Any) -> None:
    model = option("model/sam2_tiny", weights="random", image_size=256)
    with pytest.raises(ConfigError, match="method.tuner = oft: attention of SAM 2"):
        option("method/oft").apply(model.build().sam)
    adapted = option("method/loha", blocks="last:1").apply(model.build().sam)
    assert [key for key in adapted.trainable() if ".hada_w1_a." in key]


@pytest.mark.parametrize(("name", "tuner"), [(name, tuner) for name, tuner in TUNERS.items() if tuner.sizes])
def test_a_tuner_that_asks_for_more_than_the_file_has_is_refused(
    option: Any, tiny_sam: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, tuner: Any
) -> None:
    import json

    sam = tiny_sam()
    option(f"method/{name}", blocks="last:1", decoder="frozen").apply(tiny_sam()).save(tmp_path)
    path = tmp_path / "adapter_config.json"
    saved = json.loads(path.read_text())
    assert saved["peft_type"] == tuner.peft_type
    monkeypatch.setattr("peft.PeftModel.from_pretrained", lambda *_, **__: pytest.fail("PEFT was called"))
    (field, *_) = tuner.sizes
    for change, message in (
        ({field: 1e9}, r"must be a whole number from [01] to "),
        ({field: 10**9}, r"must be a whole number from [01] to "),
        ({field: 12 if field == "boft_n_butterfly_factor" else 4096}, "the tensors in adapter_model.safetensors have "),
        ({"of_the_future": {"r": 1}}, "must be left at its default"),
        ({"bias": "all"}, "must be one of none"),
        ({"target_modules": "(a+)+$"}, "could take for ever"),
    ):
        path.write_text(json.dumps({**saved, **change}))
        with pytest.raises(AdapterError, match=message):
            adapted_module.load(sam, tmp_path, trains_encoder=True)


def test_a_tuner_cannot_be_scaled_and_says_so(option: Any, tiny_sam: Any) -> None:
    for name in ("loha", "oft"):
        with pytest.raises(AdapterError, match=f"of the tuner {name} cannot be scaled or combined"):
            option(f"method/{name}").apply(tiny_sam()).strength()
    with pytest.raises(AdapterError, match="taken out of the base"):
        option("method/pissa").apply(tiny_sam()).strength()


def test_what_a_tuner_is_told_is_checked(option: Any) -> None:
    for changes, message in (
        ({"tuner": "adalora"}, "AdaLoRA moves its ranks in the loop"),
        ({"tuner": "no_such"}, "must be one of loha, lokr"),
        ({"options": {"rank": 4}}, r"did you mean method\.options\.r\?"),
        ({"options": {"r": 0}}, r"method\.options\.r = 0: must be a whole number from 1 to 4096"),
        ({"targets": ["norm"]}, "only ln_tuning trains norms"),
        ({"blocks": "middle"}, r"method\.blocks = middle"),
        ({"tuner": "gralora", "targets": ["mlp"], "options": {}}, "leave mlp out"),
        ({"tuner": "ln_tuning", "options": {}}, r"give \[norm\]"),
    ):
        with pytest.raises(ConfigError, match=message):
            option("method/loha", **changes).check()
    assert not REFUSED.keys() & TUNERS.keys()


def test_a_start_taken_out_of_the_base_is_saved_as_plain_lora(option: Any, tiny_sam: Any, tmp_path: Path) -> None:
    """Before anything has trained it changes nothing, for whoever puts it into the untouched base."""
    before = logits(tiny_sam())
    for name, changes in (("pissa", {}), ("olora", {"rslora": True, "decoder": "frozen"})):
        adapted = option(f"method/{name}", **changes).apply(tiny_sam())
        assert not adapted.reversible
        adapted.save(tmp_path / name)
        config = check_config(tmp_path / name)
        assert (config["r"], config["init_lora_weights"]) == (16, True)
        loaded = adapted_module.load(tiny_sam(), tmp_path / name, trains_encoder=True)
        assert loaded.reversible
        assert (logits(loaded.sam) - before).abs().max() <= 1e-6


def test_eva_starts_where_inputs_vary(option: Any, tiny_sam: Any) -> None:
    from lora_sam.methods.eva import start_from_images

    adapted = option("method/eva").apply(tiny_sam())
    assert adapted.eva
    seen: list[torch.Tensor] = []
    layer = adapted.sam.image_encoder.blocks[1].attn.q
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().flatten(0, -2)))
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    before = logits(tiny_sam())
    seen.clear()
    start_from_images(adapted, images)
    hook.remove()
    directions = torch.linalg.svd(torch.cat(seen)).Vh[:8]
    # up to their signs
    assert (layer.lora_A["default"].weight @ directions.T).diagonal().abs().detach().tolist() == pytest.approx(
        [1] * 8, abs=1e-3
    )
    assert (logits(adapted.sam) - before).abs().max() == 0
