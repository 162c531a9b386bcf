"""A run that goes on after the file of its base weights was replaced: what was trained fits those of then only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file

from lora_sam.cli.jobs import plain
from lora_sam.cli.run import run
from lora_sam.core.conf_files import conf_directory
from lora_sam.core.errors import AdapterError
from lora_sam.models.projections import fuse_projections
from lora_sam.runs import unchanged
from lora_sam.runs.resuming import resumed_config
from lora_sam.training.settings import settings_from


def test_neither_the_run_nor_its_sweep_goes_on_with_other_weights(
    option: Callable[..., Any], blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "base.safetensors"

    def write(seed: int) -> None:
        save_file(fuse_projections(option("model/tiny_random", weights_seed=seed).build().sam).state_dict(), weights)

    def composed(*typed: str) -> dict[str, Any]:
        words = [
            f"data.root={blobs}", "model=tiny_random", "model.weights=pretrained", f"model.checkpoint={weights}",
            "method=decoder", "trainer.device=cpu", "trainer.overlays=0", "tracker=none", "trainer.max_epochs=1",
            "trainer.max_steps=1",
        ]  # fmt: skip
        with initialize_config_dir(str(conf_directory()), version_base="1.3"):
            return resumed_config(plain(compose("train", [*words, *typed])), typed)

    write(0)
    config = composed()
    first = tmp_path / "first"
    run(settings_from(config), config=config, output_dir=first)
    unchanged.check_unchanged(first, config, [])

    write(1)
    monkeypatch.setattr(unchanged, "_weights", {})  # of another command
    longer = composed(f"resume={first}", "trainer.max_steps=2")
    told = r"the base weights 'base\.safetensors' are others now \(SHA-256 \w{12}, then '\w{12}'\).*Put the file back"
    with pytest.raises(AdapterError, match=f"^resume={first}: {told}"):
        run(settings_from(longer), config=longer, output_dir=tmp_path / "second")
    with pytest.raises(AdapterError, match=told):
        run(settings_from(config), config=config, output_dir=first, goes_on=True)
    with pytest.raises(AdapterError, match=told):
        unchanged.check_unchanged(first, config, [])

    # a run that is older does not say what it was trained on
    splits = json.loads((first / "splits.json").read_text())
    del splits["base"]
    (first / "splits.json").write_text(json.dumps(splits))
    unchanged.check_unchanged(first, config, [])
