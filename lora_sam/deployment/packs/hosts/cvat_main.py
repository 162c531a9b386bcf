"""Masks of a tuned SAM for CVAT's interactors; nuclio calls `init_context` once and `handler` for each request."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from segmenter import Segmenter, pixels_of


def init_context(context: Any) -> None:
    """Load the model."""
    context.user_data.model = Segmenter(Path(__file__).parent)


def handler(context: Any, event: Any) -> Any:
    """The mask of one object, {"mask": rows of 0 and 1}, of an image in base64 with points, a box, or both."""
    data = event.body
    picture, error = Image.open(io.BytesIO(base64.b64decode(data["image"]))), None
    try:
        image = pixels_of(picture)
    except ValueError as refused:
        error = str(refused)
    on, beside = data.get("pos_points") or [], data.get("neg_points") or []
    corners = data.get("obj_bbox")
    box = None
    if corners:
        sides = np.asarray(corners, np.float64).reshape(2, 2)
        box = [*sides.min(axis=0), *sides.max(axis=0)]
    if not on and box is None:
        error = "draw a box, or click on the object"
    if error is None:
        labels = [1] * len(on) + [0] * len(beside)
        mask, _ = context.user_data.model(image, box=box, points=[*on, *beside], labels=labels)
        told: dict[str, Any] = {"mask": mask.astype(np.uint8).tolist()}
    else:
        told = {"error": error}
    status = 200 if error is None else 400
    return context.Response(body=json.dumps(told), headers={}, content_type="application/json", status_code=status)
