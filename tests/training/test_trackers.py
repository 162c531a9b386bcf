"""MLflow, Weights & Biases and trackio, against modules with the parts of their API in use: none is installed."""

from __future__ import annotations

import importlib.machinery
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lora_sam.cli.train import fine_tune
from lora_sam.core import extras
from lora_sam.core.errors import ConfigError
from lora_sam.training.trackers import place_of
from tests.conftest import ROOT

NAMES = ("mlflow", "trackio", "wandb")
PICTURE = np.zeros((2, 3, 3), np.uint8)


class Server:
    """What the fake module was told: curves, pictures, settings, name and group; `down` after so many calls."""

    def __init__(self) -> None:
        self.curves: list[tuple[str, float, int | None]] = []
        self.pictures: list[str] = []
        self.config: dict[str, Any] = {}
        self.name = self.group = None
        self.told: dict[str, Any] = {}
        self.ended = 0
        self.calls_left = 10**6

    def call(self) -> None:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise ConnectionError("no route to host")


def fake_wandb(server: Server, name: str) -> ModuleType:
    module = ModuleType(name)

    class Config(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            server.call()
            server.config[key] = value

    class Run:
        config = Config()

        def log(self, values: dict[str, Any], step: int | None = None) -> None:
            server.call()
            for key, value in values.items():
                if isinstance(value, float):
                    server.curves.append((key, value, step))
                else:
                    server.pictures.append(key)

        def finish(self) -> None:
            server.ended += 1

    def init(*, project: str, name: str, group: str | None, **told: Any) -> Run:
        server.call()
        server.name, server.group, server.told = name, group, {"project": project, **told}
        return Run()

    module.init, module.Image = init, lambda array: ("picture", array.shape)  # type: ignore[attr-defined]
    module.Settings = lambda **values: values  # type: ignore[attr-defined]
    return module


def fake_mlflow(server: Server, name: str) -> ModuleType:
    module = ModuleType(name)

    class MlflowClient:
        def __init__(self, tracking_uri: str | None) -> None:
            server.call()
            server.told["uri"] = tracking_uri

        def get_experiment_by_name(self, name: str) -> Any:
            return None

        def create_experiment(self, name: str) -> str:
            server.told["project"] = name
            return "7"

        def create_run(self, experiment_id: str, tags: dict[str, str]) -> Any:
            server.call()
            assert experiment_id == "7"
            server.name, server.group = tags["mlflow.runName"], tags.get("lora_sam.sweep")
            return SimpleNamespace(info=SimpleNamespace(run_id="r"))

        def log_metric(self, run_id: str, key: str, value: float, *, step: int | None = None) -> None:
            server.call()
            server.curves.append((key, value, step))

        def log_param(self, run_id: str, key: str, value: str) -> None:
            server.call()
            server.config[key] = value

        def log_image(self, run_id: str, image: Any, *, artifact_file: str) -> None:
            server.call()
            server.pictures.append(artifact_file)

        def set_terminated(self, run_id: str) -> None:
            server.ended += 1

    module.MlflowClient = MlflowClient  # type: ignore[attr-defined]
    return module


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    for name in NAMES:
        module = (fake_mlflow if name == "mlflow" else fake_wandb)(made, name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_curves_pictures_and_settings_have_the_same_keys(
    name: str, server: Server, option: Callable[..., Any], tmp_path: Path
) -> None:
    job = tmp_path / "2026-11-29" / "10-00-00" / "3"
    job.mkdir(parents=True)
    (job.parent / "sweep.json").write_text("{}")
    tracking = option(f"tracker/{name}")
    tracking.require()
    tracker = tracking.open(job)
    tracker.scalars(3, {"loss": 0.5, "validation_iou": 0.75})
    tracker.image(3, "validation/a b", PICTURE)
    tracker.hyperparameters({"method.rank": 8}, {"tuned/iou": 0.5})
    tracker.close()
    assert server.curves == [("loss", 0.5, 3), ("validation_iou", 0.75, 3), ("tuned/iou", 0.5, None)]
    assert server.pictures == ["pictures/validation_a_b/000003.png" if name == "mlflow" else "validation/a b"]
    assert {key: str(value) for key, value in server.config.items()} == {"method.rank": "8"}
    assert (server.name, server.group, server.ended) == ("3", "2026-11-29/10-00-00", 1)
    assert server.told["project"] == "lora_sam"
    assert server.told.get("mode", "offline") == "offline"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("calls", [0, 3])
def test_one_that_is_down_is_off_with_one_warning(
    name: str, calls: int, server: Server, option: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.calls_left = calls
    with caplog.at_level(logging.WARNING):
        tracker = option(f"tracker/{name}").open(tmp_path)
        for step in range(5):
            tracker.scalars(step, {"loss": 0.5})
        tracker.hyperparameters({"method.rank": 8}, {"tuned/iou": 0.5})
        tracker.close()
    (record,) = caplog.records
    assert "failed (ConnectionError: no route to host) and is off for the rest of this run" in record.getMessage()


@pytest.mark.usefixtures("active_environment")
@pytest.mark.parametrize(("name", "package"), [("mlflow", "mlflow-skinny"), ("trackio", "trackio"), ("wandb", "wandb")])
def test_one_that_is_not_installed_is_refused_before_anything_is_done(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydra import compose, initialize_config_dir

    from lora_sam.cli.jobs import plain

    monkeypatch.setattr(extras, "is_there", lambda module: False)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = plain(compose("train", ["experiment=smoke", f"tracker={name}"]))
    with pytest.raises(ConfigError, match=f"^tracker={name}: needs the package {package}, .*: pip install {package}$"):
        fine_tune(config, tmp_path / "run", [])
    assert not (tmp_path / "run").exists()


def test_a_run_alone_has_a_name_and_no_group(tmp_path: Path) -> None:
    (tmp_path / "2026-11-29" / "10-00-00").mkdir(parents=True)
    assert place_of(tmp_path / "2026-11-29" / "10-00-00") == ("2026-11-29/10-00-00", None)
