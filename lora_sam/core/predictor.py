"""What every predictor offers, whatever computes it: image and prompts in, masks out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_sam.core.frame import Frame
from lora_sam.core.scores import Scores
from lora_sam.core.structures import Masks, Prompts

if TYPE_CHECKING:
    import torch
    from PIL import Image

    Picture: TypeAlias = NDArray[np.uint8] | str | PathLike[str] | Image.Image | torch.Tensor
    """An image as `lora_sam.predictors.pictures.pixels_of` takes it."""


@dataclass(frozen=True)
class AllMasks:
    """All masks a model offers for N prompts of one image, at the image's original size.

    Attributes:
        logits: float32 [N, M, H, W]; M is 4: the single mask, then the three for ambiguous prompts (whole, part,
            subpart, in no fixed order); or 1 where a model was exported for single masks only.
        scores: IoU as predicted by the model, float32 [N, M].
        low_res_logits: float32 [N, M, S/4, S/4] in the input frame; one of them can be the next mask prompt.
    """

    logits: NDArray[np.float32]
    scores: NDArray[np.float32]
    low_res_logits: NDArray[np.float32]


Worth = Callable[[NDArray[np.float32]], NDArray[np.bool_]]
"""Says of predicted IoU [N, M] which masks are wanted, bool [N, M]."""


class Predictor(Protocol):
    """Whatever turns an image and prompts into masks.

    The first call with an image encodes it; it is remembered by its content, so further prompts cost the decoder only.
    """

    @property
    def image_size(self) -> int:
        """Side S of the model's square input in pixels."""
        ...

    @property
    def frame(self) -> Frame:
        """How images come to lie in that input."""
        ...

    @property
    def scores(self) -> Scores:
        """From which score on masks of these weights are good."""
        ...

    @property
    def encoded(self) -> int:
        """Images encoded so far."""
        ...

    def set_image(self, image: Picture) -> None:
        """Encode `image` (see `predict`) now, unless it is remembered. Raises `DataError` unless it is uint8 RGB."""

    def embedding(self, image: Picture) -> NDArray[np.float32]:
        """Embedding of `image` (see `predict`), float32 [1, C, S/16, S/16]; raises as `set_image` does."""
        ...

    def forget(self) -> None:
        """Forget all encoded images."""

    def remember(self, most_bytes: int) -> None:
        """Remember more than the last two encoded images, as long as they take no more bytes than this in all."""

    def predict(self, image: Picture, prompts: Prompts, *, multimask: bool = False, threshold: float = 0.0) -> Masks:
        """One mask for each of N prompts (pixels of `image`).

        Args:
            image: RGB, uint8 [H, W, 3], or a file, a picture of Pillow or a tensor, as
                `lora_sam.predictors.pictures.pixels_of` takes them.
            prompts: N prompts.
            multimask: Of SAM's three masks for ambiguous prompts, take the one with the highest predicted IoU.
            threshold: Logit above which a pixel belongs to the mask.

        Raises:
            DataError: the image is not uint8 RGB, or a prompt is none (see `lora_sam.predictors.prompting.checked`).
        """
        ...

    def predict_all(self, image: Picture, prompts: Prompts, *, worth: Worth | None = None) -> AllMasks:
        """All masks for each of N prompts. Takes memory for N x M images; raises as `predict` does.

        Args:
            image: As `predict` takes it.
            prompts: N prompts.
            worth: Which masks are wanted; all `logits` of the others are 0, which costs neither time nor memory. None
                for all of them.
        """
        ...

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
        """`predict` with prompts given as plain lists; see `lora_sam.predictors.prompting.prompts_from`.

        With `multimask`, all three masks are in `candidates` of the result.
        """
        ...


def best_of_three(scores: NDArray[np.float32]) -> NDArray[np.intp]:
    """Of predicted IoU [N, 4], the index of the best of the last three."""
    best: NDArray[np.intp] = 1 + scores[:, 1:].argmax(axis=1)
    return best
