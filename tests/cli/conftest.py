"""A run that does not train."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs take milliseconds."""
    from benchmarks.sweeps.quick_run import quick_run

    module = ModuleType("lora_sam.cli.run")
    module.run = quick_run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lora_sam.cli.run", module)
