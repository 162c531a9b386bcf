"""Fine-tune SAM on labelled images, compare it with its base, save the adapter: `python train.py --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from lora_sam.cli import main
from lora_sam.cli.jobs import run_job

CONF = Path(__file__).resolve().parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def train(config: DictConfig) -> float:
    """One job of the command line; returns the best validation IoU, which sweepers maximise."""
    return run_job(config, fine_tune)


def fine_tune(config: dict[str, Any], output_dir: Path, overrides: Sequence[str]) -> float:
    """Check everything that can be checked without torch, then run."""
    from lora_sam.config import settings_from
    from lora_sam.resuming import resumed_config

    config = resumed_config(config, overrides)
    settings = settings_from(config)

    from lora_sam.run import run  # imports torch

    return run(settings, config=config, output_dir=output_dir)


if __name__ == "__main__":
    sys.exit(main(train, conf=CONF))
