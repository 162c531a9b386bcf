"""Several adapters as one: what PEFT does for LoRA, and the same rules for parts that were trained whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.utils.merge_utils import ties
from torch import Tensor

from lora_sam.core.errors import AdapterError
from lora_sam.deployment.combining import check_ranks, combine
from lora_sam.methods import adapted

Weights = dict[str, Tensor]
DECODER = "mask_decoder.output_hypernetworks_mlps.0.layers.0.weight"


@pytest.fixture
def trained(finished_run: Callable[..., Any]) -> Callable[..., Path]:
    """Makes an adapter at a path."""

    def make(root: Path, method: str, *, seed: int = 1, **settings: Any) -> Path:
        finished_run(root, method, settings=settings, seed=seed)
        return root / "adapter"

    return make


@pytest.fixture
def base(tiny_sam: Callable[[], Any]) -> Callable[[], Any]:
    return tiny_sam


def folded(sam: Any, *adapters: Path) -> Weights:
    """Plain weights with one adapter, or of the base."""
    if not adapters:
        from lora_sam.models.projections import fuse_projections

        return dict(fuse_projections(sam).state_dict())
    return dict(adapted.load(sam, adapters[0], trains_encoder=True).merge().state_dict())


def combined(sam: Any, adapters: Sequence[Path], weights: Sequence[float], **options: Any) -> Weights:
    settings = {"combination": "svd", "density": 0.5, "seed": 0, **options}
    return dict(combine(sam, adapters, weights, **settings).merge().state_dict())


def largest(first: Weights, second: Weights) -> float:
    assert first.keys() == second.keys()
    return max(float((first[key] - second[key]).abs().max()) for key in first)


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {}),
    "rank 3, more layers": ("lora", {"rank": 3, "targets": ["v", "proj", "mlp"], "decoder": "frozen"}),
    "rank 40, more than the layers have": ("lora", {"rank": 40, "alpha": 4, "decoder": "frozen"}),
    "rslora": ("lora", {"rslora": True, "alpha": 3, "blocks": [1]}),
    "lora in the decoder": ("lora", {"decoder": "lora", "rank": 2}),
    "decoder": ("decoder", {}),
    "full": ("full", {}),
}
PAIRS = [
    ("lora", "lora"),
    ("lora", "rank 3, more layers"),
    ("rslora", "lora"),
    ("rank 40, more than the layers have", "lora"),
    ("decoder", "decoder"),
    ("decoder", "rank 3, more layers"),
    ("lora in the decoder", "lora"),
    ("full", "lora"),
    ("lora in the decoder", "full"),
]


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[" + ".join(pair) for pair in PAIRS])
def test_svd_is_the_weighted_sum_of_the_differences(base, trained, tmp_path: Path, first: str, second: str) -> None:
    adapters = []
    for seed, kind in enumerate((first, second), 1):
        name, changes = KINDS[kind]
        adapters.append(trained(tmp_path / str(seed), name, seed=seed, **changes))
    plain = folded(base())
    single = [folded(base(), adapter) for adapter in adapters]
    found = combined(base(), adapters, (0.7, -0.2))
    for key, value in plain.items():
        expected = value + 0.7 * (single[0][key] - value) - 0.2 * (single[1][key] - value)
        torch.testing.assert_close(found[key], expected, rtol=0, atol=2e-6)
    assert min(largest(found, other) for other in (plain, *single)) > 1e-2, "the test would pass without combining"


def test_three_adapters(base, trained, tmp_path: Path) -> None:
    adapters = [trained(tmp_path / str(seed), "lora", seed=seed) for seed in (1, 2, 3)]
    plain = folded(base())
    single = [folded(base(), adapter) for adapter in adapters]
    found = combined(base(), adapters, (1 / 3,) * 3)
    mean = {key: sum(other[key] for other in single) / 3 for key in plain}
    assert largest(found, mean) < 2e-6


def test_linear_adds_the_factors(base, trained, tmp_path: Path) -> None:
    """As PEFT: A = sum of sqrt(w s) A_i, likewise B, so that products of different adapters come in."""
    adapters = [trained(tmp_path / str(seed), "lora", seed=seed, decoder="frozen") for seed in (1, 2)]
    weights, scale = (0.5, 0.25), 16 / 8
    a, b = torch.zeros(8, 32), torch.zeros(32, 8)
    for adapter, weight in zip(adapters, weights, strict=True):
        state = adapted.load(base(), adapter, trains_encoder=True).peft.state_dict()
        prefix = "base_model.model.image_encoder.blocks.1.attn.q.lora_"
        a += math.sqrt(weight * scale) * state[f"{prefix}A.default.weight"]
        b += math.sqrt(weight * scale) * state[f"{prefix}B.default.weight"]
    key = "image_encoder.blocks.1.attn.qkv.weight"
    expected = folded(base())[key]
    expected[:32] += b @ a
    found = combined(base(), adapters, weights, combination="linear")[key]
    torch.testing.assert_close(found[:32], expected[:32], rtol=0, atol=1e-6)


def differences(base: Callable[[], Any], adapters: Sequence[Path], key: str) -> list[Tensor]:
    plain = folded(base())[key]
    return [folded(base(), adapter)[key] - plain for adapter in adapters]


def test_ties_keeps_what_is_large_and_agrees(base, trained, tmp_path: Path) -> None:
    adapters = [trained(tmp_path / str(seed), "decoder", seed=seed) for seed in (1, 2)]
    found = combined(base(), adapters, (1, 1), combination="ties", density=0.25)[DECODER] - folded(base())[DECODER]
    expected = ties(differences(base, adapters, DECODER), torch.tensor([1.0, 1.0]), 0.25)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    changed = float((found.abs() > 1e-6).float().mean())
    assert 0.25 <= changed < 0.5


@pytest.mark.parametrize("combination", ["dare_linear", "dare_ties"])
def test_dare_draws_from_its_seed_alone(base, trained, tmp_path: Path, combination: str) -> None:
    adapters = [trained(tmp_path / str(seed), "lora", seed=seed) for seed in (1, 2)]
    first = combined(base(), adapters, (1, 1), combination=combination, seed=3)
    torch.manual_seed(7)
    again = combined(base(), adapters, (1, 1), combination=combination, seed=3)
    other = combined(base(), adapters, (1, 1), combination=combination, seed=4)
    assert largest(first, again) == 0
    for key in (DECODER, "image_encoder.blocks.0.attn.qkv.weight"):
        assert not torch.equal(first[key], other[key])


def test_the_global_generator_stays(base, trained, tmp_path: Path) -> None:
    adapters = [trained(tmp_path / str(seed), "lora", seed=seed) for seed in (1, 2)]
    before = torch.random.get_rng_state()
    combine(base(), adapters, (1, 1), combination="dare_ties", density=0.5, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_dare_scales_what_it_keeps(base, trained, tmp_path: Path) -> None:
    adapters = [trained(tmp_path / str(seed), "decoder", seed=seed) for seed in (1, 2)]
    found = combined(base(), adapters, (1, 1), combination="dare_ties", density=0.5)[DECODER] - folded(base())[DECODER]
    one, two = differences(base, adapters, DECODER)
    # what some draw can give: neither is kept, one of them, both where they agree in sign
    possible = torch.stack([torch.zeros_like(one), 2 * one, 2 * two, one + two])
    nearest = (found - possible).abs()
    assert bool((nearest.amin(dim=0) < 1e-6).all())
    shares = torch.bincount(nearest.argmin(dim=0).flatten(), minlength=4) / found.numel()
    assert bool((shares > 0.05).all()), shares


def test_full_density_prunes_nothing_and_warns_of_nothing(base, trained, tmp_path: Path, recwarn) -> None:
    adapters = [trained(tmp_path / str(seed), "lora", seed=seed) for seed in (1, 2)]
    dense = combined(base(), adapters, (0.5, 0.5), combination="dare_linear", density=1.0)
    assert largest(dense, combined(base(), adapters, (0.5, 0.5), combination="linear")) == 0
    assert [str(warning.message) for warning in recwarn if "density" in str(warning.message)] == []


def test_the_base_is_untouched_where_adapters_are_read(base, trained, tmp_path: Path) -> None:
    from lora_sam.deployment.combining import _taken_out

    for kind in ("lora", "decoder", "full", "lora in the decoder"):
        name, changes = KINDS[kind]
        sam, expected = base(), base().state_dict()
        _taken_out(sam, trained(tmp_path / kind, name, **changes))
        found = sam.state_dict()
        assert list(found) == list(expected)
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"dora": True}, r"DoRA (method.dora=true)"), ({"bias": "all"}, "trained biases of the base (method.bias=all)")],
)
def test_what_cannot_be_combined(base, trained, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    good = trained(tmp_path / "good", "lora")
    bad = trained(tmp_path / "bad", "lora", **changes)
    with pytest.raises(AdapterError) as caught:
        combined(base(), [good, bad], (0.5, 0.5))
    assert str(caught.value) == (
        f"{bad}: an adapter with {message} cannot be scaled or combined: it is not a difference that is added to the "
        "base. Merge it alone, with alpha=1"
    )


def test_ranks(trained, tmp_path: Path) -> None:
    eight = trained(tmp_path / "eight", "lora")
    four = trained(tmp_path / "four", "lora", rank=4)
    decoder = trained(tmp_path / "decoder", "decoder")
    for combination in ("linear", "ties", "dare_linear", "dare_ties"):
        with pytest.raises(AdapterError) as caught:
            check_ranks([eight, four, decoder], combination)
        assert str(caught.value) == (
            f"combination={combination} needs adapters of one rank: {eight} has rank 8, {four} has rank 4; use "
            "combination=svd"
        )
        check_ranks([eight, decoder], combination)
    check_ranks([eight, four, decoder], "svd")
