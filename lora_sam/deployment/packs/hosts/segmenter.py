"""Segment objects with the two parts beside this file; needs openvino, numpy and Pillow, and nothing else."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from PIL import ImageOps


def pixels_of(picture: Any) -> Any:
    """RGB, uint8 [H, W, 3], of a picture that Pillow has just opened, turned as EXIF says: as a browser shows it.

    Raises:
        ValueError: it has more than 8 bits. Pillow would cut them off: grey is nearly all white then, and of colour the
            high bits are left, which may be black.
    """
    # what Pillow reads as 8 bits is known by the parts that it has not read yet
    halved = any(";16" in str(part[3]) for part in getattr(picture, "tile", ()))
    if picture.mode == "F" or picture.mode.startswith("I") or halved:
        raise ValueError("the image has more than 8 bits: save it with 8, scaled as the images of the training were")
    return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


class Segmenter:
    """A tuned SAM. Threads may share one; they are answered one after the other.

    Args:
        directory: Where `image_encoder.xml` and `mask_decoder.xml` are.
    """

    core: Any = None
    """OpenVINO's runtime where the process has one already."""

    settings: Mapping[str, str] = {"INFERENCE_PRECISION_HINT": "f32"}
    """For OpenVINO. Empty leaves all to it: on some CPUs bf16, which is faster, with masks that differ a little."""

    def __init__(self, directory: Path) -> None:
        core = Segmenter.core or ov.Core()
        encoder, decoder = (core.read_model(directory / f"{part}.xml") for part in ("image_encoder", "mask_decoder"))
        facts = {key: encoder.get_rt_info(["model_info", key]).astype(str) for key in ("image_size", "resize_type")}
        self._side, self._square = int(facts["image_size"]), facts["resize_type"] == "standard"
        self._encoder, self._decoder = (
            core.compile_model(part, "CPU", dict(Segmenter.settings)) for part in (encoder, decoder)
        )
        self._lock = threading.Lock()
        self._last: tuple[bytes, Any] | None = None

    def __call__(self, image: Any, box: Any = None, points: Any = (), labels: Any = ()) -> tuple[Any, float]:
        """The mask of one object.

        Args:
            image: RGB, uint8 [H, W, 3].
            box: (x1, y1, x2, y2) in pixels of the image, or None.
            points: (x, y) of each click, [K, 2]; may be empty beside a box.
            labels: 1 for a click on the object, 0 for one beside it, [K].

        Returns:
            The mask, bool [H, W], and the IoU that the model predicts for it.

        Raises:
            ValueError: there is neither a box nor a click.
        """
        coords = np.asarray(points, np.float64).reshape(-1, 2)
        kinds = np.asarray(labels, np.float32).reshape(-1)
        if box is not None:  # a box is two points
            coords = np.concatenate([coords, np.asarray(box, np.float64).reshape(2, 2)])
            kinds = np.concatenate([kinds, np.array([2, 3], np.float32)])
        if not len(coords) or len(coords) != len(kinds):
            raise ValueError("give a box, or points with a label each")
        height, width = image.shape[:2]
        coords = coords * self._scale(height, width)
        with self._lock:
            result = self._decoder(
                {
                    "image_embeddings": self._embedding(image),
                    "point_coords": coords[None].astype(np.float32),
                    "point_labels": kinds[None],
                    "mask_input": np.zeros((1, 1, self._side // 4, self._side // 4), np.float32),
                    "has_mask_input": np.zeros((1, 1), np.float32),
                    "orig_size": np.array([[height, width]], np.int64),
                }
            )
            return result["upscaled_masks"][0, 0] > 0, float(result["iou_predictions"][0, 0])

    def _embedding(self, image: Any) -> Any:
        """Once for an image, however many clicks follow."""
        pixels = np.ascontiguousarray(image)
        key = hashlib.sha256(pixels.tobytes()).digest() + str(pixels.shape).encode()
        if self._last is None or self._last[0] != key:
            self._last = key, self._encoder({"image": pixels[None]})["image_embeddings"].copy()
        return self._last[1]

    def _scale(self, height: int, width: int) -> Any:
        """From pixels (x, y) of an image to those of the input."""
        if self._square:
            return np.array([self._side / width, self._side / height])
        longest = max(height, width)
        inside = [max(1, (2 * length * self._side + longest) // (2 * longest)) for length in (width, height)]
        return np.array([inside[0] / width, inside[1] / height])
