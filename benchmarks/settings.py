"""Settings composed from `conf/` as `train.py` does it, for sides that build parts without a run."""

from __future__ import annotations

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
