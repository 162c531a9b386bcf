"""The place of GeoTIFFs on earth: by scale and tie point, turned, as points, without a known frame; and in GeoJSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from lora_sam.data.reading.georeference import ASCII, KEYS, SCALE, TIEPOINTS, TRANSFORMATION, georeference_of
from lora_sam.deployment.predicting.found import FoundImage, objects_from, read_found, write_found
from lora_sam.deployment.predicting.writers import geojson

SHIFTED = (500000.0, 0.0, 0.0, 5.5e6, 0.0)


def keys(epsg: int, *, point: bool = False, key: int = 3072, citation: str = "") -> list[Any]:
    entries = [(1024, 0, 1, 1), (1025, 0, 1, 2 if point else 1), (key, 0, 1, epsg)]
    if citation:
        entries.append((1026, ASCII, len(citation) + 1, 0))
    values = [1, 1, 0, len(entries), *(number for entry in entries for number in entry)]
    tags: list[Any] = [(KEYS, "H", len(values), values, True)]
    return tags + ([(ASCII, "s", 0, f"{citation}|", True)] if citation else [])


def tag(code: int, values: Sequence[float]) -> Any:
    return code, "d", len(values), list(values), True


def saved(path: Path, *tags: Any) -> Path:
    tifffile.imwrite(path, np.zeros((30, 40, 3), np.uint8), photometric="rgb", extratags=list(tags))
    return path


PLACED = [tag(SCALE, (0.5, 0.25, 0)), tag(TIEPOINTS, (0, 0, 0, 500000, 5.5e6, 0))]


def test_scale_and_tie_point(tmp_path: Path) -> None:
    place = georeference_of(saved(tmp_path / "a.tif", *PLACED, *keys(32633)))
    assert place is not None
    assert place.epsg == 32633
    assert place.at(0, 0) == (500000, 5.5e6)
    assert place.at(4, 8) == (500002, 5.5e6 - 2)
    # the tie point may be anywhere
    moved = [PLACED[0], tag(TIEPOINTS, (4, 8, 0, 500002, 5.5e6 - 2, 0))]
    assert georeference_of(saved(tmp_path / "b.tiff", *moved, *keys(4326, key=2048))) == type(place)(
        transform=place.transform, epsg=4326
    )


def test_the_middle_of_a_pixel_as_its_place(tmp_path: Path) -> None:
    place = georeference_of(saved(tmp_path / "a.tif", *PLACED, *keys(32633, point=True)))
    assert place is not None
    assert place.at(0.5, 0.5) == (500000, 5.5e6)


def test_a_turned_image(tmp_path: Path) -> None:
    angle = math.radians(30)
    a, b, d, e = (2 * math.cos(angle), 2 * math.sin(angle), 2 * math.sin(angle), -2 * math.cos(angle))
    matrix = [a, b, 0, 700, d, e, 0, 900, 0, 0, 0, 0, 0, 0, 0, 1]
    place = georeference_of(saved(tmp_path / "a.tif", tag(TRANSFORMATION, matrix), *keys(32633)))
    assert place is not None
    assert place.at(0, 0) == (700, 900)
    assert place.at(3, 5) == pytest.approx((700 + 3 * a + 5 * b, 900 + 3 * d + 5 * e))


@pytest.mark.parametrize("code", [0, 32767])
def test_a_frame_that_has_no_code_is_said_in_words(tmp_path: Path, code: int) -> None:
    place = georeference_of(saved(tmp_path / "a.tif", *PLACED, *keys(code, citation="Local grid of a mine")))
    assert place is not None
    assert place.epsg is None
    assert place.citation == "Local grid of a mine"


def test_what_has_no_such_place(tmp_path: Path) -> None:
    flat = [tag(SCALE, (0.0, 0.25, 0)), PLACED[1]]
    several = [tag(TIEPOINTS, (0, 0, 0, 1, 1, 0, 9, 9, 0, 5, 6, 0, 9, 0, 0, 3, 4, 0))]
    for number, tags in enumerate(([], flat, several, keys(32633))):
        assert georeference_of(saved(tmp_path / f"{number}.tif", *tags)) is None
    turned = saved(tmp_path / "turned.tif", *PLACED, *keys(32633), (274, "H", 1, 6, True))
    assert georeference_of(turned) is None
    (tmp_path / "text.tif").write_text("no image")
    for path in (tmp_path / "text.tif", tmp_path / "absent.tif", tmp_path / "a.png", None):
        assert georeference_of(path) is None


def found(path: Path) -> FoundImage:
    mask = np.zeros((1, 30, 40), np.bool_)
    mask[0, 8:16, 4:10] = True
    objects = [one for one in objects_from(mask, [0.5], ["tree"], [None], [None]) if one is not None]
    return FoundImage(
        name="a.tif", stem="a", size=(30, 40), objects=tuple(objects), empty=0, settings="", content="", prompts="",
        place=georeference_of(path),
    )  # fmt: skip


def test_geojson_is_on_the_map_and_says_which(tmp_path: Path) -> None:
    image = found(saved(tmp_path / "a.tif", *PLACED, *keys(32633)))
    write_found(tmp_path / "record.json", image)
    kept = read_found(tmp_path / "record.json")
    assert kept == image
    assert kept is not None
    geojson.write(tmp_path, kept, lambda: np.zeros((30, 40, 3), np.uint8), {1: "tree"})
    content = json.loads((tmp_path / "geojson" / "a.geojson").read_text())
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    (ring,) = content["features"][0]["geometry"]["coordinates"]
    x, y = np.array(ring).T
    assert (x.min(), x.max(), y.min(), y.max()) == (500002, 500005, 5.5e6 - 4, 5.5e6 - 2)
    # pixels, not the map, are what the area is counted in
    assert content["features"][0]["properties"]["measurements"]["area"] == 48


def test_geojson_of_an_unknown_frame_claims_none(tmp_path: Path) -> None:
    image = found(saved(tmp_path / "a.tif", *PLACED, *keys(32767, citation="Mine")))
    geojson.write(tmp_path, image, lambda: np.zeros((30, 40, 3), np.uint8), {1: "tree"})
    content = json.loads((tmp_path / "geojson" / "a.geojson").read_text())
    assert content["crs"] is None
    assert content["georeference"]["citation"] == "Mine"


def test_predict_keeps_the_place_and_says_what_it_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lora_sam.cli.predicted import _unknown_frames
    from lora_sam.deployment.predicting.outcome import Outcome

    outcome = Outcome()
    outcome.add(found(saved(tmp_path / "a.tif", *PLACED, *keys(32633))))
    assert outcome.unknown_frames == {}
    outcome.add(found(saved(tmp_path / "a.tif", *PLACED, *keys(32767, citation="Mine"))))
    assert outcome.unknown_frames == {"a.tif": "Mine"}
    assert "1 image with a place on earth, such as a.tif, which calls it 'Mine', whose frame has no EPSG code" in (
        _unknown_frames(outcome.unknown_frames)
    )
