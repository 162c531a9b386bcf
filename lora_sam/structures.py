"""The nouns passed between steps: a labelled sample, its prompts, and predicted masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """One labelled image at its original size.

    Attributes:
        id: Stable name, unique within its data set (path of the image relative to the data root, with `/`).
        image: RGB, uint8 [H, W, 3].
        masks: One binary mask per object, bool [N, H, W]; N >= 1 and no mask is empty.
        object_ids: N names of the objects (annotation ids, or label values), for error messages and reports.
    """

    id: str
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    object_ids: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True)
class Prompts:
    """Prompts for N objects of one image, in pixels of the original image.

    The frame is continuous: pixel column i covers [i, i+1), so a one-pixel mask at (row 3, column 5) has the tight
    box (5, 3, 6, 4). Points are (x, y).

    Attributes:
        boxes: XYXY, float32 [N, 4], or None.
        points: (x, y), float32 [N, K, 2], or None.
        labels: int64 [N, K]: 1 foreground, 0 background, -1 padding; None exactly when `points` is None.
        mask_inputs: Logits of an earlier prediction (`Masks.low_res_logits`) to be improved, beside boxes or points,
            float32 [N, S/4, S/4] in the padded input frame, or None.
    """

    boxes: NDArray[np.float32] | None = None
    points: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    mask_inputs: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        assert self.boxes is not None or self.points is not None, "prompts without boxes and points"
        assert (self.points is None) == (self.labels is None), "points and labels come together"

    def __len__(self) -> int:
        if self.boxes is not None:
            return len(self.boxes)
        assert self.points is not None
        return len(self.points)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Prompts:
        """The same prompts for some of the objects."""
        return Prompts(
            boxes=None if self.boxes is None else self.boxes[rows],
            points=None if self.points is None else self.points[rows],
            labels=None if self.labels is None else self.labels[rows],
            mask_inputs=None if self.mask_inputs is None else self.mask_inputs[rows],
        )


@dataclass(frozen=True)
class Masks:
    """Predicted masks for N prompts of one image, at the image's original size.

    Attributes:
        masks: `logits > threshold`, bool [N, H, W].
        scores: IoU as predicted by the model, float32 [N].
        low_res_logits: float32 [N, S/4, S/4] in the padded input frame.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    low_res_logits: NDArray[np.float32]
