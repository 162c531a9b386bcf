"""One predictor, many threads: each gets the masks of its own image and prompts, on torch and on OpenVINO."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lora_sam.core.errors import ConfigError
from lora_sam.core.predictor import Predictor
from lora_sam.core.structures import Prompts
from lora_sam.deployment.ir_parts import decoder_ir, encoder_ir, save_ir
from lora_sam.predictors.interface import Embeddings
from lora_sam.predictors.openvino_parts import openvino_directory
from lora_sam.predictors.openvino_predictor import OpenVINOPredictor
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.runs.loading import predictors_for

THREADS, CALLS = 8, 25
IMAGES = [np.random.default_rng(seed).integers(0, 256, (40 + seed, 64, 3), np.uint8) for seed in range(8)]
PROMPTS = [
    Prompts(boxes=np.array([[2 + seed, 3, 40, 30 + seed], [1, 1, 20 + seed, 20]], np.float32)) for seed in range(8)
]


@pytest.fixture(scope="module")
def sam(option: Callable[..., Any]) -> Any:
    return option("model/tiny_random").build().sam


@pytest.fixture(scope="module")
def parts(sam: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("parts")
    save_ir(encoder_ir(sam, 64), directory / "image_encoder.xml", half=False)
    save_ir(decoder_ir(sam, 64, multimask=False), directory / "mask_decoder.xml", half=False)
    return openvino_directory(directory)


def wrong_answers(asked: list[tuple[Predictor, int, NDArray[np.float32]]]) -> int:
    """How many of many calls, by threads at once, give other logits than the same call alone."""
    barrier = threading.Barrier(THREADS)

    def work(thread: int) -> int:
        barrier.wait()
        wrong = 0
        for call in range(CALLS):
            predictor, place, wanted = asked[(thread + call * 5) % len(asked)]
            found = predictor.predict(IMAGES[place], PROMPTS[place])
            wrong += np.abs(found.low_res_logits - wanted).max() > 1e-4
        return wrong

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(work, range(THREADS)))


@pytest.mark.parametrize("threads", [1, None])
def test_openvino_gives_each_thread_its_own_masks(parts: tuple[Path, Path], threads: int | None) -> None:
    predictor = OpenVINOPredictor(*parts, threads=threads, compile_cache=False)
    alone = [predictor.predict(*one).low_res_logits for one in zip(IMAGES, PROMPTS, strict=True)]
    assert min(np.abs(alone[0] - other).max() for other in alone[1:]) > 0.01  # another's masks would be noticed
    assert wrong_answers([(predictor, place, wanted) for place, wanted in enumerate(alone)]) == 0


def test_torch_gives_each_thread_its_own_masks(sam: Any) -> None:
    predictor = TorchPredictor(sam, 64)
    alone = [predictor.predict(*one).low_res_logits for one in zip(IMAGES, PROMPTS, strict=True)]
    assert wrong_answers([(predictor, place, wanted) for place, wanted in enumerate(alone)]) == 0


@pytest.mark.parametrize("method", ["lora", "decoder"])
def test_base_and_tuned_of_one_model_are_not_mixed(
    finished_run: Callable[..., Any], tmp_path: Path, method: str
) -> None:
    pair = predictors_for(finished_run(tmp_path / "run", method), 64)
    asked = []
    for place in range(4):
        found = {name: pair[name].predict(IMAGES[place], PROMPTS[place]).low_res_logits for name in pair}
        assert np.abs(found["base"] - found["tuned"]).max() > 1e-3
        asked += [(pair[name], place, found[name]) for name in pair]
    assert wrong_answers(asked) == 0


def test_an_image_that_several_ask_for_is_encoded_once() -> None:
    begun, go_on = threading.Event(), threading.Event()
    calls = []

    def encode(image: NDArray[np.uint8]) -> int:
        calls.append(1)
        begun.set()
        assert go_on.wait(30)
        return int(image[0, 0, 0])

    embeddings = Embeddings(encode)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(embeddings.embed, IMAGES[0])
        assert begun.wait(30)
        others = [pool.submit(embeddings.embed, IMAGES[0].copy()) for _ in range(2)]
        go_on.set()
        assert {one.result() for one in (first, *others)} == {int(IMAGES[0][0, 0, 0])}
    assert (len(calls), embeddings.encoded) == (1, 1)


def test_what_is_forgotten_while_it_is_made_is_not_kept() -> None:
    versions = []

    def encode(image: NDArray[np.uint8]) -> int:
        versions.append(len(versions))
        if len(versions) == 1:
            embeddings.forget()  # as another thread does, because weights have changed
        return versions[-1]

    embeddings = Embeddings(encode)
    assert embeddings.embed(IMAGES[0]) == 0
    assert embeddings.embed(IMAGES[0]) == 1


def test_an_encoding_that_failed_is_tried_again() -> None:
    answers: list[Any] = [MemoryError("first"), "second"]

    def encode(image: NDArray[np.uint8]) -> str:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return str(answer)

    embeddings = Embeddings(encode)
    with pytest.raises(MemoryError, match="first"):
        embeddings.embed(IMAGES[0])
    assert (embeddings.embed(IMAGES[0]), embeddings.encoded) == ("second", 1)


def test_a_request_that_failed_is_free_again(parts: tuple[Path, Path]) -> None:
    predictor = OpenVINOPredictor(*parts, threads=1, compile_cache=False)
    pool = predictor._decoder
    for _ in range(100):  # more often than there are requests
        with pytest.raises(MemoryError), pool.one():
            raise MemoryError
    with pool.one() as one, pool.one() as other:
        assert one is not other
    assert predictor.predict(IMAGES[0], PROMPTS[0]).masks.shape == (2, 40, 64)


# --- devices ---------------------------------------------------------------------------------------------------------


def test_openvino_device(parts: tuple[Path, Path]) -> None:
    wanted = OpenVINOPredictor(*parts, compile_cache=False).predict(IMAGES[0], PROMPTS[0])
    found = OpenVINOPredictor(*parts, device="AUTO", compile_cache=False).predict(IMAGES[0], PROMPTS[0])
    assert np.abs(found.low_res_logits - wanted.low_res_logits).max() < 1e-3
    for name in ("NPU.7", "cpu", "AUTO:NPU.7", ""):
        with pytest.raises(ConfigError, match=rf"device = {name}: not available here; available: AUTO, .*CPU"):
            OpenVINOPredictor(*parts, device=name, compile_cache=False)
    with pytest.raises(ConfigError, match="threads = 1 with device = AUTO"):
        OpenVINOPredictor(*parts, device="AUTO", threads=1, compile_cache=False)


def test_torch_device_objects_and_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_sam.models.device import pick_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == pick_device(torch.device("cuda:1")) == torch.device("cuda", 1)
    assert pick_device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(ConfigError, match="cuda:2: not available here; available: auto, cuda, cpu, cuda:1"):
        pick_device("cuda:2")
