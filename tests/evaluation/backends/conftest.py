"""Predictors and images that need no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lora_sam.core.predictor import AllMasks, Worth
from lora_sam.core.structures import Masks, Prompts, Sample
from lora_sam.evaluation.backends.host import Host
from lora_sam.evaluation.backends.result import Comparison, Measured

SIZE = (40, 50)
HOST = Host(cpu="a CPU", cores=2, threads=None, torch_threads=2, system="Linux", versions={"torch": "2"})


@dataclass(frozen=True)
class Squares:
    """A `SampleSource` of images with two squares of 10 x 10 pixels."""

    count: int = 12

    def __len__(self) -> int:
        return self.count

    @property
    def ids(self) -> Sequence[str]:
        return [f"{index}.png" for index in range(self.count)]

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        return [SIZE] * self.count

    @property
    def object_counts(self) -> Sequence[int]:
        return [2] * self.count

    def __getitem__(self, index: int) -> Sample:
        image = np.full((*SIZE, 3), index, np.uint8)
        masks = np.zeros((2, *SIZE), np.bool_)
        masks[0, 5:15, 5:15] = True
        masks[1, 20:30, 20:30] = True
        return Sample(self.ids[index], image, masks, ("7", "8"))


def boxes_of(sample: Sample) -> Prompts:
    return Prompts(boxes=np.array([[5, 5, 15, 15], [20, 20, 30, 30]], np.float32))


@dataclass
class Fading:
    """Logits that fall from `peak` by 1 per pixel away from the prompted box, so that a threshold is a distance."""

    peak: float = 0.5
    calls: list[str] = field(default_factory=list)
    known: set[bytes] = field(default_factory=set)
    image_size: int = 64
    encoded: int = 0

    def set_image(self, image: NDArray[np.uint8]) -> None:
        self.calls.append(f"set_image {image.shape[0]}")
        self._encode(image)

    def forget(self) -> None:
        self.calls.append("forget")
        self.known.clear()

    def predict(
        self, image: NDArray[np.uint8], prompts: Prompts, *, multimask: bool = False, threshold: float = 0.0
    ) -> Masks:
        self.calls.append(f"predict {image.shape[0]} {len(prompts)}")
        found = self.predict_all(image, prompts)
        rows, best = np.arange(len(prompts)), 2 if multimask else 0
        return Masks(found.logits[rows, best] > threshold, found.scores[rows, best], found.low_res_logits[rows, best])

    def predict_all(self, image: NDArray[np.uint8], prompts: Prompts, *, worth: Worth | None = None) -> AllMasks:
        self._encode(image)
        assert prompts.boxes is not None
        rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
        logits = []
        for left, top, right, bottom in prompts.boxes:
            outside = np.maximum.reduce([left - columns, columns - right, top - rows, rows - bottom])
            single = self.peak - np.ceil(outside)
            # the third one is as large as the single one, the others are empty
            logits.append([single, single - 100, single, single - 100])
        scores = np.tile(np.float32([0.4, 0.1, 0.8, 0.2]), (len(prompts), 1))
        return AllMasks(np.float32(logits), scores, np.zeros((len(prompts), 4, 16, 16), np.float32))

    def segment(self, image: NDArray[np.uint8], **prompts: Any) -> Masks:
        raise NotImplementedError

    def _encode(self, image: NDArray[np.uint8]) -> None:
        if image.tobytes() not in self.known:
            self.encoded += 1
            self.known.add(image.tobytes())


@pytest.fixture
def squares() -> Squares:
    return Squares()


@pytest.fixture
def measured() -> Callable[..., Measured]:
    """One back end with plausible figures, some of them changed."""

    def make(**changes: Any) -> Measured:
        values: dict[str, Any] = {"runtime": "torch", "weights": "fp32", "execution": "f32"}
        for name, value in {"iou": 0.8, "dice": 0.88, "f1": 0.9, "boundary_f1": 0.7}.items():
            values |= {name: value, f"{name}_interval": (value - 0.05, value + 0.05)}
        values |= {"map": 0.5, "map_50": 0.9, "map_75": 0.6, "iou_with_torch": 0.9991}
        for number, name in enumerate(("encoder", "decoder", "first_prompt", "next_prompt"), 1):
            values |= {f"{name}_ms": 10.0 * number, f"{name}_ms_range": (9.0 * number, 12.0 * number)}
        values |= {"bytes": 31_000_000, "peak_memory_bytes": 900_000_000}
        values |= {"against": None, "iou_difference": None, "iou_difference_interval": None}
        return Measured(**{**values, **changes})

    return make


@pytest.fixture
def comparison(measured: Callable[..., Measured]) -> Callable[..., Comparison]:
    """A comparison of some back ends, some of its values changed."""

    def make(**changes: Any) -> Comparison:
        values: dict[str, Any] = {
            "made_from": {"adapter": "a" * 64},
            "settings": {"split": None},
            "split": "test",
            "images": 24,
            "objects": 230,
            "seed": 0,
            "prompt": {"jitter_pixels": 0.0},
            "multimask": False,
            "mask_threshold": 0.0,
            "tuned_threshold": None,
            "tuned_by": None,
            "repeats": 5,
            "image_size": (384, 512),
            "host": HOST,
            "fail_under": None,
            "backends": {
                "base": measured(iou=0.6, iou_with_torch=0.55),
                "tuned": measured(iou_with_torch=1.0),
                "int8": measured(
                    runtime="openvino",
                    weights="int8",
                    iou=0.797,
                    encoder_ms=2.5,
                    against="tuned",
                    iou_difference=-0.003,
                    iou_difference_interval=(-0.005, -0.001),
                ),
            },
        }
        return Comparison(**{**values, **changes})

    return make
