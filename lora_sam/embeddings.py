"""What training keeps on disk of the frozen image encoder: list it, verify it, prune it."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from lora_sam.cli.step import run_step

    sys.exit(run_step("embeddings", "python -m lora_sam.embeddings", sys.argv[1:]))
