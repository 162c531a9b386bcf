"""Images one after the other: skipped where they are done, named where they cannot be used, whole after any end."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import AdapterError, ConfigError, TrainingError
from lora_sam.data.reading.pixel_scale import PixelScale
from lora_sam.deployment.predicting.found import read_found
from lora_sam.deployment.predicting.outcome import Outcome
from lora_sam.deployment.predicting.output import Output, open_output
from lora_sam.deployment.predicting.prompts_file import read_prompts
from lora_sam.deployment.predicting.sources import open_source
from lora_sam.deployment.predicting.task import Work
from lora_sam.deployment.predicting.work import finish, perform
from lora_sam.deployment.predicting.writers.table import FORMATS
from lora_sam.predictors.automatic import AutomaticMasks

from .conftest import Boxes

TABLE = "image,x1,y1,x2,y2\na,2,2,10,10\nb,5,5,20,20\nb,1,1,4,4\nc,3,3,9,9\n"


def work_of(folder: Path, output: Output, formats: tuple[str, ...] = ("coco",), **changes: Any) -> Work:
    table = folder.parent / "boxes.csv"
    if not table.is_file():
        table.write_text(TABLE)
    source = open_source(str(folder))
    prompts = read_prompts(table, source)
    values: dict[str, Any] = {
        "images": source.images,
        "stems": output.stems(image.name for image in source.images),
        "categories": prompts.categories,
        "automatic": AutomaticMasks(points_per_side=2),
        "prompts": prompts.objects,
        "multimask": False,
        "scale": None,
        "max_pixels": 10**6,
    }
    return Work(output=output, formats=formats, **(values | changes))


def done(work: Work, predictor: Boxes | None = None) -> tuple[Outcome, Boxes]:
    outcome, model = Outcome(), predictor or Boxes()
    work.output.begin()
    perform(work, lambda: model, lambda done, total: None, outcome)  # type: ignore[arg-type, return-value]
    finish(work, work.images, outcome.failures)
    return outcome, model


def output_of(folder: Path, **settings: Any) -> Output:
    return open_output(str(folder.parent / "out"), "x", {"a": 1, **settings}, overwrite=False)


def coco(folder: Path) -> dict[str, int]:
    """Objects by image in what was written."""
    content = json.loads((folder.parent / "out" / "coco.json").read_text())
    names = {one["id"]: one["file_name"] for one in content["images"]}
    counts = dict.fromkeys(names.values(), 0)
    for one in content["annotations"]:
        counts[names[one["image_id"]]] += 1
    return counts


def test_what_is_there_is_skipped_and_formats_come_from_the_record(folder: Path) -> None:
    first, _ = done(work_of(folder, output_of(folder)))
    assert (first.predicted, first.there, first.counts) == (3, 0, {"a.png": 1, "b.jpg": 2, "deep/c.tif": 1})
    assert coco(folder) == first.counts
    again, idle = done(work_of(folder, output_of(folder), tuple(FORMATS)))
    assert (again.predicted, again.there, idle.seen) == (0, 3, [])
    assert again.counts == first.counts
    out = folder.parent / "out"
    assert {path.relative_to(out).as_posix() for path in out.rglob("*b*") if path.is_file()} == {
        "geojson/b.geojson", "labels/b.png", "overlays/b.png", "records/b.jpg.json",
        "semantic/b.png", "yolo/labels/b.txt",
    }  # fmt: skip
    (out / "labels" / "b.png").unlink()
    _, idle = done(work_of(folder, output_of(folder), ("labels",)))
    assert (out / "labels" / "b.png").is_file()
    assert idle.seen == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_records_that_cannot_be_listed_are_not_left_out(
    folder: Path, cannot_be_listed: Callable[..., None], number: int
) -> None:
    done(work_of(folder, output_of(folder)))
    output = output_of(folder)
    assert [image.name for image in output.found()] == ["a.png", "b.jpg", "deep/c.tif"]
    cannot_be_listed(output.root / "records" / "deep", number)
    for ask in (lambda: list(output.found()), lambda: output.others(["a.png"])):
        with pytest.raises(AdapterError, match=r"records/deep cannot be listed \((Perm|Input)[^)]*\); correct its"):
            ask()


def test_a_changed_image_or_prompt_is_predicted_again(folder: Path) -> None:
    done(work_of(folder, output_of(folder)))
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(folder / "a.png")
    (folder.parent / "boxes.csv").write_text(TABLE + "c,12,12,18,18\n")
    second, _ = done(work_of(folder, output_of(folder)))
    assert (second.predicted, second.there) == (2, 1)
    assert coco(folder) == {"a.png": 1, "b.jpg": 2, "deep/c.tif": 2}


def test_one_broken_image_stops_nothing_and_is_tried_again(folder: Path) -> None:
    whole = (folder / "b.jpg").read_bytes()
    (folder / "b.jpg").write_bytes(whole[: len(whole) // 2])
    first, _ = done(work_of(folder, output_of(folder)))
    assert list(first.failures) == ["b.jpg"]
    assert "truncated or damaged" in first.failures["b.jpg"]
    assert coco(folder) == {"a.png": 1, "deep/c.tif": 1}
    (folder / "b.jpg").write_bytes(whole)
    second, _ = done(work_of(folder, output_of(folder)))
    assert (second.failures, second.predicted, second.there) == ({}, 1, 2)
    (folder / "b.jpg").write_bytes(b"broken")  # what was found in the old picture is not said of this one
    done(work_of(folder, output_of(folder)))
    assert coco(folder) == {"a.png": 1, "deep/c.tif": 1}


def test_an_image_with_too_many_pixels(folder: Path) -> None:
    outcome, _ = done(work_of(folder, output_of(folder), max_pixels=1199))
    assert len(outcome.failures) == 3
    assert "40x30 pixels, more than max_megapixels = 0.001199" in outcome.failures["a.png"]


def test_images_are_read_with_the_scale_of_the_training(folder: Path) -> None:
    Image.fromarray(np.full((30, 40), 1000, np.uint16)).save(folder / "deep" / "c.tif")
    scale = PixelScale((1, 1, 1), (0.0,) * 3, (2000.0,) * 3)
    _, model = done(work_of(folder, output_of(folder), scale=scale))
    assert model.seen[-1] == bytes([128]) * 30 * 40 * 3


def test_a_full_disk_leaves_what_was_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_sam.core import files

    out = folder.parent / "out"
    real = files.os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(target).name == "deep" or "c.tif" in str(target):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(
        TrainingError, match=r"out: cannot be written \(No space left on device\)\. What is there is whole"
    ):
        done(work_of(folder, output_of(folder), ("labels",)))
    monkeypatch.undo()
    assert sorted(path.name for path in (out / "records").rglob("*.json")) == ["a.png.json", "b.jpg.json"]
    assert read_found(out / "records" / "a.png.json") is not None
    second, _ = done(work_of(folder, output_of(folder), ("labels",)))
    assert (second.predicted, second.there) == (1, 2)


@pytest.mark.parametrize("moment", ["while it predicts", "while it writes"])
def test_whole_whenever_it_is_killed(folder: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second start finds nothing half there, whatever a first one was doing."""

    class Killed(BaseException):
        pass

    class Dying(Boxes):
        def predict(self, *arguments: Any, **options: Any) -> Any:
            if len(self.seen) == 1 and moment == "while it predicts":
                raise Killed
            return super().predict(*arguments, **options)

    if moment == "while it writes":
        from lora_sam.deployment.predicting import work as module

        def dies(path: Path, image: Any) -> None:
            raise Killed

        monkeypatch.setattr(module, "write_found", dies)
    with pytest.raises(Killed):
        done(work_of(folder, output_of(folder), ("labels",)), Dying())
    monkeypatch.undo()
    second, _ = done(work_of(folder, output_of(folder), ("labels", "coco")))
    assert second.counts == {"a.png": 1, "b.jpg": 2, "deep/c.tif": 1}
    assert coco(folder) == second.counts


def test_automatic_masks_keep_their_scores(folder: Path) -> None:
    outcome, _ = done(work_of(folder, output_of(folder), prompts=None, categories={1: "object"}))
    assert outcome.counts == {"a.png": 4, "b.jpg": 4, "deep/c.tif": 4}  # a square at each point of the grid
    record = read_found(folder.parent / "out" / "records" / "a.png.json")
    assert record is not None
    assert {(one.score, one.stability, one.category, one.id) for one in record.objects} == {(0.95, 1.0, "object", None)}


# --- the directory ---------------------------------------------------------------------------------------------------


def test_other_settings_are_refused_and_replaced_when_asked(folder: Path) -> None:
    done(work_of(folder, output_of(folder), tuple(FORMATS)))
    out = folder.parent / "out"
    (out / "mine.txt").write_text("mine")
    with pytest.raises(
        ConfigError, match=r"holds predictions that were made with a = 1, now it is 2; choose another output="
    ):
        output_of(folder, a=2)
    fresh = open_output(str(out), "x", {"a": 2}, overwrite=True)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    done(work_of(folder, fresh))
    assert coco(folder) == {"a.png": 1, "b.jpg": 2, "deep/c.tif": 1}


def test_files_of_others_are_not_touched(folder: Path) -> None:
    out = folder.parent / "out"
    out.mkdir()
    assert output_of(folder).before is False  # an empty one will do
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"is not empty, and nothing of it says that predictions wrote it"):
        output_of(folder)
    assert open_output(str(out), "x", {}, overwrite=True).root == out
    with pytest.raises(ConfigError, match="is a file; give a directory"):
        open_output(str(out / "mine.txt"), "x", {}, overwrite=False)


def test_without_a_name_the_same_settings_find_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def place(number: int) -> str:
        output = open_output(None, "photos", {"a": number}, overwrite=False)
        output.begin()
        return output.root.as_posix()

    assert [place(1), place(2), place(1), place(2), place(3)] == [
        "predictions/photos", "predictions/photos-2", "predictions/photos", "predictions/photos-2",
        "predictions/photos-3",
    ]  # fmt: skip


def test_a_damaged_file_is_told(folder: Path, found: Callable[..., Any]) -> None:
    del found
    done(work_of(folder, output_of(folder)))
    (folder.parent / "out" / "predictions.json").write_text("{")
    with pytest.raises(ConfigError, match=r"settings that cannot be read \(predictions\.json is damaged\)"):
        output_of(folder)


def test_after_an_interrupt_all_that_is_written_is_counted(folder: Path) -> None:
    class Interrupted(Boxes):
        def predict(self, *arguments: Any, **options: Any) -> Any:
            if len(self.seen) == 3:  # b has two boxes, and one call
                raise KeyboardInterrupt
            return super().predict(*arguments, **options)

    (folder / "z.png").write_bytes((folder / "a.png").read_bytes())
    (folder.parent / "boxes.csv").write_text(TABLE + "z,2,2,10,10\n")
    work, outcome = work_of(folder, output_of(folder)), Outcome()
    work.output.begin()
    with pytest.raises(KeyboardInterrupt):
        perform(work, cache(Interrupted), lambda done, total: None, outcome)  # type: ignore[arg-type, return-value]
    assert outcome.counts == {"a.png": 1, "b.jpg": 2, "deep/c.tif": 1}
    assert len(list((work.output.root / "records").rglob("*.json"))) == 3


def test_more_bits_than_the_training_had_are_told(folder: Path) -> None:
    """Black, where a camera has 12 bits of the 16, and not a word."""
    Image.fromarray(np.full((30, 40), 4000, np.uint16)).save(folder / "deep" / "c.tif")
    outcome, model = done(work_of(folder, output_of(folder)))
    assert outcome.unscaled == ["deep/c.tif"]
    assert model.seen[-1] == bytes([15]) * 30 * 40 * 3
    assert done(work_of(folder, output_of(folder)))[0].unscaled == []  # they are there
    shutil.rmtree(folder.parent / "out")
    scale = PixelScale((1, 1, 1), (0.0,) * 3, (4000.0,) * 3)
    assert done(work_of(folder, output_of(folder), scale=scale))[0].unscaled == []
