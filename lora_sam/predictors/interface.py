"""What every predictor offers, and the parts that are the same whatever computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lora_sam.core.predictor import AllMasks, Predictor

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.frame import Frame
from lora_sam.core.structures import Candidates, Masks, Prompts
from lora_sam.data.reading.images import digest_of_pixels

_CANDIDATES_AT_ONCE = 2**25  # pixels of an image times prompts: half a gigabyte of logits
E = TypeVar("E")
R = TypeVar("R", Masks, "AllMasks")


class Embeddings(Generic[E]):
    """The embeddings of the last few images by their content, so that a second prompt costs no second encoding.

    Threads may share one: each gets the embedding of its own image, and one image that several ask for at the same time
    is encoded once.

    Args:
        encode: Makes the embedding of an RGB image [H, W, 3]; may be called by several threads at once.
        remember: How many are kept in any case.

    Attributes:
        most_bytes: Beyond those, as many more are kept as all of them together take no more bytes than this.
        encoded: Images encoded so far.
    """

    def __init__(self, encode: Callable[[NDArray[np.uint8]], E], *, remember: int = 2) -> None:
        self._encode = encode
        self._remember = remember
        self.most_bytes = 0
        self._embeddings: OrderedDict[str, Future[E]] = OrderedDict()
        self._lock = threading.Lock()
        self.encoded = 0

    def embed(self, image: NDArray[np.uint8]) -> E:
        """The embedding of an RGB image [H, W, 3]."""
        key = digest_of_pixels(image)
        with self._lock:
            known = self._embeddings.get(key)
            entry: Future[E] = Future() if known is None else known
            self._embeddings[key] = entry
            self._embeddings.move_to_end(key)
            self._let_go()
        if known is None:
            self._make(key, entry, image)
        return entry.result()

    def _make(self, key: str, entry: Future[E], image: NDArray[np.uint8]) -> None:
        try:
            embedding = self._encode(image)
        except BaseException as error:
            with self._lock:
                if self._embeddings.get(key) is entry:
                    del self._embeddings[key]
            entry.set_exception(error)
            raise
        with self._lock:
            self.encoded += 1
            entry.set_result(embedding)
            self._let_go()

    def _let_go(self) -> None:
        """Drop what was not used for longest, where there is more than may be; the caller holds the lock."""
        while len(self._embeddings) > self._remember:
            done = [entry.result() for entry in self._embeddings.values() if entry.done() and not entry.exception()]
            if self.most_bytes and sum(int(getattr(value, "nbytes", 0)) for value in done) <= self.most_bytes:
                return
            self._embeddings.popitem(last=False)

    def forget(self) -> None:
        """Drop all embeddings; needed whenever weights have changed. One that is being made is not kept either."""
        with self._lock:
            self._embeddings.clear()


def by_kind(prompts: Prompts, predict: Callable[[Prompts], R]) -> R:
    """What `predict` says for prompts of one kind, put together in the order of `prompts` (see `Prompts.kinds`)."""
    parts = prompts.kinds()
    if len(parts) < 2:
        return predict(parts[0][1] if parts else prompts)
    results = [predict(part) for _, part in parts]
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    # a part is there of all results or of none
    names = [field.name for field in dataclasses.fields(results[0]) if getattr(results[0], field.name) is not None]
    whole: dict[str, Any] = {
        name: np.concatenate([getattr(result, name) for result in results])[order] for name in names
    }
    return type(results[0])(**whole)


def no_masks(size: tuple[int, int], frame: Frame) -> Masks:
    """The masks of no prompt."""
    low_res = (0, frame.mask_side, frame.mask_side)
    return Masks(np.zeros((0, *size), np.bool_), np.zeros(0, np.float32), np.zeros(low_res, np.float32))


def with_candidates(predictor: Predictor, image: NDArray[np.uint8], prompts: Prompts) -> Masks:
    """The best of the three masks of each of N prompts, and all three with their scores.

    Args:
        predictor: One that offers four masks for a prompt.
        image: RGB, uint8 [H, W, 3].
        prompts: The prompts.
    """
    from lora_sam.core.predictor import best_of_three

    step = max(1, _CANDIDATES_AT_ONCE // (image.shape[0] * image.shape[1]))
    found = []
    for start in range(0, len(prompts), step):
        every = predictor.predict_all(image, prompts[slice(start, start + step)], worth=_three)
        found.append((every.logits[:, 1:] > 0, every.scores[:, 1:], every.low_res_logits[:, 1:]))
    if not found:
        none = no_masks((image.shape[0], image.shape[1]), predictor.frame)
        sides = none.low_res_logits.shape[1:]
        masks = np.zeros((0, 3, *none.masks.shape[1:]), np.bool_)
        empty = Candidates(masks, np.zeros((0, 3), np.float32), np.zeros((0, 3, *sides), np.float32))
        return dataclasses.replace(none, candidates=empty)
    three = Candidates(*(np.concatenate(column) for column in zip(*found, strict=True)))
    rows, best = np.arange(len(prompts)), best_of_three(np.pad(three.scores, ((0, 0), (1, 0)))) - 1
    return Masks(three.masks[rows, best], three.scores[rows, best], three.low_res_logits[rows, best], candidates=three)


def _three(scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.broadcast_to(np.arange(scores.shape[1]) > 0, scores.shape)
