"""A finished run of a tiny model, and a workbench on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from lora_sam.app.scene import Scene
from lora_sam.app.workbench import Workbench
from lora_sam.cli.jobs import plain
from lora_sam.cli.run import run
from lora_sam.prompts.objects import ObjectPrompts
from lora_sam.training.settings import settings_from
from tests.conftest import let_validation_rise

ROOT = Path(__file__).resolve().parents[2]
OVERRIDES = [
    "model=tiny_random",
    "trainer.max_epochs=2",
    "trainer.log_every_steps=1",
    "trainer.device=cpu",
    "tracker=none",
    "optim.lr=0.003",
]


@pytest.fixture(scope="session")
def outputs(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of runs with two in it: `first` with LoRA, `second` with the decoder alone, which is the latest."""
    work = tmp_path_factory.mktemp("work")
    before = Path.cwd()
    os.chdir(work)
    try:
        for name, method in (("first", "lora"), ("second", "decoder")):
            with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
                config = plain(compose("train", [*OVERRIDES, f"data.root={blobs}", f"method={method}"]))
            with pytest.MonkeyPatch.context() as patch:
                let_validation_rise(patch)  # so that base and tuned differ
                run(settings_from(config), config=config, output_dir=work / "outputs" / name)
    finally:
        os.chdir(before)
    return work / "outputs"


@pytest.fixture(scope="session")
def loaded(outputs: Path) -> Workbench:
    made = Workbench(outputs, "first")
    made.load()
    assert made.failure is None
    return made


@pytest.fixture
def bench(loaded: Workbench) -> Iterator[Workbench]:
    """The same workbench, with the adapter as trained afterwards."""
    yield loaded
    for model in loaded._models._values.values():
        model.set_alpha(1.0)


@pytest.fixture
def scene() -> Callable[..., Scene]:
    """A scene on the first test image: a box, and a point with a background point."""

    def make(**changes: Any) -> Scene:
        objects = (
            ObjectPrompts(box=(5.0, 6.0, 30.0, 28.0)),
            ObjectPrompts(points=((40.0, 20.0, 1), (10.0, 40.0, 0))),
        )
        return Scene(**{"image": "test:0", "objects": objects, "runs": ("first",), **changes})

    return make
