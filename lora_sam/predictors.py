"""Image + prompts → masks at the image's original size."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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

        _check_image(image)
        size = (image.shape[0], image.shape[1])
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
            labels: 1 foreground, 0 background, in the shape of `points` less its last axis; all foreground if left out.
            multimask: See `predict`.

        Raises:
            DataError: neither boxes nor points, or shapes that do not fit.
        """
        return self.predict(image, _as_prompts(boxes, points, labels), multimask=multimask)


def predictors_for(
    adapted: AdaptedSam, image_size: int, *, chunk: int = 16, context: Context = nullcontext
) -> dict[str, TorchPredictor]:
    """Predictors `base` and `tuned` that share one model, and its embeddings where the encoder is frozen."""
    from contextlib import ExitStack

    def without_adapter() -> AbstractContextManager[None]:
        stack = ExitStack()
        stack.enter_context(context())
        stack.enter_context(adapted.base())
        return stack  # type: ignore[return-value]

    tuned = TorchPredictor(adapted.sam, image_size, context=context, chunk=chunk)
    shared = None if adapted.trains_encoder else tuned.embedder
    base = TorchPredictor(adapted.sam, image_size, embedder=shared, context=without_adapter, chunk=chunk)
    return {"base": base, "tuned": tuned}


def _as_prompts(boxes: ArrayLike | None, points: ArrayLike | None, labels: ArrayLike | None) -> Prompts:
    if boxes is None and points is None:
        raise DataError("no prompt: give boxes=[[x1, y1, x2, y2], ...] or points=[[x, y], ...]")
    box_array = None if boxes is None else np.atleast_2d(np.asarray(boxes, dtype=np.float32))
    if box_array is not None and (box_array.ndim != 2 or box_array.shape[1] != 4):
        raise DataError(f"boxes have shape {list(box_array.shape)}, must be [N, 4] as x1, y1, x2, y2 in pixels")
    if points is None:
        return Prompts(boxes=box_array)
    point_array = np.asarray(points, dtype=np.float32)
    if point_array.ndim == 2:
        point_array = point_array[:, None]
    if point_array.ndim != 3 or point_array.shape[-1] != 2:
        raise DataError(f"points have shape {list(point_array.shape)}, must be [N, 2] or [N, K, 2] as x, y in pixels")
    shape = point_array.shape[:2]
    label_array = np.ones(shape, np.int64) if labels is None else np.asarray(labels, np.int64).reshape(len(shape) and shape[0], -1)
    if label_array.shape != shape:
        raise DataError(f"labels have shape {list(label_array.shape)}, must be {list(shape)}, one for each point")
    if box_array is not None and len(box_array) != shape[0]:
        raise DataError(f"{len(box_array)} boxes and points for {shape[0]} objects: give the same number of both")
    return Prompts(boxes=box_array, points=point_array, labels=label_array)


def _check_image(image: NDArray[np.uint8]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f"image has dtype {image.dtype} and shape {list(image.shape)}, must be uint8 [H, W, 3] in RGB order; "
            "lora_sam.data.images.read_image reads a file so"
        )


def _tensor(values: NDArray[np.generic] | None, device: torch.device) -> torch.Tensor | None:
    import torch

    return None if values is None else torch.as_tensor(np.asarray(values), device=device)
