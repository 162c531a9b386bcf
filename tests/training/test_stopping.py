"""Stopping: the first signal is remembered, the second one ends the process; validation that no longer improves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lora_sam.core.signals import Stoppable, exit_code
from lora_sam.training.options import EarlyStopping
from lora_sam.training.state import Progress
from lora_sam.training.stopping import StopRequest, should_stop_early, take_base, update_best

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    """Those of a fresh Python, whatever runs the tests."""
    before = {number: signal.getsignal(number) for number in BOTH}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: signal.Signals) -> None:
    """To this process, and wait until Python has handled it."""
    os.kill(os.getpid(), number)
    time.sleep(0.01)


# --- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_is_remembered_and_the_handlers_restored(number: signal.Signals) -> None:
    with StopRequest() as stop:
        assert stop.signal is None
        assert signal.getsignal(number) not in (signal.default_int_handler, signal.SIG_DFL)
        send(number)
        assert stop.signal == number
        # at once, so that the second one ends
        assert [signal.getsignal(other) for other in BOTH] == [signal.default_int_handler, signal.SIG_DFL]
    assert stop.signal == number
    assert [signal.getsignal(other) for other in BOTH] == [signal.default_int_handler, signal.SIG_DFL]


@pytest.mark.parametrize(
    ("number", "handled"), [(signal.SIGUSR1, False), (signal.SIGUSR1, True), (signal.SIGUSR2, True)]
)
def test_the_signal_of_a_queue_is_handed_over_when_all_is_saved(number: signal.Signals, handled: bool) -> None:
    """submitit handles it to put the job back into its queue, Slurm alone leaves it to the job."""
    got: list[int] = []
    before = signal.signal(number, (lambda sent, frame: got.append(sent)) if handled else signal.SIG_DFL)
    try:
        with StopRequest() as stop:
            send(number)
            assert (stop.signal, got) == (number, [])
        stop.hand_over()
        assert got == ([number] if handled else [])
        assert exit_code(stop.error()) == 128 + number
    finally:
        signal.signal(number, before)


def test_what_a_command_does_with_it_is_no_queue() -> None:
    with Stoppable(lambda _: None):
        with StopRequest() as stop:
            send(signal.SIGUSR1)
        stop.hand_over()
    assert exit_code(stop.error()) == 138


def test_without_a_signal_the_handlers_are_restored_at_the_end() -> None:
    def mine(*_: object) -> None: ...

    signal.signal(signal.SIGTERM, mine)
    with pytest.raises(ZeroDivisionError), StopRequest() as stop:
        _ = 1 / 0
    assert stop.signal is None
    assert [signal.getsignal(number) for number in BOTH] == [signal.default_int_handler, mine]


def test_the_second_ctrl_c_ends() -> None:
    with StopRequest() as stop:
        send(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_the_second_sigterm_kills() -> None:
    program = """
import os, signal, time
from lora_sam.training.stopping import StopRequest
with StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)
    print("remembered", stop.signal.name, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    print("survived")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert (done.stdout, done.returncode) == ("remembered SIGTERM\n", -signal.SIGTERM)


def test_a_request_can_be_made_again() -> None:
    stop = StopRequest()
    for number in BOTH:
        with stop:
            send(number)
        assert stop.signal == number


def test_in_other_threads_signals_are_left_alone() -> None:
    found: list[object] = []

    def work() -> None:
        with StopRequest() as stop:
            found.extend([stop.signal, *(signal.getsignal(number) for number in BOTH)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None, signal.default_int_handler, signal.SIG_DFL]


def test_a_handler_that_was_not_set_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    set_handler, calls = signal.signal, []

    def foreign(number: signal.Signals, handler: Callable[..., object]) -> object:
        calls.append((number, handler))
        set_handler(number, handler)
        return None  # what Python says of handlers that C code has set

    with monkeypatch.context() as patched:
        patched.setattr(signal, "signal", foreign)
        with StopRequest():
            pass
    taken = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    assert calls[3:] == [(number, signal.SIG_DFL) for number in taken]


# --- validation that no longer improves ------------------------------------------------------------------------------


def follow(values: list[float], **options: float | None) -> tuple[Progress, list[bool], list[int], int | None]:
    """One validation per epoch: progress, what was the best so far, the counts, and the epoch that stopped."""
    settings = {"patience": 2, "min_delta": 0.01, "warmup_epochs": 0, **options}
    early = EarlyStopping(**settings)
    progress, best, counts = Progress(), [], []
    for epoch, value in enumerate(values, 1):
        progress.epoch, progress.step = epoch, epoch * 10
        best.append(update_best(progress, value, early))
        counts.append(progress.validations_without_gain)
        if should_stop_early(progress, early):
            return progress, best, counts, epoch
    return progress, best, counts, None


def test_gains_reset_the_patience() -> None:
    progress, best, counts, stopped = follow([0.5, 0.4, 0.6, 0.55, 0.7, 0.1])
    assert best == [True, False, True, False, True, False]
    assert counts == [0, 1, 0, 1, 0, 1]
    assert stopped is None
    assert (progress.best, progress.best_step) == (0.7, 50)


def test_patience_ends_training() -> None:
    progress, best, counts, stopped = follow([0.5, 0.6, 0.5, 0.59, 0.9])
    assert (counts, stopped) == ([0, 0, 1, 2], 4)
    assert best == [True, True, False, False]
    assert (progress.best, progress.best_step) == (0.6, 20)


def test_a_rise_below_min_delta_is_the_best_but_no_gain() -> None:
    progress, best, counts, stopped = follow([0.5, 0.505, 0.509])
    assert best == [True, True, True]
    assert (counts, stopped) == ([0, 1, 2], 3)
    assert (progress.best, progress.best_step) == (0.509, 30)


def test_a_rise_of_min_delta_is_a_gain() -> None:
    assert follow([0.5, 0.75, 1.0], min_delta=0.25)[2] == [0, 0, 0]
    assert follow([0.5, 0.7499, 0.75], min_delta=0.25)[2] == [0, 1, 2]  # measured from the best so far


def test_standing_still_is_no_gain_even_without_min_delta() -> None:
    assert follow([0.5, 0.5, 0.5, 0.5], min_delta=0.0)[2:] == ([0, 1, 2], 3)
    assert follow([0.5, 0.5001, 0.5002, 0.5003], min_delta=0.0)[2:] == ([0, 0, 0, 0], None)


def test_the_first_validation_is_the_best_whatever_it_is() -> None:
    progress, best, counts, _ = follow([0.0])
    assert (best, counts, progress.best, progress.best_step) == ([True], [0], 0.0, 10)


def test_the_base_is_the_first_candidate_and_early_stopping_counts_from_the_trained_weights() -> None:
    """A run that fell below its base and climbs back is not stopped on the way; the best is the base until beaten."""
    progress = Progress()
    assert take_base(progress, 0.7)
    progress.best_step = 0
    best, counts = [], []
    for step, value in enumerate([0.2, 0.4, 0.6, 0.7, 0.71], 1):
        progress.step, progress.epoch = step, step
        best.append(update_best(progress, value, EarlyStopping(patience=3, min_delta=0.01, warmup_epochs=0)))
        counts.append(progress.validations_without_gain)
    assert (best, counts) == ([False] * 4 + [True], [0] * 5)
    assert (progress.best, progress.best_step, progress.base, progress.trained) == (0.71, 5, 0.7, 0.71)
    assert not take_base(progress, 0.9)  # known already


@pytest.mark.parametrize(("best", "base", "kept"), [(0.5, 0.6, True), (0.5, 0.5, True), (0.5, 0.4, False)])
def test_a_state_that_is_older_meets_its_base(best: float, base: float, kept: bool) -> None:
    progress = Progress(step=9, epoch=3, best=best, best_step=6)
    assert take_base(progress, base) == kept
    assert (progress.best, progress.best_step) == ((base, 0) if kept else (best, 6))
    assert (progress.base, progress.trained) == (base, best)


def test_warm_up_epochs_neither_stop_nor_count() -> None:
    progress, best, counts, stopped = follow([0.9, 0.1, 0.1, 0.1, 0.1, 0.1], warmup_epochs=3)
    assert counts == [0, 0, 0, 1, 2]
    assert stopped == 5
    assert best == [True, False, False, False, False]  # but they may be the best
    assert (progress.best, progress.best_step) == (0.9, 10)


def test_without_patience_nothing_stops() -> None:
    _, _, counts, stopped = follow([0.5] * 9, patience=None)
    assert (counts, stopped) == ([0, 1, 2, 3, 4, 5, 6, 7, 8], None)


def test_patience_of_one() -> None:
    assert follow([0.5, 0.5], patience=1)[3] == 2
