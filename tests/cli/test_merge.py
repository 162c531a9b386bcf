"""Merging: a plain SAM that Meta's own classes drive, proven in the step, whole or not there, and never stale."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from segment_anything import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry

from lora_sam import merge as door
from lora_sam.cli.merge import Merge, _not_merged
from lora_sam.cli.step import run_step
from lora_sam.core.config import step_from
from lora_sam.core.errors import AdapterError, CheckpointError, ConfigError
from lora_sam.core.frame import Frame
from lora_sam.core.run_directory import RunDirectory
from lora_sam.core.structures import Prompts
from lora_sam.deployment.merging import is_merged, merge_run, plain_sam
from lora_sam.deployment.proof import answers, compare, probe
from lora_sam.methods.adapted import AdaptedSam
from lora_sam.models.attention.split import SplitAttention
from lora_sam.models.projections import fuse_projections
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.runs.merged import load_merged, made_from, require_merged

ROOT = Path(__file__).resolve().parents[2]
BOXES = np.array([[3, 4, 40, 30], [10, 2, 30, 44]], np.float32)

FRAME = Frame(64, square=False)


def options(**changes: Any) -> Merge:
    """The options of `conf/merge.yaml`, some of them changed."""
    values = yaml.safe_load((ROOT / "conf" / "merge.yaml").read_text())
    del values["defaults"]
    built = step_from({**values, **changes})
    assert isinstance(built, Merge)
    return built


def merged_weights(root: Path, **changes: Any) -> dict[str, torch.Tensor]:
    merge_run(RunDirectory(root), options(**changes))
    return load_file(root / "merged" / "sam.safetensors")


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def original(finished_run: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    root = tmp_path_factory.mktemp("original") / "run"
    return root, finished_run(root)


@pytest.fixture(scope="module")
def merged_original(original: tuple[Path, Any]) -> Path:
    merge_run(RunDirectory(original[0]), options())
    return original[0]


@pytest.fixture
def run(merged_original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run with merged weights, free to be changed, as `latest` of the current directory."""
    monkeypatch.chdir(tmp_path)
    root = Path(shutil.copytree(merged_original, tmp_path / "run"))
    RunDirectory(root).point_latest_here()
    return root


@pytest.fixture
def other(finished_run: Callable[..., Any], tmp_path: Path) -> Path:
    """Another finished run of the same base."""
    finished_run(tmp_path / "other", seed=2)
    return tmp_path / "other"


# --- the result is a plain SAM, and the same model --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "lora_all", "decoder", "full"])
def test_metas_own_classes_compute_what_the_adapted_model_does(
    finished_run, option, tmp_path: Path, method: str
) -> None:
    adapted = finished_run(tmp_path / "run", method)
    state = merged_weights(tmp_path / "run")
    assert {value.dtype for value in state.values()} == {torch.float32}
    plain = option("model/tiny_random").empty().eval()
    plain.load_state_dict(state, strict=True)
    assert not any(isinstance(module, SplitAttention) for module in plain.modules())
    predictor = SamPredictor(plain)
    predictor.set_image(picture())
    expected = TorchPredictor(adapted.sam, 64).predict(picture(), Prompts(BOXES))
    for box, mask, score, low_res in zip(BOXES, expected.masks, expected.scores, expected.low_res_logits, strict=True):
        masks, scores, logits = predictor.predict(box=box, multimask_output=False)
        assert np.abs(logits[0] - low_res).max() <= 1e-5
        assert abs(scores[0] - score) <= 1e-5
        assert (masks[0] == mask).mean() > 0.999
    points = np.array([[20.5, 16.5], [40.5, 30.5]], np.float32)
    _, _, logits = predictor.predict(points, np.array([1, 0]), multimask_output=True)
    ours = TorchPredictor(adapted.sam, 64).predict_all(
        picture(), Prompts(points=points[None], labels=np.array([[1, 0]], np.int64))
    )
    assert np.abs(logits - ours.low_res_logits[0, 1:]).max() <= 1e-5
    with_base = TorchPredictor(option("model/tiny_random").build().sam, 64).predict(picture(), Prompts(BOXES))
    assert np.abs(with_base.low_res_logits - expected.low_res_logits).max() > 1e-2, "passes without an adapter"


def test_the_automatic_mask_generator_finds_the_same(original: tuple[Path, Any], merged_original: Path) -> None:
    settings: dict[str, Any] = {"points_per_side": 3, "pred_iou_thresh": -1e9, "stability_score_thresh": 0}
    found = [
        SamAutomaticMaskGenerator(sam, **settings).generate(picture())
        for sam in (original[1].sam, plain_sam(RunDirectory(merged_original)), door.plain_sam(str(merged_original)))
    ]
    assert len(found[0]) > 0
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            assert (ours["segmentation"] == theirs["segmentation"]).mean() > 0.999
            assert abs(ours["predicted_iou"] - theirs["predicted_iou"]) < 1e-5


def test_the_keys_are_those_of_the_registry(merged_original: Path) -> None:
    with torch.device("meta"):
        registered = sam_model_registry["vit_b"]().state_dict()

    def without_numbers(keys: Any) -> set[str]:
        return {re.sub(r"blocks\.\d+\.", "blocks.N.", key) for key in keys}

    state = load_file(merged_original / "merged" / "sam.safetensors")
    assert without_numbers(state) == without_numbers(registered)


def test_two_merges_are_equal_bit_for_bit(merged_original: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(merged_original, tmp_path / "again"))
    merge_run(RunDirectory(again), options())
    assert content(again / "merged") == content(merged_original / "merged")


def test_the_manifest_says_what_it_is_and_how_well_it_agrees(merged_original: Path) -> None:
    manifest = json.loads((merged_original / "merged" / "manifest.json").read_text())
    facts = json.loads((merged_original / "adapter" / "lora_sam.json").read_text())
    assert manifest["step"] == "merge"
    assert manifest["settings"] == {"alpha": 1.0, "format": "segment_anything", "runs": []}
    assert manifest["made_from"].keys() == {"adapter", "base"}
    assert manifest["made_from"]["base"] == facts["base"]["sha256"]
    assert manifest["files"].keys() == {"sam.safetensors"}
    check = manifest["checks"]["merged"]
    assert 0 < check["largest_logit_difference"] <= 1e-5  # LoRA is folded, so something is rounded
    assert check["tolerance"] == 1e-4
    assert check["mean_mask_iou"] > 0.999
    assert check["masks"] == 64


def test_the_file_says_which_architecture_it_needs(merged_original: Path) -> None:
    from safetensors import safe_open

    with safe_open(merged_original / "merged" / "sam.safetensors", "pt") as file:
        about = json.loads(file.metadata()["lora_sam"])
    assert about["architecture"]["variant"] == "tiny_random"
    assert about["base"] == made_from(RunDirectory(merged_original))["base"]


def test_others_may_read_the_files(merged_original: Path, tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode
    assert {path.stat().st_mode for path in (merged_original / "merged").iterdir()} == {usual}


def test_the_loaded_model_has_split_projections(original: tuple[Path, Any], merged_original: Path) -> None:
    model = load_merged(RunDirectory(merged_original))
    assert (model.variant, model.image_size, model.source) == ("tiny_random", 64, "sam.safetensors")
    assert isinstance(model.sam.image_encoder.blocks[0].attn, SplitAttention)
    assert not any(parameter.requires_grad for parameter in model.sam.parameters())
    assert not model.sam.training
    assert compare(answers(original[1].sam, probe(FRAME)), answers(model.sam, probe(FRAME))).within(1e-5)


def test_the_layout_of_transformers(original: tuple[Path, Any], run: Path) -> None:
    from transformers import SamModel

    from lora_sam.deployment.transformers_layout import transformers_answers

    step = merge_run(RunDirectory(run), options(format="transformers"))
    assert {name.partition("/")[2] for name in step.files if name.startswith("transformers/")} == {
        "config.json",
        "model.safetensors",
        "processor_config.json",
    }
    assert step.checks["transformers"]["largest_logit_difference"] <= 1e-5
    assert step.checks["transformers"]["mean_mask_iou"] > 0.999
    model: Any = SamModel.from_pretrained(run / "merged" / "transformers")
    agreement = compare(
        answers(original[1].sam, probe(FRAME)),
        transformers_answers(model.eval(), probe(FRAME)),
    )
    assert agreement.within(1e-5)
    # whoever wants the plain weights has them
    assert is_merged(RunDirectory(run), options())
    assert is_merged(RunDirectory(run), options(format="transformers"))


# --- strength --------------------------------------------------------------------------------------------------------


def test_alpha_goes_from_the_base_through_the_adapter(finished_run, tiny_sam, tmp_path: Path) -> None:
    finished_run(tmp_path / "run")
    base = fuse_projections(tiny_sam()).state_dict()
    none, half, one, more = (merged_weights(tmp_path / "run", alpha=alpha) for alpha in (0.0, 0.5, 1.0, 1.5))
    for key, value in base.items():
        assert torch.equal(none[key], value)
        torch.testing.assert_close(half[key], (value + one[key]) / 2, rtol=0, atol=1e-6)
        torch.testing.assert_close(more[key], value + 1.5 * (one[key] - value), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "obstacle"),
    [
        ({"dora": True}, "DoRA (method.dora=true)"),
        ({"bias": "lora_only"}, "trained biases of the base (method.bias=lora_only)"),
    ],
)
def test_what_cannot_be_scaled_says_so_and_merges_as_trained(
    finished_run, tmp_path: Path, settings: dict[str, Any], obstacle: str
) -> None:
    adapted = finished_run(tmp_path / "run", settings=settings)
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(AdapterError) as caught:
        merge_run(run, options(alpha=0.5))
    assert str(caught.value).startswith(f"alpha = 0.5: {run.adapter} (method 'lora' on 'tiny_random' 'random', SHA-256")
    assert f"an adapter with {obstacle} cannot be scaled or combined" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not run.merged.exists()
    merge_run(run, options())
    assert compare(
        answers(adapted.sam, probe(FRAME)),
        answers(load_merged(run).sam, probe(FRAME)),
    ).within(1e-5)


# --- several runs ----------------------------------------------------------------------------------------------------


def test_several_runs_share_equally(run: Path, other: Path) -> None:
    first = load_file(run / "merged" / "sam.safetensors")
    second = merged_weights(other)
    mean = merged_weights(run, runs=["other"])
    for key, value in mean.items():
        torch.testing.assert_close(value, (first[key] + second[key]) / 2, rtol=0, atol=2e-6)
    manifest = json.loads((run / "merged" / "manifest.json").read_text())
    assert manifest["settings"]["runs"] == [str(other)]
    assert manifest["settings"]["weights"] == [0.5, 0.5]
    assert manifest["settings"].keys() == {"alpha", "format", "runs", "weights", "combination"}
    assert manifest["made_from"].keys() == {"adapter", "adapter_2", "base"}


def test_alpha_scales_the_combination(run: Path, other: Path, tiny_sam) -> None:
    base = fuse_projections(tiny_sam()).state_dict()
    whole = merged_weights(run, runs=["other"], weights=[1, -0.5])
    half = merged_weights(run, runs=["other"], weights=[1, -0.5], alpha=0.5)
    for key, value in base.items():
        torch.testing.assert_close(half[key], (value + whole[key]) / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("combination", ["linear", "ties", "dare_linear", "dare_ties"])
def test_every_combination_is_proven_and_loads(run: Path, other: Path, combination: str) -> None:
    before = load_file(run / "merged" / "sam.safetensors")
    step = merge_run(RunDirectory(run), options(runs=["other", "other"], combination=combination, density=0.3))
    assert step.checks["merged"]["largest_logit_difference"] <= 1e-5
    assert step.settings["weights"] == ([1.0] * 3 if combination.endswith("ties") else [1 / 3] * 3)
    assert ("seed" in step.settings) == combination.startswith("dare")
    assert step.made_from["adapter_2"] == step.made_from["adapter_3"] != step.made_from["adapter"]
    after = load_file(require_merged(RunDirectory(run)))
    assert max(float((before[key] - after[key]).abs().max()) for key in before) > 1e-2


def test_runs_of_other_bases_are_refused(run: Path, finished_run, tmp_path: Path) -> None:
    finished_run(tmp_path / "seeded", weights_seed=3)
    finished_run(tmp_path / "wider", embed_dim=64)
    before = content(run)
    for name in ("seeded", "wider"):
        with pytest.raises(AdapterError) as caught:
            merge_run(RunDirectory(run), options(runs=[name]))
        message = str(caught.value)
        assert message.startswith(f"{run / 'adapter'} (method 'lora' on 'tiny_random' 'random', SHA-256 '")
        assert f" and {tmp_path / name / 'adapter'} (method 'lora'" in message
        assert message.endswith("have different bases: only adapters of one base can be combined; leave one out")
    with pytest.raises(AdapterError, match="nowhere: no such run directory"):
        merge_run(RunDirectory(run), options(runs=["nowhere"]))
    assert content(run) == before


def test_ranks_are_compared_before_anything_is_loaded(run: Path, finished_run, tmp_path: Path, monkeypatch) -> None:
    finished_run(tmp_path / "small", settings={"rank": 2})
    monkeypatch.setattr("lora_sam.runs.loading.build_base", lambda *_: pytest.fail("the base was built"))
    with pytest.raises(AdapterError, match=r"combination=ties needs adapters of one rank: .* use combination=svd"):
        merge_run(RunDirectory(run), options(runs=["small"], combination="ties"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": [0.5]}, "weights = [0.5]: only for several runs, name the others with runs=[...]; one adapter"),
        ({"runs": ["a"], "weights": [1]}, "weights = [1.0]: must be 2 numbers, for run and the 1 of runs"),
        ({"alpha": 1.6}, "alpha = 1.6: must be less than or equal to 1.5"),
        ({"format": "onnx"}, "format = onnx: must be one of segment_anything, transformers"),
        ({"combination": "tie"}, "combination = tie: must be one of svd, linear, ties, dare_linear, dare_ties; did"),
        ({"density": 0}, "density = 0: must be greater than 0"),
    ],
)
def test_options_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        options(**changes)
    assert str(caught.value).startswith(message)


# --- nothing half-written, nothing wrong -----------------------------------------------------------------------------


def test_a_merge_that_changes_the_model_is_not_written(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(run)
    merge = AdaptedSam.merge

    def wrong(adapted: AdaptedSam) -> Any:
        adapted.strength().set(0.95)  # as if the scale were taken wrongly
        return merge(adapted)

    monkeypatch.setattr(AdaptedSam, "merge", wrong)
    with pytest.raises(AdapterError) as caught:
        merge_run(RunDirectory(run), options(format="transformers"))
    assert re.search(
        r"the merged model computes something else than base and adapter \(logits differ by at most \d\.\de-0[123] "
        r"\(allowed 1e-04\), mask IoU \d\.\d{4} on 64 masks\); nothing was written",
        str(caught.value),
    )
    assert content(run) == before
    assert sorted(os.listdir(run)) == ["adapter", "config.json", "merged"]


def test_weights_beyond_numbers_are_not_written(run: Path) -> None:
    path = run / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    name = next(key for key in weights if "lora_B" in key)
    weights[name] = torch.full_like(weights[name], 3e38)
    save_file(weights, path, {"format": "pt"})
    shutil.rmtree(run / "merged")
    facts = run / "adapter" / "lora_sam.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "files": None}))  # as one made elsewhere
    with pytest.raises(AdapterError, match="cannot merge"):
        merge_run(RunDirectory(run), options())
    assert sorted(os.listdir(run)) == ["adapter", "config.json"]


def test_an_adapter_that_cannot_be_folded_says_so(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: AdaptedSam) -> None:
        raise NotImplementedError("this kind depends on the input")  # PEFT's way

    monkeypatch.setattr(AdaptedSam, "merge", refuse)
    before = content(run)
    with pytest.raises(AdapterError) as caught:
        merge_run(RunDirectory(run), options(alpha=0.5))
    assert re.fullmatch(
        rf"{re.escape(str(run))}/adapter \(method 'lora' on 'tiny_random' 'random', SHA-256 '\w{{12}}'\) cannot be "
        r"folded into the weights: this kind depends on the input",
        str(caught.value),
    )
    assert content(run) == before


@pytest.mark.parametrize("when", ["answers", "save", "manifest"])
def test_an_interruption_leaves_what_was_there(run: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    target = {
        "answers": "lora_sam.deployment.proof.answers",
        "save": "safetensors.torch.save_file",
        "manifest": "lora_sam.deployment.merging.write_step",
    }[when]

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    before = content(run)
    monkeypatch.setattr(target, interrupt)
    with pytest.raises(KeyboardInterrupt):
        merge_run(RunDirectory(run), options(alpha=0.5))
    assert content(run) == before
    assert sorted(os.listdir(run)) == ["adapter", "config.json", "merged"]


def test_a_directory_that_cannot_be_written_is_named_at_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied", str(run / ".merged.tmp"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr("lora_sam.runs.loading.build_base", lambda *_: pytest.fail("the base was built"))
    with pytest.raises(AdapterError) as caught:
        merge_run(RunDirectory(run), options(alpha=0.5))
    assert str(caught.value) == (
        f"{run / 'merged'} cannot be written: [Errno 13] Permission denied: '{run / '.merged.tmp'}'; make room or the "
        "directory writable, or write elsewhere with output=<directory>, then: python -m lora_sam.merge "
        f"run={run} alpha=0.5"
    )


def test_a_full_disk(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError('Io(Os { code: 28, message: "No space left on device" })')

    monkeypatch.setattr("safetensors.torch.save_file", full)
    before = content(run)
    with pytest.raises(AdapterError, match=r"merged cannot be written: .*No space left on device.*; make room or"):
        merge_run(RunDirectory(run), options(alpha=0.5))
    assert content(run) == before


# --- what is missing or does not belong together ---------------------------------------------------------------------


def test_a_run_without_an_adapter(run: Path) -> None:
    shutil.rmtree(run / "adapter")
    for call in (lambda: merge_run(RunDirectory(run), options()), lambda: require_merged(RunDirectory(run))):
        with pytest.raises(AdapterError) as caught:
            call()
        assert str(caught.value) == f"{run}: no adapter there; give a finished run's directory or its adapter/"


def test_bases_that_are_missing_or_others(finished_run, tiny_sam, option, tmp_path: Path) -> None:
    checkpoint, wrong = tmp_path / "base.safetensors", tmp_path / "wrong.safetensors"
    save_file(fuse_projections(tiny_sam()).state_dict(), checkpoint)
    save_file(fuse_projections(option("model/tiny_random", weights_seed=5).build().sam).state_dict(), wrong)
    finished_run(tmp_path / "run", checkpoint=checkpoint)
    run = RunDirectory(tmp_path / "run")
    checkpoint.rename(tmp_path / "moved.safetensors")
    with pytest.raises(CheckpointError, match=r"are not known here at .*; give their path as base=\.\.\.$"):
        merge_run(run, options())
    with pytest.raises(CheckpointError, match=r"^base = nowhere\.pth: no such file"):
        merge_run(run, options(base="nowhere.pth"))
    with pytest.raises(AdapterError, match="give the base it was trained on"):
        merge_run(run, options(base=str(wrong)))
    assert not run.merged.exists()
    (tmp_path / "moved.safetensors").rename(tmp_path / "base.safetensors")
    merge_run(run, options(base=str(checkpoint)))
    assert require_merged(run).is_file()


def refused(root: Path) -> str:
    with pytest.raises(AdapterError) as caught:
        require_merged(RunDirectory(root))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_the_chain_refuses_and_the_command_that_mends_it(
    run: Path, finished_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert require_merged(RunDirectory(run)) == run / "merged" / "sam.safetensors"
    again = f"make it again with: python -m lora_sam.merge run={run}"
    weights = run / "merged" / "sam.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + b"x")
    assert refused(run) == f"{weights} was changed after it was made; {again}"
    weights.unlink()
    assert refused(run) == f"{weights} is missing; {again}"
    weights.write_bytes(kept)
    finished_run(run.parent / "retrained", seed=5)
    shutil.rmtree(run / "adapter")
    shutil.copytree(run.parent / "retrained" / "adapter", run / "adapter")
    assert refused(run).startswith(f"{run / 'merged'} is stale: it was made from another adapter (SHA-256 ")
    (run / "merged" / "manifest.json").write_text("{}")
    assert refused(run).endswith(again)
    shutil.rmtree(run / "merged")
    assert refused(run) == f"{run / 'merged'}: not there yet; make it with: python -m lora_sam.merge run={run}"


def test_a_manifest_from_elsewhere_puts_nothing_into_the_command(run: Path) -> None:
    path = run / "merged" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["settings"] |= {"alpha": "0.5\n; rm", "evil": "x", "runs": [1, {}, "; rm"]}
    (run / "merged" / "sam.safetensors").unlink()
    path.write_text(json.dumps(manifest))
    message = refused(run)
    remedy = shlex.split(message.partition(" with: ")[2])
    assert remedy == ["python", "-m", "lora_sam.merge", f"run={run}", 'runs=[1, {}, "; rm"]']


def test_the_chain_takes_merges_of_any_strength_and_several_runs(run: Path, other: Path, finished_run) -> None:
    directory = RunDirectory(run)
    merge_run(directory, options(alpha=0.5))
    require_merged(directory)
    merge_run(directory, options(runs=["other"], weights=[0.75, 0.25], alpha=0.5))
    require_merged(directory)
    made = json.loads((run / "merged" / "manifest.json").read_text())["made_from"]
    assert made_from(directory) == made
    # another adapter at the place of the second run: stale, and the command makes the same again
    shutil.rmtree(other)
    finished_run(other, seed=3)
    message = refused(run)
    assert message.startswith(f"{run / 'merged'} is stale: it was made from another adapter_2 (SHA-256 ")
    command = shlex.split(message.partition(" with: ")[2])
    assert command[:4] == ["python", "-m", "lora_sam.merge", f"run={run}"]
    assert run_step("merge", "merge", command[3:]) == 0
    require_merged(directory)
    manifest = json.loads((run / "merged" / "manifest.json").read_text())
    assert (manifest["settings"]["weights"], manifest["settings"]["alpha"]) == ([0.75, 0.25], 0.5)
    assert manifest["made_from"]["adapter_2"] != made["adapter_2"]
    # a second run that is gone cannot be compared any more, what was made from it stays good
    shutil.rmtree(other)
    require_merged(directory)


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def quiet_logging() -> Iterator[None]:
    """Hydra configures the root logger anew, with a stream that ends with the test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.mark.usefixtures("quiet_logging")
def test_a_second_call_does_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / "merged")
    weights = run / "merged" / "sam.safetensors"
    assert run_step("merge", "merge", []) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert re.fullmatch(
        rf"{re.escape(str(weights))}: plain SAM weights, 0\.\d MB\n"
        r"  as base and adapter compute: logits differ by at most \d\.\de-0[678] \(allowed 1e-04\), mask IoU "
        r"(1\.0000|0\.999\d) on 64 masks\n",
        captured.out,
    )
    stamp = weights.stat()
    with monkeypatch.context() as patched:
        patched.setattr("lora_sam.cli.merge.merge_run", lambda *_: pytest.fail("merged again"))
        assert run_step("merge", "merge", ["run=latest", "density=0.1"]) == 0
    assert weights.stat() == stamp
    assert capsys.readouterr().out == (
        f"{weights}: already there, made from the same adapter and base with the same options; nothing to do\n"
    )
    assert run_step("merge", "merge", ["alpha=0.5"]) == 0
    assert weights.stat().st_ino != stamp.st_ino


@pytest.mark.usefixtures("quiet_logging")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["alhpa=1"], "unknown key alhpa; did you mean alpha?"),
        (["alpha=x"], "alpha = x: must be a number"),
        (["run=nowhere"], "nowhere: no such run directory (nowhere); give the path of a run, or latest"),
        (["base=nowhere.pth", "alpha=0.3"], "base = nowhere.pth: no such file"),
        (["weights=[1]"], "weights = [1.0]: only for several runs"),
    ],
)
def test_mistakes_are_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before = content(run)
    assert run_step("merge", "merge", arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert content(run) == before


def test_help_needs_no_torch() -> None:
    code = (
        "import sys, runpy; sys.argv = ['merge', '--help']\n"
        "try: runpy.run_module('lora_sam.merge', run_name='__main__')\n"
        "finally: print(sorted({'torch', 'peft', 'transformers', 'openvino'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "alpha=1.0\n      Strength of the adapter: 0 is the base" in result.stdout
    assert result.stdout.endswith("[]\n")
    defaults = yaml.safe_load((ROOT / "conf" / "merge.yaml").read_text()).keys() - {"defaults", "_target_"}
    assert all(f"\n  {name}=" in result.stdout for name in defaults)


def test_what_goes_on_as_it_was_for_another_model_is_said(run: Path, other: Path) -> None:
    """Classes of a weaker or combined model came from the head of the first run without a word."""
    assert list(_not_merged([run], 1.0)) == list(_not_merged([run, other], 1.0)) == []
    (run / "adapter" / "class_head.safetensors").touch()
    facts = json.loads((other / "adapter" / "lora_sam.json").read_text())
    scale = {"bands": [1, 1, 1], "low": [0.0, 0.0, 0.0], "high": [4095.0, 4095.0, 4095.0]}
    (other / "adapter" / "lora_sam.json").write_text(json.dumps({**facts, "scale": scale}))
    assert list(_not_merged([run], 1.0)) == []
    (weaker,) = _not_merged([run], 0.5)
    assert "classes are told by the head of" in weaker
    head, scales = _not_merged([run, other], 1.0)
    assert head == weaker
    assert f"images are read with that of {run}" in scales
