"""A directory of predictions that is used again after something has changed: nothing of before and now is mixed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_sam.core.errors import ConfigError
from lora_sam.deployment.predicting.found import read_found, write_found
from lora_sam.deployment.predicting.outcome import Outcome
from lora_sam.deployment.predicting.output import open_output
from lora_sam.deployment.predicting.prompts_file import read_prompts
from lora_sam.deployment.predicting.sources import open_source
from lora_sam.deployment.predicting.work import finish, perform

from .conftest import Boxes
from .test_work import TABLE, done, output_of, work_of

NUMBERED = ("yolo", "semantic")


def with_classes(folder: Path, rows: str, formats: tuple[str, ...] = NUMBERED) -> Outcome:
    """Predict from a table with classes, in the directory `out`."""
    table = folder.parent / "classes.csv"
    table.write_text(f"image,x1,y1,x2,y2,category,object\n{rows}")
    source = open_source(str(folder))
    prompts = read_prompts(table, source)
    images = tuple(image for image in source.images if image.name in prompts.objects)
    given: dict[str, Any] = {"images": images, "prompts": prompts.objects, "categories": prompts.categories}
    outcome, _ = done(work_of(folder, output_of(folder), formats, named=prompts.names_classes, **given))
    return outcome


def number_of(folder: Path, stem: str) -> tuple[int, int]:
    """Number of the class of the one object of an image, in YOLO and in the class image."""
    out = folder.parent / "out"
    with Image.open(out / "semantic" / f"{stem}.png") as picture:
        classes = np.unique(np.asarray(picture))
    return int((out / "yolo" / "labels" / f"{stem}.txt").read_text().split()[0]), int(classes[-1])


def test_another_order_of_the_classes_numbers_all_files_again(folder: Path) -> None:
    with_classes(folder, "a,2,2,10,10,cell,one\nb,5,5,20,20,cell,one\n")
    assert number_of(folder, "a") == number_of(folder, "b") == (0, 1)
    # a class that comes first takes its number; b has no prompts any more, and its files are there still
    outcome = with_classes(folder, "deep/c,3,3,9,9,axon,one\na,2,2,10,10,cell,one\n")
    assert (outcome.predicted, outcome.there) == (1, 1)
    assert number_of(folder, "deep/c") == (0, 1)
    assert number_of(folder, "a") == number_of(folder, "b") == (1, 2)
    out = folder.parent / "out"
    assert (out / "yolo" / "data.yaml").read_text().endswith('  0: "axon"\n  1: "cell"\n')
    assert (out / "semantic" / "classes.txt").read_text() == "0 background\n1 axon\n2 cell\n"
    # one format at a time: what is not asked for stays as its own list of names has it
    with_classes(folder, "a,2,2,10,10,cell,one\n", ("semantic",))
    assert number_of(folder, "a") == (1, 1)
    assert (out / "yolo" / "data.yaml").read_text().endswith('  0: "axon"\n  1: "cell"\n')
    # of a class that is no more no number can be right
    assert not (out / "semantic" / "deep" / "c.png").exists()
    assert (out / "yolo" / "labels" / "deep" / "c.txt").is_file()
    with_classes(folder, "a,2,2,10,10,cell,one\n")
    assert number_of(folder, "a") == number_of(folder, "b") == (0, 1)


def test_what_the_file_does_not_name_keeps_the_word_for_any_object(folder: Path) -> None:
    with_classes(folder, "a,2,2,10,10,cell,one\nb,5,5,20,20,,one\n", ("coco",))
    content = json.loads((folder.parent / "out" / "coco.json").read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    assert [names[one["category_id"]] for one in content["annotations"]] == ["cell", "object"]


def test_a_record_of_a_class_that_is_not_known_is_made_again(folder: Path) -> None:
    done(work_of(folder, output_of(folder)))
    path = output_of(folder).record("a.png")
    record = read_found(path)
    assert record is not None
    renamed = tuple(dataclasses.replace(one, category="cell") for one in record.objects)
    write_found(path, dataclasses.replace(record, objects=renamed))
    again, _ = done(work_of(folder, output_of(folder)))
    assert (again.predicted, again.there) == (1, 2)


def test_ids_are_those_of_the_list_as_it_is_now(folder: Path) -> None:
    def listed(*ids: int) -> list[int]:
        entries = [{"id": number, "file_name": name} for number, name in zip(ids, ("a.png", "b.jpg"), strict=True)]
        (folder / "list.json").write_text(json.dumps({"images": entries}))
        source = open_source(str(folder / "list.json"))
        done(work_of(folder, output_of(folder), images=source.images))
        content = json.loads((folder.parent / "out" / "coco.json").read_text())
        assert {one["image_id"] for one in content["annotations"]} == set(ids)
        return [one["id"] for one in content["images"]]

    assert listed(10, 20) == [10, 20]
    assert listed(11, 5) == [11, 5]


def test_lists_of_before_have_the_images_of_now(folder: Path) -> None:
    work = work_of(folder, output_of(folder), ("coco", "coco_polygons"))
    done(dataclasses.replace(work, images=work.images[:1]))
    done(work_of(folder, output_of(folder), ("labels",)))
    for name in ("coco.json", "coco_polygons.json"):
        content = json.loads((folder.parent / "out" / name).read_text())
        assert [one["file_name"] for one in content["images"]] == ["a.png", "b.jpg", "deep/c.tif"]


def test_files_of_what_an_image_was_do_not_stay(folder: Path) -> None:
    done(work_of(folder, output_of(folder), ("labels", "masks", "yolo")))
    (folder / "b.jpg").write_bytes((folder / "a.png").read_bytes())
    done(work_of(folder, output_of(folder), ("yolo",)))
    out = folder.parent / "out"
    written = {path.relative_to(out).as_posix() for path in out.rglob("*b*") if path.is_file()}
    assert written == {"records/b.jpg.json", "yolo/labels/b.txt"}
    assert not (out / "masks" / "b").exists()
    assert (out / "labels" / "a.png").is_file()


def test_an_image_of_another_ending_does_not_take_the_place_of_one_that_is_gone(folder: Path) -> None:
    """a.png was written anew as a.jpg, its files by the same names; when it came back they were taken for its own."""
    done(work_of(folder, output_of(folder), NUMBERED))
    (folder / "a.png").rename(folder.parent / "away.png")
    (folder / "a.jpg").write_bytes((folder / "b.jpg").read_bytes())
    (folder.parent / "boxes.csv").write_text("image,x1,y1,x2,y2\na,20,20,30,30\nb,5,5,20,20\nc,3,3,9,9\n")
    done(work_of(folder, output_of(folder), NUMBERED))
    (folder.parent / "away.png").rename(folder / "a.png")
    (folder / "a.jpg").unlink()
    (folder.parent / "boxes.csv").write_text(TABLE)
    done(work_of(folder, output_of(folder), NUMBERED))
    record = read_found(output_of(folder).record("a.png"))
    assert record is not None
    (path,) = record.files["semantic"]
    with Image.open(folder.parent / "out" / path) as picture:
        assert np.array_equal(np.asarray(picture) > 0, record.masks.any(axis=0))


def test_what_became_a_link_to_itself_is_removed(folder: Path) -> None:
    output = output_of(folder)
    link = output.root / "labels" / "a.png"
    link.parent.mkdir(parents=True)
    link.symlink_to(link)
    output.remove(["labels/a.png"])
    assert not link.is_symlink()


def test_what_is_left_of_other_images_is_named(folder: Path) -> None:
    outcome, _ = done(work_of(folder, output_of(folder), ("labels",)))
    assert outcome.others == ()
    (folder / "b.jpg").write_bytes(b"broken")
    work, outcome = work_of(folder, output_of(folder), ("labels",)), Outcome()
    perform(work, Boxes, lambda done, total: None, outcome)  # type: ignore[arg-type]
    assert list(outcome.failures) == ["b.jpg"]
    assert finish(work, work.images, outcome.failures) == ("b.jpg",)
    # a part of the same images is no other image
    assert finish(dataclasses.replace(work, images=work.images[:1]), work.images, {}) == ()


@pytest.mark.parametrize("place", ["labels/a.png", "masks/a/mine.png", "coco.json", "records/x.json"])
def test_files_of_others_are_not_replaced(folder: Path, place: str) -> None:
    mine = folder.parent / "out" / place
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(ConfigError, match=rf"has {place.partition('/')[0]}, which predictions did not write and would"):
        open_output(str(folder.parent / "out"), "x", {"a": 1}, overwrite=True)
    assert mine.read_text() == "mine"
