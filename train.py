"""Fine-tune SAM on labelled images, compare it with its base, save the adapter: `python train.py --help`."""

from __future__ import annotations

import sys

from lora_sam.cli.train import run_train, train

__all__ = ["train"]

if __name__ == "__main__":
    sys.exit(run_train(sys.argv[0], sys.argv[1:]))
