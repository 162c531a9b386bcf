"""Hydra composes every job of a sweep twice, to check it and to run it: here the job is what was checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

MOST = 64
"""Jobs whose configuration is kept, a megabyte each; those beyond are composed again."""


@contextmanager
def composed_once() -> Iterator[None]:
    """Inside this context the jobs that a sweeper of this process has checked are not composed for a second time.

    A file of `conf/` that changes in between counts from the next sweep on. Launchers that start other processes
    compose there, as ever.
    """
    check, load = Sweeper.validate_batch_is_legal, ConfigLoaderImpl.load_sweep_config
    checked: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}
    checking = False

    def keeping(sweeper: Sweeper, batch: Sequence[Sequence[str]]) -> None:
        nonlocal checking
        checked.clear()
        checking = True
        try:
            check(sweeper, batch)
        finally:
            checking = False

    def kept(loader: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        job = tuple(sweep_overrides)
        if checking:
            config = load(loader, master_config, sweep_overrides)
            if len(checked) < MOST:
                checked[job] = master_config, config
            return config
        if job not in checked or checked[job][0] is not master_config:
            return load(loader, master_config, sweep_overrides)
        _, config = checked.pop(job)
        # values such as the time of a directory, which may have been looked up since
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        return config

    _put(keeping, kept)
    try:
        yield
    finally:
        _put(check, load)


def _put(check: Any, load: Any) -> None:
    Sweeper.validate_batch_is_legal = check  # type: ignore[method-assign]
    ConfigLoaderImpl.load_sweep_config = load  # type: ignore[method-assign]
