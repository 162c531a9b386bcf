"""Before anything else in every Python process that has this directory on its path: a run without training.

It takes the place of `lora_sam.cli.run` in processes that launchers start, where nobody can replace it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def run(settings: Any, **told: Any) -> float:
    """What `lora_sam.cli.run` does, in milliseconds."""
    from benchmarks.sweeps.quick_run import quick_run

    return quick_run(settings, **told)


module = ModuleType("lora_sam.cli.run")
module.run = run  # type: ignore[attr-defined]
sys.modules["lora_sam.cli.run"] = module
