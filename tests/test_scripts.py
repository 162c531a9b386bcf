"""Scripts beside the package."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def average() -> Callable[[list[str]], int]:
    main: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "scripts" / "average_weights.py"))["main"]
    return main


def saved(option: Any, path: Path, **changes: Any) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = option("model/tiny_random", **changes)._random().state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, str(path))
    return state


def test_the_mean_of_weights(option: Any, tmp_path: Path, average: Callable[[list[str]], int]) -> None:
    torch.manual_seed(0)
    first, second = (saved(option, tmp_path / f"{name}.safetensors") for name in "ab")
    assert average([str(tmp_path / "mean"), f"{tmp_path}/a.safetensors:0.25", f"{tmp_path}/b.safetensors:0.75"]) == 0
    mean = load_file(tmp_path / "mean")
    assert mean.keys() == first.keys()
    for key, value in mean.items():
        assert value.dtype == torch.float16
        torch.testing.assert_close(value.float(), 0.25 * first[key] + 0.75 * second[key], rtol=1e-3, atol=1e-3)


def test_mistakes(
    option: Any, tmp_path: Path, average: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    saved(option, tmp_path / "a.safetensors")
    saved(option, tmp_path / "wide.safetensors", embed_dim=64)
    out, a, wide = (str(tmp_path / name) for name in ("out", "a.safetensors", "wide.safetensors"))
    for arguments in ([], [out, f"{a}:1"], [out, f"{a}:0.5", f"{wide}:0.6"], [out, f"{a}:x", f"{wide}:1"]):
        assert average(arguments) == 2
        assert "weights that add up to 1" in capsys.readouterr().err
    assert average([out, f"{a}:0.5", f"{wide}:0.5"]) == 2
    assert "its tensors are not those of the others" in capsys.readouterr().err
    assert not Path(out).exists()
