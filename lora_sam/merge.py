"""Fold a run's adapter into its base: plain SAM weights that any SAM tool loads."""

from __future__ import annotations

import sys

from lora_sam.deployment.merging import plain_sam

__all__ = ["plain_sam"]

if __name__ == "__main__":
    from lora_sam.cli.step import run_step

    sys.exit(run_step("merge", "python -m lora_sam.merge", sys.argv[1:]))
