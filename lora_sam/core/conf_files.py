"""Where the configuration files are: inside an installed package, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

from lora_sam.core.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


def conf_places() -> tuple[Path, Path]:
    """Where `train.yaml` and its groups may be: inside the package, and beside it."""
    return _PACKAGE / "conf", _PACKAGE.parent / "conf"


def conf_directory() -> Path:
    """The directory of `train.yaml` and its groups.

    Raises:
        ConfigError: there is none, so the installation is incomplete.
    """
    places = conf_places()
    for place in places:
        if (place / "train.yaml").is_file():
            return place
    raise ConfigError(
        f"no configuration files: neither {places[0]} nor {places[1]} has a train.yaml; install lora_sam again."
    )
