"""What a format of labelled images offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lora_sam.data.splits import Splits


class DataSource(Protocol):
    """Labelled images on disk, in any format."""

    @property
    def max_objects_per_image(self) -> int | None:
        """Largest number of objects of an image that one training step uses; None for all."""
        ...

    def open(self, seed: int) -> Splits:
        """Read and check everything; `seed` decides what becomes an absent split. Raises `DataError`."""
        ...
