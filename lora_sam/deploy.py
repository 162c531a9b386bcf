"""From a finished run to deployable files and the table that compares them: the other steps, one after the other."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from lora_sam.cli.step import run_step

    sys.exit(run_step("deploy", "python -m lora_sam.deploy", sys.argv[1:]))
