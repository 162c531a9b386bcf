"""Jobs of a sweep are composed once, and are what they were when they were composed twice."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.plugins.sweeper import Sweeper

from lora_sam.cli import composing
from tests.conftest import CommandLine

pytestmark = pytest.mark.usefixtures("quick")

SWEEP = ("-m", "experiment=smoke", "method=lora", "tracker=none", "method.rank=2,4,8")
JOBS = 3


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """How often anything was composed."""
    calls: list[Any] = []
    load = ConfigLoaderImpl.load_configuration

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(options)
        return load(*arguments, **options)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    return calls


def configurations(sweep: Path) -> list[Any]:
    return [
        [json.loads((sweep / str(job) / "config.json").read_text()), (sweep / f"{job}/.hydra/hydra.yaml").read_text()]
        for job in range(JOBS)
    ]


@pytest.mark.parametrize(("most", "again"), [(64, 0), (2, 1), (0, JOBS)])
def test_jobs_are_composed_once_and_are_the_same(
    command_line: CommandLine,
    composed: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    most: int,
    again: int,
) -> None:
    monkeypatch.setattr(composing, "MOST", most)
    before = Sweeper.validate_batch_is_legal, ConfigLoaderImpl.load_sweep_config
    assert command_line(*SWEEP, "hydra.sweep.dir=swept").code == 0
    assert len(composed) == 2 + JOBS + again  # Hydra asks for the mode, and for the sweep, before any job
    assert before == (Sweeper.validate_batch_is_legal, ConfigLoaderImpl.load_sweep_config)
    assert [found["method"]["rank"] for found, _ in configurations(tmp_path / "swept")] == [2, 4, 8]
    kept = configurations(tmp_path / "swept")
    (tmp_path / "swept").rename(tmp_path / "once")
    monkeypatch.setattr(composing, "MOST", 0)
    assert command_line(*SWEEP, "hydra.sweep.dir=swept").code == 0
    assert configurations(tmp_path / "swept") == kept


def test_jobs_know_the_time_at_which_their_sweep_began(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Here a minute passes whenever it is looked up."""
    minutes = iter(range(60))

    class Passing:
        @staticmethod
        def now() -> datetime:
            return datetime(2024, 2, 3, 4, next(minutes), 5)

    monkeypatch.setattr("hydra.core.utils.datetime", Passing)
    assert command_line(*SWEEP).code == 0
    (sweep,) = (tmp_path / "multirun").glob("*-*/*-*-*")
    for job in range(JOBS):
        text = (sweep / str(job) / ".hydra" / "hydra.yaml").read_text()
        assert f"output_dir: {sweep / str(job)}\n" in text
