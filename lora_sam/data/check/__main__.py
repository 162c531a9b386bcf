"""`python -m lora_sam.data.check data.root=...`: what is wrong with a data set, before anything is trained on it."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # above this package; nothing imports this module
    from lora_sam.cli.step import run_step

    sys.exit(run_step("check", "python -m lora_sam.data.check", sys.argv[1:]))
