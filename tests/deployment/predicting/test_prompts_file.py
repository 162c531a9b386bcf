"""Every kind of file with prompts, and the line of the file in every error."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_sam.core.console import note
from lora_sam.core.errors import DataError
from lora_sam.core.structures import Prompts, Sample
from lora_sam.deployment.predicting.prompted import check_inside
from lora_sam.deployment.predicting.prompts_file import PromptsFile, check_within, read_prompts
from lora_sam.deployment.predicting.sources import open_source
from lora_sam.prompts.stored import entry, write_prompts

COCO = {
    "images": [{"id": 1, "file_name": "c.tif"}, {"id": 2, "file_name": "a.png"}],
    "annotations": [
        {"id": 5, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]},
        {"id": 6, "image_id": 2, "category_id": 4, "bbox": [0, 0, 10, 10.5]},
    ],
    "categories": [{"id": 2, "name": "cat"}, {"id": 4, "name": "dog"}],
}


def read(folder: Path, content: Any, name: str = "prompts.json", source: Path | None = None) -> PromptsFile:
    file = folder.parent / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_prompts(file, open_source(str(source or folder)))


def plain(found: PromptsFile) -> dict[str, list[Any]]:
    return {
        name: [(one.id, one.category, one.prompts.box, one.prompts.points) for one in ones]
        for name, ones in found.objects.items()
    }


def test_coco_boxes_with_their_categories(folder: Path) -> None:
    found = read(folder, COCO)
    assert plain(found) == {
        "deep/c.tif": [("5", "cat", (1, 2, 4, 6), ())],
        "a.png": [("6", "dog", (0, 0, 10, 10.5), ())],
    }
    assert found.categories == {2: "cat", 4: "dog"}


def test_boxes_for_an_image_of_another_size_are_refused(folder: Path) -> None:
    sizes = {"width": 80, "height": 60}
    given = {**COCO, "images": [COCO["images"][0], {**COCO["images"][1], **sizes}]}
    found = read(folder, given)
    image = next(image for image in open_source(str(folder)).images if image.name == "a.png")
    check_inside(Path("p.json"), image, found.objects["a.png"], (60, 80))
    with pytest.raises(DataError, match=r"annotation 6 is for a\.png with 80 x 60 pixels .*, and it has 40 x 30"):
        check_inside(Path("p.json"), image, found.objects["a.png"], (30, 40))
    listing = folder / "list.json"
    listing.write_text(json.dumps({"images": [{"id": 7, "file_name": "a.png", **sizes}]}))
    result = read(folder, [{"image_id": 7, "bbox": [1, 2, 3, 4]}], source=listing)
    with pytest.raises(DataError, match=r"result 1 is for a\.png with 80 x 60 pixels"):
        check_inside(Path("p.json"), image, result.objects["a.png"], (30, 40))
    saved = read(folder, {"image": "a.png", **sizes, "objects": [{"box": [1, 2, 3, 4], "points": []}]})
    with pytest.raises(DataError, match=r"object 1 of 'a\.png' is for a\.png with 80 x 60 pixels"):
        check_inside(Path("p.json"), image, saved.objects["a.png"], (30, 40))
    # what was predicted before is not predicted again because the file says the size now
    assert [one.decisive for one in read(folder, COCO).objects["a.png"]] == [
        one.decisive for one in found.objects["a.png"]
    ]


def test_names_in_another_spelling_of_unicode_are_found(folder: Path) -> None:
    (folder / "a.png").rename(folder / unicodedata.normalize("NFD", "Zürich.png"))
    (name,) = read(folder, f"image,x,y\n{unicodedata.normalize('NFC', 'Zürich')},1,2\n", "p.csv").objects
    assert name == unicodedata.normalize("NFD", "Zürich.png")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.png", False),
        ("images/a.png", False),
        ("C:\\old\\images\\a.png", False),
        ("deep/c", False),
        ("train/a", True),
    ],
)
def test_an_image_of_another_folder_is_told(
    folder: Path, name: str, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its name alone may be that of another image of another split."""
    note.cache_clear()
    read(folder, f"image,x,y\n{name},1,2\n", "p.csv")
    assert ("taken by their file names alone, such " in capsys.readouterr().err) == told


def test_boxes_of_a_detector_by_the_ids_of_the_source(folder: Path) -> None:
    results = [{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}]
    listing = folder / "list.json"
    listing.write_text(
        json.dumps({"images": [{"id": 7, "file_name": "b.jpg"}], "categories": [{"id": 3, "name": "cell"}]})
    )
    assert plain(read(folder, results, source=listing)) == {"b.jpg": [("1", "cell", (1, 2, 4, 6), ())]}
    by_name = read(folder, [{"image_id": "b", "bbox": [1, 2, 3, 4]}])
    assert plain(by_name) == {"b.jpg": [("1", "object", (1, 2, 4, 6), ())]}
    assert by_name.categories == {1: "object"}
    with pytest.raises(
        DataError, match=r"its images are numbers \(7\), which a folder does not know; give the COCO file"
    ):
        read(folder, results)


def test_prompts_of_the_app_and_of_an_evaluation(folder: Path) -> None:
    objects = [
        {"box": [1, 2, 9, 9], "points": []},
        {"box": None, "points": [[3, 4, 1], [5, 6, 0]]},
        {"box": None, "points": []},
    ]
    expected = [(None, (1, 2, 9, 9), ()), (None, None, ((3, 4, 1), (5, 6, 0)))]
    found = read(folder, {"image": "a.png", "objects": objects})
    assert [(None, box, points) for _, _, box, points in plain(found)["a.png"]] == expected
    image = np.zeros((30, 40, 3), np.uint8)
    sample = Sample("deep/c.tif", image, np.ones((2, 30, 40), np.bool_), ("x", "y"))
    prompts = Prompts(
        boxes=np.array([[1, 2, 9, 9], [np.nan] * 4], np.float32),
        points=np.array([[[0, 0], [0, 0]], [[3, 4], [5, 6]]], np.float32),
        labels=np.array([[-1, -1], [1, 0]]),
    )
    file = folder.parent / "stored.json"
    write_prompts(file, [entry(sample, prompts)], split="test", seed=0, settings={})
    stored = plain(read_prompts(file, open_source(str(folder))))
    assert [(None, box, points) for _, _, box, points in stored["deep/c.tif"]] == expected
    assert [one[0] for one in stored["deep/c.tif"]] == ["x", "y"]


def test_rough_masks_of_an_evaluation_are_told_to_be_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note.cache_clear()
    image = {"id": "a.png", "objects": ["1"], "boxes": [[1, 2, 3, 4]]}
    read(folder, {"schema_version": 1, "images": [image]})
    assert not capsys.readouterr().err
    read(folder, {"schema_version": 1, "images": [{**image, "masks": ["0" * 64]}]})
    assert "rough masks of the evaluation are not in it; boxes and points alone" in capsys.readouterr().err


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables(folder: Path, separator: str) -> None:
    points = "image,x,y,label,object\na.png,3,4,1,left\na.png,5,6,0,left\n\nc.tif,7,8,,one\n".replace(",", separator)
    assert plain(read(folder, points, "p.csv")) == {
        "a.png": [("left", "object", None, ((3, 4, 1), (5, 6, 0)))],
        "deep/c.tif": [("one", "object", None, ((7, 8, 1),))],
    }
    boxes = "filename,xmin,ymin,xmax,ymax,class\na,1,2,3,4,cat\na,5,6,7,8,\n".replace(",", separator)
    assert plain(read(folder, boxes, "b.csv")) == {
        "a.png": [("1", "cat", (1, 2, 3, 4), ()), ("2", "object", (5, 6, 7, 8), ())]
    }
    sides = "image,x,y,width,height\na,1,2,3,4\n".replace(",", separator)
    assert plain(read(folder, sides, "s.csv")) == {"a.png": [("1", "object", (1, 2, 4, 6), ())]}
    alone = "image,x,y\na,1,2\na,3,4\n".replace(",", separator)  # without that column, each is an object
    assert [one[3] for one in plain(read(folder, alone, "o.csv"))["a.png"]] == [((1, 2, 1),), ((3, 4, 1),)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "p.csv",
            "image,x,y\nz.png,1,2\nq,1,2\n",
            r"line 2 names the image 'z\.png', and 1 more .*has 3 images, the first is a",
        ),
        ("p.csv", "image,x,y,label\na,1,2,0\n", r"line 2 is a point beside an object .*add the column object"),
        ("p.csv", "image,x,y,label,object\na,1,2,0,o\n", r"line 2 has points beside the object alone"),
        ("p.csv", "image,x,y,label,object\na,1,2,7,o\n", r"line 2 has the label '7'; it takes 1"),
        ("p.csv", "image,x,y,object\na,1,2,o\na,3,4,\n", r"line 3 has no object, and others of this column have"),
        (
            "p.csv",
            "image,x,y,object,class\na,1,2,o,cat\na,3,4,o,\na,3,4,o,dog\n",
            r"line 4 says 'dog' of the object 'o', line 2 'cat'",
        ),
        ("p.csv", "image,x1,y1,x2,y2\na,0.1,-0.01,0.5,1.004\n", "so they are shares of the image"),
        ("p.csv", "image,file,x,y\n1,a,1,2\n", "has the columns image and file, which both may name the image"),
        ("p.csv", "image,x,y\na,one,2\n", r"line 2 has x = 'one'; it takes a number"),
        ("p.csv", "image,x,y\na,1\n", r"line 2 has 2 cells, the first line 3"),
        ("p.csv", "picture,x,y\na,1,2\n", r"has the columns picture, x, y; it takes image,x,y,label,object"),
        ("p.csv", "image,x1,y1,x2,y2\na,5,5,2,9\n", r"line 2 has a box from \(5, 5\) to \(2, 9\), which has no area"),
        ("p.csv", "image,x,y\n", "holds no box and no point"),
        ("p.csv", "image,x,x,y\na,1,2,3\n", "has the column x 2 times; keep one of them"),
        ("p.csv", "image,x1,y1,x2,y2,x,y\na,1,2,3,4,2,3\n", r"has columns of boxes \(x1,y1,x2,y2\) and of points"),
        ("p.csv", "image,x1,y1,x2,y2\na,0.1,0,0.5,1\nb,0,0,1,0.3\n", "all coordinates lie between 0 and 1, so they"),
        ("p.csv", "image,x,y\na,0.5,0.25\n", "all coordinates lie between 0 and 1, so they are shares of the image"),
        ("p.csv", "", "is empty; its first line names the columns"),
        (
            "p.json",
            {"image": "a", "objects": [{"points": [[1, 2, 0.7], [3, 4, 1]]}]},
            "object 1 of 'a' has a label that is neither 1",
        ),
        ("p.json", {"a": 1}, "is none of the files that are read: COCO instances"),
        ("p.json", [{"bbox": [1, 2, 3, 4]}], "result 1 has no image_id or no bbox"),
        (
            "p.json",
            COCO | {"annotations": [{"id": 1, "image_id": 3, "bbox": [1, 2, 3, 4]}]},
            "annotation 1 belongs to no image",
        ),
        (
            "p.json",
            COCO | {"annotations": [{"id": 1, "image_id": 1, "bbox": [1, 2, 3]}]},
            r"annotation 1 has the bbox \[1, 2, 3\]",
        ),
        (
            "p.json",
            COCO | {"annotations": [{"id": 1, "image_id": 1, "category_id": 9, "bbox": [1, 2, 3, 4]}]},
            "has the category 9",
        ),
        ("p.json", {"image": "a", "objects": [{"box": [1, 2], "points": []}]}, r"object 1 of 'a' has the box \[1, 2\]"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, name: str, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(folder, content, name)
    assert str(caught.value).startswith(f"prompts = {folder.parent / name}: ")


def test_a_name_that_several_images_have(folder: Path) -> None:
    (folder / "deep" / "a.png").write_bytes((folder / "a.png").read_bytes())
    with pytest.raises(
        DataError, match=r"line 2 names the image 'a', which may be a\.png or deep/a\.png; give its path"
    ):
        read(folder, "image,x,y\na,1,2\n", "p.csv")
    assert list(read(folder, "image,x,y\na.png,1,2\n", "p.csv").objects) == ["a.png"]  # its very path


def test_outside_of_the_image(folder: Path) -> None:
    found = read(folder, "image,x1,y1,x2,y2\na,39,29,45,35\na,41,0,50,9\n", "p.csv")
    source = open_source(str(folder))
    check_inside(Path("p.csv"), source.images[0], found.objects["a.png"][:1], (30, 40))  # over the edge is fine
    with pytest.raises(
        DataError, match=r"line 3 has the box \[41\.0, 0\.0, 50\.0, 9\.0\], outside of a\.png, which has 40 x 30"
    ):
        check_inside(Path("p.csv"), source.images[0], found.objects["a.png"], (30, 40))


def stored(folder: Path, *images: dict[str, Any]) -> Any:
    return read(folder, {"schema_version": 1, "images": list(images)})


def test_prompts_of_tiles_are_moved_to_their_images(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run with `data.tile` names `a.png/20,10`, which no source has."""
    note.cache_clear()
    tile = {"id": "a.png/20,10", "objects": ["7", "8"], "height": 20, "width": 20}
    boxes, points = [[1, 2, 9, 9], None], [None, [[3, 4, 1], [5, 6, 0]]]
    whole = {"id": "a.png", "objects": ["9"], "boxes": [[0, 0, 4, 4]]}
    found = plain(stored(folder, {**tile, "boxes": boxes, "points": points}, whole))
    assert [one[2] for one in found["a.png"]] == [(21, 12, 29, 19), None, (0, 0, 4, 4)]
    assert [one[3] for one in found["a.png"]] == [(), ((23, 14, 1), (25, 16, 0)), ()]
    assert [one[0] for one in found["a.png"]] == ["7", "8", "9"]
    assert "prompts of tiles are taken where the tiles lie in their images" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"has the box \[41.0, 12.0, 49.0, 19.0\], outside of a\.png"):
        check(
            folder, {"schema_version": 1, "images": [{**tile, "id": "a.png/40,10", "boxes": boxes, "points": points}]}
        )


def check(folder: Path, content: Any) -> None:
    source = open_source(str(folder))
    file = folder.parent / "prompts.json"
    file.write_text(json.dumps(content))
    for image in source.images:
        if ones := read_prompts(file, source).objects.get(image.name):
            check_inside(file, image, ones, (30, 40))


def test_prompts_of_an_evaluation_know_the_size_of_their_image(folder: Path) -> None:
    """Of images that were scaled since they named another place."""
    sample = Sample("a.png", np.zeros((60, 80, 3), np.uint8), np.ones((1, 60, 80), np.bool_), ("x",))
    one = entry(sample, Prompts(boxes=np.array([[1, 2, 9, 9]], np.float32)))
    with pytest.raises(DataError, match="with 80 x 60 pixels .* and it has 40 x 30"):
        check(folder, {"schema_version": 1, "images": [one]})


def test_a_class_with_a_line_break_in_a_table(folder: Path) -> None:
    """Its parts were joined to one word; a mark between lines of other alphabets parted the row."""
    table = 'image,x1,y1,x2,y2,category\na.png,1,2,9,9,"one\ncell"\na.png,2,2,8,8,two\u2028cells\n'
    found = read(folder, table, "boxes.csv")
    assert [one.category for one in found.objects["a.png"]] == ["one\ncell", "two\u2028cells"]
    with pytest.raises(DataError, match="line 4 is no line of a table"):
        read(folder, table.replace("two", "x" * 200_000), "boxes.csv")


@pytest.mark.parametrize("category", [[1], {"id": 1}])
def test_a_category_that_is_no_number(category: Any, folder: Path) -> None:
    images = [{"id": 1, "file_name": "a.png"}]
    one = {"id": 1, "image_id": 1, "category_id": category, "bbox": [1, 2, 3, 4]}
    listed = {"images": images, "annotations": [one], "categories": [{"id": 1, "name": "x"}]}
    with pytest.raises(DataError, match="has the category"):
        read(folder, listed)
    with pytest.raises(DataError, match="has the category"):
        read(folder, [{**one, "image_id": "a.png"}])


@pytest.mark.parametrize("identifier", [0, 0.0])
def test_a_number_that_the_source_does_not_list_is_no_name(folder: Path, identifier: float) -> None:
    """A detector that counts from 0 prompted the image called 0.png, which has the id 1, with the boxes of another."""
    (folder / "a.png").rename(folder / "0.png")
    listing = folder / "list.json"
    listing.write_text(json.dumps({"images": [{"id": 1, "file_name": "0.png"}, {"id": 2, "file_name": "b.jpg"}]}))
    with pytest.raises(DataError, match=r"result 1 has the image_id 0, which .*list\.json does not list"):
        read(folder, [{"image_id": identifier, "bbox": [1, 2, 3, 4]}], source=listing)
    assert list(read(folder, [{"image_id": "0", "bbox": [1, 2, 3, 4]}], source=listing).objects) == ["0.png"]


def test_ids_that_are_numbers_of_other_files_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ultralytics writes the number of a file name as its image_id."""
    note.cache_clear()
    for before, now in (("a.png", "01.png"), ("b.jpg", "2.jpg")):
        (folder / before).rename(folder / now)
    listing = folder / "list.json"
    for ids, told in (((1, 2), False), ((2, 1), True)):
        names = zip(ids, ("01.png", "2.jpg"), strict=True)
        listing.write_text(json.dumps({"images": [{"id": one, "file_name": name} for one, name in names]}))
        read(folder, [{"image_id": 2, "bbox": [1, 2, 3, 4]}], source=listing)
        assert (
            "2 is 01.png. Where the detector wrote numbers of file names instead, it is 2.jpg"
            in capsys.readouterr().err
        ) == told


def test_two_images_of_one_id_are_refused(folder: Path) -> None:
    """The boxes of the first were those of the second."""
    images = [{"id": 1, "file_name": "c.tif"}, {"id": 1, "file_name": "a.png"}]
    with pytest.raises(DataError, match=r"'c\.tif' and 'a\.png' both have the id 1"):
        read(folder, {**COCO, "images": [*images, COCO["images"][1]]})


def test_corners_for_width_and_height_are_refused(folder: Path) -> None:
    corners = [[20, 10, 38, 29.5], [5, 6, 15, 16]]
    content = [{"image_id": "a", "bbox": box} for box in corners]
    sizes = {"a.png": (30, 40)}
    source = open_source(str(folder))
    with pytest.raises(DataError, match=r"result 1 has the bbox \[20, 10, 38, 29\.5\], which as .* write x2 - x1"):
        check_within(Path("p.json"), read(folder, content), source.images, sizes)
    # over the edge by a little, or one that cannot be corners
    for boxes in ([[1, 1, 40, 30]], [[20, 10, 38, 29.5], [5, 6, 4, 16]]):
        ones = [{"image_id": "a", "bbox": box} for box in boxes]
        check_within(Path("p.json"), read(folder, ones), source.images, sizes)


def test_images_of_two_folders_are_not_one(folder: Path) -> None:
    """Boxes of train/a.png were added to those of images/a.png, which alone was there."""
    with pytest.raises(
        DataError, match=r"line 3 is for 'train/a\.png', others for 'images/a\.png', .* has a\.png alone"
    ):
        read(folder, "image,x,y\nimages/a.png,1,2\ntrain/a.png,3,4\n", "p.csv")
    found = read(folder, "image,x,y\na,1,2\nimages/a.png,3,4\n./images/a,1,2\nC:\\old\\images\\a.png,5,6\n", "p.csv")
    assert len(found.objects["a.png"]) == 4


def test_a_table_that_says_the_size_of_its_images(folder: Path) -> None:
    """TensorFlow's columns; beside corners others have width and height of the box."""
    heads = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    images = open_source(str(folder)).images
    with pytest.raises(DataError, match="line 2 is for a.png with 80 x 60 pixels"):
        check_within(Path("p"), read(folder, f"{heads}a,80,60,x,1,2,9,30\n", "p.csv"), images, {"a.png": (30, 40)})
    for row in ("a,40,30,x,1,2,9,30", "a,8,28,x,1,2,9,30", "a,0.5,7,x,1,2,9,30"):
        check_within(Path("p"), read(folder, f"{heads}{row}\n", "p.csv"), images, {"a.png": (30, 40)})
