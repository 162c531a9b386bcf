"""Change the code a little, at random, and see whether a test notices: `python scripts/mutants.py --minutes 20`.

Only modules that read, write and measure, each against the tests that are there for it. What survives is printed, to be
read by somebody: a change that alters nothing (an equivalent) survives rightly.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import importlib.util
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS: dict[str, tuple[str, ...]] = {
    "lora_sam/core/beside.py": ("tests/core/test_files.py",),
    "lora_sam/core/files.py": ("tests/core/test_files.py", "tests/runs/test_manifest.py"),
    "lora_sam/data/contents.py": ("tests/data/test_contents.py",),
    "lora_sam/data/reading/coco_masks.py": ("tests/data/test_coco_masks.py",),
    "lora_sam/data/reading/numbers.py": ("tests/data/test_coco_masks.py",),
    "lora_sam/data/reading/rle.py": ("tests/data/test_rle.py", "tests/data/test_coco_masks.py"),
    "lora_sam/data/transforms.py": ("tests/data/test_transforms.py", "tests/data/test_square_frame.py"),
    "lora_sam/evaluation/metrics.py": ("tests/evaluation/test_metrics.py",),
    "lora_sam/evaluation/comparison.py": ("tests/evaluation/test_comparison.py",),
    "lora_sam/methods/adapted.py": ("tests/methods/test_adapted.py", "tests/methods/test_methods.py"),
    "lora_sam/models/checkpoints.py": ("tests/models/test_weight_files.py",),
    "lora_sam/prompts/boxes.py": ("tests/prompts/test_boxes.py", "tests/prompts/test_prompts.py"),
    "lora_sam/runs/manifest.py": ("tests/runs/test_manifest.py",),
    "lora_sam/runs/places.py": ("tests/runs/test_places.py",),
    "lora_sam/runs/resuming.py": ("tests/runs/test_resuming.py",),
    "lora_sam/training/state.py": ("tests/training/test_state.py",),
}
_SLOW = (
    "torch", "torchvision.transforms", "torchmetrics.classification", "peft", "monai.metrics", "segment_anything",
    "hydra", "transformers.models.sam2.processing_sam2", "transformers.models.sam2.image_processing_sam2",
    "accelerate", "scipy.ndimage", "scipy.spatial", "safetensors.torch", "pydantic", "PIL.Image",
    "hypothesis.strategies", "yaml", "pycocotools.mask", "faster_coco_eval.core.mask",
)  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
_PROMISES = {"dataclass": ("frozen", "kw_only"), "field": ("kw_only",), "zip": ("strict",)}
_COPIED = (
    "lora_sam",
    "conf",
    "tests",
    "scripts",
    "benchmarks",
    "docs",
    "pyproject.toml",
    "train.py",
    "app.py",
    "README.md",
)


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        path: The module, relative to the checkout.
        line: Where.
        before: The line as it is.
        after: What was changed, in words.
        source: The whole module, changed.
    """

    path: str
    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.after}: {self.before}"


def mutants(path: str, source: str) -> Iterator[Mutant]:
    """Every change of a module, in the order of its lines."""
    return (make() for make in _changes(path, source))


def _changes(path: str, source: str) -> Iterator[Callable[[], Mutant]]:
    """What makes every change of a module, in the order of its lines: a whole module each, so only those wanted."""
    lines = source.splitlines()
    tree = ast.parse(source)
    unread = {id(inner) for outer in ast.walk(tree) for part in _unread(outer) for inner in ast.walk(part)}

    def make(place: int, number: int) -> Mutant:
        changed = copy.deepcopy(tree)
        node = next(one for index, one in enumerate(ast.walk(changed)) if index == place)
        line = getattr(node, "lineno", 1)
        what = _change(node, number)
        return Mutant(path, line, lines[line - 1].strip(), what, ast.unparse(ast.fix_missing_locations(changed)))

    for place, node in enumerate(ast.walk(tree)):
        if id(node) not in unread:
            yield from (partial(make, place, number) for number in range(_ways(node)))


def _unread(node: ast.AST) -> list[ast.AST]:
    """What of a node no result depends on, so that every change is an equivalent: types, and for types.

    Only those in classes of settings are read, which are keyword-only: they say what a setting may be. That dataclasses
    do not change, and that two sequences are of one length, is said for who changes the code: nothing that is right
    runs into it. Of the lengths that NumPy is to find, -2 is as good as -1.
    """
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return [node]
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr == "reshape":
            return [one.operand for one in node.args if isinstance(one, ast.UnaryOp)]
        promised = _PROMISES.get(ast.unparse(node.func), ())
        return [one.value for one in node.keywords if one.arg in promised and ast.unparse(one.value) == "True"]
    types: list[ast.AST | None] = [getattr(node, "returns", None)]
    if isinstance(node, ast.arg):
        types.append(node.annotation)
    if not (isinstance(node, ast.ClassDef) and any("kw_only" in ast.unparse(one) for one in node.decorator_list)):
        types += [one.annotation for one in ast.iter_child_nodes(node) if isinstance(one, ast.AnnAssign)]
    return [one for one in types if one is not None]


def _ways(node: ast.AST) -> int:
    """In how many ways a node can be changed."""
    if isinstance(node, ast.Compare):
        return sum(type(one) in _COMPARISONS for one in node.ops)
    if isinstance(node, ast.BinOp):
        return int(type(node.op) in _ARITHMETIC)
    if isinstance(node, ast.Constant):
        return int(isinstance(node.value, bool | int | float))
    if isinstance(node, ast.UnaryOp):
        return int(isinstance(node.op, ast.Not | ast.USub))
    if isinstance(node, ast.Raise | ast.Continue | ast.Break | ast.BoolOp | ast.If | ast.IfExp):
        return 1
    return int(isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))


def _change(node: ast.AST, number: int) -> str:
    """Change a node in place; says how."""
    if isinstance(node, ast.Compare):
        index = [place for place, one in enumerate(node.ops) if type(one) in _COMPARISONS][number]
        before = node.ops[index]
        node.ops[index] = _COMPARISONS[type(before)]()
        return f"{type(before).__name__} is {type(node.ops[index]).__name__}"
    if isinstance(node, ast.BinOp):
        before_op, node.op = node.op, _ARITHMETIC[type(node.op)]()
        return f"{type(before_op).__name__} is {type(node.op).__name__}"
    if isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return f"joined by {type(node.op).__name__}"
    if isinstance(node, ast.Constant):
        was = node.value
        assert isinstance(was, bool | int | float)
        node.value = not was if isinstance(was, bool) else was + 1
        return f"{was!r} is {node.value!r}"
    if isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd() if isinstance(node.op, ast.USub) else node.op
        if isinstance(node.op, ast.Not):
            node.operand = ast.UnaryOp(ast.Not(), node.operand)
        return "without its sign"
    if isinstance(node, ast.If | ast.IfExp):
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return "the other way round"
    # a statement that is left out: its class is another then, which only its parent could replace
    vars(node).update(value=ast.Constant(None), lineno=getattr(node, "lineno", 1))
    node.__class__ = ast.Expr
    return "left out"


def chosen(paths: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """`count` changes, from all modules in turn, drawn by `seed`."""
    draws = random.Random(seed)
    piles = []
    for path in paths:
        pile = list(_changes(path, (ROOT / path).read_text(encoding="utf-8")))
        draws.shuffle(pile)
        piles.append(pile)
    found: list[Callable[[], Mutant]] = []
    while len(found) < count and any(piles):
        found += [pile.pop() for pile in piles if pile]
    return [make() for make in found[:count]]


def copied(place: Path) -> None:
    """A checkout to change, in `place`."""
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        elif source.is_file():
            shutil.copyfile(source, place / name)


def written(path: Path, source: str) -> None:
    """Write a module, and drop what Python compiled of it: a change of the same second and length would pass for it."""
    path.write_text(source, encoding="utf-8")
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def noticed(place: Path, tests: Sequence[str], seconds: float) -> bool | None:
    """Whether the tests fail; None where they take too long, which is noticed, too.

    A fork of this process runs them, which has what takes seconds to import (`loaded`), and nothing that is changed.
    """
    there = [test for test in tests if (place / test).is_file()]
    pid = os.fork()
    if pid == 0:
        _judge(place, there)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) != 0
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _judge(place: Path, tests: Sequence[str]) -> NoReturn:
    """In a fork: run the tests in `place`, and end with what they end with."""
    code = 1
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nowhere, stream)
        os.chdir(place)
        os.environ |= {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(place))
        for name in [one for one in sys.modules if one.partition(".")[0] in ("lora_sam", "tests", "conftest")]:
            del sys.modules[name]
        # the same examples for each change, and none made smaller, which takes longer than to find it
        phases = hypothesis.Phase.explicit, hypothesis.Phase.generate
        hypothesis.settings.register_profile("mutants", derandomize=True, phases=phases)
        hypothesis.settings.load_profile("mutants")
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)  # those of the parent are not in a fork
        # at the end one would look five times at all that is in memory, which takes longer than most tests
        code = int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:unraisableexception", *tests]))
    finally:
        os._exit(code)


def loaded() -> None:
    """Once for all forks: import what the tests import, and what no change is made of."""
    for name in _SLOW:
        with suppress(ImportError):
            importlib.import_module(name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the score and what survived; 1 where the score is below the bar, 2 where the tests fail by themselves."""
    parser = argparse.ArgumentParser(prog="python scripts/mutants.py", description=__doc__)
    parser.add_argument("modules", nargs="*", default=[], help="of those that have tests here; all by default")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bar", type=float, default=95.0, help="per cent that have to be noticed")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.modules if name not in TESTS]
    if unknown:
        parser.error(f"{unknown[0]}: has no tests here; there are {', '.join(TESTS)}")
    until = time.monotonic() + 60 * given.minutes
    paths = given.modules or list(TESTS)
    survivors, judged = [], 0
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        copied(place)
        loaded()
        limits: dict[str, float] = {}
        for mutant in chosen(paths, given.count, given.seed):
            if time.monotonic() > until:
                break
            path = place / mutant.path
            if mutant.path not in limits:
                start = time.monotonic()
                if noticed(place, TESTS[mutant.path], 3600) is not False:
                    sys.stderr.write(f"{', '.join(TESTS[mutant.path])}: fail without any change\n")
                    return 2
                limits[mutant.path] = 10 + 3 * (time.monotonic() - start)
            sound = path.read_text(encoding="utf-8")
            written(path, mutant.source + "\n")
            alive = noticed(place, TESTS[mutant.path], limits[mutant.path]) is False
            written(path, sound)
            judged += 1
            if alive:
                survivors.append(mutant)
                sys.stderr.write(f"survived: {mutant}\n")
    score = 100 * (judged - len(survivors)) / judged if judged else 0.0
    print(f"{judged} changes, {judged - len(survivors)} noticed: {score:.1f} % (bar {given.bar:g} %)")
    return int(score < given.bar)


if __name__ == "__main__":
    sys.exit(main())
