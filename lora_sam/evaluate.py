"""Measure torch, IR and INT8 side by side: the same images, the same prompts, one table."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from lora_sam.cli.step import run_step

    sys.exit(run_step("evaluate", "python -m lora_sam.evaluate", sys.argv[1:]))
