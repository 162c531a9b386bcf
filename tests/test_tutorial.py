"""The notebook of examples/ is what scripts/tutorial_notebook.py makes, and runs."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "tutorial_notebook.py"))


def test_it_was_made_by_the_script_and_executed(script: dict[str, Any]) -> None:
    book = json.loads(script["FILE"].read_text(encoding="utf-8"))
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in book["cells"]]
    # as long as the script says: it was made with two steps once, and showed that training does next to nothing
    assert cells == [(kind, text.replace("STEPS", str(script["LENGTH"]))) for kind, text in script["CELLS"]]
    outputs = [output for cell in book["cells"] for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert "Tuned is better than base" in json.dumps(outputs)
    gained = re.findall(r"difference +\+(\d\.\d+) \(95 % interval \+", json.dumps(outputs))
    assert float(gained[0]) > 0.1
    pixels = dict(re.findall(r"(base|tuned) +\d+ masks, (\d+) pixels in all", json.dumps(outputs)))
    assert int(pixels["tuned"]) < int(pixels["base"])  # as the text says
    assert not re.search(r"/(?:home|root|tmp|work|Users)/", json.dumps(book))


@pytest.mark.slow
def test_it_runs(script: dict[str, Any], tmp_path: Path) -> None:
    book = script["executed"](script["notebook"](2), tmp_path)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert code[-1].outputs[0]["data"]["text/plain"] == "'report.html'"
