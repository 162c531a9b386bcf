"""Settings composed from `conf/` as `train.py` does it, for sides that build parts without a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.record import ROOT

if TYPE_CHECKING:
    from lora_sam.training.settings import Settings


def settings_for(*overrides: str) -> Settings:
    """Checked settings of `python train.py <overrides>`. Raises `ConfigError` as there."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from lora_sam.training.settings import settings_from

    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        data = () if any(word.startswith("data=drawn_") for word in overrides) else ("data.root=none",)
        config: Any = OmegaConf.to_container(compose("train", overrides=[*data, *overrides]), resolve=True)
    return settings_from(config)


def one_step(model: str, side: int, place: Path, *, train: int = 2) -> list[str]:
    """The command that makes `place` a run: a step on drawn ellipses of `side` pixels, of which `train` train."""
    options = [
        "data=ellipses", f"data.side={side}", f"data.train={train}", "data.val=1", "data.test=1", f"model={model}",
        "trainer.max_steps=1", "trainer.max_epochs=null", "trainer.overlays=0", "evaluate_automatic=false",
        "evaluate_clicks=false", f"hydra.run.dir={place}",
    ]  # fmt: skip
    return [sys.executable, "-m", "lora_sam.cli", "train", *options]
