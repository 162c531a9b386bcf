"""Prediction with a torch SAM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_sam.core.predictor import AllMasks, Worth, best_of_three
from lora_sam.core.scores import META, Scores
from lora_sam.core.structures import Masks, Prompts
from lora_sam.predictors.interface import Embeddings, by_kind, no_masks, with_candidates
from lora_sam.predictors.pictures import checked_pixels
from lora_sam.predictors.prompting import checked, prompts_from, size_of

if TYPE_CHECKING:
    import torch
    from segment_anything.modeling import Sam

    from lora_sam.core.predictor import Picture
    from lora_sam.predictors.frozen import FrozenPart

Context = Callable[[], AbstractContextManager[None]]


class ImageEmbedder:
    """Encodes images with a torch SAM, remembering the last few by content.

    Args:
        sam: The model.
        context: Entered around the computation.
        remember: How many embeddings are kept.
        frozen: The part of the encoder whose results are kept on disk.
    """

    def __init__(
        self,
        sam: Sam,
        *,
        context: Context = nullcontext,
        remember: int = 2,
        frozen: FrozenPart | None = None,
    ) -> None:
        self._sam = sam
        self._context = context
        self._frozen = frozen
        self._embeddings: Embeddings[torch.Tensor] = Embeddings(self._encode, remember=remember)

    @property
    def encoded(self) -> int:
        """Images encoded so far."""
        return self._embeddings.encoded

    def embed(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Image embedding [1, C, S/16, S/16] of an RGB image [H, W, 3]."""
        return self._embeddings.embed(image)

    def forget(self) -> None:
        """Drop all embeddings; needed whenever weights have changed."""
        self._embeddings.forget()

    def remember(self, most_bytes: int) -> None:
        """See `Predictor`."""
        self._embeddings.most_bytes = most_bytes

    def _encode(self, image: NDArray[np.uint8]) -> torch.Tensor:
        import torch

        from lora_sam.data.transforms import preprocess
        from lora_sam.models.decoding import device_of
        from lora_sam.models.family import frame_of

        if self._frozen is not None:
            values = self._frozen.values(image)
            with torch.no_grad(), self._context():
                return self._frozen.stage.rest(self._sam.image_encoder, values)
        pixels = preprocess(image, frame_of(self._sam)).unsqueeze(0).to(device_of(self._sam))
        with torch.no_grad(), self._context():
            embedding: torch.Tensor = self._sam.image_encoder(pixels)
        return embedding


class TorchPredictor:
    """Predicts with a torch SAM; see `lora_sam.predictors.Predictor`.

    Threads may share one as long as nothing changes its model meanwhile. The pair of `predictors_for`, which switches
    one adapter on and off, sees to that itself.

    Args:
        sam: The model, split or fused; it is neither moved nor changed.
        image_size: Side S of its input.
        embedder: Shares embeddings with another predictor where both encode alike; None makes one.
        context: Entered around every computation, e.g. to switch an adapter off or to compute in bf16.
        chunk: Prompts decoded at once.
        scores: From which score on masks of these weights are good.
    """

    def __init__(
        self,
        sam: Sam,
        image_size: int,
        *,
        embedder: ImageEmbedder | None = None,
        context: Context = nullcontext,
        chunk: int = 16,
        scores: Scores = META,
    ) -> None:
        from lora_sam.models.family import frame_of

        self.sam = sam
        self.scores = scores
        self.frame = frame_of(sam)
        self.image_size = image_size
        self.embedder = embedder or ImageEmbedder(sam, context=context)
        self._context = context
        self._chunk = chunk

    @property
    def encoded(self) -> int:
        """See `Predictor`."""
        return self.embedder.encoded

    def set_image(self, image: Picture) -> None:
        """See `Predictor`."""
        self.embedder.embed(checked_pixels(image))

    def embedding(self, image: Picture) -> NDArray[np.float32]:
        """See `Predictor`."""
        values: NDArray[np.float32] = self.embedder.embed(checked_pixels(image)).float().cpu().numpy()
        return values

    def forget(self) -> None:
        """See `Predictor`."""
        self.embedder.forget()

    def remember(self, most_bytes: int) -> None:
        """See `Predictor`."""
        self.embedder.remember(most_bytes)

    def predict(self, image: Picture, prompts: Prompts, *, multimask: bool = False, threshold: float = 0.0) -> Masks:
        """See `Predictor`."""
        pixels = checked_pixels(image)
        if not len(prompts):
            return no_masks(size_of(pixels), self.frame)
        return by_kind(
            checked(prompts, size_of(pixels)), lambda part: self._predict(pixels, part, multimask, threshold)
        )

    def _predict(self, image: NDArray[np.uint8], prompts: Prompts, multimask: bool, threshold: float) -> Masks:
        """`predict` for prompts of one kind."""
        from lora_sam.data.transforms import logits_to_original

        size = size_of(image)
        embedding = self.embedder.embed(image)
        masks, scores, low_res = [], [], []
        for part in self._parts(prompts):
            logits, iou = self._decode(embedding, part, size)
            best = best_of_three(iou.cpu().numpy()) if multimask else np.zeros(len(iou), np.intp)
            rows = np.arange(len(best))
            logits, iou = logits[rows, best], iou[rows, best]
            masks.append((logits_to_original(logits, size, self.frame) > threshold).cpu().numpy())
            scores.append(iou.cpu().numpy())
            low_res.append(logits.cpu().numpy())
        return Masks(np.concatenate(masks), np.concatenate(scores), np.concatenate(low_res))

    def predict_all(self, image: Picture, prompts: Prompts, *, worth: Worth | None = None) -> AllMasks:
        """See `Predictor`."""
        pixels = checked_pixels(image)
        return by_kind(checked(prompts, size_of(pixels)), lambda part: self._predict_all(pixels, part, worth))

    def _predict_all(self, image: NDArray[np.uint8], prompts: Prompts, worth: Worth | None) -> AllMasks:
        """`predict_all` for prompts of one kind."""
        from lora_sam.data.transforms import logits_to_original

        size = size_of(image)
        embedding = self.embedder.embed(image)
        found = [self._decode(embedding, part, size) for part in self._parts(prompts)]
        scores = np.concatenate([iou.cpu().numpy() for _, iou in found])
        enlarged = np.zeros((*scores.shape, *size), np.float32)
        wanted = np.ones(scores.shape, np.bool_) if worth is None else worth(scores)
        start = 0
        for logits, _ in found:
            rows, columns = np.nonzero(wanted[start : start + len(logits)])
            if len(rows):
                enlarged[start + rows, columns] = (
                    logits_to_original(logits[rows, columns], size, self.frame).cpu().numpy()
                )
            start += len(logits)
        return AllMasks(enlarged, scores, np.concatenate([logits.cpu().numpy() for logits, _ in found]))

    def segment(
        self,
        image: Picture,
        *,
        boxes: ArrayLike | None = None,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        mask_inputs: ArrayLike | None = None,
        multimask: bool = False,
    ) -> Masks:
        """See `Predictor`."""
        pixels = checked_pixels(image)
        prompts = prompts_from(boxes, points, labels, size_of(pixels), mask_inputs, self.frame.mask_side)
        if not multimask:
            return self.predict(pixels, prompts)
        return with_candidates(self, pixels, prompts)

    def _parts(self, prompts: Prompts) -> Iterator[Prompts]:
        for start in range(0, len(prompts), self._chunk):
            yield prompts[slice(start, start + self._chunk)]

    def _decode(
        self, embedding: torch.Tensor, prompts: Prompts, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Low-resolution logits [N, 4, S/4, S/4] and predicted IoU [N, 4] for some prompts at once."""
        import torch

        from lora_sam.data.transforms import boxes_to_input_frame, mask_inputs_to_input_frame, points_to_input_frame
        from lora_sam.models.decoding import decode_all_masks

        frame = self.frame
        boxes = None if prompts.boxes is None else boxes_to_input_frame(prompts.boxes, size, frame)
        points = None if prompts.points is None else points_to_input_frame(prompts.points, size, frame)
        masks = mask_inputs_to_input_frame(prompts, size, frame)
        with torch.no_grad(), self._context():
            return decode_all_masks(
                self.sam,
                embedding,
                boxes=_tensor(boxes, embedding.device),
                points=_tensor(points, embedding.device),
                labels=_tensor(prompts.labels, embedding.device),
                mask_inputs=_tensor(masks, embedding.device),
            )


def _tensor(values: NDArray[np.generic] | None, device: torch.device) -> torch.Tensor | None:
    import torch

    return None if values is None else torch.as_tensor(np.asarray(values), device=device)
