"""Runs with `trainer.frozen=bf16`: they end as those with fp32 weights do, and what is deployed is fp32."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from lora_sam import load_base
from lora_sam.core.config import step_from
from lora_sam.core.metrics_log import read_metrics
from lora_sam.models.held import held_in
from lora_sam.report import shown_validation
from lora_sam.training.loop import Fit
from tests.conftest import ROOT, TINY_RUN, CommandLine


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "adapter" / "adapter_model.safetensors")


def losses(directory: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(directory / "metrics.jsonl") if "loss" in record]


def report(directory: Path) -> Any:
    return json.loads((directory / "evaluation.json").read_text())


def test_a_run_is_evaluated_and_merged_with_fp32_weights(
    tmp_path, blobs, command_line: CommandLine, rising_validation, monkeypatch
):
    """Among what is validated, base included, are bf16 weights; among what is evaluated none."""
    seen: list[int] = []
    measure = shown_validation.ShownValidation.__call__

    def noted(self: Any, step: int) -> float:
        seen.append(held_in(self._parts.adapted.sam))
        return measure(self, step)

    monkeypatch.setattr(shown_validation.ShownValidation, "__call__", noted)
    common = [*TINY_RUN, f"data.root={blobs}", "method.decoder=frozen", "optim.lr=0.01"]
    assert command_line(*common, "hydra.run.dir=exact").code == 0
    assert set(seen) == {0}
    done = command_line(*common, "trainer.frozen=bf16", "hydra.run.dir=rounded")
    assert done.code == 0
    assert "trainer.frozen=bf16: 24,576 frozen weights are held in bf16 while the rest trains" in done.err
    assert set(seen[len(seen) // 2 :]) == {24576}
    exact, rounded = tmp_path / "exact", tmp_path / "rounded"
    assert report(exact)["base"] == report(rounded)["base"]
    assert report(exact)["tuned"]["iou"] == pytest.approx(report(rounded)["tuned"]["iou"], abs=0.002)
    assert losses(exact) != losses(rounded)
    assert losses(rounded) == pytest.approx(losses(exact), rel=5e-3)
    # merged is what the saved adapter adds to the fp32 base
    step = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "merge.yaml"))
    assert isinstance(step, dict)
    del step["defaults"]
    assert step_from({**step, "run": str(rounded)}).perform() == 0
    merged = load_file(next((rounded / "merged").glob("*.safetensors")))
    base, adapter = load_base(rounded).sam.state_dict(), weights(rounded)
    name = "image_encoder.blocks.0.attn"
    expected = []
    for own in "qkv":
        value = base[f"{name}.{own}.weight"]
        if own in "qv":
            key = f"base_model.model.{name}.{own}"
            value = value + _scale(rounded) * (adapter[f"{key}.lora_B.weight"] @ adapter[f"{key}.lora_A.weight"])
        expected.append(value)
    assert torch.equal(merged[f"{name}.qkv.weight"], torch.cat(expected))
    assert torch.equal(merged["image_encoder.blocks.1.mlp.lin1.weight"], base["image_encoder.blocks.1.mlp.lin1.weight"])


def _scale(directory: Path) -> float:
    config = json.loads((directory / "adapter" / "adapter_config.json").read_text())
    return float(config["lora_alpha"] / config["r"])


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, blobs, command_line: CommandLine, monkeypatch):
    common = [*TINY_RUN, f"data.root={blobs}", "trainer.frozen=bf16", "method.dropout=0.1"]
    assert command_line(*common, "hydra.run.dir=whole").code == 0
    step = Fit._optimizer_step

    def stop_after_four(self: Fit, progress: Any, *arguments: Any) -> None:
        step(self, progress, *arguments)
        if progress.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "_optimizer_step", stop_after_four)
        assert command_line(*common, "hydra.run.dir=stopped").code == 130
    changed = command_line("resume=stopped", "trainer.frozen=fp32", "hydra.run.dir=other")
    assert changed.code != 0
    assert "trainer.frozen was 'bf16' in that run and is 'fp32' now" in changed.err
    assert command_line("resume=stopped", "hydra.run.dir=resumed").code == 0
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert losses(tmp_path / "whole") == losses(tmp_path / "resumed")
    for part in ("base", "tuned", "validation"):
        assert report(tmp_path / "whole")[part] == report(tmp_path / "resumed")[part]


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("pissa", r"trainer.frozen = bf16: not with method.init=pissa"),
        ("olora", r"trainer.frozen = bf16: not with method.init=olora"),
        ("shira", r"trainer.frozen = bf16: not with method=shira"),
    ],
)
def test_methods_that_change_the_base_are_refused_before_data_is_read(command_line: CommandLine, method, said):
    done = command_line(*TINY_RUN, f"method={method}", "data=coco", "data.root=.", "trainer.frozen=bf16")
    assert done.code != 0
    assert said in done.err


def test_where_nothing_is_frozen_it_says_so(blobs, command_line: CommandLine):
    done = command_line(*TINY_RUN, f"data.root={blobs}", "method=full", "trainer.frozen=bf16", "trainer.plan=true")
    assert done.code == 0
    assert "trainer.frozen=bf16: no weight of the image encoder is held in bf16, as it trains whole" in done.err


def test_what_is_cached_is_of_fp32_weights(tmp_path, blobs, command_line: CommandLine, monkeypatch, rising_validation):
    """Rows are found by the weights of the base alone: a run with rounded ones must neither make nor need others."""
    common = [*TINY_RUN, f"data.root={blobs}", "method.blocks=last:1", "augmentation=none", "method.decoder=frozen"]
    monkeypatch.setenv("LORA_SAM_EMBEDDINGS", str(tmp_path / "embeddings"))
    done = command_line(*common, "trainer.frozen=bf16", "hydra.run.dir=rounded")
    assert done.code == 0
    assert "12,288 frozen weights are held in bf16" in done.err
    rows = {path: path.read_bytes() for path in (tmp_path / "embeddings").rglob("*") if path.is_file()}
    shared = tmp_path / "embeddings"
    monkeypatch.setenv("LORA_SAM_EMBEDDINGS", str(tmp_path / "anew"))
    assert command_line(*common, "hydra.run.dir=exact").code == 0
    again = {shared / path.relative_to(tmp_path / "anew"): path for path in (tmp_path / "anew").rglob("*.npy")}
    assert {path for path in rows if path.suffix == ".npy"} == again.keys()
    assert all(path.read_bytes() == rows[known] for known, path in again.items())
    done = command_line(*TINY_RUN, f"data.root={blobs}", "method=decoder", "trainer.frozen=bf16", "trainer.plan=true",
                        "augmentation=none")  # fmt: skip
    assert "held in bf16, as its results are kept (trainer.cache)" in done.err


def test_a_base_that_has_changed_meanwhile_is_found(blobs, command_line: CommandLine, monkeypatch):
    from lora_sam.models.vit import ViTSam

    build, calls = ViTSam.build, []

    def other_later(self: ViTSam) -> Any:
        from dataclasses import replace

        calls.append(self)
        return build(self if len(calls) == 1 else replace(self, weights_seed=5))

    monkeypatch.setattr(ViTSam, "build", other_later)
    done = command_line(*TINY_RUN, f"data.root={blobs}", "trainer.max_epochs=1", "trainer.frozen=bf16")
    assert done.code != 0
    assert "the weights of the base have changed while this run trained" in done.err
