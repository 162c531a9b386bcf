"""Loading an adapter: the same masks as the model that was saved, stock PEFT, wrong bases, hostile files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from safetensors.torch import load_file, save_file

from lora_sam import load, load_base
from lora_sam.core.errors import AdapterError, CheckpointError, ConfigError, LoraSamError
from lora_sam.core.run_directory import RunDirectory
from lora_sam.core.scores import META, Scores
from lora_sam.core.structures import Prompts
from lora_sam.models.layouts import transformers_state
from lora_sam.models.projections import fuse_projections
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.runs.backends import RunBackEnds

BOXES = np.array([[3, 4, 40, 30], [10, 2, 30, 44]], np.float32)
PROMPTS = Prompts(BOXES)


@pytest.fixture(scope="module")
def original(finished_run: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    root = tmp_path_factory.mktemp("original") / "run"
    return root, finished_run(root)


@pytest.fixture
def run(original: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any]:
    """A finished run with a LoRA of random base weights, free to be changed, and the model that was saved."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(original[0], tmp_path / "run")), original[1]


@pytest.fixture
def checkpoint(tiny_sam: Callable[[], Any], tmp_path: Path) -> Path:
    """Weights of a tiny SAM under the names of segment_anything."""
    path = tmp_path / "tiny.safetensors"
    save_file(fuse_projections(tiny_sam()).state_dict(), path)
    return path


def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def change(directory: Path, **changes: Any) -> None:
    """Change facts of an adapter; `architecture` and `base` are merged."""
    path = directory / "lora_sam.json"
    facts = json.loads(path.read_text())
    for name, value in changes.items():
        facts[name] = {**facts[name], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(facts))


def refused(error: type[LoraSamError], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(error) as caught:
        load(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the same model --------------------------------------------------------------------------------------------------


def test_run_adapter_and_latest_give_the_masks_of_the_model_saved(run: tuple[Path, Any]) -> None:
    root, adapted = run
    expected = TorchPredictor(adapted.sam, 64).predict(picture(), PROMPTS)
    with adapted.base():
        base = TorchPredictor(adapted.sam, 64).predict(picture(), PROMPTS)
    assert np.abs(expected.low_res_logits - base.low_res_logits).max() > 0.01
    RunDirectory(root).point_latest_here()
    for path in (root, str(root), root / "adapter", "latest", "outputs/latest", Path("run")):
        predictor = load(path, device="cpu")
        predictor.sam.requires_grad_(False)
        result = predictor.predict(picture(), PROMPTS)
        assert (result.masks == expected.masks).all()
        assert (result.scores == expected.scores).all()
        assert (result.low_res_logits == expected.low_res_logits).all()
        assert predictor.image_size == 64
        assert not predictor.sam.training
    result = load(device="cpu").segment(picture(), boxes=BOXES.tolist())  # latest, and nothing frozen by hand
    assert np.abs(result.low_res_logits - expected.low_res_logits).max() < 1e-5


@pytest.mark.parametrize("method", ["lora", "decoder", "full"])
def test_stock_peft_gives_zero_difference(finished_run, tmp_path: Path, method: str) -> None:
    adapted = finished_run(tmp_path / "run", method)
    directory = tmp_path / "run" / "adapter"
    base = load_base(directory)
    assert (base.variant, base.image_size, base.source) == ("tiny_random", 64, "random")
    model = PeftModel.from_pretrained(base.sam, str(directory)).requires_grad_(False)
    expected, found = adapted.peft.state_dict(), model.state_dict()
    assert expected.keys() == found.keys()
    assert max(float((expected[name] - found[name]).abs().max()) for name in expected) == 0
    theirs = TorchPredictor(base.sam, 64).predict(picture(), PROMPTS)
    ours = TorchPredictor(adapted.sam, 64).predict(picture(), PROMPTS)
    assert (theirs.low_res_logits == ours.low_res_logits).all()
    assert (theirs.scores == ours.scores).all()


def test_a_checkpoint_is_found_through_the_run_or_given(finished_run, checkpoint: Path, tmp_path: Path) -> None:
    adapted = finished_run(tmp_path / "run", checkpoint=checkpoint)
    expected = TorchPredictor(adapted.sam, 64).predict(picture(), PROMPTS)
    alone = tmp_path / "alone"
    shutil.copytree(tmp_path / "run" / "adapter", alone)
    for arguments in ({"path": tmp_path / "run"}, {"path": alone, "base": checkpoint}):
        result = load(**arguments, device="cpu").predict(picture(), PROMPTS)
        assert np.abs(result.low_res_logits - expected.low_res_logits).max() < 1e-5
    assert load_base(alone, base=str(checkpoint)).source == "tiny.safetensors"


def test_the_same_weights_are_the_same_base_whatever_file_holds_them(finished_run, option, tmp_path: Path) -> None:
    sam = fuse_projections(option("model/tiny_random").build().sam)
    weights = {key: value.half().float() for key, value in sam.state_dict().items()}
    for name in ("a.safetensors", "half.safetensors"):
        save_file({key: value.half() if "half" in name else value for key, value in weights.items()}, tmp_path / name)
    for name in ("b.pth", "c.bin", "d.ckpt"):
        torch.save({"model": weights} if name == "b.pth" else weights, tmp_path / name)
    theirs = {key: value.clone() for key, value in transformers_state(weights).items()}
    save_file(theirs, tmp_path / "hugging_face.safetensors")
    adapted = finished_run(tmp_path / "run", checkpoint=tmp_path / "a.safetensors")
    expected = TorchPredictor(adapted.sam, 64).predict(picture(), PROMPTS)
    for path in sorted({*tmp_path.glob("*.*")} - {tmp_path / "run"}):
        result = load(tmp_path / "run", base=path, device="cpu").predict(picture(), PROMPTS)
        assert np.abs(result.low_res_logits - expected.low_res_logits).max() < 1e-5, path.name
    weights["mask_decoder.iou_token.weight"][0, 0] += 1e-3
    torch.save(weights, tmp_path / "b.pth")
    assert "b.pth' ('" in refused(AdapterError, tmp_path / "run", base=tmp_path / "b.pth")


def test_an_adapter_from_before_knows_its_file_only(finished_run, checkpoint: Path, tmp_path: Path) -> None:
    finished_run(tmp_path / "run", checkpoint=checkpoint)
    path = tmp_path / "run" / "adapter" / "lora_sam.json"
    facts = json.loads(path.read_text())
    del facts["base"]["tensors"]
    path.write_text(json.dumps(facts))
    assert load(tmp_path / "run", device="cpu").image_size == 64
    torch.save(load_file(checkpoint), tmp_path / "same.pth")
    message = refused(AdapterError, tmp_path / "run", base=tmp_path / "same.pth")
    assert message.endswith(
        "give the base it was trained on, the very file: this adapter is older than the comparison of weights"
    )


# --- a base that is not there, or is another -------------------------------------------------------------------------


def test_another_seed_is_another_base(run: tuple[Path, Any]) -> None:
    change(run[0] / "adapter", base={"weights_seed": 1})
    assert "was trained on 'tiny_random' 'random' (SHA-256 '" in refused(AdapterError, run[0])


def test_another_checkpoint_is_refused(finished_run, checkpoint: Path, option, tmp_path: Path) -> None:
    finished_run(tmp_path / "run", checkpoint=checkpoint)
    other = tmp_path / "other.safetensors"
    save_file(fuse_projections(option("model/tiny_random", weights_seed=5).build().sam).state_dict(), other)
    message = refused(AdapterError, tmp_path / "run", base=other)
    assert "was trained on 'tiny_random' 'tiny.safetensors' (SHA-256 '" in message
    assert "this base is 'tiny_random' 'other.safetensors' ('" in message


def test_a_checkpoint_of_another_variant_is_refused(finished_run, checkpoint: Path, option, tmp_path: Path) -> None:
    finished_run(tmp_path / "run", checkpoint=checkpoint)
    other = tmp_path / "other.safetensors"
    save_file(fuse_projections(option("model/tiny_random", depth=3).build().sam).state_dict(), other)
    message = refused(CheckpointError, tmp_path / "run", base=other)
    assert "other.safetensors: wrong checkpoint for model=tiny_random: it holds a ViT with 32 channels" in message


def test_a_base_that_is_not_there(finished_run, checkpoint: Path, tmp_path: Path) -> None:
    finished_run(tmp_path / "run", checkpoint=checkpoint)
    assert refused(CheckpointError, tmp_path / "run", base="nowhere.pth") == (
        "base = nowhere.pth: no such file; give the path of the weights this adapter was trained on "
        "('tiny.safetensors')"
    )
    checkpoint.unlink()
    assert refused(CheckpointError, tmp_path / "run") == (
        f"{tmp_path / 'run' / 'adapter'}: the weights this adapter was trained on ('tiny.safetensors') are not known "
        f"here at {checkpoint}, where the run found them; give their path as base=..."
    )
    (tmp_path / "run" / "config.json").unlink()
    assert refused(CheckpointError, tmp_path / "run").endswith(
        "('tiny.safetensors') are not known here; give their path as base=..."
    )


def test_an_official_base_that_is_not_here(run: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_SAM_OFFLINE", "1")
    monkeypatch.setenv("LORA_SAM_CACHE", str(run[0] / "cache"))
    # a tiny adapter that says it is of vit_b: the message is about the file, nothing else happens
    change(run[0] / "adapter", architecture={"variant": "vit_b"}, base={"source": "sam_vit_b_01ec64.pth"})
    config = json.loads((run[0] / "config.json").read_text())
    config["model"]["checkpoint"] = "/gone/mine.pth"
    (run[0] / "config.json").write_text(json.dumps(config))
    message = refused(CheckpointError, run[0])  # and no other is fetched in its place
    assert "are not known here at /gone/mine.pth, where the run found them; give their path as base=..." in message
    (run[0] / "config.json").unlink()
    message = refused(CheckpointError, run[0])
    assert "no usable weights for vit_b: there is no " in message
    assert "offline mode" in message


def test_a_device_that_is_not_there(run: tuple[Path, Any]) -> None:
    message = refused(ConfigError, run[0], device="gpu")
    assert message.startswith("trainer.device = gpu: not available here; available: auto, ")


# --- files from elsewhere --------------------------------------------------------------------------------------------


def test_nothing_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(AdapterError) == "latest: no such run directory (outputs/latest); no run has been made here yet"
    assert refused(AdapterError, "x/y") == "x/y: no adapter there; give a finished run's directory or its adapter/"


@pytest.mark.parametrize("name", ["lora_sam.json", "adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other"])
def test_files_that_are_missing_or_damaged(run: tuple[Path, Any], name: str, damage: str) -> None:
    path = run[0] / "adapter" / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "other": b"[]"}[damage])
    message = refused(AdapterError, run[0])
    assert str(run[0]) in message
    expected = {
        "lora_sam.json": "is missing" if damage == "missing" else "is damaged (",
        "adapter_config.json": "no adapter there" if damage == "missing" else "is damaged (",
        "adapter_model.safetensors": "is missing" if damage == "missing" else "the adapter cannot be loaded",
    }
    assert expected[name] in message


def test_an_unknown_schema_version(run: tuple[Path, Any]) -> None:
    change(run[0] / "adapter", schema_version=99)
    assert refused(AdapterError, run[0]).endswith(
        "lora_sam.json: schema version 99, this lora_sam reads 1; use the version of lora_sam that wrote it"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": {"depth": "x"}}, "architecture.depth: Input should be a valid integer"),
        ({"architecture": {"depth": "2"}}, "architecture.depth: Input should be a valid integer"),
        ({"architecture": {"depth": 2.5}}, "architecture.depth: Input should be a valid integer"),
        ({"architecture": {"depth": -1}}, "architecture.depth: Input should be greater than or equal to 1"),
        ({"architecture": {"depth": None}}, "architecture.depth: Input should be a valid integer"),
        ({"architecture": {"image_size": 10**9}}, "architecture.image_size: Input should be less than or equal to 40"),
        ({"architecture": {"image_size": 65}}, "architecture.image_size: Input should be a multiple of 16"),
        ({"architecture": {"variant": "../x"}}, "architecture.variant: String should match pattern"),
        ({"architecture": {"variant": 7}}, "architecture.variant: Input should be a valid string"),
        ({"architecture": {"global_attention": ["a"]}}, "architecture.global_attention.0: Input should be a valid int"),
        ({"architecture": {"num_heads": 3}}, "model.embed_dim = 32: must be a multiple of model.num_heads = 3"),
        ({"architecture": {"global_attention": [9]}}, "model.global_attention = [9]: blocks are numbered 0 to 1"),
        ({"architecture": []}, "architecture of the wrong type; train again or restore the file"),
        ({"base": {"weights_seed": "0"}}, "base.weights_seed: Input should be a valid integer"),
        ({"base": {"sha256": None}}, "base.sha256 of the wrong type; train again or restore the file"),
    ],
)
def test_an_architecture_that_cannot_be(run: tuple[Path, Any], changes: dict[str, Any], message: str) -> None:
    change(run[0] / "adapter", **changes)
    assert refused(AdapterError, run[0]).startswith(f"{run[0] / 'adapter' / 'lora_sam.json'}: {message}")


def test_an_architecture_without_a_field(run: tuple[Path, Any]) -> None:
    path = run[0] / "adapter" / "lora_sam.json"
    facts = json.loads(path.read_text())
    del facts["architecture"]["depth"]
    path.write_text(json.dumps(facts))
    assert refused(AdapterError, run[0]) == f"{path}: architecture.depth: Field required"


def test_facts_cannot_choose_files_or_downloads(run: tuple[Path, Any], tmp_path: Path) -> None:
    secret = tmp_path / "secret.pth"
    secret.write_text("not to be read")
    change(run[0] / "adapter", architecture={"checkpoint": str(secret), "weights": "pretrained", "offline": True})
    assert load(run[0], device="cpu").image_size == 64


def test_an_adapter_for_another_architecture(run: tuple[Path, Any], finished_run, tmp_path: Path) -> None:
    finished_run(tmp_path / "wider", embed_dim=64)
    shutil.copy(tmp_path / "wider/adapter/adapter_model.safetensors", run[0] / "adapter")
    message = refused(AdapterError, run[0])
    assert "adapter: the adapter cannot be loaded into this model: " in message
    assert "size mismatch" in message


@pytest.mark.parametrize("data", ["{", "[]", "{}", '{"model": null}', '{"model": {}}'])
def test_a_damaged_configuration_of_the_run(finished_run, checkpoint: Path, tmp_path: Path, data: str) -> None:
    finished_run(tmp_path / "run", checkpoint=checkpoint)
    (tmp_path / "run" / "config.json").write_text(data)
    message = refused(AdapterError, tmp_path / "run")
    assert f"{tmp_path / 'run' / 'config.json'} is damaged (" in message
    assert message.endswith("; give the base weights with base=...")
    load(tmp_path / "run", base=checkpoint)  # the remedy works


def test_weights_with_values_of_another_type(run: tuple[Path, Any]) -> None:
    path = run[0] / "adapter" / "adapter_model.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    result = refused(AdapterError, run[0])
    assert "the adapter cannot be loaded into this model" in result


# --- scores of the weights -------------------------------------------------------------------------------------------


def test_a_tuned_model_keeps_the_scores_of_its_weights(run: tuple[Path, Any]) -> None:
    directory, own = run[0] / "adapter", Scores(predicted_iou=0.4, stability=0.6, stability_offset=0.3)
    assert load(run[0]).scores == META
    facts = json.loads((directory / "lora_sam.json").read_text())
    (directory / "lora_sam.json").write_text(json.dumps({**facts, "scores": vars(own)}))
    assert load(run[0]).scores == own
    assert RunBackEnds(RunDirectory(run[0])).scores == own


def test_a_base_has_the_scores_of_its_file(option: Any, tiny_sam: Callable[[], Any], tmp_path: Path) -> None:
    own, path = Scores(predicted_iou=0.4, stability=0.6, stability_offset=0.3), tmp_path / "own.safetensors"
    save_file(fuse_projections(tiny_sam()).state_dict(), path, own.to_metadata())
    built = option("model/tiny_random", weights="pretrained", checkpoint=str(path)).build()
    assert built.scores == own
    assert option("model/tiny_random").build().scores == META
