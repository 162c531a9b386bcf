"""An ML backend for Label Studio: a directory that `label-studio-ml start` takes, or a container."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_sam.deployment.packs.hosting import REQUIREMENTS, SEGMENTER, program, write_program
from lora_sam.deployment.packs.packing import Opened, Packed

if TYPE_CHECKING:
    from lora_sam.deployment.packs.questions import Answer

_PROGRAMS = {"model.py": "label_studio_model.py", "_wsgi.py": "label_studio_wsgi.py"}
_BACKEND = "label-studio-ml @ git+https://github.com/HumanSignal/label-studio-ml-backend.git"
LABELS = """\
<View>
  <Image name="image" value="$image" zoom="true"/>
  <BrushLabels name="mask" toName="image">{labels}
  </BrushLabels>
  <KeyPointLabels name="click" toName="image" smart="true">{labels}
  </KeyPointLabels>
  <RectangleLabels name="box" toName="image" smart="true">{labels}
  </RectangleLabels>
</View>
"""
"""The labelling interface that the backend answers."""

_DOCKERFILE = """\
FROM python:3.11-slim
WORKDIR /app
RUN apt-get update && apt-get install --no-install-recommends -y git && rm -rf /var/lib/apt/lists/*
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
EXPOSE 9090
CMD gunicorn --bind :9090 --workers 1 --threads 8 --timeout 0 _wsgi:app
"""


@dataclass(frozen=True, kw_only=True)
class LabelStudioPack:
    """The directory of an ML backend for Label Studio."""

    def write(self, packed: Packed, directory: Path) -> Opened:
        """See `lora_sam.deployment.packs.packing.Target`.

        Writes `model.py`, `_wsgi.py`, `requirements.txt`, a Dockerfile, `labels.xml` for the project, and the model.
        """
        from lora_sam.deployment.packs.questions import agreement, our_answer
        from lora_sam.runs.adapter_files import find_adapter
        from lora_sam.runs.loading import load_classes

        write_program(packed, directory, "label_studio", _PROGRAMS)
        requirements = "\n".join((*REQUIREMENTS, "gunicorn", _BACKEND))
        (directory / "requirements.txt").write_text(requirements + "\n", encoding="utf-8")
        (directory / "Dockerfile").write_text(_DOCKERFILE, encoding="utf-8")
        head = load_classes(find_adapter(packed.run.root))
        classes = ("object",) if head is None else head.names
        (directory / "labels.xml").write_text(interface(classes), encoding="utf-8")
        iou, masks = agreement(packed, our_answer(packed), _answers(directory))
        return Opened(
            host="Label Studio",
            by=f"{SEGMENTER}, which model.py asks",
            mask_iou=iou,
            masks=masks,
            why_not_run="Label Studio and its backends are servers, which this package does not start",
        )


def interface(classes: tuple[str, ...]) -> str:
    """The labelling interface for some classes."""
    from xml.sax.saxutils import quoteattr

    return LABELS.format(labels="".join(f"\n    <Label value={quoteattr(name)}/>" for name in classes))


def _answers(directory: Path) -> Answer:
    with program(directory, SEGMENTER) as module:
        segmenter: Any = module.Segmenter(directory)

    def answer(image: Any, question: Any) -> Any:
        mask, _ = segmenter(image, question.box, question.points, question.labels)
        return np.asarray(mask, np.bool_)

    return answer
