"""The table of families in docs/models.md and the script that makes it of a run of tests."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from lora_sam.models.family import OPTIONS, family

ROOT = Path(__file__).resolve().parents[1]
IDENTITY_AND_LOSS = (
    "test_identity_at_the_start",
    "test_the_loss_falls_on_two_images_and_what_is_frozen_stays_as_it_was",
)


@pytest.fixture(scope="module")
def script() -> Any:
    """`scripts/family_matrix.py`."""
    spec = importlib.util.spec_from_file_location("family_matrix", ROOT / "scripts" / "family_matrix.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["family_matrix"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_matrix_of_the_documentation_is_that_of_the_script(script: Any) -> None:
    """Which rows there are, which cells refuse, and that the tests which they stand for are there."""
    lines = script.PAGE.read_text().split(script.MARKS[0])[1].split(script.MARKS[1])[0].split("\n")[1:-1]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {*script.VARIANTS, "sam_hq_tiny"} == OPTIONS.keys()  # whose parts are those of two columns
    assert cells[0] == ["check", *script.VARIANTS]
    assert [row[0] for row in cells[2:]] == [check.said for check in script.CHECKS]
    code = {file: (ROOT / file).read_text() for file in script.FILES}
    for check, row in zip(script.CHECKS, cells[2:], strict=True):
        for name, cell in zip(script.VARIANTS, row[1:], strict=True):
            if name in check.cannot:
                assert cell == f"cannot: {check.cannot[name]}"
                assert any(check.cannot[name] in reason for reason in family(name).cannot.values())
                continue
            assert re.fullmatch(r"✓ [1-9]\d*", cell), (check.said, name)
            file, _, test = check.elsewhere.get(name, "").partition("::")
            texts = [(ROOT / file).read_text()] if file else list(code.values())
            assert any(f"def {test or check.test}(" in text for text in texts), (check.said, name)


def test_the_matrix_tells_what_passed_from_what_did_not(script: Any, tmp_path: Path) -> None:
    file = tmp_path / "results.xml"
    cases = {
        "test_identity_at_the_start[vit-lora]": "",
        "test_identity_at_the_start[vit-full]": "",
        "test_identity_at_the_start[tiny_vit-lora]": "",
        "test_identity_at_the_start[sam2-lora]": "<failure/>",
        "test_identity_at_the_start[sam2-full]": "",
        "test_the_loss_falls_on_two_images_and_what_is_frozen_stays_as_it_was[vit-lora]": "<skipped/>",
    }
    inside = "".join(
        f'<testcase classname="tests.models.test_families" name="{name}">{bad}</testcase>'
        for name, bad in cases.items()
    )
    file.write_text(f"<testsuites><testsuite>{inside}</testsuite></testsuites>")
    counts = script.results(file)
    identity, loss = (next(c for c in script.CHECKS if c.test == name) for name in IDENTITY_AND_LOSS)
    assert [script.cell(identity, name, counts) for name in ("vit", "tiny_vit", "sam2")] == ["✓ 2", "✓ 1", "✗"]
    assert script.cell(loss, "vit", counts) == "✗"  # skipped
    assert script.cell(loss, "sam2", counts) == "✗"  # did not run
    before = script.PAGE.read_text()
    assert script.main(["--junit", str(file), "--write"]) == 1
    assert script.PAGE.read_text() == before
