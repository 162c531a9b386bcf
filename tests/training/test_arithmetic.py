"""A resumed run computes as the run that it goes on from did, whatever the machine would choose today."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from lora_sam.cli.jobs import plain
from lora_sam.cli.run import run
from lora_sam.models import device
from lora_sam.models.attention import choice
from lora_sam.training.arithmetic import Arithmetic, differences
from lora_sam.training.settings import settings_from
from lora_sam.training.state import read_progress

CONF = Path(__file__).resolve().parents[2] / "conf"
THEN = Arithmetic(
    device="cpu",
    machine="x",
    torch="2",
    threads=2,
    processes=1,
    precision="fp32",
    training="tiled",
    inference="mask",
    checkpointed=(2, 5),
    images=4,
    prompts=16,
)


@pytest.fixture
def train(tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.chdir(tmp_path)

    def go(name: str, steps: int, resume: str | None = None, **changes: Any) -> Path:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = plain(
                compose(
                    "train",
                    [
                        "model=tiny_random", f"data.root={blobs}", "trainer.device=cpu", "trainer.batch_size=3",
                        "method.dropout=0.1", "optim.lr=1e-2", "trainer.overlays=0", "tracker=none",
                        "trainer.early_stopping.patience=null", "optim.schedule=constant", f"trainer.max_steps={steps}",
                        *(f"{key}={value}" for key, value in changes.items()),
                    ],
                )
            )  # fmt: skip
        config["resume"] = resume
        run(settings_from(config), config=config, output_dir=tmp_path / name)
        return tmp_path / name

    return go


def weights(directory: Path) -> dict[str, bytes]:
    """Those after the last step: the adapter has the best."""
    tensors = load_file(state(directory))
    return {
        name: value.numpy().tobytes() for name, value in tensors.items() if name.startswith(("model.", "optimizer."))
    }


def state(directory: Path) -> Path:
    return directory / "checkpoints" / "last" / "state.safetensors"


def test_what_the_machine_would_choose_now_changes_no_bit(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """First it has fast bf16, little memory and a fast kernel `channels`; then none of it."""
    from lora_sam.training.planning import machine

    look_at = machine.look_at
    tight = {"free": 0}

    def looked(*arguments: Any) -> Any:
        found = look_at(*arguments)
        return replace(found, free_bytes=tight["free"] or found.free_bytes)

    kernel = {"training": "channels"}
    monkeypatch.setattr(machine, "look_at", looked)
    monkeypatch.setattr(device, "has_fast_bf16", lambda _: kernel["training"] == "channels")
    monkeypatch.setattr(
        choice, "choose_attention", lambda *_: {"training": kernel["training"], "inference": "mask", "measured_ms": {}}
    )
    tight["free"] = 1  # nothing fits: the least that is possible is taken
    whole = train("whole", 4)
    train("stopped", 2)
    then = Arithmetic.from_json(read_progress(state(whole)).arithmetic)
    assert then is not None
    assert (then.precision, then.training, then.images, then.checkpointed) == ("bf16", "channels", 1, (0, 1))
    tight["free"], kernel["training"] = 0, "tiled"
    fresh = train("fresh", 4)
    capsys.readouterr()
    resumed = train("resumed", 4, resume="stopped")
    assert weights(resumed) == weights(whole)
    assert weights(fresh) != weights(whole)
    said = capsys.readouterr().err
    assert "bf16, checkpointing all, 1 image at once" in said
    assert "last bits" not in said
    # less memory than the run took: a plan that fits, and a line
    tight["free"] = 1
    train("fresh_then_tight", 5, resume="fresh")
    said = capsys.readouterr().err
    assert "images at once: 3 in the resumed run, 1 now: the memory that may be used is another; the last bits" in said
    assert "checkpointed blocks: none in the resumed run, 0, 1 now" in said


def test_a_run_that_says_nothing_of_it(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lora_sam.training import loop

    save = loop.save_state

    def older(path: Path, progress: Any, *arguments: Any) -> None:
        save(path, replace(progress, arithmetic={}), *arguments)

    monkeypatch.setattr(loop, "save_state", older)
    train("old", 1)
    capsys.readouterr()
    train("resumed", 2, resume="old")
    assert "does not say how it computed: attention, precision and plan are chosen anew" in capsys.readouterr().err


def test_each_difference_is_a_line() -> None:
    assert list(differences(THEN, THEN)) == []
    now = replace(THEN, threads=1, images=2, checkpointed=())
    assert list(differences(THEN, now)) == [
        "threads: 2 in the resumed run, 1 now: set OMP_NUM_THREADS to have as many again; the last bits may be others",
        "checkpointed blocks: 2, 5 in the resumed run, none now: the memory that may be used is another; the last bits "
        "may be others",
        "images at once: 4 in the resumed run, 2 now: the memory that may be used is another; the last bits may be "
        "others",
    ]
    moved = list(differences(THEN, replace(THEN, device="cuda", machine="y", precision="bf16")))
    assert [line.partition(":")[0] for line in moved] == ["device", "precision"]
    assert all("the device is another" in line for line in moved)
    assert THEN.fits("cpu")
    assert not THEN.fits("cuda")


@pytest.mark.parametrize("change", [{"images": 0}, {"training": "magic"}, {"precision": "fp64"}, {"more": 1}])
def test_what_it_says_is_checked(change: dict[str, Any]) -> None:
    values = json.loads(json.dumps(THEN.to_json()))
    assert Arithmetic.from_json(values) == THEN
    wrong = {**values, **change}
    assert (Arithmetic.from_json(wrong) is None) == ("more" not in change)
    assert Arithmetic.from_json({}) is None


def test_memory_that_ran_out_is_remembered(make_fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that had to be done in smaller parts makes all later ones smaller, in the resumed run too."""
    from lora_sam.training import gradients

    fit = make_fit("run", max_epochs=1)
    object.__setattr__(fit, "arithmetic", replace(THEN, images=2, prompts=16).to_json())
    accumulate, failed = gradients.accumulate_gradients, []

    def once(*arguments: Any, **options: Any) -> Any:
        if not failed:
            failed.append(1)
            raise torch.OutOfMemoryError("out of memory")
        return accumulate(*arguments, **options)

    monkeypatch.setattr(gradients, "accumulate_gradients", once)
    fit.fit()
    then = Arithmetic.from_json(read_progress(fit.run.last).arithmetic)
    assert then is not None
    assert (then.images, then.prompts) == (1, 16)
