"""A GeoTIFF in a folder that is predicted: its GeoJSON is on the map, that of the other images in pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tifffile

from .test_work import done, output_of, work_of


def test_each_image_has_its_own_place(folder: Path) -> None:
    scale, tie = (33550, "d", 3, [2.0, 2.0, 0.0], True), (33922, "d", 6, [0.0, 0, 0, 1000, 5000, 0], True)
    path = folder / "deep" / "c.tif"
    tifffile.imwrite(path, np.asarray(tifffile.imread(path)), extratags=[scale, tie])
    outcome, _ = done(work_of(folder, output_of(folder), formats=("geojson",)))
    assert outcome.failures == {}
    assert outcome.unknown_frames == {"deep/c.tif": ""}
    found = {path.stem: json.loads(path.read_text()) for path in (folder.parent / "out" / "geojson").rglob("*.geojson")}
    assert "crs" not in found["a"]
    assert found["c"]["crs"] is None
    x, y = np.array(found["c"]["features"][0]["geometry"]["coordinates"][0]).T
    assert x.min() >= 1000
    assert y.max() <= 5000
    # the record keeps it: another format later, and the image that is there already, say the same
    again, _ = done(work_of(folder, output_of(folder), formats=("geojson",)))
    assert again.predicted == 0
    assert again.unknown_frames == outcome.unknown_frames
