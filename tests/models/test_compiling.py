"""Compiled parts compute the same, under the same names; no compiler is needed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_sam.core.errors import ConfigError
from lora_sam.models import compiling
from lora_sam.models.compiling import compile_model
from lora_sam.models.decoding import decode_all_masks

CPU = torch.device("cpu")
IMAGE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
BOXES = torch.tensor([[1.0, 2, 30, 40], [9, 5, 60, 60], [0, 0, 64, 64]])


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def adapted(option: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    model = option("method/lora", decoder="train").apply(
        option("model/tiny_random", depth=1, global_attention=(0,)).build().sam
    )
    generator = torch.Generator().manual_seed(1)
    for parameter in model.trainable().values():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def results(model: Any) -> list[torch.Tensor]:
    """Logits, and all gradients of one loss."""
    logits, iou = decode_all_masks(model.sam, model.sam.image_encoder(IMAGE), boxes=BOXES, points=None, labels=None)
    model.peft.zero_grad()
    (logits.square().mean() + iou.sum()).backward()
    gradients = [parameter.grad.clone() for parameter in model.trainable().values() if parameter.grad is not None]
    return [logits.detach(), iou.detach(), *gradients]


def assert_near(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    for value, wanted in zip(found, expected, strict=True):
        assert (value - wanted).norm() <= 1e-4 * wanted.norm() + 2e-5


def test_training_saving_switching_off_and_merging(option: Callable[..., Any], tmp_path: Path) -> None:
    plain, model = adapted(option), adapted(option)
    names, saved = list(model.sam.state_dict()), list(model.trainable())
    expected = results(plain)
    calls: list[int] = []

    def backend(graph: Any, example: Any) -> Any:
        def run(*values: Any) -> Any:
            calls.append(1)
            return graph(*values)

        return run

    parts = compile_model(model.sam, CPU, backend=backend)  # type: ignore[arg-type]  # torch takes functions, too
    assert parts == ("image_encoder.blocks.0", "mask_decoder")
    assert list(model.sam.state_dict()) == names
    assert list(model.trainable()) == saved
    calls.clear()
    assert_near(results(model), expected)
    assert calls
    with torch.no_grad(), model.base(), plain.base():
        torch.testing.assert_close(model.sam.image_encoder(IMAGE), plain.sam.image_encoder(IMAGE))
    model.peft.save_pretrained(tmp_path / "compiled")
    plain.peft.save_pretrained(tmp_path / "plain")
    files = [(tmp_path / kind / "adapter_model.safetensors").read_bytes() for kind in ("compiled", "plain")]
    assert files[0] == files[1]
    merged, wanted = model.merge().state_dict(), plain.merge().state_dict()
    assert merged.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in merged.items())


def test_a_machine_that_cannot_compile_is_one_sentence(
    tiny_sam: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no working C++ compiler\nwas found")

    monkeypatch.setattr(compiling.torch, "compile", fail)
    with pytest.raises(
        ConfigError, match=r"(?s)no working C\+\+ compiler was found.*g\+\+.*trainer.compile=false"
    ) as e:
        compile_model(tiny_sam(), CPU)
    assert "\n" not in str(e.value)
    with pytest.raises(ConfigError, match="Triton"):
        compile_model(tiny_sam(), torch.device("meta"))
