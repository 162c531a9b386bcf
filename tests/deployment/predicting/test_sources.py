"""What `source=` means, and what is said where it means nothing."""

from __future__ import annotations

import errno
import glob
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lora_sam.core.errors import DataError
from lora_sam.core.files import write_text
from lora_sam.data.reading.images import image_size
from lora_sam.deployment.predicting.output import RECORDS
from lora_sam.deployment.predicting.sources import (
    SourceImage,
    masks_among,
    open_source,
    readable,
    short,
    stems_of,
)
from lora_sam.deployment.predicting.walking import OWN_FILE, OWN_FOLDERS
from lora_sam.deployment.predicting.writers.table import FORMATS


def names(typed: str | Path, output: Path | None = None) -> list[str]:
    return [image.name for image in open_source(str(typed), output).images]


def test_a_folder_with_all_below_it_in_order(folder: Path) -> None:
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.png").write_bytes(b"")
    source = open_source(str(folder))
    assert [image.name for image in source.images] == ["a.png", "b.jpg", "deep/c.tif"]
    assert (source.kind, source.root) == ("folder", folder.resolve())
    assert all(image.path is not None and image.path.is_file() for image in source.images)


def test_what_was_predicted_is_no_source(folder: Path) -> None:
    for place in ("old/overlays", "new"):
        (folder / place).mkdir(parents=True)
        (folder / place / "a.png").write_bytes(b"")
    (folder / "old" / OWN_FILE).write_text("{}")
    assert names(folder, folder / "new") == ["a.png", "b.jpg", "deep/c.tif"]
    assert names(folder / "**" / "*.png", folder / "new") == ["a.png"]
    # predictions in the source itself
    for place in ("labels", "overlays/deep"):
        (folder / place).mkdir(parents=True)
        (folder / place / "a.png").write_bytes(b"")
    assert names(folder, folder) == ["a.png", "b.jpg", "deep/c.tif", "new/a.png"]
    assert names(folder / "**" / "*.png", folder) == ["a.png", "new/a.png"]
    (folder / OWN_FILE).write_text("{}")
    assert names(folder) == ["a.png", "b.jpg", "deep/c.tif", "new/a.png"]
    assert names(folder / "*" / "*.png") == ["new/a.png"]
    assert names(folder / "labels" / "*.png") == ["a.png"]  # asked for by its name


def test_every_folder_of_predictions_is_known() -> None:
    written = {one.place.rstrip("/") for one in FORMATS.values() if one.place.endswith("/")}
    assert written | {RECORDS} == OWN_FOLDERS


def test_patterns_and_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(folder / "**" / "*.tif") == ["deep/c.tif"]
    assert names(folder / "*.[pj]*g") == ["a.png", "b.jpg"]
    assert names(folder / "deep" / "c.tif") == ["c.tif"]
    monkeypatch.chdir(folder)
    assert names("*.png") == ["a.png"]
    assert names(".") == ["a.png", "b.jpg", "deep/c.tif"]


def test_patterns_find_what_glob_finds(folder: Path) -> None:
    for name in ("deep/er/d.png", "deep/.hid/e.png", ".hid/f.png", "deep/.g.png", "x[1].png", "deep/er/a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((folder / "a.png").read_bytes())
    (folder / "link").symlink_to("deep/er")
    patterns = (
        "*", "**", "*.png", "**/*.png", "**/**/a.png", "*/*", "*/**/*.png", "d*/er/?.png", "**/er/*", "**/er/a.png",
        "x[[]1].png", ".*/*.png", "deep/.*", "deep/**", "l*/*", "[a-c].*", "deep/*/../c.tif",
    )  # fmt: skip
    for pattern in patterns:
        # through a link a file is found once: by its folder where that is looked into
        wanted = {Path(name).resolve() for name in glob.glob(str(folder / pattern), recursive=True)}
        source = open_source(str(folder / pattern))
        assert {image.path.resolve() for image in source.images if image.path} == {
            path for path in wanted if path.suffix in (".png", ".jpg", ".tif")
        }, pattern


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_folders_that_cannot_be_listed_are_not_left_out(
    folder: Path, cannot_be_listed: Callable[..., None], number: int
) -> None:
    cannot_be_listed(folder / "deep", number)
    for typed in (folder, folder / "**" / "*.png", folder / "*" / "*.tif"):
        with pytest.raises(DataError, match=rf"source: {folder}/deep cannot be listed \((Perm|Input)"):
            open_source(str(typed))
    assert names(folder / "*.png") == ["a.png"]


def test_patterns_come_to_an_end_where_links_lead_back(folder: Path) -> None:
    """`glob.glob` goes round until a path has forty links: with two of them there are 2 ** 40 paths."""
    for name in ("one", "two"):
        (folder / "deep" / name).symlink_to("..")
    (folder / "deep" / "out").symlink_to(folder.parent)
    assert names(folder / "**" / "*") == ["a.png", "b.jpg", "deep/c.tif"]


def test_a_coco_file_keeps_its_ids_and_names_what_is_missing(folder: Path) -> None:
    (folder / "annotations").mkdir()
    file = folder / "annotations" / "instances.json"
    listed = [
        {"id": 7, "file_name": "deep/c.tif"},
        {"id": "x", "file_name": "gone.png"},
        {"id": 9, "file_name": "a.png"},
    ]
    file.write_text(json.dumps({"images": listed, "categories": [{"id": 3, "name": "cell"}]}))
    source = open_source(str(file))
    assert [(image.name, image.coco) for image in source.images] == [
        ("deep/c.tif", (7, "deep/c.tif")), ("gone.png", ("x", "gone.png")), ("a.png", (9, "a.png")),
    ]  # fmt: skip
    assert source.categories == {3: "cell"}
    assert source.images[1].path is None
    assert "gone.png" in str(source.images[1].problem)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("nowhere", r"^source = .*nowhere: there is no such file or folder"),
        ("empty", r"^source = .*empty: no image is in this folder or below it \(\.bmp, .*it is empty"),
        ("texts", r"1 other files are\)$"),
        ("texts/a.txt", r"is not an image \(\.bmp, .*\) and not a COCO file"),
        ("images/*.gif", r"no image matches"),
    ],
)
def test_nothing_to_do(folder: Path, typed: str, message: str) -> None:
    (folder.parent / "empty").mkdir()
    (folder.parent / "texts").mkdir()
    (folder.parent / "texts" / "a.txt").write_text("a")
    with pytest.raises(DataError, match=message):
        open_source(str(folder.parent / typed))


def test_no_image_that_can_be_read(folder: Path) -> None:
    good = open_source(str(folder)).images
    readable(good, "x")
    for image in good:
        assert image.path is not None
        image.path.write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"^source = x: none of its 3 images can be read; the first: .*a\.png: is damaged"
    ):
        readable(good, "x")
    with pytest.raises(DataError, match="the image cannot be read: it is gone"):
        readable([SourceImage("a", None, "it is gone")], "x")


def test_files_are_called_as_images_unless_two_would_be_one() -> None:
    assert stems_of(["a.png", "b.png", "A.jpg", "c.tif", "c/1.png"]) == {
        "a.png": "a.png", "A.jpg": "A.jpg", "b.png": "b", "c.tif": "c.tif", "c/1.png": "c/1",
    }  # fmt: skip


def test_what_keeps_its_ending_is_called_as_no_other() -> None:
    assert stems_of(["a.png", "a.jpg", "a.png.png", "b.c.png"]) == {
        "a.png": "a.png", "a.jpg": "a.jpg", "a.png.png": "a.png.png", "b.c.png": "b.c",
    }  # fmt: skip


def test_names_that_no_file_system_takes_with_an_ending_are_shortened(tmp_path: Path) -> None:
    long = ["ü" * 124 + f"{end}.png" for end in ("ab", "cd")]
    stems = stems_of(["deep/x.png", *(f"{'d' * 250}/{name}" for name in long)])
    assert stems["deep/x.png"] == "deep/x"
    assert len(set(stems.values())) == 3
    for stem in stems.values():
        write_text(tmp_path / f"{stem}.geojson", "x")
    assert short("y" * 200) == "y" * 200


def test_links_to_folders_are_looked_into_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "far").mkdir(parents=True)
    for place in (tmp_path / "elsewhere" / "e.png", tmp_path / "elsewhere" / "far" / "f.png"):
        place.write_bytes((folder / "a.png").read_bytes())
    (folder / "again").symlink_to(folder / "deep")
    (folder / "deep" / "up").symlink_to("..")
    (folder / "everything").symlink_to(tmp_path)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "linked.png").symlink_to(tmp_path / "elsewhere" / "e.png")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    assert names(folder) == ["a.png", "b.jpg", "deep/c.tif", "link/e.png", "link/far/f.png", "linked.png"]


def test_masks_among_the_images_are_noticed(folder: Path) -> None:
    assert masks_among(open_source(str(folder))) is None
    (folder / "masks").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("L", (20, 30)).save(folder / "masks" / name)
    note = masks_among(open_source(str(folder / "..")))
    assert note is not None
    assert note.startswith("note: 2 of 5 images look like masks of the others, such as images/masks/a.png; source=")
    assert masks_among(open_source(str(folder / "a.png"))) is None


def test_an_id_is_that_of_one_image_and_a_name_that_of_one_class(folder: Path) -> None:
    file = folder / "list.json"
    file.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.png"}, {"id": "1", "file_name": "b.jpg"}]}))
    with pytest.raises(DataError, match="number 2 in the list: the id 1 is listed twice; remove one entry"):
        open_source(str(file))
    classes = [{"id": 1, "name": "cell"}, {"id": 2, "name": "cell"}]
    file.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "categories": classes}))
    with pytest.raises(DataError, match="needs a whole number as id and a name of its own"):
        open_source(str(file))


def test_a_single_image_that_only_tiles_can_take_is_readable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_sam.data.reading.image_file.MAX_PIXELS", 100)
    source = open_source(str(folder / "a.png"))
    with pytest.raises(DataError, match="megapixels are read"):
        image_size(source.images[0].path)  # type: ignore[arg-type]
    readable(source.images, "a.png")
