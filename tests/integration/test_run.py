"""Whole runs: what they leave behind, that one seed gives one adapter, that an interruption changes nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from hydra import compose, initialize_config_dir
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file, save_file
from segment_anything.modeling import Sam

from lora_sam import load, load_base
from lora_sam.cli.jobs import plain
from lora_sam.cli.run import run
from lora_sam.cli.train import run_train
from lora_sam.core.metrics_log import read_metrics
from lora_sam.evaluation.layout import validate_report
from lora_sam.models.projections import fuse_projections
from lora_sam.training.loop import Fit
from lora_sam.training.settings import settings_from
from tests.processes import ended, forked, wait_for

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["model=tiny_random", "trainer.max_epochs=2", "trainer.log_every_steps=1", "trainer.device=cpu"]
UNSEEN = ["tracker=none", "trainer.overlays=0", "trainer.max_epochs=1"]  # where no picture and no curve is looked at


def composed(*overrides: str) -> dict:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return plain(compose("train", [*QUICK, *overrides]))


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Runs in-process in an empty directory; returns (run directory, objective)."""
    monkeypatch.chdir(tmp_path)

    def go(name: str, *overrides: str) -> tuple[Path, float]:
        config = composed(*overrides)
        directory = tmp_path / name
        return directory, run(settings_from(config), config=config, output_dir=directory)

    return go


def test_a_run_leaves_everything_it_promises(trained, blobs, capsys):
    directory, objective = trained("run", f"data.root={blobs}", "prompt.jitter_pixels=2")
    report = json.loads((directory / "evaluation.json").read_text())
    validate_report(report)
    for part in ("base", "tuned", "delta"):
        assert {"iou", "dice", "f1", "boundary_f1"} <= report[part].keys()
        assert all(isinstance(report[part][name], float) for name in ("iou", "dice", "f1", "boundary_f1"))
    assert report["delta"]["iou"] == pytest.approx(report["tuned"]["iou"] - report["base"]["iou"])
    assert (report["images"], report["objects"]) == (3, 9)
    weights = directory / "adapter" / "adapter_model.safetensors"
    assert report["adapter_bytes"] == weights.stat().st_size
    assert report["trainable_parameters"] == sum(value.numel() for value in load_file(weights).values())
    assert report["seconds"] > 0
    assert report["peak_memory_bytes"] > 100e6
    facts = json.loads((directory / "adapter" / "lora_sam.json").read_text())
    assert facts["metrics"]["tuned"]["iou"] == report["tuned"]["iou"]
    assert facts["validation_iou"] == objective
    assert facts["prompt"]["jitter_pixels"] == 2
    # the same weights in a file are the same base
    save_file(fuse_projections(load_base(directory).sam).state_dict(), directory / "base.safetensors")
    assert load_base(directory, base=directory / "base.safetensors").tensors == facts["base"]["tensors"]
    records = read_metrics(directory / "metrics.jsonl")
    assert [record["step"] for record in records if "loss" in record] == list(range(1, 13))
    assert [record["validation_iou"] for record in records if "validation_iou" in record][-1] <= objective
    for name in ("best", "median", "worst"):
        with Image.open(directory / "overlays" / f"{name}.png") as picture:
            assert picture.width > 4 * 64
    assert list((directory / "tensorboard").glob("events.out.tfevents.*"))
    assert (directory.parent / "outputs" / "latest").resolve() == directory
    card = (directory / "adapter" / "README.md").read_text()
    assert f"{report['tuned']['iou']:.3f}" in card
    output = capsys.readouterr()
    assert "42,656 of 105,004 parameters train (40.62 %)" in output.err
    assert "tuned" in output.out
    assert "difference" in output.out


def test_a_run_that_does_not_beat_its_base_says_so_and_changes_nothing(trained, blobs, capsys):
    """Exit code and objective are those of a run that worked: its best is the base."""
    directory, objective = trained(
        "run",
        f"data.root={blobs}",
        "trainer.max_epochs=1",
        "optim.lr=1.0",
        "optim.warmup_steps=0",
        "trainer.overlays=0",
    )
    records = read_metrics(directory / "metrics.jsonl")
    first, last = (record["validation_iou"] for record in records if "validation_iou" in record)
    assert last < first - 0.02
    assert objective == first
    facts = json.loads((directory / "adapter" / "lora_sam.json").read_text())
    assert (facts["best_step"], facts["validation_base"], facts["better_than_base"]) == (0, first, False)
    report = json.loads((directory / "evaluation.json").read_text())
    validation = report["validation"]
    assert [validation[name] for name in ("base", "trained", "kept_step")] == [first, last, 0]
    assert (validation["trained_on"], facts["validation_held_out"]) == (0, True)
    assert validation["iou"] == pytest.approx(first)
    low, high = validation["iou_interval"]
    assert low < first < high
    assert [(image["id"], image["objects"]) for image in validation["per_image"]] == [
        ("images/val/1.png", 3),
        ("images/val/2.png", 3),
    ]
    assert np.mean([image["iou"] for image in validation["per_image"]]) == pytest.approx(first)
    assert (report["delta"]["iou"], report["delta"]["iou_interval"]) == (0.0, [0.0, 0.0])
    assert "**Not better than its base**" in (directory / "adapter" / "README.md").read_text()
    page = (directory / "report.html").read_text(encoding="utf-8")
    assert "Training did not beat the base" in page
    assert "It never rose above that of the base" in page
    assert "optim.lr=0.1<" in page
    told = capsys.readouterr().err
    assert told.index(f"base, step 0: validation IoU {first:.4f}") < told.index("epoch 1, step 6: validation IoU")
    assert f"Training did not beat the base: validation IoU {first:.3f} before, {last:.3f} at best after;" in told


@pytest.mark.usefixtures("rising_validation")
def test_stock_peft_loads_the_adapter_with_zero_difference(trained, blobs):
    directory, _ = trained("run", f"data.root={blobs}", *UNSEEN, "optim.lr=0.01")
    predictor = load(directory)
    stock = PeftModel.from_pretrained(load_base(directory).sam, str(directory / "adapter"))
    ours, theirs = predictor.sam.state_dict(), stock.base_model.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    plain_sam: Sam = stock.base_model.model
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain_sam.image_encoder(images), predictor.sam.image_encoder(images))


@pytest.mark.usefixtures("rising_validation")
@pytest.mark.parametrize("method", [["method=lora"], ["method=decoder"], ["method=lora", "method.decoder=frozen"]])
def test_one_seed_gives_one_adapter(trained, blobs, method):
    """Another seed gives another one, which one method shows."""
    files, other_seed = [], method == ["method=lora"]
    method = [*method, "trainer.max_steps=2"]
    for name in ("first", "second"):
        directory, _ = trained(name, f"data.root={blobs}", *UNSEEN, *method)
        files.append((directory / "adapter" / "adapter_model.safetensors").read_bytes())
    assert files[0] == files[1]
    if other_seed:
        other, _ = trained("third", f"data.root={blobs}", *UNSEEN, *method, "seed=1")
        assert (other / "adapter" / "adapter_model.safetensors").read_bytes() != files[0]


@pytest.mark.usefixtures("rising_validation")
def test_biases_of_the_base_are_compared_with_an_untouched_base(trained, blobs):
    """Switching such an adapter off would not give the base back."""
    plain_run, _ = trained("plain", f"data.root={blobs}", *UNSEEN)
    biased, _ = trained("biased", f"data.root={blobs}", *UNSEEN, "method.bias=all", "optim.lr=0.01")
    reports = [json.loads((directory / "evaluation.json").read_text()) for directory in (plain_run, biased)]
    assert reports[1]["base"]["iou"] == reports[0]["base"]["iou"]
    assert reports[1]["tuned"]["iou"] != reports[0]["tuned"]["iou"]


def test_validation_split_folder_data_and_no_tracker(trained, tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "flat" / name).mkdir(parents=True)
    for index in range(8):
        mask = np.zeros((40, 40), np.uint8)
        mask[10:30, 5 : 15 + index] = 255
        pixels = rng.integers(0, 100, (40, 40, 3)) + (mask[..., None] > 0) * 100
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "flat" / "images" / f"{index}.png")
        Image.fromarray(mask).save(tmp_path / "flat" / "masks" / f"{index}.png")
    directory, _ = trained(
        "run",
        "data=folder",
        f"data.root={tmp_path / 'flat'}",
        "data.few_images=0",
        "tracker=none",
        "evaluate_split=val",
        "method=decoder",
    )
    report = json.loads((directory / "evaluation.json").read_text())
    assert (report["split"], report["images"], report["chosen_on"]) == ("val", 1, 1)
    assert not (directory / "tensorboard").exists()


def test_drawn_ellipses_are_learned_without_a_file(trained):
    directory, objective = trained("smoke", "experiment=smoke", *UNSEEN, "trainer.max_epochs=2", "trainer.max_steps=32")
    report = json.loads((directory / "evaluation.json").read_text())
    assert report["images"] == 16
    assert report["delta"]["iou"] > 0.05
    assert objective > 0.05
    page = (directory / "report.html").read_text(encoding="utf-8")
    assert f"{report['tuned']['iou']:.3f}" in page
    assert "python train.py model=vit_b data=auto data.root=my_data" in page
    assert page.count("data:image/") >= 6
    first = json.loads((directory / "metrics.jsonl").read_text().splitlines()[0])
    assert (first["step"], sorted(first)) == (0, ["epoch", "step", "time", "validation_iou"])


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], None]:
    """Lets a process that is made now stop after a step of a run, until it is hit by a signal and `go on` is there."""

    def hold(directory: Path, step: int) -> None:
        original = Fit._optimizer_step

        def hold_then(self: Fit, progress: Any, *arguments: Any) -> None:
            original(self, progress, *arguments)
            if self.run.root == directory and progress.step == step:
                (directory / "held").touch()
                wait_for((directory / "go on").exists)

        monkeypatch.setattr(Fit, "_optimizer_step", hold_then)

    return hold


def test_interrupted_by_ctrl_c_and_resumed_is_the_same_run(tmp_path, blobs, trained_weights, command_line, held):
    """A process of its own and the real signal; what is left alone, and what goes on, runs in this one."""
    arguments = [*QUICK, f"data.root={blobs}", "method.dropout=0.1", "trainer.overlays=0"]
    arguments += ["trainer.early_stopping.patience=null", "tracker=none"]
    assert command_line(*arguments, "hydra.run.dir=whole").code == 0
    stopped = tmp_path / "stopped"
    held(stopped, 4)
    child = forked(lambda: run_train("train.py", [*arguments, "hydra.run.dir=stopped"]), tmp_path / "said")
    wait_for((stopped / "held").exists)
    os.kill(child, signal.SIGINT)
    (stopped / "go on").touch()
    code, message = ended(child), (tmp_path / "said").read_text()
    assert code == 130, message
    assert "stopped at step 4; everything is saved. Go on with: python train.py resume=" in message
    assert json.loads((stopped / "status.json").read_text())["status"] == "interrupted"
    done = command_line("resume=latest", "hydra.run.dir=resumed")
    assert done.code == 0
    assert "resuming at step 4" in done.err
    whole, resumed = (
        (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in ("whole", "resumed")
    )
    assert resumed == whole
    expected, found = (trained_weights(tmp_path / name) for name in ("whole", "resumed"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    steps = [
        [record["step"] for record in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in record]
        for name in ("whole", "resumed")
    ]
    assert steps[0] == steps[1] == list(range(1, 13))


def test_a_sweep_returns_the_objective_of_every_job(tmp_path, blobs, command_line):
    done = command_line(
        "-m", *QUICK, f"data.root={blobs}", "trainer.max_steps=2", "trainer.overlays=0", "tracker=none",
        "method.rank=2,4", "optim.lr=1e-3,-1", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert done.code == 1  # half of the jobs have a wrong rate; the others ran
    found = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert (found["varied"], found["state"]) == (["method.rank", "optim.lr"], "finished")
    assert found["jobs"][0]["validation_interval"][0] <= found["jobs"][0]["validation"]
    assert found["jobs"][2]["trained_parameters"] > found["jobs"][0]["trained_parameters"]
    jobs = [json.loads((tmp_path / "sweep" / str(job) / "status.json").read_text()) for job in range(4)]
    assert [job["status"] for job in jobs] == ["completed", "failed"] * 2
    assert all(0 <= job["objective"] <= 1 for job in jobs[::2])
    assert all("optim.lr = -1" in job["error"] for job in jobs[1::2])
    ranks = [
        json.loads((tmp_path / "sweep" / str(job) / "adapter" / "adapter_config.json").read_text())["r"]
        for job in (0, 2)
    ]
    assert ranks == [2, 4]


def test_two_processes_train_like_one_with_twice_the_batch(tmp_path, blobs, trained_weights, command_line):
    """Joined as torchrun joins them; `test_processes_stopped.py` has the command."""
    common = [*QUICK, f"data.root={blobs}", "trainer.precision=fp32", "tracker=none", "augmentation=none"]
    common += ["trainer.overlays=0", "trainer.max_epochs=1"]
    assert command_line(*common, "trainer.batch_size=6", "hydra.run.dir=one").code == 0

    def join() -> int:
        PartialState._reset_state()  # this process has computed alone so far
        return run_train("train.py", [*common, "trainer.batch_size=3", "hydra.run.dir=two"])

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    together = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    together |= {"ACCELERATE_USE_CPU": "1", "TORCHELASTIC_RUN_ID": "none"}
    children = [forked(join, tmp_path / f"said{n}", RANK=str(n), LOCAL_RANK=str(n), **together) for n in range(2)]
    codes = [ended(child) for child in children]
    said = [(tmp_path / f"said{n}").read_text() for n in range(2)]
    assert codes == [0, 0], said
    one, two = (trained_weights(tmp_path / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=2e-4)
    losses = [
        [record["loss"] for record in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in record]
        for name in ("one", "two")
    ]
    assert len(losses[0]) == len(losses[1]) == 1
    assert "".join(said).count("evaluating base and tuned") == 1


def test_a_sweep_killed_while_a_job_trains_ends_with_the_same_bits(
    tmp_path, blobs, trained_weights, command_line, held
):
    """kill -9 in the middle of the second job, whose record and curves go on in its own directory."""
    arguments = ["-m", *QUICK, f"data.root={blobs}", "method.dropout=0.1", "trainer.overlays=0", "method.rank=2,4"]
    arguments += ["trainer.save_every_steps=2"]
    assert command_line(*arguments, "hydra.sweep.dir=whole").code == 0
    killed = tmp_path / "killed" / "1"
    held(killed, 9)
    child = forked(lambda: run_train("train.py", [*arguments, "hydra.sweep.dir=killed"]), tmp_path / "said")
    wait_for((killed / "held").exists)
    os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    (killed / "go on").touch()
    assert not (killed / "adapter").exists()
    untouched = (tmp_path / "killed" / "0" / "status.json").stat().st_mtime_ns
    done = command_line("sweep=killed")
    assert done.code == 0
    assert "(done before)" in done.out.splitlines()[0]
    assert "resuming at step 8\n" in done.err
    assert (tmp_path / "killed" / "0" / "status.json").stat().st_mtime_ns == untouched
    expected, found = (trained_weights(tmp_path / name / "1") for name in ("whole", "killed"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    keys = ("step", "epoch", "loss", "validation_iou")
    records = [
        [{key: line[key] for key in keys if key in line} for line in read_metrics(tmp_path / name / "1/metrics.jsonl")]
        for name in ("whole", "killed")
    ]
    assert records[0] == records[1]
    sweeps = [json.loads((tmp_path / name / "sweep.json").read_text())["jobs"] for name in ("whole", "killed")]
    for one, other in zip(*sweeps, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
