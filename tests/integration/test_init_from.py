"""A run that begins with a tuned adapter: its weights at step 0, its settings, and the untouched base beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from lora_sam.cli.jobs import plain
from lora_sam.cli.run import run
from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.run_directory import SWEEP
from lora_sam.evaluation.layout import validate_report
from lora_sam.evaluation.result import verdict
from lora_sam.runs.resuming import resumed_config
from lora_sam.runs.starting import started_config
from lora_sam.training.settings import settings_from
from tests.conftest import let_validation_rise

ROOT = Path(__file__).resolve().parents[2]
QUICK = [
    "trainer.max_epochs=1",
    "trainer.device=cpu",
    "trainer.overlays=0",
    "tracker=none",
    "evaluate_automatic=false",
    "evaluate_clicks=false",
]


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return plain(compose("train", [*QUICK, *overrides]))


def go(directory: Path, *overrides: str) -> dict[str, Any]:
    """Train as the command does; the report of the run."""
    typed = [*QUICK, *overrides]
    config = started_config(resumed_config(composed(*overrides), typed), typed, directory)
    run(settings_from(config), config=config, output_dir=directory, overrides=typed)
    report: dict[str, Any] = json.loads((directory / "evaluation.json").read_text())
    validate_report(report)
    return report


@pytest.fixture(scope="module")
def first(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run with settings that are not the defaults."""
    work = tmp_path_factory.mktemp("work")
    before = Path.cwd()
    os.chdir(work)
    try:
        with pytest.MonkeyPatch.context() as patch:
            let_validation_rise(patch)
            go(
                work / "outputs" / "first", "model=tiny_random", "method.rank=3", "optim.lr=0.003", "prompt=point",
                "loss=dice_ce", f"data.root={blobs}",
            )  # fmt: skip
        yield work / "outputs" / "first"
    finally:
        os.chdir(before)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "adapter" / "adapter_model.safetensors")


def test_nothing_is_lost_where_nothing_is_gained(first: Path, blobs: Path, tmp_path: Path, capsys: Any) -> None:
    """Steps that ruin the weights leave the adapter as it was, bit for bit, and its figures against the base."""
    before = json.loads((first / "evaluation.json").read_text())
    assert before["base"]["iou"] != before["tuned"]["iou"]
    report = go(tmp_path / "second", f"init_from={first}", f"data.root={blobs}", "optim.lr=1.0", "optim.warmup_steps=0")
    assert report["validation"]["kept_step"] == 0
    found, expected = weights(tmp_path / "second"), weights(first)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert report["base"]["iou"] == before["base"]["iou"]
    assert report["tuned"]["iou"] == before["tuned"]["iou"]
    sentence = verdict(report)
    assert sentence.startswith(f"Training on did not beat the adapter that it began with ({first})")
    assert f"IoU per object {before['base']['iou']:.3f} -> {before['tuned']['iou']:.3f}" in sentence
    facts = json.loads((tmp_path / "second" / "adapter" / "lora_sam.json").read_text())
    assert facts["init_from"]["run"] == str(first)
    assert (facts["validation_base"], facts["better_than_base"]) == (None, None)
    card = (tmp_path / "second" / "adapter" / "README.md").read_text()
    assert f"began with the adapter of `{first}`" in card
    assert "changes nothing" not in card
    assert "never rose above that of the adapter" in (tmp_path / "second" / "report.html").read_text()
    assert f"begun with the adapter of {first}" in capsys.readouterr().err


def test_settings_are_those_of_the_run_unless_they_are_typed(first: Path, blobs: Path, tmp_path: Path) -> None:
    typed = [f"init_from={first}", f"data.root={tmp_path}", "optim.lr=0.5", "loss=sam"]
    config = started_config(composed(*typed), typed, tmp_path)
    then = json.loads((first / "config.json").read_text())
    for group in ("model", "method", "prompt", "augmentation"):
        assert config[group] == then[group]
    assert config["optim"] == {**then["optim"], "lr": 0.5}
    assert config["loss"]["_target_"].endswith("SamLoss")
    assert config["data"]["root"] == str(tmp_path)
    assert config["trainer"] == composed()["trainer"]
    chosen = [f"init_from={first}", "experiment=smoke"]  # may have set anything, so that it decides
    assert started_config(composed(*chosen), chosen, tmp_path)["method"] == composed("experiment=smoke")["method"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["method.rank=5"], r"method\.rank is 3 in that adapter and 5 now; leave method out"),
        (["method=decoder"], r"method\.name is 'lora' in that adapter and 'decoder' now"),
        (["model=tiny_vit_random"], "was trained on 'tiny_random'"),
        (["model.weights_seed=7"], "was trained on 'tiny_random' 'random'"),
    ],
)
def test_another_base_method_or_rank_is_refused_by_name(
    first: Path, blobs: Path, tmp_path: Path, typed: list[str], message: str
) -> None:
    with pytest.raises(AdapterError, match=message):
        go(tmp_path / "run", f"init_from={first}", f"data.root={blobs}", *typed)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("method", ["lora", "lora_all", "decoder", "full"])
def test_every_method_takes_its_own_adapter(
    finished_run: Callable[..., Any], option: Callable[..., Any], tmp_path: Path, method: str
) -> None:
    from types import SimpleNamespace

    from lora_sam.runs.starting import begin_with

    finished_run(tmp_path / "run", method, **({"settings": {"bias": "all"}} if method == "lora" else {}))
    chosen = option(f"method/{method}", **({"bias": "all"} if method == "lora" else {}))
    model = option("model/tiny_random")
    base = model.build()
    adapted = chosen.apply(base.sam)
    settings: Any = SimpleNamespace(init_from=str(tmp_path / "run"), model=model, method=chosen)
    begin_with(adapted, base, settings)
    from lora_sam.runs.loading import load_adapted

    expected = dict(load_adapted(tmp_path / "run").peft.named_parameters())
    for name, parameter in adapted.trainable().items():
        assert torch.equal(parameter, expected[name]), name
    assert adapted.trainable()


def test_what_cannot_be_meant_is_refused(first: Path, tmp_path: Path) -> None:
    (tmp_path / SWEEP).write_text("{}")
    with pytest.raises(ConfigError, match=r"the jobs of a sweep move that link; give the run itself, init_from="):
        started_config(composed("init_from=latest"), ["init_from=latest"], tmp_path / "0")
    with pytest.raises(AdapterError, match="init_from=nowhere: nowhere: no such run directory"):
        started_config(composed("init_from=nowhere"), ["init_from=nowhere"], tmp_path / "a" / "b")
    typed = ["init_from=latest", "resume=latest"]
    with pytest.raises(ConfigError, match="leave one out"):
        started_config(composed(*typed), typed, tmp_path / "a" / "b")
