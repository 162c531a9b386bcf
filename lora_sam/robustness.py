"""Measure base and tuned away from what was trained: other prompts, clicks, classes, and images of another kind."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from lora_sam.cli.step import run_step

    sys.exit(run_step("robustness", "python -m lora_sam.robustness", sys.argv[1:]))
