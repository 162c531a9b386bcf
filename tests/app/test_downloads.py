"""Files of the masks hold the masks, and the snippet makes them again."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from lora_sam.app import details
from lora_sam.app.downloads import label_image, snippet
from lora_sam.app.drawing import BROKEN, CHANGED, FIXED, difference, overlay, tagged
from lora_sam.app.patches import patch_of
from lora_sam.app.scene import Scene, objects_from, to_json
from lora_sam.app.workbench import Workbench
from lora_sam.core.errors import DataError
from lora_sam.core.painting import PALETTE
from lora_sam.prompts.objects import ObjectPrompts

MakeScene = Callable[..., Scene]


def state(scene: Scene) -> str:
    return json.dumps({"scene": json.loads(to_json(scene)), "opacity": 0.5})


@pytest.fixture
def beside(outputs: Path) -> Iterator[None]:
    """In the directory that the runs were made in."""
    before = Path.cwd()
    os.chdir(outputs.parent)
    yield
    os.chdir(before)


def test_files_hold_the_masks(bench: Workbench, scene: MakeScene) -> None:
    shown = scene(objects=(*scene().objects, ObjectPrompts()))
    files = details.files(bench, state(shown))
    found = bench.compare(scene())
    assert sorted(files) == sorted(
        [f"{name}_{kind}" for name in ("base", "tuned_first") for kind in ("masks.zip", "labels.png", "coco.json")]
        + ["prompts.json"]
    )
    for name, column in zip(("base", "tuned_first"), found.columns, strict=True):
        masks = np.stack([patch.full((48, 64)) for patch in column.patches if patch is not None])
        with zipfile.ZipFile(io.BytesIO(files[f"{name}_masks.zip"])) as archive:
            assert archive.namelist() == ["object_001.png", "object_002.png"]
            stored = [np.asarray(Image.open(archive.open(one))) for one in archive.namelist()]
        assert np.array_equal(np.stack(stored) == 255, masks)
        content = json.loads(files[f"{name}_coco.json"])
        assert content["images"] == [{"id": 1, "file_name": found.picture.name, "height": 48, "width": 64}]
        for annotation in content["annotations"]:
            assert np.array_equal(coco_mask.decode(annotation["segmentation"]), masks[annotation["id"] - 1])
            assert annotation["area"] == masks[annotation["id"] - 1].sum()
        labels = np.asarray(Image.open(io.BytesIO(files[f"{name}_labels.png"])))
        assert np.array_equal(labels > 0, masks.any(axis=0))
    prompts = json.loads(files["prompts.json"])
    assert objects_from(json.dumps(prompts["objects"])) == shown.objects
    assert (prompts["width"], prompts["height"]) == (64, 48)


def test_without_prompts_there_are_no_files(bench: Workbench, scene: MakeScene) -> None:
    with pytest.raises(DataError, match="there are no prompts yet"):
        details.files(bench, state(scene(objects=(ObjectPrompts(),))))


def test_the_smaller_mask_wins_in_a_label_image() -> None:
    masks = np.zeros((2, 4, 4), np.bool_)
    masks[0, 1:3, 1:3] = True
    masks[1] = True
    labels = np.asarray(Image.open(io.BytesIO(label_image(masks))))
    assert labels[1, 1] == 1
    assert labels[0, 0] == 2
    many = np.zeros((300, 2, 2), np.bool_)
    many[299, 0, 0] = True
    assert np.asarray(Image.open(io.BytesIO(label_image(many))))[0, 0] == 300


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("changes", [{}, {"choice": "best"}, {"choice": "2"}, {"alpha": 0.5}], ids=str)
def test_the_snippet_makes_the_same_masks(bench: Workbench, scene: MakeScene, changes: dict[str, object]) -> None:
    objects = (
        ObjectPrompts(box=(5.3, 6.1, 30.7, 28.9)),
        ObjectPrompts(points=((40.1, 20.3, 1), (10.2, 40.4, 0))),
        ObjectPrompts(box=(1.0, 2.0, 60.0, 40.0), points=((30.0, 30.0, 1),)),
        ObjectPrompts(box=(9.0, 9.0, 33.0, 33.0)),
    )
    shown = scene(objects=objects, **changes)
    _, masks, _ = bench.whole(shown)
    code = snippet(shown, bench.picture(shown.image, "first"), bench.runs["first"])
    made: dict[str, dict[str, np.ndarray]] = {}
    exec(compile(code, "snippet", "exec"), made)  # what a user would do
    assert np.array_equal(made["masks"]["base"], masks["base"])
    assert np.array_equal(made["masks"]["tuned"], masks["first"])
    assert details.table_and_code(bench, state(shown))[1] == code


def test_a_snippet_without_prompts_runs(bench: Workbench, scene: MakeScene) -> None:
    code = snippet(scene(objects=()), bench.picture("test:0", "first"), bench.runs["first"])
    compile(code, "snippet", "exec")
    assert "no prompts yet" in code


def test_the_slider_shows_both_masks(bench: Workbench, scene: MakeScene) -> None:
    base, tuned = details.slider_images(bench, state(scene()))
    found = bench.compare(scene())
    changed = []
    for shown, column in zip((base, tuned), found.columns, strict=False):
        changed.append((shown != overlay(found.picture.image, column.patches, 0.5)).any(axis=2))
    # a tag in the lower corner of its side, and the prompts; all else is image and masks
    assert changed[0][-1, 0]
    assert changed[1][-1, -1]
    assert not any(one[:3].any() for one in changed)
    assert not np.array_equal(base[:20], tuned[:20])


def test_masks_are_filled_and_outlined_in_the_colour_of_their_object() -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    mask = np.zeros((9, 9), np.bool_)
    mask[2:7, 2:7] = True
    drawn = overlay(image, [None, patch_of(mask)], 0.5)
    assert tuple(drawn[2, 2]) == PALETTE[1]
    assert drawn[4, 4].tolist() == pytest.approx([side / 2 for side in PALETTE[1]], abs=1)
    assert not drawn[0].any()


def test_what_is_put_right_and_newly_wrong_has_colours_that_no_object_has() -> None:
    image = np.zeros((1, 6, 3), np.uint8)
    before, after, truth = (
        patch_of(np.array([row], np.bool_)) for row in ([0, 1, 1, 0, 0, 1], [0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 0, 1])
    )
    drawn = difference(image, [before], [after], [truth], 1.0)
    black = (0, 0, 0)
    assert [tuple(pixel) for pixel in drawn[0]] == [black, FIXED, black, FIXED, BROKEN, BROKEN]
    unknown = difference(image, [before], [after], [None], 1.0)
    assert [tuple(pixel) for pixel in unknown[0]] == [black, CHANGED, black, CHANGED, CHANGED, CHANGED]
    # two objects on one pixel: what is wrong is seen
    both = difference(image, [before, None, after], [after, after, before], [truth, truth, truth], 1.0)
    assert tuple(both[0, 1]) == BROKEN
    for colour in (FIXED, BROKEN, CHANGED):
        assert min(np.abs(np.subtract(colour, one)).sum() for one in PALETTE) > 100


def test_the_slider_has_tags_and_prompts() -> None:
    image = np.zeros((100, 120, 3), np.uint8)
    drawn = tagged(image, "base · IoU 0.512", [ObjectPrompts(box=(30.0, 40.0, 60.0, 70.0))], right=False)
    assert tuple(drawn[40, 45]) == PALETTE[0]
    assert drawn[-15:, :60].max() > 200
    assert not drawn[:20].any()
    right = tagged(image, "tuned", [], right=True)
    assert right[-15:, 80:].max() > 200
    assert not right[:, :60].any()


def test_metrics_tell_the_run(bench: Workbench) -> None:
    text, table, curves, pictures, board = details.metrics(bench, ["first"])
    report = bench.runs["first"].report
    assert report is not None
    assert f"{report['tuned']['iou']:.3f}" in text
    assert f"{report['tuned']['iou']:.3f}" in table
    assert curves.count("<svg") == 3
    ids = re.findall(r'data-id="(test:\d)"', pictures)
    assert len(ids) == 3
    gains = [bench.evaluated("first").scores[bench.picture(id, "first").name] for id in ids]
    assert [tuned - base for base, tuned in gains] == sorted([tuned - base for base, tuned in gains], reverse=True)
    assert {row[0] for row in board} == {"first", "second"}
    assert details.metrics(bench, ["unknown"])[0] == "Choose a run."


def test_controls_follow_a_link(bench: Workbench, scene: MakeScene) -> None:
    shown = scene(alpha=0.5, choice="best", runs=("second",))
    assert details.controls_of(bench, state(shown)) == [["second"], 0.5, "torch", "best"]
    with pytest.raises(DataError, match="the page has not loaded yet"):
        details.controls_of(bench, "")


def test_an_edited_table_becomes_prompts() -> None:
    assert json.loads(details.objects_of_table([[1, "+", 3, 4, None, None]])) == [{"box": None, "points": [[3, 4, 1]]}]
