"""Masks accepted in the app: training data that reads back bit by bit, and nothing of the user's is overwritten."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.app import details
from lora_sam.app.answers import Answers
from lora_sam.app.collected import collect, names_for, tune_again
from lora_sam.app.pictures import picture_of
from lora_sam.app.scene import Scene, to_json
from lora_sam.app.workbench import Workbench
from lora_sam.core.errors import DataError
from lora_sam.predictors.automatic import AutomaticMasks
from lora_sam.predictors.class_head import ClassHead, features_of

MakeScene = Callable[..., Scene]


def picture(seed: int, name: str = "photo.jpg") -> Any:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    return picture_of(f"upload:{seed}", name, pixels)


def masks(seed: int, count: int = 3) -> np.ndarray:
    found = np.random.default_rng(seed).random((count, 40, 60)) > 0.7
    found[:, 20:25, 10:20] = True
    return found


def opened(option: Callable[..., Any], folder: Path) -> list[Any]:
    splits = option(
        "data/auto", root=str(folder), min_area=1, val_fraction=0.25, test_fraction=0.25, few_images=0
    ).open(0)
    return [sample for source in (splits.train, splits.val, splits.test) for sample in source]


def test_accepted_masks_read_back_bit_by_bit(option: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "corrected"
    for seed in range(4):
        told = collect(folder, picture(seed, f"../a b/{seed}.jpg"), masks(seed), ["nut", "bolt", "nut"])
    assert (told.kept, told.images, told.objects) == (3, 4, 12)
    found = opened(option, folder)
    assert len(found) == 4
    by_pixels = {sample.image.tobytes(): sample for sample in found}
    for seed in range(4):
        sample = by_pixels[picture(seed).original.tobytes()]
        assert np.array_equal(sample.masks, masks(seed))
        assert list(sample.classes) == ["nut", "bolt", "nut"]


def test_an_image_kept_again_has_its_new_masks_and_the_old_file_stays(
    option: Callable[..., Any], tmp_path: Path
) -> None:
    for seed in range(4):
        collect(tmp_path / "c", picture(seed), masks(seed), ["a"] * 3)
    before = (tmp_path / "c" / "annotations" / "instances_train.json").read_text()
    told = collect(tmp_path / "c", picture(0), masks(9, 1), ["b"])
    assert (told.kept, told.images, told.objects) == (1, 4, 10)
    (sample,) = [one for one in opened(option, tmp_path / "c") if np.array_equal(one.image, picture(0).original)]
    assert np.array_equal(sample.masks, masks(9, 1))
    assert before in [path.read_text() for path in (tmp_path / "c" / ".earlier").iterdir()]


def test_what_others_made_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "mine" / "annotations" / "instances_train.json"
    place.parent.mkdir(parents=True)
    place.write_text('{"images": []}')
    with pytest.raises(DataError, match="was not made here; start the app with --collect"):
        collect(tmp_path / "mine", picture(0), masks(0), ["a"] * 3)
    assert place.read_text() == '{"images": []}'
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (3, 3)).save(tmp_path / "photos" / "a.png")
    with pytest.raises(DataError, match="holds other files already"):
        collect(tmp_path / "photos", picture(0), masks(0), ["a"] * 3)
    with pytest.raises(DataError, match="there is no mask to keep"):
        collect(tmp_path / "new", picture(0), masks(0) & False, ["a"] * 3)
    with pytest.raises(DataError, match="must have 1 to 60 printable"):
        collect(tmp_path / "new", picture(0), masks(0), ["a\n"] * 3)
    assert not (tmp_path / "new").exists()


def test_names_are_for_all_or_for_each() -> None:
    assert names_for("", 2) == ["object", "object"]
    assert names_for(" ", 2, ["nut", None]) == ["nut", "object"]
    assert names_for("nut", 2) == ["nut", "nut"]
    assert names_for("nut, bolt", 2) == ["nut", "bolt"]
    with pytest.raises(DataError, match="3 names for 2 masks"):
        names_for("a,b,c", 2)


def test_masks_of_prompts_and_those_without_are_kept(
    bench: Workbench, scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "folder", tmp_path / "kept here")
    state = {"scene": json.loads(to_json(scene()))}
    told, command = details.keep(bench, json.dumps(state), "first", "blob")
    _, expected, _ = bench.whole(scene())
    content = json.loads((tmp_path / "kept here" / "annotations" / "instances_train.json").read_text())
    areas = [one["area"] for one in content["annotations"]]
    assert areas == [int(mask.sum()) for mask in expected["first"] if mask.any()]
    assert f"{len(areas)} objects of" in told
    words = shlex.split(command)
    assert words[-2:] == [f"init_from={bench.runs['first'].directory.root}", f"data.root={tmp_path / 'kept here'}"]
    assert tune_again("lora-sam train", tmp_path / "a", tmp_path / "b") == (
        f"lora-sam train init_from={tmp_path / 'a'} data.root={tmp_path / 'b'}"
    )

    settings = AutomaticMasks(points_per_side=4, predicted_iou=0, stability=0, box_overlap=1)
    found = bench.everything(scene(), settings).columns[0]
    state |= {"everything": True, "left_out": [0]}
    assert len(found.patches) > 1
    details.keep(bench, json.dumps(state), "base", "")
    content = json.loads((tmp_path / "kept here" / "annotations" / "instances_train.json").read_text())
    assert [one["area"] for one in content["annotations"]] == [patch.area for patch in found.patches[1:] if patch]
    with pytest.raises(DataError, match="left out"):
        details.keep(bench, json.dumps({**state, "left_out": list(range(999))}), "base", "")
    # what was clicked out of the tuned masks are other masks than those of base at the same places
    details.keep(bench, json.dumps({**state, "left_out_of": "first"}), "base", "")
    content = json.loads((tmp_path / "kept here" / "annotations" / "instances_train.json").read_text())
    assert [one["area"] for one in content["annotations"]] == [patch.area for patch in found.patches if patch]


def test_masks_that_others_find_in_the_same_image_are_not_kept(
    bench: Workbench, scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "folder", tmp_path / "kept")
    answers, sent = Answers(bench), to_json(scene())
    mine, others = (
        answers.everything(sent, json.dumps({"points_per_side": side, "predicted_iou": 0, "stability": 0}), "ticket")
        for side in (5, 1)
    )
    assert mine["found"] != others["found"]
    state = {"scene": json.loads(sent), "everything": True, "found": mine["found"]}
    details.keep(bench, json.dumps(state), "first", "")
    content = json.loads((tmp_path / "kept" / "annotations" / "instances_train.json").read_text())
    boxes = [[float(side) for side in mask["box"]] for mask in mine["columns"][1]["masks"]]
    assert [one["bbox"] for one in content["annotations"]] == boxes
    with pytest.raises(DataError, match="not here any more; find everything again"):
        details.keep(bench, json.dumps({**state, "found": "0" * 16}), "first", "")


def test_masks_without_a_name_have_the_class_that_the_run_tells(
    bench: Workbench, scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `predict` names them: by the class head, or by the one class of the training."""
    model, state = bench._model("first"), json.dumps({"scene": json.loads(to_json(scene()))})

    def kept(folder: str, which: str) -> list[str]:
        monkeypatch.setattr(bench, "folder", tmp_path / folder)
        details.keep(bench, state, which, "")
        content = json.loads((tmp_path / folder / "annotations" / "instances_train.json").read_text())
        names = {one["id"]: one["name"] for one in content["categories"]}
        return [names[one["category_id"]] for one in content["annotations"]]

    count = len(kept("one", "first"))
    assert kept("one", "first") == kept("one", "base") == ["blob"] * count
    picture, masks, _ = bench.whole(scene())
    width = model.predictor("torch").embedding(picture.original).shape[1] + 1
    weight = np.zeros((2, width), np.float32)
    weight[0, -1] = 1  # by the area
    features = features_of(
        model.predictor("torch").embedding(picture.original), masks["first"], model.predictor("torch").frame
    )
    head = ClassHead(("large", "small"), weight, np.array([0, features[:, -1].mean()], np.float32))
    monkeypatch.setitem(vars(model), "class_head", head)
    monkeypatch.setattr(type(model.run), "facts", {**model.run.facts, "classes": ["large", "small"]})
    expected = head.told(model.predictor("torch"), picture.original, masks["first"])
    assert kept("two", "first") == [name for name, mask in zip(expected, masks["first"], strict=True) if mask.any()]
    assert set(kept("two", "base")) == {"object"}
