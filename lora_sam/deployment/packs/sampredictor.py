"""`segment_anything`'s own checkpoint: a `.pth` that `sam_model_registry` loads, for `SamPredictor`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_sam.deployment.packs.packing import Opened, Packed, refuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_sam.core.frame import Frame
    from lora_sam.core.structures import Prompts

_PACKAGE = "segment_anything"


@dataclass(frozen=True, kw_only=True)
class SamPredictorPack:
    """A `.pth` for `sam_model_registry` of segment_anything."""

    def write(self, packed: Packed, directory: Path) -> Opened:
        """See `lora_sam.deployment.packs.packing.Target`; writes `sam_<variant>.pth`, the bare state dict."""
        import torch
        from segment_anything import SamPredictor, sam_model_registry

        from lora_sam.deployment.exporting import compared
        from lora_sam.predictors.torch_predictor import TorchPredictor

        check_registered(packed, "sampredictor")
        path = directory / f"sam_{packed.variant}.pth"
        torch.save(dict(packed.state), path)
        # the registry loads with strict=True; before it does, the file has to be one without code in it
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        sam = sam_model_registry[packed.variant](checkpoint=str(path)).eval()
        ours = TorchPredictor(packed.base.sam, packed.base.image_size)
        found = compared(ours, Hosted(SamPredictor(sam), ours.frame), packed.run)
        return Opened(
            host=f"{_PACKAGE} {version(_PACKAGE)}",
            by="sam_model_registry and SamPredictor",
            mask_iou=found["mask_iou"],
            masks=found["prompts"],
        )


def check_registered(packed: Packed, target: str) -> None:
    """Raise `AdapterError` unless the variant is one of `sam_model_registry`, with the shapes it has there."""
    import torch
    from segment_anything import sam_model_registry

    from lora_sam.models.family import why_not

    reason = why_not(packed.architecture, "SamPredictor")
    if reason is not None:
        raise refuse(packed, target, reason, "take target=transformers")
    remedy = "SamPredictor(lora_sam.merge.plain_sam(run)) takes models of segment_anything of any size"

    known = [name for name in sam_model_registry if name != "default"]
    if packed.variant not in known:
        raise refuse(
            packed,
            target,
            f"sam_model_registry has {', '.join(known)} alone",
            remedy,
        )
    with torch.device("meta"):
        registered = sam_model_registry[packed.variant]().state_dict()
    if {key: value.shape for key, value in packed.state.items()} != {
        key: value.shape for key, value in registered.items()
    }:
        side = packed.architecture["image_size"]
        raise refuse(packed, target, f"its weights, for images of {side} pixels, have other shapes there", remedy)


class Hosted:
    """A `SamPredictor`, asked as our predictors are.

    Args:
        host: The predictor.
        frame: How images lie in its input.
    """

    def __init__(self, host: Any, frame: Frame) -> None:
        self._host = host
        self._frame = frame

    def predict(self, image: NDArray[np.uint8], prompts: Prompts) -> Any:
        """The single mask of each of N prompts; see `lora_sam.core.predictor.Predictor`."""
        from lora_sam.core.structures import Masks
        from lora_sam.data.transforms import mask_inputs_to_input_frame

        self._host.set_image(image)
        found: dict[int, tuple[Any, Any, Any]] = {}
        for rows, part in prompts.kinds():
            earlier = mask_inputs_to_input_frame(part, (image.shape[0], image.shape[1]), self._frame)
            for place, row in enumerate(rows.tolist()):
                found[row] = self._host.predict(
                    point_coords=None if part.points is None else part.points[place],
                    point_labels=None if part.labels is None else part.labels[place],
                    box=None if part.boxes is None else part.boxes[place],
                    mask_input=None if earlier is None else earlier[place][None],
                    multimask_output=False,
                )
        columns = zip(*(found[row] for row in range(len(prompts))), strict=True)
        masks, scores, low_res = (np.concatenate(column) for column in columns)
        return Masks(masks, scores, low_res)
