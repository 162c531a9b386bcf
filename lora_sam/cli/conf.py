"""Where the configuration files are: inside an installed package, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

from lora_sam.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


def conf_directory() -> Path:
    """The directory of `train.yaml` and its groups.

    Raises:
        ConfigError: there is none, so the installation is incomplete.
    """
    places = (_PACKAGE / "conf", _PACKAGE.parent / "conf")
    for place in places:
        if (place / "train.yaml").is_file():
            return place
    raise ConfigError(
        f"no configuration files: neither {places[0]} nor {places[1]} has a train.yaml; install lora_sam again."
    )
