"""An interactor for CVAT: the directory of a nuclio function, which `nuctl deploy` takes.

CVAT sends an image as base64 with `pos_points`, `neg_points` and `obj_bbox`, and takes {"mask": rows of 0 and 1}. The
annotations of `function.yaml` tell it what kind of function that is.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_sam.deployment.packs.hosting import REQUIREMENTS, program, write_program
from lora_sam.deployment.packs.packing import Opened, Packed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_sam.deployment.packs.questions import Question


@dataclass(frozen=True, kw_only=True)
class CvatPack:
    """A directory for `nuctl deploy`, an interactor of CVAT."""

    def write(self, packed: Packed, directory: Path) -> Opened:
        """See `lora_sam.deployment.packs.packing.Target`; writes `function.yaml`, `main.py` and the model."""
        from lora_sam.deployment.packs.questions import agreement, our_answer

        write_program(packed, directory, "cvat", {"main.py": "cvat_main.py"})
        (directory / "function.yaml").write_text(_function(packed.variant), encoding="utf-8")
        with program(directory, "main.py") as main:
            context = SimpleNamespace(user_data=SimpleNamespace(), Response=SimpleNamespace)
            main.init_context(context)

            def answer(image: NDArray[np.uint8], question: Question) -> NDArray[np.bool_]:
                event = SimpleNamespace(body=_request(image, question))
                mask: NDArray[np.bool_] = np.array(json.loads(main.handler(context, event).body)["mask"], np.bool_)
                return mask

            iou, masks = agreement(packed, our_answer(packed), answer)
        return Opened(
            host="CVAT",
            by="fields of function.yaml; handler of main.py, called as nuclio calls it",
            mask_iou=iou,
            masks=masks,
            why_not_run="CVAT and nuclio are servers in containers, which this package does not start",
        )


def _request(image: NDArray[np.uint8], question: Question) -> dict[str, Any]:
    """What CVAT sends for a question."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return {
        "image": base64.b64encode(file.getvalue()).decode(),
        "pos_points": question.points[question.labels == 1].tolist(),
        "neg_points": question.points[question.labels == 0].tolist(),
        "obj_bbox": None if question.box is None else question.box.reshape(2, 2).tolist(),
    }


def _function(variant: str) -> str:
    """`function.yaml`: what CVAT shows and asks for, and how nuclio builds the container."""
    name = variant.replace("_", "-")
    return f"""\
metadata:
  name: lora-sam-{name}
  namespace: cvat
  annotations:
    name: SAM tuned with lora_sam ({variant})
    version: 2
    type: interactor
    spec:
    framework: openvino
    min_pos_points: 0
    min_neg_points: 0
    startswith_box_optional: true
    help_message: Draw a box, or click on the object; right clicks leave out

spec:
  description: Segment Anything, tuned on images of your own
  runtime: 'python:3.11'
  handler: main:handler
  eventTimeout: 60s

  build:
    image: cvat.lora-sam.{name}
    baseImage: python:3.11-slim
    directives:
      preCopy:
        - kind: RUN
          value: pip install --no-cache-dir {" ".join(f"'{package}'" for package in REQUIREMENTS)}

  triggers:
    myHttpTrigger:
      maxWorkers: 1
      kind: 'http'
      workerAvailabilityTimeoutMilliseconds: 10000
      attributes:
        maxRequestBodySize: 33554432

  platform:
    attributes:
      restartPolicy:
        name: always
        maximumRetryCount: 3
      mountMode: volume
"""
