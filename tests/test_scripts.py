"""Scripts beside the package."""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
from collections.abc import Callable, Sequence
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


@pytest.fixture
def mutating() -> dict[str, Any]:
    """The names of `scripts/mutants.py`."""
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "scripts" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return vars(module)


SOUND = """
def share(part: int, whole: int) -> float:
    if not whole or part < 0:
        raise ValueError("no whole")
    print("asked")
    return part / whole
"""


def test_every_mutant_is_another_program_of_one_change(mutating: dict[str, Any]) -> None:
    found = list(mutating["mutants"]("m.py", SOUND))
    assert len({one.source for one in found}) == len(found)
    said = {f"{one.line}: {one.after}" for one in found}
    assert said == {
        "3: the other way round", "3: joined by And", "3: without its sign", "3: Lt is LtE", "3: 0 is 1",
        "4: left out", "5: left out", "6: Div is Mult",
    }  # fmt: skip
    for one in found:
        compile(one.source, "m.py", "exec")


def test_what_nobody_evaluates_is_not_changed_and_limits_of_settings_are(mutating: dict[str, Any]) -> None:
    source = """
if TYPE_CHECKING:
    from a import B

@dataclass(frozen=True, kw_only=True)
class Options:
    side: Annotated[int, Field(ge=1)]

@dataclass(frozen=True)
class Found:
    side: int | None

def share(part: B | None) -> int | None:
    found: Found | None = load(part, strict=True)
    found.pixels.reshape(-1, 3)
    return list(zip(part, part, strict=True))
"""
    said = {f"{one.line}: {one.after}" for one in mutating["mutants"]("m.py", source)}
    assert said == {"7: 1 is 2", "14: True is False", "15: left out", "15: without its sign", "15: 3 is 4"}


def test_a_change_is_not_taken_for_the_one_before(mutating: dict[str, Any], tmp_path: Path) -> None:
    """Python compiles a file anew where its length or the second of its last change is another."""
    path, found = tmp_path / "m.py", []
    for value in (1, 2):
        mutating["written"](path, f"value = {value}\n")
        os.utime(path, (1e9, 1e9))
        spec = importlib.util.spec_from_file_location("m", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert Path(importlib.util.cache_from_source(str(path))).is_file()
        found.append(module.value)
    assert found == [1, 2]


def test_mutants_are_drawn_by_the_seed_from_all_modules(mutating: dict[str, Any]) -> None:
    paths = list(mutating["TESTS"])[:3]
    first, again, other = (mutating["chosen"](paths, 9, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert [one.path for one in first] == paths * 3
    for tests in mutating["TESTS"].values():
        assert all((ROOT / test).is_file() for test in tests)


def test_a_survivor_is_named_and_lowers_the_score(
    mutating: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.py").write_text(SOUND)
    (tmp_path / "test_m.py").write_text("from m import share\n\ndef test_it():\n    assert share(1, 2) == 0.5\n")
    for name, value in (
        ("ROOT", tmp_path),
        ("TESTS", {"m.py": ("test_m.py",)}),
        ("_COPIED", ("m.py", "test_m.py")),
        ("_SLOW", ()),
    ):
        monkeypatch.setitem(mutating, name, value)
    really = mutating["noticed"]

    def noticed(place: Path, tests: Sequence[str], seconds: float) -> bool:
        """As the tests would, in this process."""
        del tests, seconds
        names: dict[str, Any] = {}
        exec(compile((place / "m.py").read_text(), "m.py", "exec"), names)
        return not _holds(names["share"])

    monkeypatch.setitem(mutating, "noticed", noticed)
    assert mutating["main"](["--minutes", "2", "--bar", "80"]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ['survived: m.py:5: left out: print("asked")']
    assert printed.out.endswith("8 changes, 7 noticed: 87.5 % (bar 80 %)\n")
    assert mutating["main"](["--bar", "90"]) == 1
    (tmp_path / "m.py").write_text(SOUND.replace("/ whole", "* whole"))
    monkeypatch.setitem(mutating, "noticed", really)
    assert mutating["main"]([]) == 2  # the tests fail by themselves
    assert "test_m.py: fail without any change" in capsys.readouterr().err


def _holds(share: Callable[[int, int], float]) -> bool:
    try:
        for part, whole in ((1, 0), (-1, 2)):
            with pytest.raises(ValueError, match="no whole"):
                share(part, whole)
        return share(1, 2) == 0.5 and share(0, 2) == 0
    except (Exception, pytest.fail.Exception):
        return False
