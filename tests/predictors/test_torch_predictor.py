"""Predictors: equal to segment_anything's own, shared embeddings, chunks, and prompts as users write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor

from lora_sam.core.errors import DataError
from lora_sam.core.structures import Prompts, Sample
from lora_sam.models.device import autocast
from lora_sam.models.projections import fuse_projections
from lora_sam.predictors.torch_predictor import ImageEmbedder, TorchPredictor
from lora_sam.runs.loading import predictors_for

BOXES = np.array([[3, 4, 40, 30], [10.5, 2.25, 30, 44], [0, 0, 50, 37], [20, 20, 21, 21]], np.float32)
POINTS = np.array([[[5, 6], [30, 20]], [[0, 0], [12.5, 7]], [[33, 33], [20, 1]], [[7, 9], [8, 8]]], np.float32)
LABELS = np.array([[1, 0], [1, 1], [0, 1], [1, -1]])


def picture(height: int = 48, width: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def sam(option: Callable[..., Any]) -> Any:
    return option("model/tiny_random").build().sam


@pytest.fixture
def predictor(sam: Any) -> TorchPredictor:
    """A new predictor, which has encoded nothing; the model is left as it is, as a test below shows."""
    return TorchPredictor(sam, 64)


# --- the same as segment_anything ------------------------------------------------------------------------------------


@pytest.mark.parametrize("multimask", [False, True], ids=["single", "multimask"])
@pytest.mark.parametrize("kind", ["boxes", "points", "both"])
@pytest.mark.parametrize("size", [(48, 64), (64, 50), (100, 150), (64, 64)], ids=str)
def test_equals_the_predictor_of_segment_anything(
    predictor: TorchPredictor, tiny_sam: Callable[[], Any], size: tuple[int, int], kind: str, multimask: bool
) -> None:
    image = picture(*size)
    boxes = BOXES if kind != "points" else None
    points, labels = (POINTS, LABELS) if kind != "boxes" else (None, None)
    result = predictor.predict(image, Prompts(boxes, points, labels), multimask=multimask)
    reference = SamPredictor(fuse_projections(tiny_sam()))
    reference.set_image(image)
    assert result.masks.shape == (4, *size)
    assert result.masks.dtype == np.bool_
    assert result.scores.shape == (4,)
    assert result.low_res_logits.shape == (4, 16, 16)
    assert 0.01 < result.masks.mean() < 0.99  # there is something to compare
    for row in range(4):
        logits, scores, low_res = reference.predict(
            point_coords=None if points is None else points[row],
            point_labels=None if labels is None else labels[row],
            box=None if boxes is None else boxes[row],
            multimask_output=multimask,
            return_logits=True,
        )
        best = scores.argmax()
        assert scores.shape == (3 if multimask else 1,)
        assert result.scores[row] == pytest.approx(scores[best], abs=1e-5)
        assert np.abs(result.low_res_logits[row] - low_res[best]).max() < 1e-5
        clear = np.abs(logits[best]) > 1e-5  # at the threshold itself rounding decides
        assert clear.mean() > 0.99
        assert (result.masks[row] == (logits[best] > 0))[clear].all()


def test_threshold(predictor: TorchPredictor) -> None:
    prompts = Prompts(BOXES)
    usual = predictor.predict(picture(), prompts)
    assert not predictor.predict(picture(), prompts, threshold=1e6).masks.any()
    assert predictor.predict(picture(), prompts, threshold=-1e6).masks.all()
    higher = predictor.predict(picture(), prompts, threshold=float(np.median(usual.low_res_logits))).masks
    assert 0.2 < higher.mean() < 0.8


def test_the_model_is_left_as_it_is(tiny_sam: Callable[[], Any]) -> None:
    sam = tiny_sam()
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    TorchPredictor(sam, 64).predict(picture(), Prompts(BOXES))
    assert all(torch.equal(value, before[name]) for name, value in sam.state_dict().items())
    assert not sam.training


# --- one encoding ----------------------------------------------------------------------------------------------------


def test_a_second_prompt_costs_no_second_encoding(predictor: TorchPredictor) -> None:
    image = picture()
    first = predictor.predict(image, Prompts(BOXES[:1]))
    assert predictor.embedder.encoded == 1
    predictor.predict(image.copy(), Prompts(BOXES))  # remembered by content, not by identity
    assert predictor.embedder.encoded == 1
    again = predictor.predict(image, Prompts(BOXES[:1]))
    assert predictor.embedder.encoded == 1
    assert (again.low_res_logits == first.low_res_logits).all()
    image[0, 0, 0] ^= 1
    predictor.predict(image, Prompts(BOXES))
    assert predictor.embedder.encoded == 2


def test_the_last_two_images_are_remembered(tiny_sam: Callable[[], Any]) -> None:
    embedder = ImageEmbedder(tiny_sam())
    a, b, c = (picture(seed=seed) for seed in range(3))
    for image, encoded in [(a, 1), (b, 2), (a, 2), (c, 3), (a, 3), (b, 4), (c, 5)]:
        assert embedder.embed(image).shape == (1, 32, 4, 4)
        assert embedder.encoded == encoded
    embedder.forget()
    embedder.embed(c)
    assert embedder.encoded == 6


def test_more_images_are_remembered_within_their_bytes(tiny_sam: Callable[[], Any]) -> None:
    embedder = ImageEmbedder(tiny_sam())
    embedder.remember(4 * 32 * 4 * 4 * 4)  # of four embeddings in float32
    images = [picture(seed=seed) for seed in range(5)]
    for image in images[:4] * 2:
        embedder.embed(image)
    assert embedder.encoded == 4
    embedder.embed(images[4])
    embedder.embed(images[1])
    assert embedder.encoded == 5
    embedder.embed(images[0])  # the one that was not used for longest
    assert embedder.encoded == 6


def test_images_of_the_same_bytes_and_another_shape_differ(tiny_sam: Callable[[], Any]) -> None:
    embedder = ImageEmbedder(tiny_sam())
    image = picture(32, 64)
    wide, tall = embedder.embed(image), embedder.embed(image.reshape(64, 32, 3))
    assert embedder.encoded == 2
    assert not torch.equal(wide, tall)


def test_images_that_are_views(tiny_sam: Callable[[], Any]) -> None:
    embedder = ImageEmbedder(tiny_sam())
    image = picture(50, 60)
    assert torch.equal(embedder.embed(image[::-1, 5:]), embedder.embed(image[::-1, 5:].copy()))
    assert embedder.encoded == 1


# --- base and tuned --------------------------------------------------------------------------------------------------


def disturbed(option: Callable[..., Any], tiny_sam: Callable[[], Any], name: str, **changes: Any) -> Any:
    """A model whose adapter has moved, and does not train now: torch rounds otherwise for weights that do."""
    adapted = option(f"method/{name}", **changes).apply(tiny_sam())
    generator = torch.Generator().manual_seed(1)
    for parameter in adapted.trainable().values():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    adapted.peft.requires_grad_(False)
    return adapted


def test_base_and_tuned_share_one_encoding_where_the_encoder_is_frozen(option, tiny_sam) -> None:
    adapted = disturbed(option, tiny_sam, "decoder")
    predictors = predictors_for(adapted, 64)
    assert predictors["base"].embedder is predictors["tuned"].embedder
    prompts = Prompts(BOXES)
    base, tuned = (predictors[name].predict(picture(), prompts) for name in ("base", "tuned"))
    assert predictors["tuned"].embedder.encoded == 1
    untouched = TorchPredictor(tiny_sam(), 64).predict(picture(), prompts)
    assert (base.low_res_logits == untouched.low_res_logits).all()
    assert (base.scores == untouched.scores).all()
    assert np.abs(tuned.low_res_logits - base.low_res_logits).max() > 0.01


@pytest.mark.parametrize(("name", "changes"), [("lora", {"decoder": "frozen"}), ("lora", {}), ("full", {})])
def test_base_and_tuned_encode_apart_where_the_encoder_is_adapted(option, tiny_sam, name, changes) -> None:
    adapted = disturbed(option, tiny_sam, name, **changes)
    predictors = predictors_for(adapted, 64)
    base, tuned = predictors["base"], predictors["tuned"]
    assert base.embedder is not tuned.embedder
    prompts = Prompts(BOXES)
    for _ in range(2):
        of_base, of_tuned = base.predict(picture(), prompts), tuned.predict(picture(), prompts)
    assert (base.embedder.encoded, tuned.embedder.encoded) == (1, 1)
    assert (base.embedder.embed(picture()) - tuned.embedder.embed(picture())).abs().max() > 0.01
    untouched = TorchPredictor(tiny_sam(), 64).predict(picture(), prompts)
    assert (of_base.low_res_logits == untouched.low_res_logits).all()
    assert np.abs(of_tuned.low_res_logits - of_base.low_res_logits).max() > 0.01
    # the adapter is on again
    assert (tuned.predict(picture(), prompts).low_res_logits == of_tuned.low_res_logits).all()


def test_the_context_is_entered_around_every_computation(option, tiny_sam) -> None:
    entered: list[str] = []

    @contextmanager
    def context() -> Iterator[None]:
        entered.append("in")
        yield
        entered.append("out")

    predictors = predictors_for(disturbed(option, tiny_sam, "lora"), 64, context=context, chunk=3)
    for predictor in predictors.values():
        entered.clear()
        predictor.predict(picture(), Prompts(BOXES))
        assert entered == ["in", "out"] * 3  # one encoding and two chunks


def test_in_bf16_masks_stay_and_results_are_float32(tiny_sam: Callable[[], Any]) -> None:
    exact = TorchPredictor(tiny_sam(), 64).predict(picture(), Prompts(BOXES))
    rounded = TorchPredictor(tiny_sam(), 64, context=lambda: autocast(torch.device("cpu"), "bf16")).predict(
        picture(), Prompts(BOXES)
    )
    assert rounded.scores.dtype == rounded.low_res_logits.dtype == np.float32
    assert 0 < np.abs(rounded.low_res_logits - exact.low_res_logits).max() < 0.1
    assert (rounded.masks == exact.masks).mean() > 0.9


# --- chunks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3, 7, 300])
def test_chunks_do_not_change_the_result(tiny_sam: Callable[[], Any], chunk: int) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 40, (20, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 20, (20, 2))], axis=1).astype(np.float32)
    whole = TorchPredictor(tiny_sam(), 64, chunk=20).predict(picture(), Prompts(boxes))
    parts = TorchPredictor(tiny_sam(), 64, chunk=chunk).predict(picture(), Prompts(boxes))
    assert whole.masks.shape == (20, 48, 64)
    assert np.abs(parts.low_res_logits - whole.low_res_logits).max() < 1e-5
    assert np.abs(parts.scores - whole.scores).max() < 1e-5
    assert (parts.masks != whole.masks).mean() < 1e-3


# --- prompts as users write them -------------------------------------------------------------------------------------


def same(predictor: TorchPredictor, prompts: Prompts, **given: Any) -> None:
    expected, result = predictor.predict(picture(), prompts), predictor.segment(picture(), **given)
    assert (result.low_res_logits == expected.low_res_logits).all()
    assert (result.masks == expected.masks).all()
    assert (result.scores == expected.scores).all()


def ints(*rows: Any) -> NDArray[np.int64]:
    return np.array(rows, np.int64)


def floats(*rows: Any) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ({"boxes": [3, 4, 40, 30]}, Prompts(BOXES[:1])),
        ({"boxes": BOXES.tolist()}, Prompts(BOXES)),
        ({"boxes": torch.from_numpy(BOXES)}, Prompts(BOXES)),
        ({"boxes": [(np.uint8(3), 4.0, 40, 30)]}, Prompts(BOXES[:1])),
        ({"boxes": [[-5, -5, 20, 90]]}, Prompts(floats([-5, -5, 20, 90]))),
        # one point per object
        ({"points": [[5, 6], [7, 8]]}, Prompts(None, floats([[5, 6]], [[7, 8]]), ints([1], [1]))),
        ({"points": [[5, 6], [7, 8]], "labels": [1, 0]}, Prompts(None, floats([[5, 6]], [[7, 8]]), ints([1], [0]))),
        ({"points": [[5, 6], [7, 8]], "labels": [[1], [0]]}, Prompts(None, floats([[5, 6]], [[7, 8]]), ints([1], [0]))),
        ({"points": [[[5, 6]], [[7, 8]]], "labels": [0, 1]}, Prompts(None, floats([[5, 6]], [[7, 8]]), ints([0], [1]))),
        ({"points": [[64, 48]], "labels": [True]}, Prompts(None, floats([[64, 48]]), ints([1]))),
        # several
        ({"points": POINTS}, Prompts(None, POINTS, np.ones((4, 2), np.int64))),
        ({"points": POINTS, "labels": LABELS.astype(float)}, Prompts(None, POINTS, LABELS)),
        ({"points": POINTS, "labels": [1, 0]}, Prompts(None, POINTS, np.tile(ints(1, 0), (4, 1)))),
        ({"points": POINTS[:2], "labels": [1, 0]}, Prompts(None, POINTS[:2], ints([1, 0], [1, 0]))),
        ({"points": POINTS[:1], "labels": [1, 0]}, Prompts(None, POINTS[:1], ints([1, 0]))),
        # padding may lie anywhere
        (
            {"points": [[[5, 6], [-9, 999]]], "labels": [1, -1]},
            Prompts(None, floats([[5, 6], [-9, 999]]), ints([1, -1])),
        ),
        # both
        ({"boxes": BOXES, "points": POINTS, "labels": LABELS}, Prompts(BOXES, POINTS, LABELS)),
        ({"boxes": BOXES[0], "points": POINTS[:1]}, Prompts(BOXES[:1], POINTS[:1], ints([1, 1]))),
    ],
)
def test_prompts_of_every_shape(predictor: TorchPredictor, given: dict[str, Any], prompts: Prompts) -> None:
    same(predictor, prompts, **given)


def test_multimask_of_segment(predictor: TorchPredictor) -> None:
    expected = predictor.predict(picture(), Prompts(BOXES), multimask=True)
    result = predictor.segment(picture(), boxes=BOXES, multimask=True)
    assert (result.low_res_logits == expected.low_res_logits).all()
    assert (result.scores != predictor.segment(picture(), boxes=BOXES).scores).any()


@pytest.mark.parametrize("given", [{"boxes": []}, {"boxes": np.zeros((0, 4))}, {"points": []}])
def test_no_objects_give_no_masks(predictor: TorchPredictor, given: dict[str, Any]) -> None:
    result = predictor.segment(picture(), **given)
    assert (result.masks.shape, result.scores.shape) == ((0, 48, 64), (0,))
    assert result.low_res_logits.shape == (0, 16, 16)
    assert (result.masks.dtype, result.scores.dtype) == (np.bool_, np.float32)
    assert predictor.embedder.encoded == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no prompt: give boxes=[[x1, y1, x2, y2], ...] or points=[[x, y], ...]"),
        ({"boxes": [1, 2, 3]}, "boxes have shape [1, 3], must be [N, 4] as x1, y1, x2, y2 in pixels"),
        ({"boxes": 7}, "boxes have shape [1, 1], must be [N, 4]"),
        ({"boxes": BOXES[None]}, "boxes have shape [1, 4, 4], must be [N, 4]"),
        ({"boxes": ["abcd"]}, "boxes must be numbers, in rows of equal length: could not convert string to float"),
        ({"boxes": [[1, 2, 3, 4], [1, 2]]}, "boxes must be numbers, in rows of equal length: "),
        ({"boxes": [[1, 2, 3j, 4]]}, "boxes must be numbers, in rows of equal length: "),
        ({"boxes": [[1, 2, float("nan"), 4]]}, "boxes hold NaN or infinity, must be finite numbers"),
        ({"boxes": [[1, 2, None, 4]]}, "boxes hold NaN or infinity, must be finite numbers"),
        ({"boxes": [[1, 2, 1e300, 4]]}, "boxes hold NaN or infinity, must be finite numbers"),
        (
            {"boxes": [[0, 0, 5, 5], [30, 20, 10.5, 40]]},
            "box 1 is [30, 20, 10.5, 40], must be x1, y1, x2, y2 with x1 < x2 and y1 < y2 (not width and height)",
        ),
        ({"boxes": [10, 10, 20, 10]}, "box 0 is [10, 10, 20, 10], must be x1, y1, x2, y2 with x1 < x2"),
        (
            {"boxes": [64, 0, 70, 5]},
            "box 0 is [64, 0, 70, 5] and lies outside the image of 64 x 48 pixels (width x height)",
        ),
        ({"boxes": [0, 48, 5, 50]}, "box 0 is [0, 48, 5, 50] and lies outside the image"),
        ({"boxes": [-9, 0, 0, 5]}, "box 0 is [-9, 0, 0, 5] and lies outside the image"),
        ({"boxes": [0, -9, 5, 0]}, "box 0 is [0, -9, 5, 0] and lies outside the image"),
        ({"points": [1, 2]}, "points have shape [2], must be [N, 2] or [N, K, 2] as x, y in pixels"),
        ({"points": [[1, 2, 3]]}, "points have shape [1, 3], must be [N, 2] or [N, K, 2] as x, y in pixels"),
        ({"points": np.zeros((2, 0, 2))}, "points have shape [2, 0, 2], must be [N, 2] or [N, K, 2]"),
        ({"points": np.zeros((1, 1, 1, 2))}, "points have shape [1, 1, 1, 2], must be [N, 2] or [N, K, 2]"),
        ({"points": [["x", 2]]}, "points must be numbers, in rows of equal length: could not convert string"),
        (
            {"points": [[5, 5], [5, 49]]},
            "point [5.0, 49.0] of object 1 lies outside the image of 64 x 48 pixels (width x height)",
        ),
        ({"points": [[[5, 5], [-1, 5]]]}, "point [-1.0, 5.0] of object 0 lies outside the image"),
        ({"labels": [1]}, "no prompt: give boxes="),
        ({"boxes": BOXES, "labels": [1]}, "labels without points: give points=[[x, y], ...] as well, or leave labels"),
        ({"points": [[5, 6], [7, 8]], "labels": [1]}, "labels have shape [1], must be [2]: one for each point"),
        ({"points": [[5, 6], [7, 8]], "labels": [[1, 0]]}, "labels have shape [1, 2], must be [2]: one for each point"),
        ({"points": [[5, 6]], "labels": 1}, "labels have shape [], must be [1]: one for each point"),
        (
            {"points": POINTS, "labels": [1, 0, 1, 1]},
            "labels have shape [4], must be [4, 2] or, the same for every object, [2]: one for each point",
        ),
        ({"points": POINTS, "labels": LABELS.ravel()}, "labels have shape [8], must be [4, 2] or"),
        (
            {"points": [[5, 6]], "labels": [2]},
            "label 2 is unknown, must be 1 (foreground), 0 (background) or -1 (padding)",
        ),
        ({"points": [[5, 6]], "labels": [0.5]}, "label 0.5 is unknown, must be 1 (foreground), 0 (background) or -1"),
        ({"points": [[5, 6]], "labels": ["fg"]}, "labels must be numbers, in rows of equal length: could not convert"),
        (
            {"boxes": BOXES[0], "points": [[5, 6], [7, 8]]},
            "1 boxes and points for 2 objects: give the same number of both; several points of one object have shape "
            "[1, K, 2]",
        ),
    ],
)
def test_prompts_that_do_not_fit(predictor: TorchPredictor, given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        predictor.segment(picture(), **given)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert predictor.embedder.encoded == 0


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (picture().astype(np.float32), "image has dtype float32 and shape [48, 64, 3]"),
        (picture()[:, :, 0], "image has dtype uint8 and shape [48, 64]"),
        (np.zeros((5, 5, 4), np.uint8), "image has dtype uint8 and shape [5, 5, 4]"),
        (np.zeros((0, 5, 3), np.uint8), "image has dtype uint8 and shape [0, 5, 3]"),
    ],
)
def test_images_that_are_none(predictor: TorchPredictor, image: Any, found: str) -> None:
    remedy = ", must be a NumPy array, uint8 [H, W, 3] in RGB order; lora_sam.read_image reads a file so"
    for attempt in (
        lambda: predictor.segment(image, boxes=[0, 0, 2, 2]),
        lambda: predictor.predict(image, Prompts(BOXES)),
    ):
        with pytest.raises(DataError) as caught:
            attempt()
        assert str(caught.value).startswith(found)
        assert str(caught.value).endswith(remedy)


def test_a_row_of_pixels(predictor: TorchPredictor) -> None:
    result = predictor.segment(picture(1, 200), boxes=[3, 0, 9, 1])
    assert result.masks.shape == (1, 1, 200)
    assert np.isfinite(result.scores).all()


def test_size_of_a_sample() -> None:
    assert Sample("a", picture(48, 64), np.ones((1, 48, 64), np.bool_), ("1",)).size == (48, 64)


def test_prompts_are_a_sequence() -> None:
    prompts = Prompts(BOXES, POINTS, LABELS)
    assert len(prompts) == len(Prompts(None, POINTS, LABELS)) == 4
    some = prompts[np.array([2, 0])]
    assert np.array_equal(some.boxes, BOXES[[2, 0]])
    assert np.array_equal(some.points, POINTS[[2, 0]])
    assert np.array_equal(some.labels, LABELS[[2, 0]])
    assert np.array_equal(prompts[1:].labels, LABELS[1:])
    only_points = Prompts(None, POINTS, LABELS)[1:3]
    assert (only_points.boxes, len(only_points)) == (None, 2)
    only_boxes = Prompts(BOXES)[1:3]
    assert (only_boxes.points, only_boxes.labels, len(only_boxes)) == (None, None, 2)
    with pytest.raises(AssertionError, match="prompts without boxes and points"):
        Prompts()
    with pytest.raises(AssertionError, match="points and labels come together"):
        Prompts(BOXES, POINTS)


def test_multimask_of_segment_gives_all_three(predictor: TorchPredictor) -> None:
    every = predictor.predict_all(picture(), Prompts(BOXES))
    result = predictor.segment(picture(), boxes=BOXES, multimask=True)
    three = result.candidates
    assert three is not None
    assert three.masks.shape == (len(BOXES), 3, 48, 64)
    assert (three.masks == (every.logits[:, 1:] > 0)).all()
    assert (three.scores == every.scores[:, 1:]).all()
    assert (three.low_res_logits == every.low_res_logits[:, 1:]).all()
    assert (result.scores == three.scores.max(axis=1)).all()
    rows = np.arange(len(BOXES))
    assert (result.masks == three.masks[rows, three.scores.argmax(axis=1)]).all()
    none = predictor.segment(picture(), boxes=[], multimask=True).candidates
    assert none is not None
    assert none.masks.shape == (0, 3, 48, 64)
    assert predictor.segment(picture(), boxes=BOXES).candidates is None


def test_only_wanted_masks_are_enlarged(predictor: TorchPredictor) -> None:
    every = predictor.predict_all(picture(), Prompts(BOXES))
    wanted = every.scores > np.median(every.scores)
    some = predictor.predict_all(picture(), Prompts(BOXES), worth=lambda scores: scores > np.median(every.scores))
    assert 0 < wanted.sum() < wanted.size
    assert (some.logits[wanted] == every.logits[wanted]).all()
    assert (some.logits[~wanted] == 0).all()
    assert (some.low_res_logits == every.low_res_logits).all()
