"""The class head: features are means under the mask, names are told from them, files are read back as written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from lora_sam.core.errors import AdapterError
from lora_sam.core.frame import Frame
from lora_sam.core.structures import Sample
from lora_sam.evaluation.naming import Naming, naming_line
from lora_sam.predictors.class_head import ClassHead, features_of, load_class_head
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.training.class_head import fit_class_head
from lora_sam.training.trained_on import TrainedOn

FRAME = Frame(64, square=False)


def test_a_mask_of_whole_cells_takes_their_mean() -> None:
    embedding = np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)
    masks = np.zeros((2, 64, 64), np.bool_)
    masks[0, 16:48, 0:16] = True  # two cells
    masks[1, 20:24, 20:28] = True  # a part of one
    features = features_of(embedding, masks, FRAME)
    assert features[0, :3] == pytest.approx(embedding[0, :, 1:3, 0].mean(axis=1), abs=1e-6)
    assert features[1, :3] == pytest.approx(embedding[0, :, 1, 1], abs=1e-6)
    assert np.exp(features[:, 3]) == pytest.approx([32 * 16, 4 * 8])


def test_the_padding_counts_for_nothing_and_scale_does_not_matter() -> None:
    embedding = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    wide = np.ones((1, 30, 60), np.bool_)  # the lower half of the frame is padding
    assert features_of(embedding, wide, FRAME)[0, 0] == pytest.approx(np.arange(8).mean())
    large = np.ones((1, 300, 600), np.bool_)
    assert features_of(embedding, large, FRAME) == pytest.approx(features_of(embedding, wide, FRAME))


def test_an_empty_mask_is_no_division_by_zero() -> None:
    features = features_of(np.ones((1, 2, 4, 4), np.float32), np.zeros((1, 64, 64), np.bool_), FRAME)
    assert features.tolist() == [[0, 0, 0]]
    head = ClassHead(("a", "b"), np.ones((2, 3), np.float32), np.array([0, np.log(3)], np.float32))
    assert head.of_features(features)[0] == pytest.approx([0.25, 0.75])
    assert head.of_features(np.zeros((0, 3), np.float32)).shape == (0, 2)


class Images:
    """Discs and squares in the colour of their class, so that even a random encoder sees a difference."""

    def __init__(self, count: int, names: tuple[str, ...] = ("dark", "light"), seed: int = 0) -> None:
        self.ids = tuple(f"{seed}/{number}" for number in range(count))
        self.object_counts = None
        self._names, self._seed = names, seed

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self._seed, index))
        image = np.full((64, 64, 3), 128, np.uint8)
        masks, classes = [], []
        for row in range(2):
            for column in range(2):
                kind = int(rng.integers(2))
                mask = np.zeros((64, 64), np.bool_)
                y, x = 32 * row + int(rng.integers(2, 10)), 32 * column + int(rng.integers(2, 10))
                mask[y : y + 18, x : x + 18] = True
                image[mask] = (30, 225)[kind]
                masks.append(mask)
                classes.append(self._names[kind])
        return Sample(self.ids[index], image, np.stack(masks), tuple("0123"), tuple(classes) if self._names[0] else ())


@pytest.fixture
def predictor(tiny_sam: Callable[[], Any]) -> TorchPredictor:
    return TorchPredictor(tiny_sam(), 64)


def test_classes_are_told_from_each_other(predictor: TorchPredictor) -> None:
    train, val = Images(6), Images(3, seed=1)
    calls: list[tuple[int, int]] = []
    head = fit_class_head(predictor, train, val, seed=0, on_image=lambda done, count: calls.append((done, count)))
    assert head is not None
    assert head.names == ("dark", "light") == TrainedOn.of(train, 0).classes
    assert calls == [(number, 9) for number in range(1, 10)]
    naming = Naming(head.names)
    for sample in (Images(5, seed=2)[index] for index in range(5)):
        naming.add(sample.classes, head.probabilities(predictor, sample.image, sample.masks))
    report = naming.report(seed=0)
    assert report is not None
    assert report["objects"] == 20
    assert report["accuracy"] == 1
    assert 0.5 <= report["most_common"] < 0.9
    assert report["accuracy_interval"] == [1, 1]
    assert "Class told right for 100.0 % of 20 objects" in naming_line(report)
    again = fit_class_head(predictor, train, val, seed=0)
    assert again is not None
    np.testing.assert_array_equal(again.weight, head.weight)


def test_one_class_or_none_needs_no_head(predictor: TorchPredictor) -> None:
    assert fit_class_head(predictor, Images(2, ("cell", "cell")), Images(1), seed=0) is None
    assert TrainedOn.of(Images(2, ("cell", "cell")), 0) == TrainedOn(("cell",), 64)
    assert fit_class_head(predictor, Images(2, ("", "")), Images(1), seed=0) is None
    assert TrainedOn.of(Images(2, ("", "")), 0).classes == ()


def test_validation_images_of_other_classes_choose_nothing(predictor: TorchPredictor) -> None:
    head = fit_class_head(predictor, Images(3), Images(2, ("other", "another"), seed=1), seed=0)
    assert head is not None
    assert head.names == ("dark", "light")
    naming = Naming(head.names)
    sample = Images(1, ("other", "another"))[0]
    naming.add(sample.classes, head.probabilities(predictor, sample.image, sample.masks))
    report = naming.report(0)
    assert report is not None
    assert report["accuracy"] == 0


def test_a_head_is_read_back_as_written(tmp_path: Path) -> None:
    head = ClassHead(("ä", "b b"), np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 2], np.float32))
    head.save(tmp_path / "class_head.safetensors")
    read = load_class_head(tmp_path / "class_head.safetensors")
    assert read.names == head.names
    np.testing.assert_array_equal(read.weight, head.weight)
    np.testing.assert_array_equal(read.bias, head.bias)


def _tensors(**changes: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {"weight": np.zeros((2, 3), np.float32), "bias": np.zeros(2, np.float32), **changes}


@pytest.mark.parametrize(
    ("tensors", "names"),
    [
        (_tensors(), None),
        (_tensors(), '["a"]'),
        (_tensors(), '["a", "b", "c"]'),
        (_tensors(), '["a", 1]'),
        (_tensors(), '{"a": 1, "b": 2}'),
        (_tensors(bias=np.zeros(3, np.float32)), '["a", "b"]'),
        (_tensors(weight=np.full((2, 3), np.nan, np.float32)), '["a", "b"]'),
        (_tensors(weight=np.zeros((2, 3), np.float64)), '["a", "b"]'),
    ],
)
def test_what_is_no_head_is_refused(tmp_path: Path, tensors: dict[str, NDArray[Any]], names: str | None) -> None:
    path = tmp_path / "class_head.safetensors"
    save_file(tensors, str(path), None if names is None else {"names": names})
    with pytest.raises(AdapterError, match="is no class head"):
        load_class_head(path)


@pytest.mark.parametrize("content", [b"", b"no safetensors", None])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "class_head.safetensors"
    if content is None:
        save_file({"weight": np.zeros((2, 3), np.float32)}, str(path), {"names": "[]"})
    else:
        path.write_bytes(content)
    with pytest.raises(AdapterError, match=r"class_head.safetensors cannot be read .*; train again or restore"):
        load_class_head(path)
