"""Store a run's exported model in INT8, calibrated on its own images, and measure what that costs."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from lora_sam.cli.step import run_step

    sys.exit(run_step("quantize", "python -m lora_sam.quantize", sys.argv[1:]))
