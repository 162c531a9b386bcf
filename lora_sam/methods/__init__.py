"""Fine-tuning methods: what is inserted into SAM, what trains, and how it folds back into plain weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.methods.adapted import AdaptedSam


class Method(Protocol):
    """A fine-tuning method is one verb here, `apply`; its inverse is `AdaptedSam.merge`."""

    @property
    def name(self) -> str:
        """Short name, as in `method=<name>`."""

    def check_depth(self, depth: int) -> None:
        """Raise `ConfigError` where the method does not fit an image encoder of `depth` blocks."""

    def apply(self, sam: Sam) -> AdaptedSam:
        """Freeze `sam`, insert what the method trains, in place; the outputs of the model do not change.

        Draws initial values from the global torch generator. `sam` has split projections.
        """
