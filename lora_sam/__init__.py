"""Fine-tune Meta's Segment Anything Model on your own images.

`train` trains, `Run` is what it leaves, `load` gives a predictor for a run or an adapter; everything else lives in the
submodules.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lora_sam.core.version import __version__ as __version__

if TYPE_CHECKING:
    from lora_sam.cli.from_python import train as train
    from lora_sam.core.errors import LoraSamError as LoraSamError
    from lora_sam.core.structures import Masks as Masks
    from lora_sam.core.structures import Prompts as Prompts
    from lora_sam.core.structures import Sample as Sample
    from lora_sam.data.reading.images import read_image as read_image
    from lora_sam.predictors.automatic import AutomaticMasks as AutomaticMasks
    from lora_sam.runs.loading import load as load
    from lora_sam.runs.loading import load_base as load_base
    from lora_sam.runs.run import Run as Run

# imported on first use, so that `import lora_sam` costs nothing
_PUBLIC = {
    "AutomaticMasks": "lora_sam.predictors.automatic",
    "Run": "lora_sam.runs.run",
    "train": "lora_sam.cli.from_python",
    "LoraSamError": "lora_sam.core.errors",
    "load": "lora_sam.runs.loading",
    "load_base": "lora_sam.runs.loading",
    "read_image": "lora_sam.data.reading.images",
    "Masks": "lora_sam.core.structures",
    "Prompts": "lora_sam.core.structures",
    "Sample": "lora_sam.core.structures",
}
__all__ = [
    "AutomaticMasks",
    "LoraSamError",
    "Masks",
    "Prompts",
    "Run",
    "Sample",
    "load",
    "load_base",
    "read_image",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lora_sam' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
