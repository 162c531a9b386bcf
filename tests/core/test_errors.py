"""Errors of ours are `ValueError`s: what catches those is not to take one of ours for something else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lora_sam
from lora_sam.core import errors

OURS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, ValueError)}


def caught(handler: ast.ExceptHandler) -> set[str]:
    """Names of what a handler catches."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type] if handler.type else []
    return {ast.unparse(kind).rpartition(".")[2] for kind in kinds}


def raised(body: list[ast.stmt]) -> Iterator[str]:
    """Names of what is raised in statements themselves, but not in functions or `try` within them."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Try):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield ast.unparse(node.exc.func).rpartition(".")[2]
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                yield from raised(value)


def hidden(source: str) -> list[str]:
    """Places of a module where an error of ours is caught as any `ValueError`, as `line: what`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Try):
            continue
        before: set[str] = set()
        for handler in node.handlers:
            kinds = caught(handler)
            if "ValueError" in before and kinds & OURS:
                found.append(f"{handler.lineno}: {min(kinds & OURS)} is caught by what comes before")
            if "ValueError" in kinds and not before & OURS:
                found += [f"{node.lineno}: {name} is caught" for name in raised(node.body) if name in OURS]
            before |= kinds
    return found


@pytest.mark.parametrize(
    ("handlers", "said"),
    [
        ("except ValueError:\n    pass", ["1: DataError is caught"]),
        ("except DataError:\n    raise\nexcept ValueError:\n    pass", []),
        (
            "except (KeyError, ValueError):\n    pass\nexcept DataError:\n    raise",
            ["1: DataError is caught", "6: DataError is caught by what comes before"],
        ),
        ("except OSError:\n    pass", []),
    ],
)
def test_what_is_hidden_is_seen(handlers: str, said: list[str]) -> None:
    assert hidden(f"try:\n    if wrong:\n        raise DataError('no')\n{handlers}\n") == said


def test_no_error_of_ours_is_taken_for_another() -> None:
    root = Path(lora_sam.__file__).parent
    places = {path.relative_to(root).as_posix(): hidden(path.read_text("utf-8")) for path in root.rglob("*.py")}
    assert {name: said for name, said in places.items() if said} == {}
    assert len(places) > 400
