"""Numbers of classes in files of earlier calls, where the classes have another order now."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from lora_sam.deployment.predicting.found import write_found
from lora_sam.deployment.predicting.task import Work
from lora_sam.deployment.predicting.writers.table import FORMATS


def number_again(work: Work) -> None:
    """Bring files of earlier calls to the numbers of classes that `finish` names.

    Those with a class that is not there any more are removed; their masks stay in the record.

    Raises:
        TrainingError: they cannot be written.
    """
    if not any(FORMATS[name].numbers_classes for name in work.formats):
        return
    for image in work.output.found():
        stale = [name for name in work.formats if name in image.files and work.numbered_otherwise(image, name)]
        if not stale:
            continue
        files, numbering = dict(image.files), dict(image.numbering)
        known = {one.category for one in image.objects} <= set(work.categories.values())
        for name in stale:
            each = FORMATS[name].each
            if known and each is not None:
                files[name], numbering[name] = each(work.output.root, image, _none, work.categories), work.numbering
            else:
                work.output.remove(files.pop(name))
        write_found(work.output.record(image.name), dataclasses.replace(image, files=files, numbering=numbering))


def _none() -> NDArray[np.uint8]:
    raise AssertionError("what numbers classes needs no pixels")
