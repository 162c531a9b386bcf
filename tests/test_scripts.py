"""Scripts beside the package."""

from __future__ import annotations

import importlib.util
import runpy
import sys
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


@pytest.fixture(scope="module")
def shape() -> dict[str, Any]:
    # dataclasses look their module up
    spec = importlib.util.spec_from_file_location("shape_of_the_code", ROOT / "scripts" / "shape_of_the_code.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["shape_of_the_code"] = module
    spec.loader.exec_module(module)
    return vars(module)


def test_the_longest_chain_of_imports(shape: dict[str, Any]) -> None:
    chain = shape["longest_chain"]
    assert chain({"a": {"b", "c"}, "b": {"c"}, "c": {"d"}, "d": set(), "e": set()}) == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="a imports itself by way of others"):
        chain({"a": {"b"}, "b": {"a"}})


def test_the_shape_of_a_package(shape: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "__init__.py": "",
        "door.py": "import toyshop.upper.a\n",
        "upper/__init__.py": "",
        "upper/a.py": "def f():\n    from toyshop.lower import b\n" + "x = 0\n" * 300,
        "lower/__init__.py": "",
        "lower/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from toyshop.lower import c\n",
        "lower/c.py": "",
    }
    for name, text in files.items():
        path = tmp_path / "toyshop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "pyproject.toml").write_text('[[tool.importlinter.contracts]]\nlayers = ["door", "upper", "lower"]\n')
    monkeypatch.syspath_prepend(tmp_path)
    found = shape["measures"](tmp_path, "toyshop")
    assert [one.value for one in found] == [3, 3, 2, 4, 306, 1]
    assert found[3].detail == "`toyshop.door` … `toyshop.lower.c`"
    assert found[5].detail == "`upper/a.py`"
    text = shape["table"](found)
    assert "| lines of `toyshop/`, without tests | ≤ 32,000 | 306 | met |  |" in text
    assert shape["filled"]("a\n<!-- shape -->\nold\n<!-- /shape -->\nb", text) == (
        f"a\n<!-- shape -->\n{text}<!-- /shape -->\nb"
    )
    with pytest.raises(ValueError, match="have to stand in it once"):
        shape["filled"]("nothing", text)


def test_the_package_keeps_the_bars_that_it_met(shape: dict[str, Any]) -> None:
    """Entries, floors and arrows; the others are in docs/design.md, misses included."""
    found = {one.what: one for one in shape["measures"](ROOT)[:3]}
    assert [one.what for one in found.values() if not one.met] == []
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert all(f"| {what} | ≤ {one.bar:,} |" in page for what, one in found.items())
