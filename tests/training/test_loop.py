"""The loop: loss falls, limits, exact resuming, interruption, early stopping, values that are not finite."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from lora_sam.core.errors import AdapterError, ConfigError, TrainingError
from lora_sam.core.signals import Terminated
from lora_sam.training.averaging import RunningMean
from lora_sam.training.loop import Fit
from lora_sam.training.state import load_state, read_progress, save_state


def weights(fit: Fit) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in fit.adapted.trainable().items()}


def weights_of(fit: Fit) -> dict[str, torch.nn.Parameter]:
    return fit.adapted.trainable()


def test_loss_falls(make_fit):
    fit = make_fit(max_epochs=12)
    progress = fit.fit()
    losses = [record["loss"] for _, record in fit.records if "loss" in record]
    assert progress.finished
    assert progress.step == len(losses) == 36
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])
    rates = [record["learning_rate"] for _, record in fit.records if "loss" in record]
    assert rates[0] < max(rates) == pytest.approx(1e-2)
    assert rates[-1] < 1e-3


@pytest.mark.parametrize(
    ("prompt", "changes"),
    [
        ("points", {"negative_margin": 0.5}),
        ("mixed", {"both_weight": 1.0}),
        ("mask", {}),
        ("iterative", {"rounds": 3, "last_without_click": True}),
        ("iterative", {"rounds": [1, 3], "idle_prob": 0.3, "background_points": 1}),
        ("none", {}),
    ],
)
def test_loss_falls_with_every_kind_of_prompt(make_fit, option, prompt, changes):
    fit = make_fit(max_epochs=5, prompt=option(f"prompt/{prompt}", **changes))
    fit.fit()
    losses = [record["loss"] for _, record in fit.records if "loss" in record]
    assert len(losses) == 15
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])


@pytest.mark.parametrize("multimask", ["mean", "best_loss", "best_iou"])
def test_several_masks_are_an_option(make_fit, multimask):
    fit = make_fit(max_epochs=1, multimask=multimask)
    fit.fit()
    assert all(record["several_masks"] > 0 for _, record in fit.records if "loss" in record)


def test_two_ways_to_train_several_masks_are_one_too_many(option):
    with pytest.raises(ConfigError, match=r"multimask_points = true and trainer\.multimask = mean.*choose one"):
        option("trainer/default", multimask="mean", multimask_points=True).check()
    option("trainer/default", multimask="mean").check()


@pytest.mark.parametrize(
    ("method", "optim", "stops"),
    [
        ("lora", {}, (1, 3, 4, 8)),
        ("decoder", {}, (4,)),
        ("cat_sam", {}, (4,)),
        ("lora", {"layer_decay": 0.5, "lora_plus": 4}, (4,)),
    ],
)
def test_a_run_stopped_anywhere_ends_with_the_same_weights(make_fit, monkeypatch, method, optim, stops):
    """Steps 1 and 4 lie within an epoch, 3 ends one, 8 is the one before the last of the third."""
    whole = make_fit("whole", method=method, optim=optim)
    whole.fit()
    expected = weights(whole)
    record = [(step, {key: v for key, v in values.items() if key != "seconds"}) for step, values in whole.records]
    original = Fit._optimizer_step
    stopped, stop_at = whole, 0

    def step_then_signal(self, progress, *arguments):
        original(self, progress, *arguments)
        if self is stopped and progress.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Fit, "_optimizer_step", step_then_signal)
    for stop_at in stops:
        stopped = make_fit(f"stopped{stop_at}", method=method, optim=optim)
        progress = stopped.fit()
        assert (progress.step, progress.finished) == (stop_at, False)
        assert Path("outputs/latest").resolve() == stopped.run.root.resolve()
        torch.manual_seed(123)  # whatever happened in between must not matter
        resumed = make_fit(f"stopped{stop_at}", method=method, optim=optim)
        end = resumed.fit(resumed.run.last)
        assert end.finished
        assert end.step == 12
        assert expected.keys() == weights(resumed).keys()
        for name, value in weights(resumed).items():
            assert torch.equal(value, expected[name]), (stop_at, name)
        both = [
            (step, {key: v for key, v in values.items() if key != "seconds"})
            for step, values in [*stopped.records, *resumed.records]
        ]
        assert both == record, stop_at


def test_a_run_with_drawn_rounds_and_background_resumes_exactly(make_fit, option, monkeypatch):
    prompt = option("prompt/iterative", rounds=[1, 3], idle_prob=0.3, background_points=2)
    whole = make_fit("whole", prompt=prompt, max_epochs=2)
    whole.fit()
    stopped = make_fit("stopped", prompt=prompt, max_epochs=2)
    original = Fit._optimizer_step

    def step_then_signal(self, progress, *arguments):
        original(self, progress, *arguments)
        if self is stopped and progress.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Fit, "_optimizer_step", step_then_signal)
    assert stopped.fit().step == 4
    torch.manual_seed(123)
    resumed = make_fit("stopped", prompt=prompt, max_epochs=2)
    resumed.fit(resumed.run.last)
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed).items())
    values = {step: record for step, record in whole.records if "loss" in record}
    assert all(
        values[step]["background"] == record["background"] for step, record in resumed.records if "loss" in record
    )
    assert max(record["background"] for record in values.values()) > 0


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


def signalled(number):
    """Where a signal is not to wait."""
    os.kill(os.getpid(), number)
    time.sleep(5)
    pytest.fail("went on")


@pytest.mark.parametrize("number", SIGNALS)
def test_validation_does_not_hold_up_a_signal(make_fit, number):
    """It can take minutes. It ends at once, and the state before it is saved."""
    stopped = make_fit(max_epochs=1)
    object.__setattr__(stopped, "validate", lambda step: signalled(number))
    progress = stopped.fit()
    assert (progress.step, progress.epoch, progress.batch, progress.finished) == (3, 0, 3, False)
    assert stopped.run.last.exists()


@pytest.mark.parametrize("number", SIGNALS)
def test_encoding_does_not_hold_up_a_signal(make_fit, number):
    before_first = make_fit()
    object.__setattr__(before_first, "before_epoch", lambda epoch: signalled(number))
    with pytest.raises(KeyboardInterrupt) as caught:
        before_first.fit()
    assert isinstance(caught.value, Terminated) == (number != signal.SIGINT)
    assert not before_first.run.last.exists()


def test_a_validation_and_an_encoding_that_a_signal_ended_are_done_again(make_fit):
    (whole := make_fit("whole")).fit()
    validated = []

    def validate(step):
        validated.append(step)
        if step == 6 and validated.count(6) == 1:
            signalled(signal.SIGTERM)
        return 0.5

    stopped = make_fit("stopped")
    object.__setattr__(stopped, "validate", validate)
    progress = stopped.fit()
    assert (progress.step, progress.epoch, progress.batch, progress.finished) == (6, 1, 3, False)
    again = make_fit("stopped")
    object.__setattr__(again, "validate", validate)
    object.__setattr__(again, "before_epoch", lambda epoch: signalled(signal.SIGTERM) if epoch == 3 else None)
    assert again.fit(again.run.last).step == 9
    resumed = make_fit("stopped")
    object.__setattr__(resumed, "validate", validate)
    assert resumed.fit(resumed.run.last).finished
    assert validated == [3, 6, 6, 9, 12]
    for name, value in weights(resumed).items():
        assert torch.equal(value, weights(whole)[name]), name


def test_the_running_mean_is_validated_kept_and_resumed(make_fit, monkeypatch):
    """What is best and what is validated is the mean; training itself goes on as without it."""
    (plain := make_fit("plain")).fit()
    expected, seen, stopping = [], [], []
    original = Fit._optimizer_step

    def step(self, progress, *arguments):
        original(self, progress, *arguments)
        if self is whole:
            expected.append(weights(self))
        if self in stopping and progress.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Fit, "_optimizer_step", step)
    whole = make_fit("whole", ema_decay=0.5)
    object.__setattr__(whole, "validate", lambda step: seen.append(weights(whole)) or len(seen) / 10)
    start = weights(whole)
    whole.fit()
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(whole)[name]), name
    mean = start
    for done, last in enumerate(expected, 1):
        decay = min(0.5, (1 + done) / (10 + done))
        mean = {name: value * decay + last[name] * (1 - decay) for name, value in mean.items()}
    assert len(expected) == 12
    for name, value in mean.items():
        assert torch.allclose(seen[-1][name], value, atol=1e-6), name
        assert not torch.equal(seen[-1][name], expected[-1][name]), name
    stopping.append(make_fit("stopped", ema_decay=0.5))
    assert stopping[0].fit().step == 7
    resumed = make_fit("stopped", ema_decay=0.5)
    resumed.fit(resumed.run.last)
    load_state(whole.run.best, whole.adapted.trainable())
    load_state(resumed.run.last, resumed.adapted.trainable(), mean=(kept := RunningMean.of(0.5, weights_of(resumed))))
    for name, value in weights(whole).items():
        assert torch.equal(value, kept.weights[name]), name
    with pytest.raises(AdapterError, match="no running mean"):
        make_fit("plain", ema_decay=0.5).fit(plain.run.last)


def test_a_finished_run_goes_on_to_a_higher_limit(make_fit):
    """With a constant rate, which does not depend on the limit, it ends as if it had had that limit from the start."""
    options = {"batch_size": 1, "accumulate": 4, "optim": {"schedule": "constant"}}
    whole = make_fit("whole", max_epochs=4, **options)
    whole.fit()
    short = make_fit("short", max_epochs=2, **options)
    assert short.fit().finished
    resumed = make_fit("short", max_epochs=4, **options)
    end = resumed.fit(short.run.last)
    assert (end.step, end.epoch, end.finished) == (8, 4, True)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_a_finished_run_that_is_resumed_as_it_was_does_nothing(make_fit):
    fit = make_fit(max_epochs=1)
    fit.fit()
    again = make_fit(max_epochs=1)
    assert again.fit(fit.run.last).step == 3
    assert again.records == []
    for name, value in weights(fit).items():
        assert torch.equal(value, weights(again)[name]), name


def test_same_seed_same_weights_whatever_the_workers(make_fit):
    first = make_fit("first", max_epochs=2)
    first.fit()
    second = make_fit("second", max_epochs=2, workers=1)
    second.fit()
    for name, value in weights(first).items():
        assert torch.equal(value, weights(second)[name]), name


def test_max_steps_ends_within_an_epoch_and_validates(make_fit):
    fit = make_fit(max_steps=4, values=[0.3, 0.4])
    progress = fit.fit()
    assert (progress.step, progress.finished, progress.best) == (4, True, 0.4)
    assert read_progress(fit.run.best).best_step == 4


def test_accumulation_makes_fewer_steps_and_the_last_is_smaller(make_fit):
    fit = make_fit(batch_size=1, accumulate=4, max_epochs=1)
    assert fit.fit().step == 2  # 6 images: 4 and 2


def test_accumulated_batches_equal_one_large_batch(make_fit):
    """Both see the same 6 images in one step, with 2 objects each."""
    large = make_fit("large", batch_size=6, max_epochs=1, optim={"lr": 1e-3})
    small = make_fit("small", batch_size=1, accumulate=6, max_epochs=1, optim={"lr": 1e-3})
    for fit in (large, small):
        object.__setattr__(fit.adapted, "train_mode", lambda: None)  # dropout would draw different masks
        fit.adapted.peft.eval()
        fit.fit()
    for (_, one), (_, other) in zip(large.records[:1], small.records[:1], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)


def test_early_stopping_keeps_the_best(make_fit):
    fit = make_fit(
        max_epochs=50,
        values=[0.1, 0.5, 0.6, 0.55, 0.6, 0.601],
        early_stopping={"patience": 3, "min_delta": 0.01, "warmup_epochs": 1},
    )
    progress = fit.fit()
    assert progress.finished
    assert (progress.epoch, progress.best, progress.best_step) == (6, 0.601, 18)
    best = read_progress(fit.run.best)
    assert (best.best, best.step) == (0.601, 18)


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_where_nothing_beats_the_base_its_weights_are_the_best(make_fit, monkeypatch, ema_decay):
    """Also when the run was stopped and resumed; one that beats it keeps what beat it."""
    fit = make_fit(values=[0.1, 0.4, 0.5, 0.3], ema_decay=ema_decay)
    object.__setattr__(fit, "base", 0.5)
    start = weights(fit)
    original = Fit._optimizer_step

    def step_then_signal(self, progress, *arguments):
        original(self, progress, *arguments)
        if self is fit and progress.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Fit, "_optimizer_step", step_then_signal)
    assert not fit.fit().finished
    resumed = make_fit(values=[0.4, 0.5, 0.3], ema_decay=ema_decay)
    object.__setattr__(resumed, "base", 0.5)
    progress = resumed.fit(fit.run.last)
    assert (progress.best, progress.best_step, progress.base, progress.trained) == (0.5, 0, 0.5, 0.5)
    assert any(not torch.equal(value, start[name]) for name, value in weights(resumed).items())
    load_state(fit.run.best, resumed.adapted.trainable())
    assert all(torch.equal(value, start[name]) for name, value in weights(resumed).items())
    better = make_fit("better", values=[0.1, 0.51, 0.2, 0.3], ema_decay=ema_decay)
    object.__setattr__(better, "base", 0.5)
    assert (better.fit().best_step, read_progress(better.run.best).step) == (6, 6)


def test_a_state_that_is_older_than_the_base_as_a_candidate(make_fit):
    """Its best weights stay where they beat the base, which its log knows; else those of the base take their place."""
    for base, kept in ((0.4, 3), (0.6, 0)):
        old = make_fit("old", max_epochs=1, values=[0.5])
        start = weights(old)
        old.fit()
        again = make_fit("old", max_epochs=2, values=[0.3])
        object.__setattr__(again, "base", base)
        assert again.fit(old.run.last).best_step == kept
        load_state(old.run.best, again.adapted.trainable())
        assert all(torch.equal(value, start[name]) for name, value in weights(again).items()) == (kept == 0)


def test_a_step_that_is_not_finite_is_skipped_and_counted(make_fit, option):
    fit = make_fit(max_epochs=2)
    original, calls = fit.loss, []

    class Poisoned:
        resolution = "low"

        def __call__(self, logits, iou, targets):
            calls.append(1)
            parts = original(logits, iou, targets)
            return {name: value * float("nan") for name, value in parts.items()} if len(calls) == 4 else parts

    object.__setattr__(fit, "loss", Poisoned())
    progress = fit.fit()
    assert progress.nonfinite == 1
    assert progress.step == 6
    assert all(torch.isfinite(value).all() for value in weights(fit).values())
    assert len([1 for _, record in fit.records if "loss" in record]) == 5


def test_too_many_are_an_error_that_names_the_images(make_fit):
    fit = make_fit(max_nonfinite=2)

    class Poisoned:
        resolution = "low"

        def __call__(self, logits, iou, targets):
            return {"loss": logits.sum((1, 2)) * float("inf")}

    object.__setattr__(fit, "loss", Poisoned())
    with pytest.raises(TrainingError, match=r"3 steps were not finite \(trainer\.max_nonfinite = 2\).*\.png"):
        fit.fit()


def test_frozen_weights_do_not_move(make_fit, tiny_sam):
    fit = make_fit(method="decoder", max_epochs=1)
    fit.fit()
    before = tiny_sam().image_encoder.state_dict()
    after = fit.adapted.sam.image_encoder.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    original = fit.adapted.sam.mask_decoder.original_module.state_dict()
    assert all(torch.equal(original[key], value) for key, value in tiny_sam().mask_decoder.state_dict().items())


def test_state_of_another_method_is_refused(make_fit):
    lora, decoder = make_fit("a", max_epochs=1), make_fit("b", method="decoder", max_epochs=1)
    lora.fit()
    with pytest.raises(AdapterError, match=r"was saved by another model or method \(.*is only on one side\)"):
        decoder.fit(lora.run.last)
    with pytest.raises(AdapterError, match="nothing was saved there yet"):
        decoder.fit(Path("absent") / "state.safetensors")


def test_damaged_states_are_refused(make_fit):
    fit = make_fit(max_epochs=1)
    fit.fit()
    data = fit.run.last.read_bytes()
    fit.run.last.write_bytes(data[: len(data) // 2])
    with pytest.raises(AdapterError, match="is damaged"):
        make_fit().fit(fit.run.last)
    fit.run.last.write_bytes(data.replace(b'"schema_version":"1"', b'"schema_version":"9"'))
    with pytest.raises(AdapterError, match="schema version 9, this lora_sam reads 1"):
        make_fit().fit(fit.run.last)
    with pytest.raises(AdapterError, match=r"holds weights only; resume from checkpoints/last"):
        make_fit().fit(fit.run.best)


def test_a_full_disk_is_one_sentence_and_keeps_the_old_state(make_fit, monkeypatch):
    fit = make_fit(max_epochs=1)
    fit.fit()
    before = fit.run.last.read_bytes()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(TrainingError, match=r"cannot write .*safetensors: No space left on device .*resume=latest"):
        save_state(fit.run.last, read_progress(fit.run.last), fit.adapted.trainable())
    assert fit.run.last.read_bytes() == before
    assert not list(fit.run.last.parent.glob("*.tmp"))
