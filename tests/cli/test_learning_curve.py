"""How many labelled images: what is trained on what, what is not done twice, and what the curve says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

import lora_sam.cli.train as train_module
from lora_sam.cli.jobs import plain
from lora_sam.core.config import step_from
from lora_sam.core.errors import AdapterError, ConfigError, TrainingError
from lora_sam.core.run_directory import RunDirectory, find_run, last_started
from lora_sam.data.shots import few_shot
from lora_sam.evaluation.power_law import power_law
from lora_sam.runs.learning_curve import FILE, Size, curve_of, read_curve
from lora_sam.training.settings import settings_from

ROOT = Path(__file__).resolve().parents[2]


def asked(*words: str) -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return step_from(plain(compose("learning-curve", ["model=tiny_random", "tracker=none", *words])))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, list[str]]]:
    """Trainings that only write what they would reach: IoU 0.8 - 0.4 / shots, the draw a little on top."""
    calls: list[tuple[int, int, list[str]]] = []

    def fine_tune(config: dict[str, Any], directory: Path, words: list[str]) -> float:
        settings = settings_from(config)
        splits = settings.open_data()
        shots, draw = settings.trainer.shots or 0, settings.trainer.draw
        calls.append((shots, draw, list(splits.train.ids)))
        iou = 0.8 - 0.4 / shots + 0.01 * draw
        images = [{"id": str(n), "objects": 3, "base_iou": 0.3, "tuned_iou": iou + 0.01 * n} for n in range(4)]
        figures = {"base": {"iou": 0.3}, "tuned": {"iou": iou}, "per_image": images}
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "evaluation.json").write_text(json.dumps(figures))
        return iou

    monkeypatch.setattr(train_module, "fine_tune", fine_tune)
    return calls


def test_sizes_draws_and_what_was_done_before(
    tmp_path: Path, blobs: Path, trained: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"data.root={blobs}", "shots=[1,2,all,99]", "draws=2", f"out={tmp_path / 'curve'}"]
    assert asked(*words).perform() == 0
    count = max(shots for shots, _, _ in trained)
    assert [(shots, draw) for shots, draw, _ in trained] == [(1, 0), (1, 1), (2, 0), (2, 1), (count, 0)]
    of = {(shots, draw): ids for shots, draw, ids in trained}
    assert all(len(ids) == shots for (shots, _), ids in of.items())
    assert all(set(of[1, draw]) < set(of[2, draw]) for draw in range(2))
    curve = read_curve(tmp_path / "curve")
    assert [(size.shots, size.draws) for size in curve.sizes] == [(1, 2), (2, 2), (count, 1)]
    assert curve.sizes[0].tuned == pytest.approx(0.405 + 0.015)
    page = (tmp_path / "curve/learning_curve.html").read_text()
    assert curve.verdict.split("(")[0].strip() in page
    assert "src=" not in page
    assert "https:" not in page
    assert curve.verdict in " ".join(capsys.readouterr().out.split())
    # again: nothing is trained; what is missing is
    assert asked(*words).perform() == 0
    assert len(trained) == 5
    (tmp_path / "curve/shots_0002/draw_1/status.json").unlink()
    assert asked(*words).perform() == 0
    assert [(shots, draw) for shots, draw, _ in trained[5:]] == [(2, 1)]
    with pytest.raises(ConfigError, match="holds a curve of other settings;"):
        asked(*words, "optim.lr=0.1").perform()


def test_a_curve_does_not_go_on_with_labels_or_weights_that_were_edited(
    tmp_path: Path, blobs: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it would be of the old ones."""
    data, made_of = tmp_path / "data", tmp_path / "curve" / "made_of.json"
    shutil.copytree(blobs, data)
    words = [f"data.root={data}", "shots=[1]", "draws=1", f"out={tmp_path / 'curve'}"]
    assert asked(*words).perform() == 0
    labels = data / "annotations" / "instances_train.json"
    before = labels.read_text()
    content = json.loads(before)
    content["annotations"].pop()
    labels.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="images or labels that were edited since; put that back"):
        asked(*words, "draws=2").perform()
    values = json.loads(made_of.read_text())
    made_of.write_text(json.dumps({key: values[key] for key in ("config", "steps", "images")}))
    assert asked(*words, "draws=2").perform() == 0  # one that is older does not say
    labels.write_text(before)
    made_of.write_text(json.dumps({**values, "weights": "0" * 64}))
    monkeypatch.setattr("lora_sam.models.checkpoints.sha256_now", lambda model: "1" * 64)
    with pytest.raises(ConfigError, match="a curve of other base weights"):
        asked(*words).perform()


@pytest.mark.parametrize("role", ["test", "val"])
def test_images_that_train_measure_nothing(tmp_path: Path, blobs: Path, trained: list[Any], role: str) -> None:
    """Each draw was measured on its own few images, and all of them against the base on those of the first."""
    words = [f"data.root={blobs}", f"data.{role}=train", f"evaluate_split={role}", f"out={tmp_path / 'curve'}"]
    with pytest.raises(ConfigError, match=f"evaluate_split = {role}: the {role} images are the training images"):
        asked(*words, "shots=[1,2]").perform()
    assert trained == []
    assert not (tmp_path / "curve").exists()


def test_a_failure_stops_nothing_else(
    tmp_path: Path, blobs: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_module.fine_tune

    def failing(config: dict[str, Any], directory: Path, words: list[str]) -> float:
        if config["trainer"]["shots"] == 2:
            raise TrainingError("no memory")
        return whole(config, directory, words)

    monkeypatch.setattr(train_module, "fine_tune", failing)
    assert asked(f"data.root={blobs}", "shots=[1,2,3]", "draws=1", f"out={tmp_path / 'curve'}").perform() == 1
    curve = read_curve(tmp_path / "curve")
    assert [size.shots for size in curve.sizes] == [1, 3]
    assert curve.failed == {"2 images, draw 0": "no memory"}


def test_a_training_that_failed_after_its_evaluation_is_not_among_the_figures(
    tmp_path: Path, blobs: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was counted as one that failed and as a draw."""
    whole = train_module.fine_tune

    def failing(config: dict[str, Any], directory: Path, words: list[str]) -> float:
        reached = whole(config, directory, words)
        if config["trainer"]["draw"] == 1:
            raise TrainingError("disk full")
        return reached

    monkeypatch.setattr(train_module, "fine_tune", failing)
    assert asked(f"data.root={blobs}", "shots=[1]", "draws=3", f"out={tmp_path / 'curve'}").perform() == 1
    curve = read_curve(tmp_path / "curve")
    assert curve.failed == {"1 image, draw 1": "disk full"}
    assert [(size.shots, size.draws, size.each) for size in curve.sizes] == [(1, 2, pytest.approx((0.4, 0.42)))]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shots=[]"], "give numbers of images"),
        (["resume=latest"], "new trainings"),
        (["trainer.shots=3"], "sizes of the curve"),
        (["shots=[0]"], "shots"),
        (["draws=0"], "draws"),
    ],
)
def test_mistakes(words: list[str], message: str, blobs: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        asked(f"data.root={blobs}", *words)


def test_more_shots_than_images(blobs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give fewer"):
        asked(f"data.root={blobs}", "shots=[999]", f"out={tmp_path / 'curve'}").perform()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = plain(compose("train", ["model=tiny_random", f"data.root={blobs}", "trainer.shots=999"]))
    with pytest.raises(ConfigError, match=r"trainer\.shots = 999: the training split has \d+ images"):
        settings_from(config).open_data()


def test_val_and_test_stay(option: Callable[..., Any], blobs: Path) -> None:
    whole = option("data/coco", root=str(blobs)).open(0)
    few = few_shot(whole, 2, 0)
    assert (few.val, few.test) == (whole.val, whole.test)
    assert set(few.train.ids) < set(whole.train.ids)
    assert [few_shot(whole, 2, draw).train.ids for draw in range(3)] == [
        few_shot(whole, 2, draw).train.ids for draw in range(3)
    ]
    same = option("data/coco", root=str(blobs), val="train").open(0)
    assert few_shot(same, 1, 0).val.ids == few_shot(same, 1, 0).train.ids


def test_the_power_law_is_found_again() -> None:
    shots = np.array([1.0, 2.0, 5.0, 10.0, 50.0])
    level, slope, power = power_law(shots, 0.9 - 0.5 * shots**-0.6, np.ones(5))
    assert (level, slope, power) == pytest.approx((0.9, 0.5, 0.6), abs=1e-6)
    # never above 1, never falling
    assert power_law(shots, 0.2 * np.log(shots) + 0.2, np.ones(5))[0] <= 1.0
    assert power_law(shots, 0.9 - 0.1 * np.log(shots), np.ones(5))[1] == 0.0


def sized(shots: int, values: list[float], delta: float = 0.2) -> Size:
    mean = float(np.mean(values))
    return Size(
        shots=shots, draws=len(values), base=mean - delta, tuned=mean, tuned_interval=(mean, mean), delta=delta,
        delta_interval=(delta - 0.01, delta + 0.01), each=tuple(values), further={},
    )  # fmt: skip


def test_what_is_said_of_more_images() -> None:
    steep = curve_of([sized(n, [0.9 - 0.5 / n**0.5 + e for e in (-0.003, 0.0, 0.003)]) for n in (1, 2, 5, 10)])
    ten = next(one for one in steep.more if one.images == 10)
    expected = (0.9 - 0.5 / 20**0.5) - (0.9 - 0.5 / 10**0.5)
    assert ten.interval[0] < expected < ten.interval[1]
    assert ten.gain == pytest.approx(expected, abs=0.005)
    assert f"10 more would bring {ten.gain:+.3f} IoU" in steep.verdict
    flat = curve_of([sized(n, [0.7, 0.7001, 0.6999]) for n in (5, 10, 20)])
    assert "little left to gain" in flat.verdict
    noisy = curve_of([sized(n, [0.4 + 0.1 * n, 0.9 - 0.1 * n]) for n in (1, 2, 3)])
    assert "cannot be told" not in noisy.verdict
    assert noisy.more[1].interval[1] - noisy.more[1].interval[0] > 0.02
    for few in ([sized(1, [0.5, 0.6]), sized(5, [0.7, 0.7])], [sized(n, [0.5]) for n in (1, 2, 5)]):
        assert "cannot be told" in curve_of(few).verdict
    useless = curve_of([sized(n, [0.5, 0.5], delta=0.0) for n in (1, 2, 5)])
    assert "none of these sizes" in useless.verdict


@pytest.mark.parametrize(
    "means",
    [(0.70, 0.65, 0.60, 0.58), (0.50, 0.65, 0.70, 0.50), (0.11, 0.30, 0.90, 0.99)],
    ids=["falls", "breaks", "leaps"],
)
def test_figures_that_are_no_such_curve_are_not_continued(means: tuple[float, ...]) -> None:
    """The nearest curve of one that falls is level: that there is little left to gain would be said for sure."""
    found = curve_of(
        [sized(n, [mean + e for e in (-0.01, 0.0, 0.01)]) for n, mean in zip((1, 5, 20, 40), means, strict=True)]
    )
    assert not found.more
    assert f"cannot be told: the figures ({means[0]:.3f} with 1, " in found.verdict
    assert "steps=" in found.verdict
    # three sizes are enough where the curve is at its limits
    three = curve_of(
        [sized(n, [mean + e for e in (-0.01, 0.0, 0.01)]) for n, mean in ((5, 0.42), (20, 0.5), (40, 0.3))]
    )
    assert not three.fits
    # as far apart as the draws themselves, they may be anything
    assert curve_of([sized(n, [mean - 0.3, mean + 0.3]) for n, mean in zip((1, 5, 20, 40), means, strict=True)]).fits


def test_draws_of_most_of_the_images_say_less_than_they_seem_to() -> None:
    """20 of 24 images share most of them: new ones would differ more."""
    sizes = [sized(n, [0.8 - 0.4 / n**0.5 + e for e in (-0.02, 0.0, 0.02)]) for n in (5, 10, 20)]
    pool, many = curve_of(sizes, images=24), curve_of(sizes, images=100_000)
    assert many.more[-1].interval == pytest.approx(curve_of(sizes).more[-1].interval, abs=1e-4)
    (low, high), (least, most) = pool.more[-1].interval, many.more[-1].interval
    assert low <= least < most < high
    assert pool.more[-1].gain == many.more[-1].gain


@pytest.mark.parametrize("truth", ["logarithm", "exponential"])
def test_the_interval_knows_more_than_one_law(truth: str) -> None:
    """A power law goes as well through figures of another shape, and was sure of what came after them."""

    def height(count: float) -> float:
        return float(0.5 + 0.06 * np.log(count) if truth == "logarithm" else 0.8 - 0.4 * np.exp(-count / 15))

    found = curve_of([sized(n, [height(n) + e for e in (-0.03, 0.0, 0.03)]) for n in (1, 2, 5, 10, 20, 40)], images=40)
    assert found.fits
    for more in found.more:
        assert more.interval[0] <= height(40 + more.images) - height(40) <= more.interval[1], more


def test_little_by_ten_more_is_not_little_by_a_hundred() -> None:
    slow = curve_of([sized(n, [0.8 - 0.3 / n**0.25 + e for e in (-0.002, 0.0, 0.002)]) for n in (1, 5, 20, 60)])
    ten, hundred = (next(one for one in slow.more if one.images == images) for images in (10, 100))
    assert ten.interval[1] < 0.01
    assert hundred.interval[1] > 0.02
    assert "little left" not in slow.verdict
    assert f"; 100 more {hundred.gain:+.3f} (" in slow.verdict


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"sizes": 3}')
    with pytest.raises(AdapterError, match="is damaged"):
        read_curve(tmp_path)


def test_a_curve_leaves_latest_to_the_run_that_the_user_made(
    tmp_path: Path, blobs: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = RunDirectory(tmp_path / "outputs" / "mine")
    mine.adapter.mkdir(parents=True)
    mine.note_start()
    mine.point_latest_here()
    whole = train_module.fine_tune

    def pointing(config: dict[str, Any], directory: Path, words: list[str]) -> float:
        RunDirectory(directory).note_start()
        RunDirectory(directory).point_latest_here()
        return whole(config, directory, words)

    monkeypatch.setattr(train_module, "fine_tune", pointing)
    assert asked(f"data.root={blobs}", "shots=[1,2]", "draws=1", f"out={tmp_path / 'curve'}").perform() == 0
    assert find_run("latest").root.resolve() == mine.root
    assert last_started() == RunDirectory(mine.root)
    other = RunDirectory(tmp_path / "outputs" / "other")
    other.adapter.mkdir(parents=True)
    other.point_latest_here()
    assert find_run("latest").root.resolve() == other.root  # afterwards everything is as before
