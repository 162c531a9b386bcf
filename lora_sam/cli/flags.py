"""Options typed as other programs have them, `--data x`: what they are here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# of Hydra, as far as they take a value of their own
_WITH_VALUE = {"--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--cfg", "-c"}
_HYDRAS = {
    *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m", "--info", "-i"),
    *("--shell-completion", "-sc", "--experimental-rerun", *_WITH_VALUE),
}

_TRAIN = "train"

# what people call things, and what they are called here
_WORDS = {
    "data": "data.root",
    "dataset": "data.root",
    "data_dir": "data.root",
    "dir": "data.root",
    "lr": "optim.lr",
    "learning_rate": "optim.lr",
    "epochs": "trainer.max_epochs",
    "steps": "trainer.max_steps",
    "batch": "trainer.batch_size",
    "batch_size": "trainer.batch_size",
    "rank": "method.rank",
    "lora_rank": "method.rank",
    "device": "trainer.device",
    "gpu": "trainer.device",
    "workers": "trainer.workers",
    "num_workers": "trainer.workers",
    "checkpoint": "model.checkpoint",
    "weights": "model.checkpoint",
    "image_size": "model.image_size",
    "imgsz": "model.image_size",
    "output": "hydra.run.dir",
    "output_dir": "hydra.run.dir",
    "model_type": "model",
    "input": "source",
    "images": "source",
}


def foreign_flags(arguments: Sequence[str], conf: Path, config_name: str) -> list[str]:
    """One line for each word that is neither `key=value` nor a flag of Hydra's, with the key that may be meant.

    Args:
        arguments: The command line.
        conf: The configuration directory.
        config_name: Name of the primary configuration.
    """
    return list(_lines(list(arguments), conf, config_name))


def _lines(arguments: list[str], conf: Path, config_name: str) -> Iterator[str]:
    skip = False
    for place, text in enumerate(arguments):
        if skip:
            skip = False
            continue
        flag, equals, value = text.partition("=")
        following = next(iter(arguments[place + 1 :]), "")
        # as in `--run latest`, where --run is a flag of Hydra's, without a value
        misused = flag == "--run" and following and "=" not in following and following[:1] not in "-~+"
        if not misused and (not flag.startswith("-") or _is_hydras(flag)):
            skip = flag in _WITH_VALUE and not equals
            key = None if equals or flag.startswith("-") else _key_of_place(text, conf, config_name)
            if key is not None:
                yield f"{text}: options are written key=value: {key}={text} (--help lists them)"
            continue
        if not equals and following and "=" not in following and not following.startswith("-"):
            value, skip = following, True
        name = flag.lstrip("-").replace("-", "_")
        key = name if (conf / name / f"{value}.yaml").is_file() else _key_for(name, conf, config_name)
        meant = f"{key}={value or '...'}" if key else "key=value"
        yield f"{text}: options are written key=value, without dashes: {meant} (--help lists them)"


def _is_hydras(flag: str) -> bool:
    # argparse takes any beginning that is long enough
    return flag in _HYDRAS or (len(flag) > 4 and any(known.startswith(flag) for known in _HYDRAS))


def _key_of_place(text: str, conf: Path, config_name: str) -> str | None:
    """The key that a run, or a file or folder that is there, may be meant for; None for other words."""
    run = text in ("latest", "best") or (Path(text) / "adapter").is_dir()
    if not run and not Path(text).exists():
        return None
    keys, training = _keys_of(conf, config_name)
    if run:
        return "run" if "run" in keys else "resume" if "resume" in keys else None
    return "source" if "source" in keys else "data.root" if training else None


def _key_for(name: str, conf: Path, config_name: str) -> str | None:
    """The key of a command that a word may mean; None where nothing is like it."""
    from lora_sam.core.unknown import nearest_of

    keys, training = _keys_of(conf, config_name)
    word = _WORDS.get(name)
    if (training and word is not None) or word in keys:
        return word
    if name in keys:
        return name
    last = {key.rpartition(".")[2]: key for key in sorted(keys, key=lambda key: -key.count("."))}
    found = last.get(name) or nearest_of(name, sorted(keys))
    return found or last.get(nearest_of(name, sorted(last)) or "")


def _keys_of(conf: Path, config_name: str) -> tuple[set[str], bool]:
    """The keys of a command, and whether it takes those of training."""
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(OmegaConf.load(conf / f"{config_name}.yaml"))
    assert isinstance(values, dict)
    training = config_name == _TRAIN or _TRAIN in values["defaults"]
    if training and config_name != _TRAIN:
        base = OmegaConf.to_container(OmegaConf.load(conf / f"{_TRAIN}.yaml"))
        assert isinstance(base, dict)
        values = {**base, **values, "defaults": base["defaults"]}
    keys = {str(key) for key in values if key not in ("_target_", "defaults", "hydra")}
    return keys | (_of_groups(conf, values) if training else set()), training


def _of_groups(conf: Path, values: Mapping[Any, Any]) -> set[str]:
    """Keys of the groups in use by default, as `group.key`."""
    from omegaconf import OmegaConf

    keys = set()
    for entry in values["defaults"]:
        if not isinstance(entry, dict):
            continue
        ((group, option),) = ((str(key), str(value)) for key, value in entry.items())
        path = conf / group / f"{option}.yaml"
        if path.is_file():
            chosen = OmegaConf.to_container(OmegaConf.load(path))
            assert isinstance(chosen, dict)
            keys |= {group, *(f"{group}.{key!s}" for key in chosen if key not in ("_target_", "defaults"))}
    return keys
