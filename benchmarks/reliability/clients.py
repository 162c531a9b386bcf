"""Many people at one app: does everybody get the masks of their own image, and does memory stay bounded?"""

from __future__ import annotations

import io
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reliability.forked import forked
from benchmarks.reliability.jobs import TINY, Tally, trainer

PATIENCE = 20  # answers "busy" are asked again so many times at most


def measure(root: Path, tries: int, seconds: float, seed: int) -> Tally:
    """`tries` clients for `seconds`, in a process of their own, each with an image and prompts that nobody else has."""
    tally = Tally()
    outputs = root / "outputs"
    ended = forked(trainer([*TINY, "trainer.max_steps=2", "optim.lr=1e-2"], outputs / "run"))
    if ended.code:
        tally.wrong("broken", ended.said[-300:])
        return tally
    served = forked(lambda: _serve(outputs, tries, seconds, seed))
    if served.code:
        tally.wrong("broken", str(served.answer or served.said[-300:]))
        return tally
    tally.counts |= served.answer["counts"]
    tally.failures += served.answer["failures"]
    return tally


def _serve(outputs: Path, clients: int, seconds: float, seed: int) -> dict[str, Any]:
    import lora_sam
    from lora_sam.app.scene import Scene
    from lora_sam.app.turns import BusyError
    from lora_sam.app.workbench import Workbench
    from lora_sam.prompts.objects import ObjectPrompts

    tally, lock = Tally(), threading.Lock()
    bench = Workbench(outputs, "run")
    bench.load()
    alone = lora_sam.load(outputs / "run")
    draws = [random.Random(seed * 1000 + client) for client in range(clients)]
    until = time.monotonic() + seconds
    memory = [_resident()]

    def asked(client: int) -> None:
        draw = draws[client]
        while time.monotonic() < until:
            image = np.random.default_rng(draw.randrange(2**31)).integers(0, 256, (48, 64, 3), np.uint8)
            boxes = [_box(draw) for _ in range(draw.randrange(1, 4))]
            picture = bench.upload(f"client {client}", _png(image))
            scene = Scene(image=picture.id, objects=tuple(ObjectPrompts(box=box) for box in boxes), runs=("run",))
            for _ in range(PATIENCE):
                try:
                    found, masks, _ = bench.whole(scene, f"client {client}")
                except BusyError:
                    with lock:
                        tally.add("busy")
                    time.sleep(draw.uniform(0.01, 0.2))
                    continue
                with lock:
                    _compare(tally, client, image, boxes, found.image, masks["run"], alone)
                    memory.append(_resident())
                break

    threads = [threading.Thread(target=asked, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    half = memory[len(memory) // 2]
    tally.add("clients", clients)
    tally.add("MiB of memory at first", memory[0] >> 20)
    tally.add("MiB of memory after half of the answers", half >> 20)
    tally.add("MiB of memory at the end", memory[-1] >> 20)
    return tally.to_json()


def _compare(
    tally: Tally,
    client: int,
    image: NDArray[np.uint8],
    boxes: list[Any],
    shown: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    alone: Any,
) -> None:
    tally.add("answers")
    if not np.array_equal(shown, image):
        tally.wrong("another session's image", f"client {client}")
    expected = alone.segment(image, boxes=boxes).masks
    if expected.shape != masks.shape or not np.array_equal(expected, masks):
        tally.wrong("wrong masks", f"client {client}, {len(boxes)} boxes")


def _box(draw: random.Random) -> tuple[float, float, float, float]:
    left, top = draw.uniform(0, 30), draw.uniform(0, 20)
    return left, top, left + draw.uniform(6, 30), top + draw.uniform(6, 26)


def _png(image: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _resident() -> int:
    with Path(f"/proc/{os.getpid()}/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
