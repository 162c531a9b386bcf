"""Image + prompts → masks at the image's original size."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_sam.errors import DataError
from lora_sam.structures import Masks, Prompts

if TYPE_CHECKING:
    import torch
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam

Context = Callable[[], AbstractContextManager[None]]


class Predictor(Protocol):
    """Whatever turns an image and prompts into masks; callers cannot tell which."""

    def predict(self, image: NDArray[np.uint8], prompts: Prompts) -> Masks:
        """Masks for `prompts` (pixels of `image`) on an RGB image [H, W, 3]."""


class ImageEmbedder:
    """Encodes images, remembering the last few by content, so that a second prompt costs no second encoding."""

    def __init__(self, sam: Sam, image_size: int, *, context: Context = nullcontext, remember: int = 2) -> None:
        self._sam = sam
        self._image_size = image_size
        self._context = context
        self._remember = remember
        self._embeddings: OrderedDict[str, torch.Tensor] = OrderedDict()
        self.encoded = 0

    def embed(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Image embedding [1, C, S/16, S/16] of an RGB image [H, W, 3]."""
        import torch

        from lora_sam.data.transforms import preprocess
        from lora_sam.models.decode import device_of

        key = hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
        if key not in self._embeddings:
            pixels = preprocess(image, self._image_size).unsqueeze(0).to(device_of(self._sam))
            with torch.no_grad(), self._context():
                self._embeddings[key] = self._sam.image_encoder(pixels)
            self.encoded += 1
            while len(self._embeddings) > self._remember:
                self._embeddings.popitem(last=False)
        self._embeddings.move_to_end(key)
        return self._embeddings[key]

    def forget(self) -> None:
        """Drop all embeddings; needed whenever weights have changed."""
        self._embeddings.clear()


class TorchPredictor:
    """Predicts with a torch SAM.

    Args:
        sam: The model, split or fused; it is neither moved nor changed.
        image_size: Side S of its input.
        embedder: Shares embeddings with another predictor where both encode alike; None makes one.
        context: Entered around every computation, e.g. to switch an adapter off or to compute in bf16.
        chunk: Prompts decoded at once.
    """

    def __init__(
        self,
        sam: Sam,
        image_size: int,
        *,
        embedder: ImageEmbedder | None = None,
        context: Context = nullcontext,
        chunk: int = 16,
    ) -> None:
        self.sam = sam
        self.image_size = image_size
        self.embedder = embedder or ImageEmbedder(sam, image_size, context=context)
        self._context = context
        self._chunk = chunk

    def predict(
        self, image: NDArray[np.uint8], prompts: Prompts, *, multimask: bool = False, threshold: float = 0.0
    ) -> Masks:
        """Masks for `prompts` (pixels of `image`) on an RGB image [H, W, 3].

        Args:
            image: RGB, uint8 [H, W, 3].
            prompts: N prompts.
            multimask: Decode SAM's three masks for ambiguous prompts, and keep the one with the highest predicted IoU.
            threshold: Logit above which a pixel belongs to the mask.

        Raises:
            DataError: the image is not uint8 RGB.
        """
        import torch

        from lora_sam.data.transforms import boxes_to_input_frame, logits_to_original, points_to_input_frame
        from lora_sam.models.decode import decode_masks

        size = _size(image)
        if not len(prompts):
            return _no_masks(size, self.image_size)
        embedding = self.embedder.embed(image)
        masks, scores, low_res = [], [], []
        for start in range(0, len(prompts), self._chunk):
            part = prompts[slice(start, start + self._chunk)]
            boxes = None if part.boxes is None else boxes_to_input_frame(part.boxes, size, self.image_size)
            points = None if part.points is None else points_to_input_frame(part.points, size, self.image_size)
            with torch.no_grad(), self._context():
                logits, iou = decode_masks(
                    self.sam,
                    embedding,
                    boxes=_tensor(boxes, embedding.device),
                    points=_tensor(points, embedding.device),
                    labels=_tensor(part.labels, embedding.device),
                    multimask=multimask,
                )
            best = iou.argmax(dim=1)
            rows = torch.arange(len(best), device=best.device)
            logits, iou = logits[rows, best], iou[rows, best]
            masks.append((logits_to_original(logits, size, self.image_size) > threshold).cpu().numpy())
            scores.append(iou.cpu().numpy())
            low_res.append(logits.cpu().numpy())
        return Masks(np.concatenate(masks), np.concatenate(scores), np.concatenate(low_res))

    def segment(
        self,
        image: NDArray[np.uint8],
        *,
        boxes: ArrayLike | None = None,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        multimask: bool = False,
    ) -> Masks:
        """`predict` with prompts given as plain lists.

        Args:
            image: RGB, uint8 [H, W, 3].
            boxes: XYXY in pixels, [N, 4] or one box [4].
            points: (x, y) in pixels: one point per object [N, 2], or K per object [N, K, 2].
            labels: 1 foreground, 0 background, -1 padding: [N] for one point per object; [N, K] for K of them, or [K]
                for the same in every object. All foreground if left out.
            multimask: See `predict`.

        Raises:
            DataError: neither boxes nor points, shapes that do not fit, or coordinates outside the image.
        """
        return self.predict(image, _as_prompts(boxes, points, labels, _size(image)), multimask=multimask)


def predictors_for(
    adapted: AdaptedSam, image_size: int, *, chunk: int = 16, context: Context = nullcontext
) -> dict[str, TorchPredictor]:
    """Predictors `base` and `tuned` that share one model, and its embeddings where the encoder is frozen."""

    @contextmanager
    def without_adapter() -> Iterator[None]:
        with context(), adapted.base():
            yield

    tuned = TorchPredictor(adapted.sam, image_size, context=context, chunk=chunk)
    shared = None if adapted.trains_encoder else tuned.embedder
    base = TorchPredictor(adapted.sam, image_size, embedder=shared, context=without_adapter, chunk=chunk)
    return {"base": base, "tuned": tuned}


def _as_prompts(
    boxes: ArrayLike | None, points: ArrayLike | None, labels: ArrayLike | None, size: tuple[int, int]
) -> Prompts:
    """Checked prompts for an image of `size` = (height, width)."""
    if boxes is None and points is None:
        raise DataError("no prompt: give boxes=[[x1, y1, x2, y2], ...] or points=[[x, y], ...]")
    if points is None and labels is not None:
        raise DataError("labels without points: give points=[[x, y], ...] as well, or leave labels out")
    box_array = None if boxes is None else _as_boxes(boxes, size)
    if points is None:
        return Prompts(boxes=box_array)
    point_array = _as_points(points)
    label_array = _as_labels(labels, point_array.shape[:2])
    inside = ((point_array >= 0) & (point_array <= size[::-1])).all(axis=2)
    for row, column in np.argwhere(~inside & (label_array >= 0)):
        raise DataError(f"point {point_array[row, column].tolist()} of object {row} lies outside {_described(size)}")
    if box_array is not None and len(box_array) != len(point_array):
        raise DataError(
            f"{len(box_array)} boxes and points for {len(point_array)} objects: give the same number of both; "
            "several points of one object have shape [1, K, 2]"
        )
    return Prompts(boxes=box_array, points=point_array, labels=label_array)


def _as_boxes(values: ArrayLike, size: tuple[int, int]) -> NDArray[np.float32]:
    boxes = _numbers("boxes", values)
    boxes = boxes.reshape(0, 4) if boxes.shape == (0,) else np.atleast_2d(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"boxes have shape {list(boxes.shape)}, must be [N, 4] as x1, y1, x2, y2 in pixels")
    for row, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        corners = f"box {row} is [{x1:g}, {y1:g}, {x2:g}, {y2:g}]"
        if x1 >= x2 or y1 >= y2:
            raise DataError(f"{corners}, must be x1, y1, x2, y2 with x1 < x2 and y1 < y2 (not width and height)")
        if x1 >= size[1] or y1 >= size[0] or x2 <= 0 or y2 <= 0:
            raise DataError(f"{corners} and lies outside {_described(size)}")
    return boxes


def _as_points(values: ArrayLike) -> NDArray[np.float32]:
    """Points [N, K, 2]."""
    points = _numbers("points", values)
    given = list(points.shape)
    if points.shape == (0,):
        points = points.reshape(0, 1, 2)
    if points.ndim == 2:
        points = points[:, None]
    if points.ndim != 3 or points.shape[2] != 2 or points.shape[1] == 0:
        raise DataError(f"points have shape {given}, must be [N, 2] or [N, K, 2] as x, y in pixels")
    return points


def _as_labels(values: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Labels for K points of each of N objects, `shape` = (N, K)."""
    if values is None:
        return np.ones(shape, np.int64)
    labels = _numbers("labels", values)
    given = list(labels.shape)
    objects, points = shape
    if labels.ndim == 1:
        labels = labels[:, None] if points == 1 else np.tile(labels, (objects, 1))
    if labels.shape != shape:
        allowed = f"[{objects}]" if points == 1 else f"[{objects}, {points}] or, the same for every object, [{points}]"
        raise DataError(f"labels have shape {given}, must be {allowed}: one for each point")
    for wrong in labels[~np.isin(labels, (-1, 0, 1))]:
        raise DataError(f"label {wrong:g} is unknown, must be 1 (foreground), 0 (background) or -1 (padding)")
    return labels.astype(np.int64)


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):
            numbers = np.asarray(values, dtype=np.float64).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must be numbers, in rows of equal length: {error}") from error
    if not np.isfinite(numbers).all():
        raise DataError(f"{name} hold NaN or infinity, must be finite numbers")
    return numbers


def _size(image: NDArray[np.uint8]) -> tuple[int, int]:
    """(height, width) of an image. Raises `DataError` unless it is uint8 RGB."""
    remedy = "must be a NumPy array, uint8 [H, W, 3] in RGB order; lora_sam.read_image reads a file so"
    if not isinstance(image, np.ndarray):
        raise DataError(f"image is a {type(image).__name__}, {remedy}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(f"image has dtype {image.dtype} and shape {list(image.shape)}, {remedy}")
    return image.shape[0], image.shape[1]


def _described(size: tuple[int, int]) -> str:
    return f"the image of {size[1]} x {size[0]} pixels (width x height)"


def _no_masks(size: tuple[int, int], image_size: int) -> Masks:
    low_res = (0, image_size // 4, image_size // 4)
    return Masks(np.zeros((0, *size), np.bool_), np.zeros(0, np.float32), np.zeros(low_res, np.float32))


def _tensor(values: NDArray[np.generic] | None, device: torch.device) -> torch.Tensor | None:
    import torch

    return None if values is None else torch.as_tensor(np.asarray(values), device=device)
