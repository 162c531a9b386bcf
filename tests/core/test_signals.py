"""SIGTERM and Ctrl-C: how commands end, where Python runs, where it does not, and where the exception is swallowed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from lora_sam.core.signals import SIGNALS, Stoppable, Terminated, exit_code, takes_a_signal


def send(number: int) -> None:
    """To this process, and wait for what it does."""
    os.kill(os.getpid(), number)
    time.sleep(1)


START = """
import os, signal, sys, time
from lora_sam.core import signals
signals.AGAIN_SECONDS, signals.END_SECONDS = 0.2, 0.4
def say(number):
    print("last words", number, flush=True)
number = int(sys.argv[1])
"""


def ended(program: str, number: int) -> tuple[int, str]:
    """Exit code and output of a program that is sent a signal."""
    done = subprocess.run(
        [sys.executable, "-c", START + program, str(int(number))], capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_and_handlers_are_restored(number: signal.Signals) -> None:
    before = [signal.getsignal(other) for other in SIGNALS]
    with pytest.raises(KeyboardInterrupt) as caught, Stoppable(lambda _: None) as stop:
        send(number)
    assert isinstance(caught.value, Terminated) == (number == signal.SIGTERM)
    assert (stop.received, exit_code(caught.value)) == (number, 128 + number)
    assert [signal.getsignal(other) for other in SIGNALS] == before


@pytest.mark.parametrize(
    ("number", "options", "limits"),
    [
        (signal.SIGINT, "", (0.2, 0.4)),
        (signal.SIGTERM, "", (0.2, 0.4)),
        (signal.SIGTERM, ", patience=0.2", (300, 600)),
    ],
)
def test_native_code_is_ended_by_force(number: signal.Signals, options: str, limits: tuple[float, float]) -> None:
    """A call that lets no Python run in its thread; the thread that watches ends it."""
    program = """
import ctypes, threading
libc = ctypes.CDLL(None)
class Mutex(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_char * 64)]
mutex = Mutex()
signals.AGAIN_SECONDS, signals.END_SECONDS = LIMITS
with signals.Stoppable(say OPTIONS):
    threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
    libc.pthread_mutex_lock(ctypes.byref(mutex))
    libc.pthread_mutex_lock(ctypes.byref(mutex))
"""
    program = program.replace("LIMITS", str(limits)).replace(" OPTIONS", options)
    assert ended(program, number) == (128 + number, f"last words {number}\n")


@pytest.mark.parametrize("number", SIGNALS)
def test_an_exception_that_was_swallowed_is_raised_again(number: signal.Signals) -> None:
    program = """
try:
    with signals.Stoppable(say):
        try:
            os.kill(os.getpid(), number)
            time.sleep(1)
        except KeyboardInterrupt:
            pass
        while True:
            time.sleep(0.01)
except KeyboardInterrupt as error:
    print("raised", signals.exit_code(error))
"""
    assert ended(program, number) == (0, f"raised {128 + number}\n")


def test_who_takes_a_signal_is_given_time() -> None:
    program = """
with signals.Stoppable(say), signals.takes_a_signal():
    signal.signal(signal.SIGTERM, lambda *_: print("taken"))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.8)
    print("ended in order")
"""
    assert ended(program, signal.SIGTERM) == (0, "taken\nended in order\n")


def test_a_second_signal_is_not_waited_for() -> None:
    program = """
with signals.Stoppable(say), signals.takes_a_signal():
    signal.signal(signal.SIGTERM, lambda *_: None)
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
    while True:
        time.sleep(0.01)
"""
    assert ended(program, signal.SIGTERM) == (143, "last words 15\n")


def test_a_program_that_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    program = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
with signals.Stoppable(say):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.8)
print("went on")
"""
    assert ended(program, signal.SIGINT) == (0, "went on\n")


def test_patience_ends_with_its_context() -> None:
    with takes_a_signal():
        pass
    with pytest.raises(Terminated), Stoppable(lambda _: None):
        send(signal.SIGTERM)
