"""The robustness step: figures that must hold, on a tiny run and with predictors whose answers are known."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lora_sam.cli.robustness import SECTIONS, Robustness
from lora_sam.cli.step import run_step
from lora_sam.core.config import from_conf
from lora_sam.core.errors import AdapterError, CheckpointError, ConfigError, DataError
from lora_sam.core.run_directory import RunDirectory
from lora_sam.core.structures import Masks, Prompts
from lora_sam.evaluation.comparison import compare
from lora_sam.evaluation.scoring import evaluate
from lora_sam.runs.backends import RunBackEnds
from lora_sam.runs.places import write_splits
from lora_sam.runs.resuming import settings_of

QUICK = {"clicks": 3, "shapes": 2, "jitter": [0.0, 0.3], "points": [1, 3]}


@pytest.fixture(scope="module")
def trained(
    finished_run: Callable[..., Any], blobs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], RunDirectory]:
    """Copies a finished run on the images of `blobs`."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    root = tmp_path_factory.mktemp("robustness") / "run"
    finished_run(root)
    conf = Path(__file__).resolve().parents[2] / "conf"
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", ["model=tiny_random", f"data.root={blobs}"]), resolve=True)
    (root / "config.json").write_text(json.dumps(config))
    (root / "report.html").write_text("<!DOCTYPE html><html><body><main><p>a page</p></main></body></html>")

    def make(path: Path) -> RunDirectory:
        shutil.copytree(root, path)
        return RunDirectory(path)

    return make


@pytest.fixture
def run(trained: Callable[[Path], RunDirectory], tmp_path: Path) -> RunDirectory:
    return trained(tmp_path / "run")


def options(run: RunDirectory | str, **changes: Any) -> Robustness:
    root = run.root if isinstance(run, RunDirectory) else run
    built = from_conf("robustness", run=str(root), **{**QUICK, **changes})
    assert isinstance(built, Robustness)
    return built


def content(run: RunDirectory) -> dict[str, Any]:
    found = json.loads((run.root / "robustness.json").read_text())
    assert isinstance(found, dict)
    return found


def by_prompt(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["prompt"]: row["iou"] for row in rows}


# --- a run -----------------------------------------------------------------------------------------------------------


def test_everything_of_a_run(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert options(run).perform() == 0
    found = content(run)
    settings = settings_of(run)
    source = settings.data.open(settings.seed).test
    predictors = RunBackEnds(run).open(["base", "tuned"], threads=None)
    expected = evaluate(predictors, source, lambda sample: settings.prompt.evaluation_prompts(sample, settings.seed))
    figures = compare(expected.scores["base"], expected.scores["tuned"], settings.seed)
    assert (found["split"], found["images"], found["objects"], found["seed"]) == ("test", 3, 9, settings.seed)
    assert set(found["made_from"]) == {"adapter", "base", "data"}
    assert found["settings"]["sections"] == list(SECTIONS)
    # no jitter is what the run was evaluated with, interval and all
    jitter, points, prompts = (by_prompt(found[key]) for key in ("jitter", "points", "prompts"))
    assert list(jitter) == ["tight box", "box, sides moved by up to 30 %"]
    assert [row["value"] for row in found["jitter"]] == [0.0, 0.3]
    assert list(points) == ["1 point", "3 points"]
    assert list(prompts) == ["own", "tight box", "1 point", "whole image"]
    for name in ("base", "tuned", "delta"):
        assert jitter["tight box"][name] == pytest.approx(figures[name]["iou"], abs=1e-12)
        assert jitter["tight box"][f"{name}_interval"] == pytest.approx(figures[name]["iou_interval"], abs=1e-12)
    assert prompts["own"] == prompts["tight box"] == jitter["tight box"]
    assert prompts["1 point"] == points["1 point"]
    assert jitter["box, sides moved by up to 30 %"] != jitter["tight box"]
    assert prompts["whole image"] != prompts["tight box"]
    for name in ("base", "tuned"):
        iou = np.concatenate([image.iou for image in expected.scores[name]])
        bins = found["calibration"][name]["bins"]
        assert sum(one["objects"] for one in bins) == 9
        actual = sum(one["objects"] * one["actual"] for one in bins if one["objects"])
        assert actual / 9 == pytest.approx(iou.mean())
        assert set(found["detection"][name]) == {"all", "small", "medium", "large"}
        assert found["detection"][name]["large"] == {"precision": None, "recall": None}
        curve = found["clicks"]["mean_iou"][name]
        assert len(curve) == 3
        assert found["classes"] is None or found["classes"]["pooled_dice"][name] >= 0
    assert [level["level"] for level in found["clicks"]["levels"]] == [0.85, 0.9]
    assert 0 < found["outlines"]["base"] <= 80  # the diagonal
    assert found["forgetting"]["images"] == 2
    out = capsys.readouterr().out
    assert f"tight box {jitter['tight box']['base']:.3f} {jitter['tight box']['tuned']:.3f} " in re.sub(" +", " ", out)
    assert found["forgetting"]["sentence"] in out
    assert "3 images, 9 objects, the same prompts for both; too few images to trust intervals" in out
    assert f"figures   {run.root / 'robustness.json'}" in out
    page = run.report.read_text()
    assert page.count("<h2>Robustness</h2>") == 1
    assert "a page" in page
    options(run, sections=["outlines"]).perform()
    assert run.report.read_text().count("<h2>Robustness</h2>") == 1


def test_the_same_twice_and_another_with_another_seed(run: RunDirectory, tmp_path: Path) -> None:
    found = []
    for number, changes in enumerate(({}, {}, {"seed": 7})):
        path = tmp_path / f"{number}.json"
        options(run, sections=["jitter", "clicks", "forgetting"], output=str(path), **changes).perform()
        found.append(json.loads(path.read_text()))
    assert found[0] == found[1]
    assert found[2]["seed"] == 7
    ours, others = ([by_prompt(one["jitter"]), one["forgetting"]["iou"]] for one in (found[0], found[2]))
    assert ours[0]["tight box"]["base"] == others[0]["tight box"]["base"]
    moved = "box, sides moved by up to 30 %"
    assert ours[0][moved]["base"] != others[0][moved]["base"]
    assert ours[1]["base"] != others[1]["base"]
    assert not (run.root / "robustness.json").exists()
    assert "Robustness" not in run.report.read_text()


def test_only_what_is_asked_for(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    options(run, sections=["calibration"], split="val", max_images=1, max_objects=2).perform()
    found = content(run)
    assert (found["split"], found["images"], found["objects"]) == ("val", 1, 2)
    assert found["settings"]["sections"] == ["calibration"]
    assert {key for key in SECTIONS if found[key] is not None} == {"calibration"}
    out = capsys.readouterr().out
    assert "calibration error" in out
    assert "tight box" not in out
    assert "generic shapes" not in out


def test_an_adapter_of_zeros_changes_nothing_and_forgets_nothing(
    finished_run: Callable[..., Any], run: RunDirectory, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    root = tmp_path / "zeros"
    finished_run(root, settings={"decoder": "frozen"})
    shutil.copy(run.root / "config.json", root)
    path = root / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    assert all("lora_" in name for name in tensors)
    save_file({name: tensor * ("lora_B" not in name) for name, tensor in tensors.items()}, path)
    facts = root / "adapter" / "lora_sam.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "files": None}))  # as one made elsewhere
    run = RunDirectory(root)
    options(run, sections=["jitter", "forgetting", "outlines", "clicks"]).perform()
    found = content(run)
    rows = [row["iou"] for row in found["jitter"]]
    rows += [found["forgetting"]["iou"], found["outlines"], *(one["clicks"] for one in found["clicks"]["levels"])]
    for iou in rows:
        assert iou["delta"] == pytest.approx(0, abs=1e-12)
        assert iou["delta_interval"] == pytest.approx([0, 0], abs=1e-12)
    assert not found["forgetting"]["forgot"]
    assert found["forgetting"]["sentence"].startswith("kept: no measurable difference on generic shapes")


# --- predictors whose answers are known ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Knows:
    """Answers with the truth, less some columns on the right of each object; sure of its IoU, up to an error."""

    truth: Callable[[NDArray[np.uint8], Prompts], NDArray[np.bool_]]
    lost: float = 0.0
    too_sure: float = 0.0

    def predict(self, image: NDArray[np.uint8], prompts: Prompts, **_: Any) -> Masks:
        true = self.truth(image, prompts)
        masks = true.copy()
        for mask in masks:
            columns = np.flatnonzero(mask.any(axis=0))
            mask[:, columns[len(columns) - round(self.lost * len(columns)) :]] = False
        iou = masks.sum((1, 2)) / true.sum((1, 2))
        low_res = np.zeros((len(masks), 4, 4), np.float32)
        return Masks(masks, (iou + self.too_sure).astype(np.float32), low_res)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts such predictors in the place of base and tuned; objects are found again by prompts at their truth."""
    from lora_sam.evaluation import scoring

    samples: dict[bytes, Any] = {}
    original = scoring.score_sample

    def remember(predictors: Any, sample: Any, *arguments: Any, **named: Any) -> Any:
        samples[sample.image.tobytes()] = sample
        return original(predictors, sample, *arguments, **named)

    def truth(image: NDArray[np.uint8], prompts: Prompts) -> NDArray[np.bool_]:
        sample = samples[image.tobytes()]
        if prompts.points is None or len(prompts) == len(sample.masks):
            return sample.masks
        return np.stack([_at(sample.masks, points) for points in prompts.points])

    def put(**predictors: dict[str, float]) -> None:
        monkeypatch.setattr("lora_sam.evaluation.robustness.measure.score_sample", remember)
        opened = {name: Knows(truth, **settings) for name, settings in predictors.items()}
        monkeypatch.setattr(RunBackEnds, "open", lambda *_, **__: opened)

    return put


def _at(masks: NDArray[np.bool_], points: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The smallest object under the first point."""
    column, row = points[0].astype(int)
    under = [mask for mask in masks if mask[row, column]]
    return min(under, key=lambda mask: int(mask.sum()))


def test_a_perfect_predictor(run: RunDirectory, known: Callable[..., None]) -> None:
    known(base={"lost": 0.4}, tuned={})
    options(run, sections=["prompts", "clicks", "calibration", "outlines", "detection", "forgetting"]).perform()
    found = content(run)
    for iou in by_prompt(found["prompts"]).values():
        assert iou["tuned"] == 1
        assert iou["base"] == pytest.approx(0.6, abs=0.1)
    for level in found["clicks"]["levels"]:
        assert level["clicks"]["tuned"] == 1
        assert level["clicks"]["base"] == 3  # never, hence the limit
        assert level["never"] == {"base": 1.0, "tuned": 0.0}
    assert found["clicks"]["mean_iou"]["tuned"] == [1, 1, 1]
    # both are right about themselves
    assert found["calibration"]["tuned"]["error"] == pytest.approx(0, abs=1e-6)
    assert found["calibration"]["base"]["error"] == pytest.approx(0, abs=1e-6)
    assert found["outlines"]["tuned"] == 0
    assert found["outlines"]["base"] > 1
    assert found["detection"]["tuned"]["all"] == {"precision": 1.0, "recall": 1.0}
    assert 0 < found["detection"]["base"]["all"]["recall"] < 0.4
    assert not found["forgetting"]["forgot"]
    assert found["forgetting"]["sentence"].startswith("gained: IoU on generic shapes rose from 0.")


def test_a_model_that_forgot_and_is_too_sure_is_told(
    run: RunDirectory, known: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    known(base={}, tuned={"lost": 0.3, "too_sure": 0.2})
    options(run, sections=["forgetting", "calibration"], shapes=3).perform()
    found = content(run)["forgetting"]
    assert found["forgot"]
    assert found["iou"]["delta_interval"][1] < 0
    sentence = f"forgot: IoU on generic shapes fell from 1.000 to {found['iou']['tuned']:.3f} (difference -0."
    assert sentence in capsys.readouterr().out
    assert content(run)["calibration"]["tuned"]["error"] == pytest.approx(0.2, abs=1e-6)
    assert content(run)["calibration"]["tuned"]["bias"] == pytest.approx(0.2, abs=1e-6)
    assert f"Forgot: IoU on generic shapes fell from 1.000 to {found['iou']['tuned']:.3f}" in run.report.read_text()


def test_classes(
    run: RunDirectory, known: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures of each class are those of its objects; pooled Dice is torchmetrics' on the union of their masks."""
    import torch
    from torchmetrics.classification import BinaryF1Score

    from lora_sam.evaluation.robustness import measure as measuring

    known(base={"lost": 0.5}, tuned={"lost": 0.1})
    seen: list[Any] = []

    def with_classes(sample: Any, most: int | None, seed: int) -> Any:
        seen.append(replace(sample, classes=("ring", "disc", "ring")[: len(sample.masks)]))
        return seen[-1]

    monkeypatch.setattr(measuring, "some_objects", with_classes)
    options(run, sections=["classes"]).perform()
    found = content(run)["classes"]
    assert [(one["name"], one["objects"], one["images"]) for one in found["classes"]] == [
        ("ring", 6, 3),
        ("disc", 3, 3),
    ]
    knows = {"base": Knows(lambda *_: sample.masks, 0.5), "tuned": Knows(lambda *_: sample.masks, 0.1)}
    for name, predictor in knows.items():
        overall, means = BinaryF1Score(), []
        for one in found["classes"]:
            metric, ious = BinaryF1Score(), []
            for sample in seen:
                rows = [label == one["name"] for label in sample.classes]
                predicted, true = predictor.predict(sample.image, Prompts(boxes=np.zeros((3, 4)))).masks, sample.masks
                ious += [(a & b).sum() / (a | b).sum() for a, b, row in zip(predicted, true, rows, strict=True) if row]
                pair = [torch.from_numpy(masks[rows].any(axis=0)).int() for masks in (predicted, true)]
                metric.update(*pair)
                overall.update(*pair)
            assert one["iou"][name] == pytest.approx(np.mean(ious), abs=1e-9)
            assert one["pooled_dice"][name] == pytest.approx(float(metric.compute()), abs=1e-6)
            means.append(one["iou"][name])
        assert found["mean_iou"][name] == pytest.approx(np.mean(means))
        assert found["pooled_dice"][name] == pytest.approx(float(overall.compute()), abs=1e-6)
    out = capsys.readouterr().out
    assert "ring (6)" in out
    assert "pooled Dice of all classes" in out
    assert "pooled Dice" in run.report.read_text()


# --- bad input -------------------------------------------------------------------------------------------------------


def test_bad_input(run: RunDirectory, tmp_path: Path) -> None:
    for changes, message in (
        ({"sections": ["jiter"]}, "did you mean jitter"),
        ({"sections": []}, "sections = []"),
        ({"jitter": [0.1, 1.5]}, "jitter.1 = 1.5: must be less than or equal to 1"),
        ({"jitter": []}, "jitter = []"),
        ({"points": [0]}, "points.0 = 0: must be greater than or equal to 1"),
        ({"clicks": 0}, "clicks = 0"),
        ({"shapes": 0}, "shapes = 0"),
        ({"max_images": 0}, "max_images = 0"),
        ({"split": "testing"}, "must be one of train, val, test"),
        ({"seed": -1}, "seed = -1"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            options("latest", **changes)
    with pytest.raises(AdapterError, match="no such run directory"):
        options(str(tmp_path / "none")).perform()
    with pytest.raises(CheckpointError, match="no such file"):
        options(run, base=str(tmp_path / "none.pth")).perform()
    shutil.rmtree(run.adapter)
    with pytest.raises(AdapterError, match="no adapter there; give a finished run's directory"):
        options(run).perform()
    assert not (run.root / "robustness.json").exists()


def test_images_that_lie_elsewhere_now(run: RunDirectory, blobs: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(blobs, data)
    write_splits(run, settings_of(run, str(data)).open_data(), {})
    config = json.loads(run.saved_config.read_text())
    config["data"]["root"] = str(tmp_path / "gone")
    run.saved_config.write_text(json.dumps(config))
    chosen = {"sections": ["calibration"], "max_images": 1}
    with pytest.raises(DataError, match=r"data_root: .*gone does not exist; set data_root="):
        options(run, **chosen).perform()
    assert options(run, **chosen, data_root=str(data)).perform() == 0
    image = data / "images" / "test" / "1.png"
    image.write_bytes(image.read_bytes() + b"\0")
    with pytest.raises(DataError, match="the images are not those of this run: images of test were edited"):
        options(run, **chosen, data_root=str(data)).perform()


def test_a_run_without_its_configuration(run: RunDirectory) -> None:
    (run.root / "config.json").unlink()
    with pytest.raises(AdapterError, match=r"config\.json"):
        options(run).perform()


def test_the_command(run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(run.root.parent)
    assert run_step("robustness", "python -m lora_sam.robustness", ["run=run", "sectons=[jitter]"]) == 2
    assert "unknown key sectons; did you mean sections?" in capsys.readouterr().err
    arguments = ["run=run", "sections=[jitter]", "jitter=[0,0.1]", "max_images=1"]
    assert run_step("robustness", "python -m lora_sam.robustness", arguments) == 0
    assert [row["value"] for row in content(run)["jitter"]] == [0, 0.1]


def test_help_answers_without_torch() -> None:
    code = "import sys; from lora_sam.cli.step import run_step; run_step('robustness', 'x', ['--help'])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('torch' in sys.modules, 'scipy' in sys.modules)"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "max_objects=4" in done.stdout
    assert "jitter=[0.0,0.02,0.05,0.1,0.2]" in done.stdout
    assert done.stdout.endswith("False False\n")
