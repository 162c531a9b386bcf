"""In which precision the weights of an OpenVINO IR are stored, read from its description."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from lora_sam.core.errors import AdapterError
from lora_sam.predictors.openvino_parts import ENCODER

# element types of OpenVINO IR by the precision of what is stored so
_PRECISIONS = {"f32": "fp32", "f16": "fp16", **dict.fromkeys(("i8", "u8"), "int8")}
_PRECISIONS |= dict.fromkeys(("i4", "u4", "nf4"), "int4_weights")


def stored_weights(encoder: Path) -> str:
    """fp32, fp16, int8, int8_weights or int4_weights: what most bytes of the constants in an IR are.

    Raises:
        AdapterError: the file cannot be read, or holds no constant.
    """
    try:
        text = encoder.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise AdapterError(f"{encoder}: cannot be read ({error.strerror}); give the path of {ENCODER}") from error
    count: Counter[str] = Counter()
    for attributes in re.findall(r'<data ([^>]*\boffset="[^>]*)>', text):
        kind, size = re.search(r'element_type="(\w+)"', attributes), re.search(r'\bsize="(\d+)"', attributes)
        if kind is not None and size is not None and kind[1] in _PRECISIONS:
            count[_PRECISIONS[kind[1]]] += int(size[1])
    if not count:
        raise AdapterError(f"{encoder} holds no weights, so it is not an OpenVINO IR; give the path of {ENCODER}")
    most = count.most_common(1)[0][0]
    # activations are quantised by layers of this type
    return "int8_weights" if most == "int8" and 'type="FakeQuantize"' not in text else most
