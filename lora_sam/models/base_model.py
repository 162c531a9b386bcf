"""A SAM ready for a method, and which base it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lora_sam.core.scores import META, Scores

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


@dataclass(frozen=True)
class BaseModel:
    """A SAM with split projections, and which base it is.

    Attributes:
        sam: Keys as upstream, but `attn.q|k|v` for `attn.qkv`; fp32, `eval()`, nothing requires gradients.
        variant: Name of the architecture.
        image_size: Side S of the square input in pixels.
        sha256: SHA-256 of the checkpoint file, or of the drawn weights when they are random.
        source: Name of the checkpoint file, or `random`.
        of_tensors: Works out `tensors`.
        scores: From which score on its masks are good.
        architecture: As the variant describes it (`lora_sam.models.family.SamModel.architecture`); weights do not show
            all of it.
    """

    sam: Sam
    variant: str
    image_size: int
    sha256: str
    source: str
    of_tensors: Callable[[], str | None]
    scores: Scores = META
    architecture: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def tensors(self) -> str | None:
        """SHA-256 of the weights themselves: equal whatever file, layout or precision holds the same numbers.

        Their file is read again when this is first asked for; None where it is not what was loaded any more.
        """
        return self.of_tensors()
