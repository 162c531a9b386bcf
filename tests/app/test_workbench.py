"""Masks that the page shows: those of the predictors, encoded once, scaled, cached, and measured against the truth."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.app import workbench
from lora_sam.app.comparison import Column
from lora_sam.app.figures import means, table, true_object
from lora_sam.app.kept import Kept
from lora_sam.app.models import load_model
from lora_sam.app.pictures import SHOWN_SIDE, picture_of
from lora_sam.app.scene import Scene
from lora_sam.app.workbench import Workbench
from lora_sam.core.errors import AdapterError, DataError
from lora_sam.data.reading.pixel_scale import PixelScale
from lora_sam.deployment.predicting.tiling import tiling_of
from lora_sam.evaluation.metrics import score_image
from lora_sam.predictors.automatic import AutomaticMasks
from lora_sam.predictors.tiles import automatic_in_tiles
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.prompts.objects import ObjectPrompts
from lora_sam.runs.loading import load_adapted, load_base, predictors_for

MakeScene = Callable[..., Scene]


def masks_of(column: Column, size: tuple[int, int]) -> np.ndarray:
    return np.stack([patch.full(size) for patch in column.patches if patch is not None])


def uploaded(bench: Workbench, image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return bench.upload("image.png", file.getvalue()).id


def test_both_masks_are_those_of_the_predictors(bench: Workbench, scene: MakeScene, outputs: Path) -> None:
    found = bench.compare(scene())
    assert [column.label for column in found.columns] == ["base", "tuned"]
    base = TorchPredictor(load_base(outputs / "first").sam, 64)
    tuned = TorchPredictor(load_adapted(outputs / "first").sam, 64)
    image = found.picture.image
    for column, predictor in zip(found.columns, (base, tuned), strict=True):
        box = predictor.segment(image, boxes=[[5, 6, 30, 28]])
        points = predictor.segment(image, points=[[[40, 20], [10, 40]]], labels=[[1, 0]])
        expected = np.concatenate([box.masks, points.masks])
        assert np.array_equal(masks_of(column, image.shape[:2]), expected)
        assert column.scores == pytest.approx([*box.scores, *points.scores], abs=1e-5)
    assert not np.array_equal(masks_of(found.columns[0], image.shape[:2]), masks_of(found.columns[1], image.shape[:2]))


@pytest.mark.parametrize(("choice", "index"), [("1", 1), ("2", 2), ("3", 3), ("best", None)])
def test_the_masks_for_ambiguous_prompts_can_be_chosen(
    bench: Workbench, scene: MakeScene, outputs: Path, choice: str, index: int | None
) -> None:
    found = bench.compare(scene(choice=choice))
    predictor = predictors_for(load_adapted(outputs / "first"), 64)["tuned"]
    image = found.picture.image
    if index is None:
        expected = predictor.segment(image, boxes=[[5, 6, 30, 28]], multimask=True).masks[0]
    else:
        from lora_sam.predictors.prompting import prompts_from

        prompts = prompts_from([[5, 6, 30, 28]], None, None, (48, 64))
        expected = predictor.predict_all(image, prompts).logits[0, index] > 0
    patch = found.columns[1].patches[0]
    assert patch is not None
    assert np.array_equal(patch.full((48, 64)), expected)


def test_masks_of_a_model_that_is_gone_are_not_those_of_one_in_its_place(
    bench: Workbench, scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory: another run is loaded to where one was that was not looked at for longest."""
    monkeypatch.setattr(bench, "_models", Kept(1))
    first = bench.compare(scene())
    place = bench._model("first")

    def there(run: Any) -> Any:
        vars(place).update(vars(load_model(run)))
        return place

    monkeypatch.setattr(workbench, "load_model", there)
    monkeypatch.setattr(bench, "_models", Kept(1))
    second = bench.compare(replace(scene(image=first.picture.id), runs=("second",)))
    image = second.picture.image
    expected = TorchPredictor(load_adapted(bench.runs["second"].directory.root).sam, 64)
    boxes = expected.segment(image, boxes=[[5, 6, 30, 28]])
    assert np.array_equal(masks_of(second.columns[1], image.shape[:2])[:1], boxes.masks)


def test_an_image_is_encoded_once_and_a_prompt_decoded_once(bench: Workbench, scene: MakeScene) -> None:
    image = uploaded(bench, np.random.default_rng(7).integers(0, 256, (40, 50, 3), np.uint8))
    first = ObjectPrompts(points=((20.0, 20.0, 1),))
    new = bench.compare(scene(image=image, objects=(first,)))
    assert all(column.encode_seconds > 0 for column in new.columns)
    more = bench.compare(scene(image=image, objects=(first, ObjectPrompts(points=((5.0, 9.0, 1),)))))
    assert all(column.encode_seconds == 0 < column.decode_seconds for column in more.columns)
    again = bench.compare(scene(image=image, objects=(first,)))
    assert all(column.encode_seconds == column.decode_seconds == 0 for column in again.columns)
    assert again.columns[0].patches[0] is new.columns[0].patches[0]


def test_an_image_without_prompts_is_encoded_ahead(bench: Workbench, scene: MakeScene) -> None:
    image = uploaded(bench, np.random.default_rng(8).integers(0, 256, (40, 50, 3), np.uint8))
    assert all(column.encode_seconds > 0 for column in bench.compare(scene(image=image, objects=())).columns)
    found = bench.compare(scene(image=image, objects=(ObjectPrompts(points=((20.0, 20.0, 1),)), ObjectPrompts())))
    assert all(column.encode_seconds == 0 for column in found.columns)
    assert found.columns[0].patches[1] is None


def test_strength_goes_from_the_base_to_the_tuned_model_and_back(bench: Workbench, scene: MakeScene) -> None:
    full = bench.compare(scene())
    size = full.picture.shown_size
    none = bench.compare(scene(alpha=0.0))
    assert np.array_equal(masks_of(none.columns[0], size), masks_of(none.columns[1], size))
    assert none.columns[1].label == "tuned, α 0"
    beyond = bench.compare(scene(alpha=1.5))
    assert not np.array_equal(masks_of(beyond.columns[1], size), masks_of(full.columns[1], size))
    bench._masks = Kept(100)
    back = bench.compare(scene())
    assert np.array_equal(masks_of(back.columns[1], size), masks_of(full.columns[1], size))


def test_several_runs_stand_beside_one_base(bench: Workbench, scene: MakeScene, outputs: Path) -> None:
    found = bench.compare(scene(runs=("first", "second")))
    assert [column.label for column in found.columns] == ["base", "tuned: first", "tuned: second"]
    predictor = predictors_for(load_adapted(outputs / "second"), 64)["tuned"]
    patch = found.columns[2].patches[0]
    assert patch is not None
    expected = predictor.segment(found.picture.image, boxes=[[5, 6, 30, 28]]).masks[0]
    assert np.array_equal(patch.full((48, 64)), expected)


def test_figures_are_those_of_the_evaluation(bench: Workbench) -> None:
    picture = bench.picture("test:1", "first")
    found = bench.compare(Scene(image="test:1", objects=picture.objects, runs=("first",)))
    rows = table(found)
    images = bench.evaluated("first")
    sample = images.source[1]
    for column, mean, expected in zip(found.columns, means(rows, 2), images.scores[sample.id], strict=True):
        scores = score_image(sample.id, sample.object_ids, masks_of(column, sample.size), sample.masks)
        assert mean == pytest.approx(scores.mean_iou) == pytest.approx(expected)
    assert rows[0]["truth"] is True
    assert rows[0]["columns"][0]["dice"] == 1
    assert rows[0]["columns"][1]["area"] == masks_of(found.columns[1], sample.size)[0].sum()


def test_a_prompt_means_the_object_it_fits(bench: Workbench) -> None:
    picture = bench.picture("test:0", "first")
    for index, box in enumerate(picture.boxes):
        assert true_object(ObjectPrompts(box=tuple(box.tolist())), picture) == index
    row, column = np.argwhere(picture.truth[1].full(picture.size) & ~picture.truth[0].full(picture.size))[0]
    points = ((0.0, 0.0, 0), (column + 0.5, row + 0.5, 1))
    assert true_object(ObjectPrompts(points=points), picture) in (1, 2)
    assert true_object(ObjectPrompts(points=((0.0, 0.0, 0),)), picture) is None
    assert true_object(ObjectPrompts(box=(0.0, 0.0, 1.0, 1.0)), picture) is None


def test_a_large_image_is_shown_smaller_and_saved_at_its_own_size(bench: Workbench, scene: MakeScene) -> None:
    pixels = np.random.default_rng(9).integers(0, 256, (40, 50, 3), np.uint8)
    large = np.asarray(Image.fromarray(pixels).resize((2 * SHOWN_SIDE, SHOWN_SIDE)))
    state = scene(image=uploaded(bench, large), objects=(ObjectPrompts(box=(200.0, 200.0, 1500.0, 1200.0)),))
    found = bench.compare(state)
    assert found.picture.shown_size == (SHOWN_SIDE // 2, SHOWN_SIDE)
    picture, masks, _ = bench.whole(state)
    assert masks["base"].shape == (1, SHOWN_SIDE, 2 * SHOWN_SIDE)
    whole, shown = masks["base"][0], masks_of(found.columns[0], found.picture.shown_size)[0]
    assert np.mean(whole[::2, ::2] == shown) > 0.97
    assert table(found)[0]["columns"][0]["area"] == pytest.approx(whole.sum(), rel=0.05)
    assert picture.scale == (0.5, 0.5)


def test_everything_is_what_the_generator_finds(bench: Workbench, scene: MakeScene, outputs: Path) -> None:
    settings = AutomaticMasks(points_per_side=4, predicted_iou=0, stability=0)
    found = bench.everything(scene(), settings)
    base, tuned = (
        settings.generate(predictor, found.picture.image)
        for predictor in predictors_for(load_adapted(outputs / "first"), 64).values()
    )
    for column, expected in zip(found.columns, (base, tuned), strict=True):
        assert np.array_equal(masks_of(column, (48, 64)), expected.masks)
    every = AutomaticMasks(points_per_side=2, predicted_iou=0, stability=0, box_overlap=1)
    assert len(bench.everything(scene(), every, most=2).columns[0].patches) == 2
    (untrained,) = bench.everything(scene(), every).notes
    assert untrained.startswith("This run was trained with boxes: without prompts it may find anything")
    nothing = bench.everything(scene(), AutomaticMasks(points_per_side=2, predicted_iou=1.0))
    assert [note.partition(" from ")[0] for note in nothing.notes[1:]] == [
        f"{name}: no mask was found: the highest predicted IoU" for name in ("base", "tuned")
    ]


def test_everything_is_found_in_the_tiles_of_the_training(
    bench: Workbench, scene: MakeScene, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that saw tiles of 32 pixels sees those of 48 x 64 pixels as large; too many tiles are told."""
    facts = {**bench.runs["first"].facts, "training_tile": 32}
    monkeypatch.setattr(bench._model("first"), "tiling", tiling_of(facts))
    settings = AutomaticMasks(points_per_side=2, predicted_iou=0, stability=0)
    found = bench.everything(scene(), settings)
    base = predictors_for(load_adapted(outputs / "first"), 64)["base"]
    expected = automatic_in_tiles(settings, base, found.picture.image, tile=32, halo=4)
    column = found.columns[0]
    assert np.array_equal(masks_of(column, (48, 64)), [crop.full((48, 64)) for crop in expected.crops])
    assert column.scores == pytest.approx(expected.scores)
    assert all(patch is not None and patch.packed()["bits"] for patch in column.patches)
    assert len(found.notes) == 1  # that the run was not trained for it
    assert ["in tiles of 32 pixels, prompts here at all of it" in note for note in bench.compare(scene()).notes] == [
        True
    ]
    monkeypatch.setattr("lora_sam.app.everything.MOST_TILES", 3)
    whole = bench.everything(scene(), settings)
    assert ["tiles of 32 pixels. 6 are too many" in note for note in whole.notes] == [False, True]
    masks = masks_of(whole.columns[0], (48, 64))
    assert np.array_equal(masks, settings.generate(base, whole.picture.image).masks)
    assert not np.array_equal(masks, masks_of(column, (48, 64)))


def test_what_is_not_there_is_named(bench: Workbench, scene: MakeScene, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="this image is not here any more"):
        bench.compare(scene(image="upload:0"))
    with pytest.raises(DataError, match="this image is not here any more"):
        bench.compare(scene(image="/etc/passwd"))
    with pytest.raises(DataError, match="there is no test image 99, there are 3"):
        bench.compare(scene(image="test:99"))
    with pytest.raises(DataError, match=r"there is no run '\.\./elsewhere'"):
        bench.compare(scene(runs=("../elsewhere",)))
    with pytest.raises(DataError, match="first has no back end 'openvino int8'; it has torch"):
        bench.compare(scene(backend="openvino int8"))
    with pytest.raises(AdapterError, match="no finished run there; make one with `python train.py`"):
        Workbench(tmp_path)


def test_a_frozen_encoder_is_shared_and_missing_data_are_named(
    finished_run: Callable[..., object], tmp_path: Path, scene: MakeScene
) -> None:
    finished_run(tmp_path / "outputs" / "run", "decoder")
    bench = Workbench(tmp_path / "outputs")
    bench.load()
    assert bench.failure is None
    image = uploaded(bench, np.zeros((20, 30, 3), np.uint8))
    found = bench.compare(scene(image=image, runs=("run",), objects=(ObjectPrompts(box=(1.0, 1.0, 9.0, 9.0)),)))
    # a frozen encoder is shared, so the image is encoded for the base only
    assert [column.encode_seconds > 0 for column in found.columns] == [True, False]
    with pytest.raises(
        DataError, match="run: config.json is not that of a run of this version, so its test images are not known"
    ):
        bench.evaluated("run")


def test_back_ends_say_what_they_cost(bench: Workbench) -> None:
    labels = bench.backends("first")
    assert list(labels) == ["torch"]
    assert labels["torch"].startswith("torch: 0.")
    assert labels["torch"].endswith(" ms")


def test_background_points_alone_are_noted(bench: Workbench, scene: MakeScene) -> None:
    alone = ObjectPrompts(points=((20, 20, 0),))
    others = (ObjectPrompts(points=((20, 20, 0), (9, 9, 1))), ObjectPrompts(box=(5, 6, 30, 28), points=((20, 20, 0),)))
    found = bench.compare(scene(objects=(*others, alone)))
    assert found.notes == ("object 3 has background points alone, which show no object: add one on it, or a box.",)
    assert bench.compare(scene(objects=others)).notes == ()


def test_another_back_end_answers_for_the_tuned_model(
    bench: Workbench, scene: MakeScene, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = predictors_for(load_adapted(outputs / "second"), 64)["tuned"]
    for module in ("models", "workbench"):
        monkeypatch.setattr(f"lora_sam.app.{module}.backends_of", lambda run: {"openvino int8": lambda: other})
    found = bench.compare(scene(backend="openvino int8", alpha=0.5))
    assert found.columns[1].label == "tuned, openvino int8"
    assert found.notes == ("openvino int8 computes at strength 1: the adapter is folded into its files.",)
    expected = other.segment(found.picture.image, boxes=[[5, 6, 30, 28]]).masks[0]
    assert np.array_equal(masks_of(found.columns[1], (48, 64))[0], expected)
    assert list(bench.backends("first")) == ["torch", "openvino int8"]
    del bench._model("first").predictors["openvino int8"]


def test_truth_is_shrunk_with_its_image(bench: Workbench) -> None:
    images = bench.evaluated("first")
    sample = images.source[0]
    factor = 30
    larger = replace(
        sample,
        image=np.repeat(np.repeat(sample.image, factor, 0), factor, 1),
        masks=np.repeat(np.repeat(sample.masks, factor, 1), factor, 2),
    )
    picture = picture_of("test:0", sample.id, larger.image, larger, images.settings)
    assert picture.shown_size == (1152, SHOWN_SIDE)
    for patch, mask in zip(picture.truth, sample.masks, strict=True):
        assert patch.area / (1152 * SHOWN_SIDE) == pytest.approx(mask.mean(), rel=0.02)


def test_each_of_the_last_eight_images_is_encoded_once(bench: Workbench, scene: MakeScene) -> None:
    model = bench._model("first")
    noise = np.random.default_rng(11)
    images = [uploaded(bench, noise.integers(0, 256, (20, 30, 3), np.uint8)) for _ in range(8)]

    def prompt(image: str, x: float) -> int:
        before = sum(predictor.encoded for predictor in model.predictors.values())
        bench.compare(scene(image=image, objects=(ObjectPrompts(points=((x, 9.0, 1),)),)))
        return sum(predictor.encoded for predictor in model.predictors.values()) - before

    assert [prompt(image, 5.0) for image in images] == [2] * 8  # base and tuned
    assert [prompt(image, 6.0) for image in images] == [0] * 8


def test_what_is_kept_is_bounded_by_its_bytes() -> None:
    kept: Kept[bytes] = Kept(9, most_bytes=10, size=len)
    for key, size in (("a", 4), ("b", 4), ("c", 4), ("d", 20)):
        kept.put(key, bytes(size))
        if key == "c":
            assert [kept.get(one) is not None for one in "abc"] == [False, True, True]
    assert [kept.get(one) is not None for one in "bcd"] == [False, False, True]


def test_kept_values_are_the_last_used() -> None:
    kept: Kept[int] = Kept(2)
    kept.put("a", 1)
    kept.put("b", 2)
    assert kept.get("a") == 1
    kept.put("c", 3)
    assert [kept.get(key) for key in "abc"] == [1, None, 3]


def test_an_upload_of_more_than_8_bits_is_read_as_the_first_run_reads_it(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {"first": 4000.0, "second": 2000.0}
    monkeypatch.setattr(
        PixelScale, "of_run", lambda directory: PixelScale((1, 1, 1), (0.0,) * 3, (ends[directory.name],) * 3)
    )
    file = io.BytesIO()
    Image.fromarray(np.full((20, 30), 1000, np.uint16)).save(file, "TIFF")
    first = bench.upload("a.tif", file.getvalue())
    assert int(first.image.max()) == 64
    assert bench.picture(first.id, "first") is first
    assert int(bench.picture(first.id, "second").image.max()) == 128
