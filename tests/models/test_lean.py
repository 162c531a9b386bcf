"""What keeps its input alone computes what it computed before, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lora_sam.models import lean
from lora_sam.models.device import autocast
from lora_sam.models.lean import by_bands, plus_mlp
from lora_sam.models.sam2_encoder import MLP
from lora_sam.models.stages import encode

CPU = torch.device("cpu")


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny maps are made again in several pieces too, of which the last is smaller."""
    monkeypatch.setattr(lean, "PIECE", 300)
    monkeypatch.setattr(lean, "_ROWS", 3)


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Any]:
    """Calls something with everything kept."""

    def call(run: Callable[[], Any]) -> Any:
        with monkeypatch.context() as changed:
            changed.setattr(lean, "may_remake", lambda: False)
            return run()

    return call


@pytest.fixture
def stepped(option: Callable[..., Any]) -> Callable[..., Callable[[], tuple[Tensor, Tensor]]]:
    """A step through the encoder of a tiny model: what it returns is the embedding, and the gradient of what trains."""

    def make(family: str, precision: Any = "fp32", checkpointed: tuple[int, ...] = (), **changes: Any) -> Any:
        torch.manual_seed(0)
        name = {"sam2": "sam2_random", "sam3": "sam3_random"}[family]
        model = option(f"model/{name}")
        adapted = option("method/lora", **changes).apply(model.build().sam)
        adapted.train_mode()
        for parameter in adapted.trainable().values():  # a fresh adapter has a half whose gradient is zero
            nn.init.normal_(parameter, std=0.05)
        encoder, images = adapted.sam.image_encoder, torch.randn(2, 3, model.image_size, model.image_size)
        trained = [one for name, one in adapted.trainable().items() if "image_encoder" in name]
        assert trained
        weights: list[Tensor] = []

        def step() -> tuple[Tensor, Tensor]:
            torch.manual_seed(1)
            with autocast(CPU, precision):
                out = encode(encoder, images, checkpointed)
            weights[:] = weights or [torch.randn(out.shape)]
            found = torch.autograd.grad((out.float() * weights[0]).sum(), trained)
            assert all(float(one.abs().max()) > 0 for one in found)
            return out.detach().float(), torch.cat([one.flatten() for one in found])

        return step

    return make


@pytest.mark.parametrize(
    ("family", "precision", "how"),
    [
        ("sam2", "fp32", {}),
        ("sam2", "bf16", {}),
        ("sam2", "fp32", {"checkpointed": (0, 1, 2, 3)}),
        ("sam2", "fp32", {"targets": ["q", "k", "v", "proj", "mlp"]}),
        ("sam2", "fp32", {"blocks": "last:2"}),
        ("sam3", "fp32", {}),
        ("sam3", "bf16", {}),
    ],
)
def test_gradients_are_those_of_everything_kept(stepped, plainly, small_pieces, family, precision, how) -> None:
    step = stepped(family, precision, **how)
    (plain, expected), (made, found) = plainly(step), step()
    limit = 1e-5 if precision == "fp32" else 0.05
    assert float((made - plain).abs().max()) <= limit * float(plain.abs().max())
    assert float((found - expected).norm()) <= limit * float(expected.norm())
    again = step()
    assert torch.equal(again[0], made)  # a resumed run ends with the same bits
    assert torch.equal(again[1], found)


def test_what_is_made_again_draws_what_was_drawn(stepped, plainly) -> None:
    """Dropout: whole maps are one piece each, so that the draws are those of everything kept."""
    step = stepped("sam2", dropout=0.5)
    (plain, expected), (made, found) = plainly(step), step()
    torch.testing.assert_close(made, plain)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def frozen(channels: int = 6) -> tuple[nn.LayerNorm, MLP]:
    torch.manual_seed(0)
    norm, mlp = nn.LayerNorm(channels), MLP(channels)
    nn.init.normal_(norm.weight)
    for module in (norm, mlp):
        module.requires_grad_(False)
    return norm, mlp


def kept_by(run: Callable[[], Any]) -> list[Tensor]:
    found: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: found.append(one) or one, lambda one: one):
        alive = run()
    del alive
    return found


def test_a_frozen_mlp_keeps_its_input_alone(small_pieces) -> None:
    norm, mlp = frozen()
    x = torch.randn(2, 5, 4, 6, requires_grad=True)
    (kept,) = kept_by(lambda: plus_mlp(x, norm, mlp))
    assert kept.data_ptr() == x.data_ptr()
    assert plus_mlp(x, norm, mlp).shape == x.shape
    # it is the block's slope: along any direction the output changes as the gradient says
    exact, direction = x.detach().double(), torch.randn_like(x).double()
    norm.double(), mlp.double()
    given = exact.clone().requires_grad_()
    weight = torch.randn_like(exact)
    (gradient,) = torch.autograd.grad((plus_mlp(given, norm, mlp) * weight).sum(), given)
    ahead, behind = (
        ((point + mlp(norm(point))) * weight).sum() for point in (exact + 1e-6 * direction, exact - 1e-6 * direction)
    )
    assert float((gradient * direction).sum()) == pytest.approx(float((ahead - behind) / 2e-6), rel=1e-6)


def test_second_derivatives_are_refused_rather_than_wrong() -> None:
    norm, mlp = frozen()
    x = torch.randn(4, 6, requires_grad=True)
    (slope,) = torch.autograd.grad(plus_mlp(x, norm, mlp).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize(
    "what", ["lin1 trains", "norm trains", "hook on lin1", "hook on the mlp", "around it", "compiled"]
)
def test_what_is_not_plain_and_frozen_runs_as_it_is(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    norm, mlp = frozen()
    seen: list[Any] = []
    around: nn.Module = mlp
    if what == "lin1 trains":
        mlp.layers[0].requires_grad_(True)
    elif what == "norm trains":
        norm.requires_grad_(True)
    elif what == "hook on lin1":
        mlp.layers[0].register_forward_pre_hook(lambda *_: seen.append(what))
    elif what == "hook on the mlp":
        mlp.register_forward_hook(lambda _, given, out: 2 * out)
    elif what == "around it":
        around = nn.Sequential(mlp, nn.Tanh())
    else:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    x = torch.randn(4, 6, requires_grad=True)
    out = plus_mlp(x, norm, around)
    assert "FrozenMLP" not in str(out.grad_fn)
    torch.testing.assert_close(out, x + around(norm(x)))
    assert (what == "hook on lin1") == bool(seen)
    out.sum().backward()
    trained = [one for module in (norm, mlp) for one in module.parameters() if one.requires_grad]
    assert bool(trained) == what.endswith("trains")
    assert all(one.grad is not None and float(one.grad.abs().max()) > 0 for one in trained)


def test_bands_are_whole_rows_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "PIECE", 2 * 3 * 7 * 2)
    heights: list[int] = []

    def part(band: Tensor) -> Tensor:
        heights.append(band.shape[1])
        return band.square()

    tokens = torch.randn(1, 8, 7, 2, requires_grad=True)
    out = by_bands(part, tokens, window=3)
    assert heights == [6, 2]
    assert torch.equal(out, tokens.square())
    out.sum().backward()
    assert heights == [6, 2, 2, 6]  # made again, the last first
    assert tokens.grad is not None
    assert torch.equal(tokens.grad, 2 * tokens)
    with torch.no_grad():
        by_bands(part, tokens, window=3)
    assert heights[4:] == [8]
