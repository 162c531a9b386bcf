"""Small rows whose numbers follow from their key, and processes that fill a cache with them."""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lora_sam.predictors.embeddings.store import EmbeddingCache, RowSpec

SPEC = RowSpec(
    variant="vit_b",
    weights="ab" * 32,
    stage="embedding",
    image_size=1024,
    precision="float32",
    shapes={"values": (8, 16, 33)},
    dtype="float16",
)
GB = 10**9

Numbers = Callable[[str], np.ndarray]


@pytest.fixture
def spec() -> Callable[..., RowSpec]:
    """The specification of small rows, with changes."""
    return lambda **changes: dataclasses.replace(SPEC, **changes)


@pytest.fixture
def key() -> Callable[[int], str]:
    """The key of the row with a number."""
    return _key


@pytest.fixture
def numbers() -> Numbers:
    """What the row of a key is: float32 [8, 16, 33], each of which float16 holds exactly."""
    return _numbers


@pytest.fixture
def same() -> Callable[[EmbeddingCache, str], bool]:
    """Whether the row of a key is there with the right bits."""

    def is_same(cache: EmbeddingCache, key: str) -> bool:
        row = cache.read(key)["values"]
        return row.dtype == torch.float32 and torch.equal(row, torch.from_numpy(_numbers(key)))

    return is_same


@pytest.fixture
def filled(tmp_path: Path) -> Callable[..., EmbeddingCache]:
    """A cache with the rows 0 to `count` - 1."""

    def make(count: int, spec: RowSpec = SPEC, *, max_bytes: int = GB, directory: Path | None = None) -> EmbeddingCache:
        cache = EmbeddingCache.open(directory or tmp_path / "cache", spec, max_bytes=max_bytes)
        keys = [_key(number) for number in range(count)]
        assert cache.fill(keys, making(keys), batch=4) == count
        return cache

    return make


@pytest.fixture
def maker() -> Callable[..., Any]:
    """Makes the function that makes rows, which may note the numbers of the rows that it made in a file."""
    return making


def making(keys: Sequence[str], noted: Path | None = None) -> Callable[[list[int]], dict[str, np.ndarray]]:
    def make(positions: list[int]) -> dict[str, np.ndarray]:
        if noted is not None:
            with noted.open("a") as file:
                file.writelines(f"{position}\n" for position in positions)
        return {"values": np.stack([_numbers(keys[position]) for position in positions])}

    return make


@pytest.fixture
def fork() -> Callable[..., Any]:
    """Starts a real process that runs a function; it does not need to import torch again."""
    started = []

    def start(function: Callable[..., None], *arguments: Any) -> Any:
        process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def _key(number: int) -> str:
    return hashlib.sha256(f"image {number}".encode()).hexdigest()


def _numbers(key: str) -> np.ndarray:
    rng = np.random.default_rng(int(key[:12], 16))
    return rng.integers(-2047, 2048, SPEC.shapes["values"]).astype(np.float32) / 64
