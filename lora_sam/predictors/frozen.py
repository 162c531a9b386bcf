"""The frozen part of a model's image encoder, with what it makes of images kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_sam.data.reading.images import digest_of_pixels
from lora_sam.predictors.embeddings.images import VALUES, row_key
from lora_sam.predictors.embeddings.store import CacheMiss, EmbeddingCache

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor

    from lora_sam.models.stages import Stage

ReadImage = Callable[[int], NDArray[np.uint8]]


@dataclass(frozen=True)
class FrozenPart:
    """The stage of an image encoder that no training changes. Rows are always made in fp32.

    Attributes:
        sam: The model.
        stage: The stage.
        store: The rows, by the digest of the image's pixels.
    """

    sam: Sam
    stage: Stage
    store: EmbeddingCache

    def values(self, image: NDArray[np.uint8]) -> Tensor:
        """What the stage makes of an RGB image [H, W, 3]: float32 [1, ...] on the model's device."""
        from lora_sam.models.decoding import device_of

        try:
            row = self.store.read(row_key(digest_of_pixels(image)))
        except CacheMiss:
            return self._encoded([image])
        return row[VALUES].unsqueeze(0).to(device_of(self.sam))

    def fill(self, keys: Sequence[str], image: ReadImage, on_rows: Callable[[int, int], None] | None = None) -> int:
        """Make the rows that are missing.

        Args:
            keys: Keys of the rows.
            image: The image of the key at a position, as it is looked at.
            on_rows: Called with (rows there, rows wanted).

        Returns:
            Rows made by this process.

        Raises:
            CacheUnavailable: rows cannot be kept.
        """
        from lora_sam.models.decoding import device_of

        def make(positions: list[int]) -> dict[str, NDArray[np.float32]]:
            return {VALUES: self._encoded([image(position) for position in positions]).cpu().numpy()}

        batch = 1 if device_of(self.sam).type == "cpu" else 8
        return self.store.fill(keys, make, batch=batch, on_rows=on_rows)

    def _encoded(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        import torch

        from lora_sam.data.transforms import preprocess
        from lora_sam.models.decoding import device_of
        from lora_sam.models.family import frame_of

        frame = frame_of(self.sam)
        pixels = torch.stack([preprocess(image, frame) for image in images]).to(device_of(self.sam))
        with torch.no_grad():
            return self.stage.of(self.sam.image_encoder, pixels).float()
