"""Runs that encode once: the same results as encoding at every step, and as few encodings as there are images."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file
from segment_anything.modeling.image_encoder import PatchEmbed

from lora_sam.cli.jobs import plain
from lora_sam.cli.run import run
from lora_sam.core.metrics_log import read_metrics
from lora_sam.training.settings import settings_from
from tests.conftest import TINY_RUN

ROOT = Path(__file__).resolve().parents[2]
COMMON = [*TINY_RUN, "augmentation=none"]
TRAINING, TEST, IMAGES = 6, 3, 11  # of `blobs`; the last with validation
METHODS = {
    "decoder": ("method=decoder",),
    "last block": ("method=lora", "method.blocks=last:1"),
}


class Runs:
    """Runs in-process, in an empty directory, with an empty cache."""

    def __init__(self, root: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.blobs = root, blobs
        self.encoded = 0
        original = PatchEmbed.forward

        def counted(module: PatchEmbed, x: torch.Tensor) -> torch.Tensor:
            self.encoded += len(x) if x.device.type != "meta" else 0  # the plan counts FLOPs without computing
            return original(module, x)

        monkeypatch.chdir(root)
        monkeypatch.setenv("LORA_SAM_EMBEDDINGS", str(root / "embeddings"))
        monkeypatch.setattr(PatchEmbed, "forward", counted)

    def go(self, name: str, *overrides: str) -> tuple[Path, int]:
        """(run directory, images that went through the encoder)."""
        self.encoded = 0
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = plain(compose("train", [*COMMON, f"data.root={self.blobs}", *overrides]))
        run(settings_from(config), config=config, output_dir=self.root / name)
        return self.root / name, self.encoded


@pytest.fixture
def runs(tmp_path, blobs, monkeypatch, rising_validation) -> Runs:
    return Runs(tmp_path, blobs, monkeypatch)


def losses(directory: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(directory / "metrics.jsonl") if "loss" in record]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "adapter" / "adapter_model.safetensors")


def same_bits(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_run_gives_the_same_bits_from_fp32_and_nearly_the_same_from_fp16(runs, method):
    without, encoded = runs.go("without", *method, "trainer.cache=off")
    assert encoded > 2 * IMAGES
    exact, encoded = runs.go("exact", *method, "cache.dtype=float32")
    assert encoded == IMAGES
    assert losses(exact) == losses(without)
    assert same_bits(exact, without)
    half, encoded = runs.go("half", *method)
    assert encoded == IMAGES - TEST  # those of the test split are kept in fp32 in both cases
    assert losses(half) != losses(without)
    np.testing.assert_allclose(losses(half), losses(without), rtol=2e-3)
    reports = [json.loads((run / "evaluation.json").read_text()) for run in (without, exact, half)]
    for part in ("base", "tuned", "delta"):
        assert reports[0][part] == reports[1][part]
    assert reports[0]["base"] == reports[2]["base"]  # what is reported is computed from fp32
    assert reports[0]["tuned"]["iou"] == pytest.approx(reports[2]["tuned"]["iou"], abs=0.02)
    assert reports[0]["tuned"]["iou"] != reports[0]["base"]["iou"]


def test_later_runs_encode_nothing_and_other_parts_have_their_own_rows(runs, capfd):
    runs.go("first", "method=decoder")
    assert "encoding" in capfd.readouterr().err
    _, encoded = runs.go("second", "method=decoder", "optim.lr=0.001", "seed=1")
    assert encoded == 0
    assert "encoding" not in capfd.readouterr().err
    _, encoded = runs.go("third", "method=lora", "method.blocks=last:1", "model.weights_seed=1")
    assert encoded == IMAGES


def test_flips_cost_a_few_views_of_each_image(runs, capfd):
    _, encoded = runs.go("flipped", "method=decoder", "augmentation=flips", "trainer.max_epochs=4")
    assert IMAGES < encoded <= IMAGES + TRAINING
    _, encoded = runs.go("colours", "method=decoder", "augmentation=strong", "trainer.max_epochs=1")
    assert encoded >= IMAGES
    assert "embedding cache: off: augmentation makes new pixels" in capfd.readouterr().err
    runs.go("all blocks", "trainer.max_epochs=1")
    assert "embedding cache: off: the method trains the image encoder from its first block" in capfd.readouterr().err


def test_without_a_place_a_run_goes_on_and_says_so(runs, capfd, monkeypatch):
    flipped = ("method=decoder", "augmentation=flips", "cache.dtype=float32")
    good, _ = runs.go("good", *flipped)
    (runs.root / "file").write_text("in the way")
    other, encoded = runs.go("other", *flipped, f"cache.directory={runs.root / 'file'}")
    assert encoded > IMAGES
    assert "embedding cache: off, the run goes on without" in capfd.readouterr().err
    # the same views of every image, so the same run
    assert same_bits(good, other)

    real = Path.write_bytes
    left = 5

    def full(path: Path, data: bytes) -> int:
        nonlocal left
        if path.name.endswith("-tmp") and "small" in path.parts:
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    full_disk, encoded = runs.go("full", *flipped, f"cache.directory={runs.root / 'small'}")
    assert encoded > IMAGES
    assert left < 0
    assert "embedding cache: off, the run goes on without" in capfd.readouterr().err
    assert same_bits(good, full_disk)


def test_a_damaged_row_is_made_anew(runs, capfd):
    first, _ = runs.go("first", "method=decoder", "cache.dtype=float32")
    rows = sorted((runs.root / "embeddings").rglob("*.safetensors"))
    assert len(rows) == IMAGES
    for path in rows[:2]:
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        path.write_bytes(content)
    second, encoded = runs.go("second", "method=decoder", "cache.dtype=float32")
    assert encoded == 2
    assert "damaged" in capfd.readouterr().err
    assert same_bits(first, second)


def test_loader_processes_read_rows(runs):
    alone, _ = runs.go("alone", "method=decoder", "augmentation=flips")
    helped, encoded = runs.go("helped", "method=decoder", "augmentation=flips", "trainer.workers=2")
    assert encoded == 0
    assert same_bits(alone, helped)
