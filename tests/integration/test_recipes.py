"""Published recipes, shortened and on a tiny model: each trains, and measures base and tuned on fixed prompts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from lora_sam.cli.jobs import plain
from lora_sam.cli.run import run
from lora_sam.core.metrics_log import read_metrics
from lora_sam.training.settings import settings_from

ROOT = Path(__file__).resolve().parents[2]
RECIPES = [
    "micro_sam_iterative",
    "otx_decoder",
    "otx_tiny_vit",
    "otx_vit_b",
    "river_points",
    "sam_lora_rings",
    "stamp_decoder",
]
SHORT = ["trainer.max_steps=2", "trainer.log_every_steps=1", "trainer.device=cpu", "tracker=none", "evaluate_images=1"]


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return plain(compose("train", list(overrides)))


@pytest.mark.parametrize("name", RECIPES)
def test_it_runs_and_reports_base_and_tuned(
    name: str, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = composed(f"experiment={name}", "model=tiny_random", "data=coco", f"data.root={blobs}", *SHORT)
    run(settings_from(config), config=config, output_dir=tmp_path / "run")
    report = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert report["images"] == 3
    assert report["delta"]["iou"] == pytest.approx(report["tuned"]["iou"] - report["base"]["iou"])
    losses = [record["loss"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in record]
    assert len(losses) == 2
    assert all(loss > 0 for loss in losses)


def test_thin_objects_have_figures_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe for them, on a drawn set of them."""
    monkeypatch.chdir(tmp_path)
    few = ("data.train=2", "data.val=1", "data.test=2", "data.side=96", "trainer.overlays=0")
    config = composed("experiment=thin", "data=drawn_thin", "model=tiny_random", *few, *SHORT, "trainer.max_steps=1")
    run(settings_from(config), config=config, output_dir=tmp_path / "run")
    report = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert report["thin"]["of_objects"] == report["objects"]
    assert 0 < report["thin"]["objects"] <= report["objects"]
    assert 0 <= report["thin"]["cldice"]["base"] <= 1
    assert "objects are thin (median width" in (tmp_path / "run" / "adapter" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", RECIPES)
def test_its_head_says_what_it_follows_and_mends(name: str) -> None:
    lines = (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    head = [line for line in lines[1:] if line.startswith("#")]
    assert all(len(line) <= 120 for line in head)
    text = " ".join(line.lstrip("# ") for line in head)
    assert re.search(r"(Follows|for a laptop)", text)
    assert "Published" in text
    assert "Mended" in text


@pytest.mark.parametrize("name", RECIPES)
def test_it_trains_all_weights_at_its_rate_without_a_mean(name: str) -> None:
    """Defaults of this project that no source has."""
    config = composed(f"experiment={name}")
    assert (config["optim"]["pretrained_lr_fraction"], config["optim"]["warmup_fraction"]) == (1.0, 0.0)
    assert config["trainer"]["ema_decay"] is None


def test_the_recipes_are_those_of_their_sources() -> None:
    otx = composed("experiment=otx_vit_b", "data.root=x")
    assert otx["optim"]["lr"] == 1e-5
    assert (otx["loss"]["focal"], otx["loss"]["dice"], otx["loss"]["iou"]) == (20, 1, 1)
    assert otx["trainer"]["early_stopping"] == {"patience": 3, "min_delta": 0.001, "warmup_epochs": 3}
    rings = composed("experiment=sam_lora_rings")
    assert (rings["method"]["rank"], rings["method"]["alpha"], rings["method"]["decoder"]) == (8, 8, "frozen")
    assert rings["method"]["targets"] == ["q", "v"]
    river = composed("experiment=river_points", "data.root=x")
    assert (river["optim"]["lr"], river["optim"]["weight_decay"]) == (7e-6, 2e-4)
    assert (river["prompt"]["placement"], river["prompt"]["min_distance"]) == ("eroded", "dynamic")
    micro = composed("experiment=micro_sam_iterative", "data.root=x")
    assert (micro["prompt"]["rounds"], micro["prompt"]["mask_prob"]) == (8, 0.5)
    stamp = composed("experiment=stamp_decoder", "data.root=x")
    assert {name for name, value in stamp["loss"].items() if value == 1} == {"mse"}
