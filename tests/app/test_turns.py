"""One at a time, in order, and no longer line than allowed."""

from __future__ import annotations

import threading
import time

import pytest

from lora_sam.app.turns import BusyError, Turns


def test_jobs_run_one_after_the_other_and_know_their_place() -> None:
    turns, order, go = Turns(waiting=2), [], threading.Event()

    def job(name: str) -> None:
        with turns.take(name):
            go.wait(10)
            order.append(name)

    threads = []
    for name in ("a", "b", "c"):
        threads.append(threading.Thread(target=job, args=(name,)))
        threads[-1].start()
        deadline = time.monotonic() + 10
        while len(turns._line) < len(threads) and time.monotonic() < deadline:
            time.sleep(0.001)
    assert [turns.ahead(name) for name in ("a", "b", "c", "unknown")] == [0, 1, 2, 0]
    with pytest.raises(BusyError, match="3 jobs are before yours"), turns.take("d"):
        pass
    go.set()
    for thread in threads:
        thread.join(10)
    assert order == ["a", "b", "c"]
    with turns.take("e"):
        assert turns.ahead("e") == 0


def test_a_failed_job_lets_the_next_one_through() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="broken"), turns.take("a"):
        raise ValueError("broken")
    with turns.take("b"):
        assert turns.ahead("b") == 0
