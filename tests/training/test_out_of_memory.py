"""Where memory runs out, less goes through the model at once, and training ends with the same weights."""

from __future__ import annotations

import os
import signal
import weakref
from dataclasses import replace

import pytest
import torch

from lora_sam.core.errors import TrainingError
from lora_sam.training import gradients
from lora_sam.training.loop import Fit
from lora_sam.training.out_of_memory import Room, out_of_memory, tried


def weights(fit: Fit) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in fit.adapted.trainable().items()}


class Damped:
    """Adam that does not make whole steps of gradients that are zero but for rounding."""

    def __init__(self, adam) -> None:
        self.set_rate = adam.set_rate
        self._adam = adam

    def build(self, parameters, blocks=None):
        optimizer = self._adam.build(parameters, blocks)
        for group in optimizer.param_groups:
            group["eps"] = 1e-3
        return optimizer


def assert_close(fit: Fit, other: Fit) -> None:
    expected = weights(other)
    for name, value in weights(fit).items():
        assert torch.allclose(value, expected[name], rtol=1e-4, atol=1e-6), name


@pytest.fixture
def make(make_fit):
    """A `Fit` without dropout that does not amplify rounding, and the lines that it shows."""

    def make(directory, *, at_once=None, **options) -> tuple[Fit, list[str]]:
        fit = make_fit(directory, method="decoder", optim={"lr": 1e-3}, max_epochs=2, **options)
        said: list[str] = []
        object.__setattr__(fit, "optim", Damped(fit.optim))
        object.__setattr__(fit, "at_once", at_once)
        object.__setattr__(fit.display, "message", said.append)
        return fit, said

    return make


@pytest.fixture
def fail(monkeypatch):
    """Lets memory run out, after gradients were added, wherever a condition on (call, images, chunk) holds."""
    original = gradients.accumulate_gradients

    def install(condition) -> list[tuple[int, int]]:
        calls: list[tuple[int, int]] = []

        def accumulate_gradients(adapted, loss, examples, *, chunk, **arguments):
            calls.append((len(examples), chunk))
            parts = original(adapted, loss, examples, chunk=chunk, **arguments)
            if condition(len(calls), len(examples), chunk):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return parts

        monkeypatch.setattr(gradients, "accumulate_gradients", accumulate_gradients)
        return calls

    return install


def of_memory(said: list[str]) -> list[str]:
    return [text for text in said if "out of memory" in text]


@pytest.mark.parametrize("method", ["lora", "decoder", "full"])
def test_gradients_of_parts_are_those_of_the_whole_batch(make_fit, method):
    """Images have 1, 2, 2 and 1 objects, so that a mean of means would not do."""
    fit = make_fit(method=method)
    fit.adapted.peft.eval()
    for name, parameter in fit.adapted.trainable().items():  # B = 0 would leave A without a gradient
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    examples = [fit.examples[0, index] for index in range(4)]
    for index in (0, 3):
        one = examples[index]
        examples[index] = replace(one, boxes=one.boxes[:1], targets=one.targets[:1], object_ids=one.object_ids[:1])
    found = {}
    for images in (4, 3, 1):
        values = gradients.gradients(fit, examples, 2, Room(images, 16))
        trained = fit.adapted.trainable()
        found[images] = values, {name: part.grad for name, part in trained.items() if part.grad is not None}
        fit.adapted.peft.zero_grad(set_to_none=True)
    values, expected = found[4]
    largest = max(float(gradient.abs().max()) for gradient in expected.values())  # some are zero but for rounding
    for images in (3, 1):
        assert found[images][0] == pytest.approx(values, rel=1e-5)
        for name, gradient in found[images][1].items():
            assert torch.allclose(gradient, expected[name], rtol=1e-5, atol=1e-5 * largest), name


def test_without_a_failure_nothing_changes(make, fail):
    plain, _ = make("plain", batch_size=4, accumulate=2)
    plain.fit()
    calls = fail(lambda call, images, chunk: False)
    again, said = make("again", batch_size=4, accumulate=2, at_once=4)
    again.fit()
    assert calls == [(4, 16), (2, 16)] * 2
    assert of_memory(said) == []
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(again)[name]), name


@pytest.mark.parametrize(("most", "steps"), [(2, ["2 of 4"]), (1, ["2 of 4", "1 of 2"])])
def test_batches_that_are_too_large_are_halved_and_the_weights_stay(make, fail, most, steps):
    plain, _ = make("plain", batch_size=4)
    plain.fit()
    calls = fail(lambda call, images, chunk: images > most)
    small, said = make("small", batch_size=4)
    progress = small.fit()
    assert progress.step == 4  # the effective batch stays
    assert [text for text in of_memory(said)] == [
        f"out of memory at step 1: {step} images at once from here on; the effective batch stays" for step in steps
    ]
    assert max(images for images, _ in calls[len(steps) :]) == most
    assert_close(small, plain)
    assert [record["loss"] for _, record in small.records if "loss" in record] == pytest.approx(
        [record["loss"] for _, record in plain.records if "loss" in record], rel=1e-4
    )


@pytest.mark.parametrize("call", [2, 3])
def test_gradients_of_earlier_batches_of_the_same_step_are_made_again(make, fail, call):
    plain, _ = make("plain", batch_size=2, accumulate=3)
    plain.fit()
    fail(lambda number, images, chunk: number == call)
    unlucky, said = make("unlucky", batch_size=2, accumulate=3)
    unlucky.fit()
    assert len(of_memory(said)) == 1
    assert_close(unlucky, plain)


def test_it_may_run_out_again_while_earlier_batches_are_made_again(make, fail):
    plain, _ = make("plain", batch_size=2, accumulate=3)
    plain.fit()
    fail(lambda number, images, chunk: number in (3, 5))
    unlucky, said = make("unlucky", batch_size=2, accumulate=3)
    unlucky.fit()
    assert [text.split(": ")[1] for text in of_memory(said)] == [
        "1 of 2 images at once from here on; the effective batch stays",
        "1 of 2 prompts decoded at once from here on; the effective batch stays",
    ]
    assert_close(unlucky, plain)


def test_with_one_image_fewer_prompts_are_decoded_at_once(make, fail):
    plain, _ = make("plain", batch_size=1)
    plain.fit()
    calls = fail(lambda call, images, chunk: chunk > 1)
    small, said = make("small", batch_size=1)
    small.fit()
    assert of_memory(said) == [
        "out of memory at step 1: 1 of 2 prompts decoded at once from here on; the effective batch stays"
    ]
    assert calls[:2] == [(1, 16), (1, 1)]
    assert_close(small, plain)


def test_one_prompt_of_one_image_that_does_not_fit_is_an_error_with_remedies(make, fail):
    fail(lambda call, images, chunk: True)
    fit, said = make("run", batch_size=2)
    with pytest.raises(TrainingError, match=r"one image with one prompt.*method\.blocks=last:3.*model\.image_size"):
        fit.fit()
    assert len(of_memory(said)) == 2


def test_a_run_may_be_resumed_with_more_or_less_at_once(make, monkeypatch):
    whole, _ = make("whole", batch_size=4)
    whole.fit()
    stopped, _ = make("stopped", batch_size=4, at_once=1)
    original = Fit._optimizer_step

    def step_then_signal(self, progress, *arguments):
        original(self, progress, *arguments)
        if self is stopped and progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Fit, "_optimizer_step", step_then_signal)
    assert stopped.fit().step == 3
    resumed, _ = make("stopped", batch_size=4, at_once=3)
    assert resumed.fit(stopped.run.last).step == 4
    assert_close(resumed, whole)


def test_checkpointed_blocks_are_passed_on(make_fit):
    plain = make_fit("plain", max_epochs=1)
    plain.fit()
    fit = make_fit("checkpointed", max_epochs=1)
    object.__setattr__(fit, "checkpointed", frozenset({0, 1}))
    fit.fit()
    for name, value in weights(fit).items():
        assert torch.allclose(value, weights(plain)[name], rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:125] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_are_about_memory(error, is_one):
    def work() -> int:
        raise error

    assert out_of_memory(error) is is_one
    if is_one:
        assert tried(work) is None
    else:
        with pytest.raises(type(error)):
            tried(work)


def test_the_allocator_of_the_cpu_is_understood():
    assert tried(lambda: torch.empty(2**60)) is None


def test_what_a_failed_attempt_held_is_free_afterwards():
    held: list[weakref.ref[torch.Tensor]] = []

    def work() -> int:
        activations = torch.zeros(8)
        held.append(weakref.ref(activations))
        raise MemoryError

    assert tried(work) is None
    assert held[0]() is None
