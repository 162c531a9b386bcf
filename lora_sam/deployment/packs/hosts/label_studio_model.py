"""Masks of a tuned SAM for Label Studio's smart tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from label_studio_ml.model import LabelStudioMLBase
from label_studio_sdk.converter import brush
from PIL import Image
from segmenter import Segmenter, pixels_of

SEGMENTER = Segmenter(Path(__file__).parent)


class TunedSam(LabelStudioMLBase):
    """Answers clicks (`KeyPointLabels`) and boxes (`RectangleLabels`) with a mask (`BrushLabels`)."""

    def setup(self) -> None:
        """Say which model it is."""
        self.set("model_version", "lora_sam")

    def predict(self, tasks: list[dict[str, Any]], context: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        """One mask for what was clicked or drawn; nothing before that."""
        given = (context or {}).get("result") or []
        if not given:
            return []
        from_name, to_name, value = self.get_first_tag_occurence("BrushLabels", "Image")
        path = self.get_local_path(tasks[0]["data"][value], task_id=tasks[0].get("id"))
        image = pixels_of(Image.open(path))  # upright, which is what the percentages are of
        height, width = image.shape[:2]
        percent = np.array([width, height]) / 100
        points, labels, box, label = [], [], None, None
        for one in given:
            kind, place = one["type"], one["value"]
            corner = np.array([place["x"], place["y"]]) * percent
            if kind == "keypointlabels":
                points.append(corner)
                labels.append(int(one.get("is_positive", 1)))
            elif kind == "rectanglelabels":
                # it may have been turned, clockwise about its corner: what it spans
                along, down = np.array([place["width"], place["height"]]) * percent
                turned = np.deg2rad(place.get("rotation") or 0)
                sides = np.array([[np.cos(turned), np.sin(turned)], [-np.sin(turned), np.cos(turned)]])
                spanned = corner + np.array([[0, 0], [along, 0], [0, down], [along, down]]) @ sides
                box = [*spanned.min(axis=0), *spanned.max(axis=0)]
            else:
                continue
            label = place[kind][0]
        if label is None or (box is None and not any(labels)):
            return []
        mask, score = SEGMENTER(image, box=box, points=points, labels=labels)
        region = {
            "id": uuid4().hex[:10],
            "from_name": from_name,
            "to_name": to_name,
            "type": "brushlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": brush.mask2rle(mask.astype(np.uint8) * 255), "brushlabels": [label]},
            "score": score,
            "readonly": False,
        }
        return [{"result": [region], "model_version": "lora_sam", "score": score}]
