"""Two IR parts for OpenVINO Model API, whose `Model.create_model` takes each and `SAMVisualPrompter` both.

Model API pads before it normalises and scales otherwise than SAM does, so here the pre-processing is in the encoder,
which says so (`embedded_processing`): its masks are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_sam.core.extras import is_there
from lora_sam.deployment.packs.packing import Opened, Packed, refuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_sam.deployment.packs.questions import Question

_PACKAGE, _MODULE = "openvino-model-api", "model_api"
_USE = '''"""Segment what a box shows, with OpenVINO Model API: python use.py image.png 10 20 200 180"""

import sys
from pathlib import Path

import numpy as np
from model_api.models import Model
from model_api.models.visual_prompting import Prompt, SAMVisualPrompter
from PIL import Image, ImageOps

here = Path(__file__).parent
parts = (Model.create_model(str(here / f"{name}.xml")) for name in ("image_encoder", "mask_decoder"))
picture = Image.open(sys.argv[1])
# Pillow would cut bits off; of colour that shows in the parts that it has not read yet
if picture.mode[0] in "IF" or any(";16" in str(part[3]) for part in picture.tile):
    sys.exit(f"{sys.argv[1]} has more than 8 bits: save it with 8, scaled as the images of the training were")
image = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))  # as a viewer shows it
box = np.array([float(number) for number in sys.argv[2:6]], np.float32)
found = SAMVisualPrompter(*parts)(image, boxes=[Prompt(box, 1)])
print(f"{found.processed_mask[0].sum():.0f} pixels, predicted IoU {found.best_iou[0]:.3f}")
'''


@dataclass(frozen=True, kw_only=True)
class ModelApiPack:
    """Two IR parts for `SAMVisualPrompter` of OpenVINO Model API."""

    def write(self, packed: Packed, directory: Path) -> Opened:
        """See `lora_sam.deployment.packs.packing.Target`; writes both parts and `use.py`."""
        from lora_sam.deployment.packs.parts import write_parts
        from lora_sam.models.family import why_not

        reason = why_not(packed.architecture, "model_api")
        if reason is not None:
            raise refuse(packed, "model_api", reason, "take target=cvat, or the parts of `lora-sam export`")
        write_parts(packed, directory, "model_api", multimask=True)
        (directory / "use.py").write_text(_USE, encoding="utf-8")
        if not is_there(_MODULE):
            why = f"{_PACKAGE} is not installed"
            return Opened(host=_PACKAGE, by="model_info of both files", why_not_run=why)
        from lora_sam.deployment.packs.questions import agreement

        iou, masks = agreement(packed, _ours(packed), prompter(directory))
        return Opened(
            host=f"{_PACKAGE} {version(_PACKAGE)}",
            by="Model.create_model and SAMVisualPrompter",
            mask_iou=iou,
            masks=masks,
        )


def prompter(directory: Path) -> Any:
    """Model API with the parts of a directory, in fp32, asked as `lora_sam.deployment.packs.questions.Answer`."""
    from lora_sam.predictors.openvino_parts import DECODER, ENCODER, openvino_core

    core = openvino_core()
    from model_api.adapters import OpenvinoAdapter
    from model_api.models import Model
    from model_api.models.visual_prompting import Prompt, SAMVisualPrompter

    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    parts = (
        Model.create_model(OpenvinoAdapter(core, str(directory / name), plugin_config=exact))
        for name in (ENCODER, DECODER)
    )
    host = SAMVisualPrompter(*parts)

    def answer(image: NDArray[np.uint8], question: Question) -> NDArray[np.bool_]:
        if question.box is not None:
            found = host(image, boxes=[Prompt(question.box, 1)])
        else:
            found = host(image, points=[Prompt(question.points[0], 1)])
        mask = found.processed_mask[0]
        # where all three are empty it gives a mask of the size of the decoder's own
        if mask.shape != image.shape[:2]:
            return np.zeros(image.shape[:2], np.bool_)
        return np.asarray(mask, np.bool_)

    return answer


def _ours(packed: Packed) -> Any:
    """Our masks as Model API chooses them: of the three, the best that is not empty, of a box or of one click."""
    from lora_sam.deployment.packs.questions import Question
    from lora_sam.predictors.torch_predictor import TorchPredictor

    predictor = TorchPredictor(packed.base.sam, packed.base.image_size)

    def answer(image: NDArray[np.uint8], question: Question) -> NDArray[np.bool_]:
        nothing = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
        simple = (
            Question(question.box, *nothing)
            if question.box is not None
            else Question(None, question.points[:1], np.ones(1, np.int64))
        )
        every = predictor.predict_all(image, simple.prompts())
        masks, scores = every.logits[0, 1:] > 0, every.scores[0, 1:]
        full = np.flatnonzero(masks.any(axis=(1, 2)))
        if not len(full):
            return np.zeros(image.shape[:2], np.bool_)
        best: NDArray[np.bool_] = masks[full[scores[full].argmax()]]
        return best

    return answer
