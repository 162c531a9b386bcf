"""Export the packaged nano, or let threads ask one predictor of its parts, with or without a lock around each call."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

IMAGES, SIDE = 8, 256


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Answer of one side: nothing of `export`; `calls_per_second` and `wrong` answers of the others."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("export", "shared", "locked"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--calls", type=int, default=1)
    given = parser.parse_args(arguments)
    if given.action == "export":
        export(given.directory)
        return {}
    return asked(given.directory, given.threads, given.calls, locked=given.action == "locked")


def export(directory: Path) -> None:
    """Both parts of the packaged weights, in half precision."""
    from benchmarks.settings import settings_for
    from lora_sam.deployment.ir_parts import decoder_ir, encoder_ir, save_ir

    base = settings_for("model=nano").model.build()
    save_ir(encoder_ir(base.sam, base.image_size), directory / "image_encoder.xml", half=True)
    save_ir(decoder_ir(base.sam, base.image_size, multimask=False), directory / "mask_decoder.xml", half=True)


def asked(directory: Path, threads: int, calls: int, *, locked: bool) -> dict[str, Any]:
    """Every thread asks about one image after the other; what it gets is compared with the answer to it alone."""
    from lora_sam.core.structures import Prompts
    from lora_sam.predictors.openvino_parts import openvino_directory
    from lora_sam.predictors.openvino_predictor import OpenVINOPredictor

    draws = np.random.default_rng(0)
    images = [draws.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(IMAGES)]
    corners = draws.uniform((20, 20, 120, 120), (100, 100, 230, 230), (IMAGES, 4))
    prompts = [Prompts(boxes=box[None].astype(np.float32)) for box in corners]
    predictor = OpenVINOPredictor(*openvino_directory(directory), threads=1, compile_cache=False)
    alone = [predictor.predict(*one).low_res_logits for one in zip(images, prompts, strict=True)]
    assert min(np.abs(alone[i] - alone[j]).max() for i in range(IMAGES) for j in range(i)) > 0.1
    lock = threading.Lock() if locked else contextlib.nullcontext()
    barrier = threading.Barrier(threads + 1)

    def work(thread: int) -> int:
        barrier.wait()
        wrong = 0
        for call in range(calls):
            place = (thread + call * 5) % IMAGES
            with lock:
                found = predictor.predict(images[place], prompts[place])
            wrong += bool(np.abs(found.low_res_logits - alone[place]).max() > 1e-3)
        return wrong

    with ThreadPoolExecutor(threads) as pool:
        counted = pool.map(work, range(threads))
        barrier.wait()
        start = time.perf_counter()
        wrong = sum(counted)
        seconds = time.perf_counter() - start
    return {"calls_per_second": threads * calls / seconds, "wrong": wrong, "encoded": predictor.encoded}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
