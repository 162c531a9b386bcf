"""Packs: each is opened by its host's own code, whose masks are ours; and nothing is lost or passed off as checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segment_anything
import torch

from lora_sam.cli.step import run_step
from lora_sam.core.config import from_conf
from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.structures import Prompts
from lora_sam.deployment.packs import packing, sampredictor, targets
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.runs.loading import load

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
BOXES = np.array([[3, 4, 40, 30], [10, 2, 30, 44]], np.float32)


def pack(run: Path, target: str, **changes: Any) -> dict[str, Any]:
    assert from_conf("pack", run=str(run), target=target, **changes).perform() == 0
    output = Path(changes.get("output") or run / "packs" / target)
    told: dict[str, Any] = json.loads((output / "pack.json").read_text())
    return told


@pytest.fixture
def run(exported_run: Callable[[Path], Path], tmp_path: Path) -> Path:
    return exported_run(tmp_path / "run")


@pytest.fixture
def registered(option: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry with our tiny variant, built and loaded as it does its own."""

    def build(checkpoint: str | None = None) -> Any:
        sam = option("model/tiny_random").empty()
        if checkpoint is not None:
            sam.load_state_dict(torch.load(checkpoint, weights_only=True), strict=True)
        return sam

    monkeypatch.setitem(segment_anything.sam_model_registry, "tiny_random", build)


@pytest.mark.usefixtures("registered")
def test_sam_predictor_opens_it_and_gives_our_masks(
    run: Path, option: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    # the adapter is of a version that did not write it down
    config = json.loads((run / "config.json").read_text())
    config["data"]["tile"] = 48
    (run / "config.json").write_text(json.dumps(config))
    told = pack(run, "sampredictor")
    (note,) = told["notes"]
    assert note.startswith("it was trained on tiles of 48 pixels: give it images of that size")
    assert f"note: {note}" in capsys.readouterr().err
    assert told["checked"] == "run"
    assert told["mask_iou"] >= 0.999
    assert told["masks"] > 8
    path = run / "packs" / "sampredictor" / "sam_tiny_random.pth"
    assert told["files"].keys() == {path.name}
    sam = segment_anything.sam_model_registry["tiny_random"](checkpoint=str(path)).eval()
    ours, prompts = load(run), Prompts(BOXES)
    found = sampredictor.Hosted(segment_anything.SamPredictor(sam), ours.frame).predict(IMAGE, prompts)
    expected = ours.predict(IMAGE, prompts)
    assert np.abs(found.low_res_logits - expected.low_res_logits).max() <= 1e-4
    base = TorchPredictor(option("model/tiny_random").build().sam, 64).predict(IMAGE, prompts)
    assert np.abs(found.low_res_logits - base.low_res_logits).max() > 1e-2, "passes without an adapter"


def test_transformers_opens_a_model_of_any_size(run: Path) -> None:
    from transformers import SamModel, SamProcessor

    told = pack(run, "transformers")
    assert told["mask_iou"] >= 0.999
    assert told["opened_by"] == "SamModel.from_pretrained"
    directory = run / "packs" / "transformers"
    model: Any = SamModel.from_pretrained(directory, local_files_only=True)
    assert model.config.vision_config.image_size == 64
    SamProcessor.from_pretrained(directory, local_files_only=True)


@pytest.mark.usefixtures("registered")
def test_micro_sam_is_said_not_to_have_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = pack(run, "micro_sam")
    assert (told["checked"], told["mask_iou"]) == ("not run", None)
    assert "micro_sam: not run" in capsys.readouterr().out
    content = torch.load(run / "packs" / "micro_sam" / "tiny_random.pt", weights_only=True)
    state = {key.removeprefix("sam."): value for key, value in content["model_state"].items()}
    segment_anything.sam_model_registry["tiny_random"]().load_state_dict(state, strict=True)


@pytest.mark.parametrize("target", ["sampredictor", "micro_sam"])
def test_a_variant_that_the_registry_lacks_is_named(run: Path, target: str) -> None:
    with pytest.raises(AdapterError, match="variant tiny_random: sam_model_registry has vit_h, vit_l, vit_b alone"):
        pack(run, target)
    assert not (run / "packs" / target).exists()


def test_a_known_variant_of_another_size_is_refused(
    run: Path, option: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = option("model/tiny_random", image_size=128).empty
    monkeypatch.setitem(segment_anything.sam_model_registry, "tiny_random", larger)
    with pytest.raises(AdapterError, match="its weights, for images of 64 pixels, have other shapes there"):
        pack(run, "sampredictor")


def test_other_masks_are_refused_and_the_earlier_pack_stays(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(run, "transformers")
    before = (run / "packs" / "transformers" / "pack.json").read_bytes()
    with pytest.raises(ConfigError, match="is there; replace it with overwrite=true"):
        pack(run, "transformers")
    monkeypatch.setattr(packing, "LEAST_IOU", 1.1)
    with pytest.raises(AdapterError, match="computes other masks than we do"):
        pack(run, "transformers", overwrite=True)
    assert (run / "packs" / "transformers" / "pack.json").read_bytes() == before
    monkeypatch.undo()
    pack(run, "transformers", overwrite=True)


def test_what_is_no_pack_is_never_replaced(run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("kept")
    with pytest.raises(ConfigError, match="is there and is no pack"):
        pack(run, "transformers", output=str(mine), overwrite=True)
    assert (mine / "notes.txt").read_text() == "kept"


def test_an_unmerged_run_and_an_unknown_target_are_named(
    finished_run: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run(tmp_path / "run")
    with pytest.raises(AdapterError, match="python -m lora_sam.merge run="):
        pack(tmp_path / "run", "transformers")
    assert run_step("pack", "lora-sam pack", [f"run={tmp_path / 'run'}", "target=transformer"]) == 2
    assert f"must be one of {', '.join(targets())}; did you mean transformers?" in capsys.readouterr().err
