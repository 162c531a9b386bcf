"""One damage each: which defect it is, how often, where, and whether the check fails."""

from __future__ import annotations

import ast
import copy
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from lora_sam import data as data_package
from lora_sam.core.errors import DataDefect, DataError
from lora_sam.data.check.coco_labels import crosses_itself
from lora_sam.data.check.defects import DEFECTS, SEVERITIES, Finding, grouped, total
from lora_sam.data.check.examination import Examination, examine
from lora_sam.data.check.opening import as_finding, refusal
from lora_sam.data.check.results import passed
from lora_sam.data.check.samples import spread
from lora_sam.data.noticed import Notes, NoticeKind
from lora_sam.data.reading import image_file
from lora_sam.data.reading.duplicates import alike, likeness
from tests.data.check.conftest import COUNTS, HEIGHT, WIDTH, Memory, pixels, square

Edit = Callable[[Any, Path], None]
TRAIN = "images/train"


def found(examination: Examination) -> dict[str, list[str]]:
    return {group.defect.name: [finding.id for finding in group.findings] for group in examination.groups}


def change(place: str, number: int, **values: Any) -> Edit:
    def edit(content: Any, root: Path) -> None:
        content[place][number].update(values)

    return edit


def add(place: str, **values: Any) -> Edit:
    def edit(content: Any, root: Path) -> None:
        content[place].append(copy.deepcopy(content[place][0]) | values)

    return edit


def write(name: str, image: Image.Image, **options: Any) -> Edit:
    return lambda content, root: image.save(root / TRAIN / name, **options)


def truncate(content: Any, root: Path) -> None:
    path = root / TRAIN / "0.png"
    path.write_bytes(path.read_bytes()[:2000])


def unlist(file_name: str | None) -> Edit:
    def edit(content: Any, root: Path) -> None:
        (root / TRAIN / "0.png").unlink()
        content["images"][0]["file_name"] = file_name

    return edit


def unlabel(content: Any, root: Path) -> None:
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != 3]


def rotate(content: Any, root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels(9, 9)).save(root / TRAIN / "0.jpg", exif=exif, quality=95)
    (root / TRAIN / "0.png").unlink()
    content["images"][0]["file_name"] = "0.jpg"


def enlarge(content: Any, root: Path) -> None:
    Image.fromarray(pixels(9, 9, size=(200, 300))).save(root / TRAIN / "0.png")
    content["images"][0].update(height=200, width=300)


def copied(source: str, target: str) -> Edit:
    def edit(content: Any, root: Path) -> None:
        root.joinpath(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / source, root / target)

    return edit


def parts(content: Any, root: Path) -> None:
    corners = [square(left, 10, 4, 4)["segmentation"][0] for left in (6, 12, 18, 24)]
    content["annotations"][0].update(segmentation=corners, bbox=None)


def first_object(defect: str, **values: Any) -> tuple[str, Edit, list[str]]:
    return defect, change("annotations", 0, **values), [f"{TRAIN}/0.png: object 0"]


def refused_object(defect: str, **values: Any) -> tuple[str, Edit, list[str]]:
    return defect, change("annotations", 0, **values), ["annotations/instances_train.json: annotation 0"]


GREY = Image.fromarray(pixels(7, 7)[..., 0])
WIDE = Image.fromarray(pixels(7, 7)[..., 0].astype(np.uint16) * 200)
DARK = Image.fromarray(pixels(7, 7) // 8)
FLAT = Image.fromarray(pixels(7, 7) // 32 + 150)
BOW_TIE = [6, 10, 26, 26, 26, 10, 6, 26]

CASES: list[tuple[str, Edit, list[str]]] = [
    ("unreadable_file", truncate, [f"{TRAIN}/0.png"]),
    ("unreadable_file", lambda _, root: (root / TRAIN / "0.png").write_text("no picture"), [f"{TRAIN}/0.png"]),
    ("missing_file", lambda _, root: (root / TRAIN / "0.png").unlink(), [f"{TRAIN}/0.png"]),
    ("size_mismatch", change("images", 0, width=WIDTH + 6), [f"{TRAIN}/0.png"]),
    ("path_escape", unlist("../../../gone.png"), ["annotations/instances_train.json: image 0"]),
    ("bad_annotation", unlist(None), ["annotations/instances_train.json: image 0"]),
    refused_object("empty_mask", segmentation=[]),
    refused_object("bad_polygon", segmentation=[[6, 10, 26, 26]]),
    refused_object("bad_polygon", segmentation=[[6, 10, 26, 26, 9e9, 1]]),
    refused_object("bad_rle", segmentation={"size": [HEIGHT, WIDTH], "counts": [10, 5]}),
    refused_object("bad_rle", segmentation={"size": [WIDTH, HEIGHT], "counts": [10, 5]}),
    refused_object("bad_box", bbox=[0, 0, 500, 500]),
    refused_object("bad_box", bbox=[0, 0, float("nan"), 5]),
    refused_object("bad_annotation", segmentation=None),
    refused_object("label_without_image", image_id=999),
    (
        "duplicate_id",
        add("annotations", segmentation=[[1, 1, 9, 1, 9, 9]]),
        ["annotations/instances_train.json: annotation 0"],
    ),
    first_object("tiny_mask", **square(6, 10, 3, 2)),
    first_object("whole_image_mask", **square(0, 0, WIDTH, HEIGHT)),
    first_object("box_mask_mismatch", bbox=[12, 10, 20, 16]),
    first_object("self_intersecting_polygon", segmentation=[BOW_TIE]),
    first_object("polygon_outside_image", segmentation=square(-6, 10)["segmentation"], bbox=None),
    ("many_parts", parts, [f"{TRAIN}/0.png: object 0"]),
    ("duplicate_object", add("annotations", id=77), [f"{TRAIN}/0.png: object 0"]),
    ("nested_object", add("annotations", id=77, **square(8, 12, 8, 8)), [f"{TRAIN}/0.png: object 77"]),
    ("unlabelled_image", unlabel, [f"{TRAIN}/3.png"]),
    ("unlisted_image", write("extra.png", GREY), [f"{TRAIN}/extra.png"]),
    ("unused_category", add("categories", id=2, name="circle"), ["circle"]),
    ("mixed_channels", write("0.png", GREY), [f"{TRAIN}/0.png"]),
    ("mixed_channels", write("0.png", WIDE), [f"{TRAIN}/0.png"]),
    ("mixed_channels", write("0.png", Image.fromarray(pixels(7, 7)).convert("RGBA")), [f"{TRAIN}/0.png"]),
    ("low_contrast", write("0.png", DARK), [f"{TRAIN}/0.png"]),
    ("low_contrast", write("0.png", FLAT), [f"{TRAIN}/0.png"]),
    ("exif_rotation", rotate, [f"{TRAIN}/0.jpg"]),
    ("image_sizes_vary", enlarge, [f"{TRAIN}/0.png"]),
    ("duplicate_image", copied(f"{TRAIN}/0.png", f"{TRAIN}/1.png"), [f"{TRAIN}/1.png"]),
]


@pytest.mark.parametrize(("defect", "edit", "ids"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_one_damage_is_one_finding(
    coco_set: Callable[..., Path], examined: Callable[..., Examination], defect: str, edit: Edit, ids: list[str]
) -> None:
    examination = examined(coco_set(edit))
    others = {"nested_object"} if defect == "whole_image_mask" else set()
    assert {name: cases for name, cases in found(examination).items() if name not in others} == {defect: ids}
    assert passed(examination, strict=False) == (DEFECTS[defect].severity != "error")
    assert passed(examination, strict=True) == (DEFECTS[defect].severity == "info")
    # what the other images have is still looked at
    assert len(examination.looks) >= sum(COUNTS.values()) - 1


def test_clean_sets_have_no_findings(
    coco_set: Callable[..., Path], folder_set: Callable[..., Path], examined: Callable[..., Examination]
) -> None:
    for examination in (examined(coco_set()), examined(folder_set(), "folder")):
        assert found(examination) == {}
        assert passed(examination, strict=True)
        assert len(examination.looks) == sum(COUNTS.values())


def test_there_are_enough_kinds_of_defects() -> None:
    assert len(DEFECTS) >= 30
    assert all(re.fullmatch(r"[a-z_]+", name) for name in DEFECTS)
    assert all(defect.remedy.endswith(".") and defect.title for defect in DEFECTS.values())
    assert {defect.severity for defect in DEFECTS.values()} == set(SEVERITIES)


def test_all_damages_are_found_at_once(coco_set: Callable[..., Path], examined: Callable[..., Examination]) -> None:
    def edit(content: Any, root: Path) -> None:
        truncate(content, root)
        unlabel(content, root)
        entries = content["annotations"]
        entries[4]["segmentation"] = []
        entries[5]["segmentation"] = []
        entries[2].update(square(6, 10, 3, 2))
        entries[3]["image_id"] = 999

    assert found(examined(coco_set(edit))) == {
        "empty_mask": [
            "annotations/instances_train.json: annotation 20",
            "annotations/instances_train.json: annotation 21",
        ],
        "unreadable_file": [f"{TRAIN}/0.png"],
        "label_without_image": ["annotations/instances_train.json: annotation 11"],
        "unlabelled_image": [f"{TRAIN}/3.png"],
        "tiny_mask": [f"{TRAIN}/1.png: object 10"],
    }


def test_the_same_image_in_two_splits(coco_set: Callable[..., Path], examined: Callable[..., Examination]) -> None:
    root = coco_set()
    shutil.copy(root / "images/train/0.png", root / "images/test/2.png")
    assert found(examined(root)) == {"leaked_image": ["images/test/2.png"]}
    nearly = pixels(0, 0).astype(int) + 3
    Image.fromarray(nearly.clip(0, 255).astype(np.uint8)).save(root / "images/test/2.png")
    assert found(examined(root)) == {"near_duplicate_across_splits": ["images/test/2.png"]}


def test_near_duplicates() -> None:
    first = [likeness(pixels(0, number)) for number in range(4)]
    flat = likeness(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    brighter = likeness((pixels(0, 2) * 0.95 + 8).astype(np.uint8))
    assert list(alike([*first, flat], [flat, likeness(pixels(1, 0)), brighter])) == [(2, 2)]
    assert list(alike([], first)) == []
    assert first[0].pixels != likeness(pixels(0, 0)[:, ::-1]).pixels


def test_unknown_category(coco_set: Callable[..., Path], examined: Callable[..., Examination]) -> None:
    cases = found(examined(coco_set(change("annotations", 0, category_id=9))))
    assert cases["unknown_category"] == ["annotations/instances_train.json: annotation 0"]
    assert set(cases) == {"unknown_category", "class_imbalance"}  # an only object is rare, too


def test_objects_beyond_the_limit(coco_set: Callable[..., Path], examined: Callable[..., Examination]) -> None:
    assert found(examined(coco_set(add("annotations", id=77, **square(20, 30, 10, 10))), max_objects_per_image=2)) == {
        "many_objects": [f"{TRAIN}/0.png"]
    }


def test_images_too_large(
    coco_set: Callable[..., Path], examined: Callable[..., Examination], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_file, "MAX_PIXELS", HEIGHT * WIDTH)
    examination = examined(coco_set(write("0.png", Image.fromarray(pixels(1, 1, size=(HEIGHT, WIDTH + 1))))))
    assert found(examination) == {"too_large": [f"{TRAIN}/0.png"]}


def test_few_images_and_absent_splits(coco_set: Callable[..., Path], examined: Callable[..., Examination]) -> None:
    examination = examined(coco_set(counts={"train": 6}))
    assert found(examination) == {
        "too_few_images": ["train", "test"], "split_is_train": ["val"], "missing_split": ["test"],
    }  # fmt: skip
    assert passed(examination, strict=False)


def test_damaged_pairs_of_files(folder_set: Callable[..., Path], examined: Callable[..., Examination]) -> None:
    root = folder_set()
    (root / "train/masks/0.png").unlink()
    (root / "train/images/1.png").unlink()
    soft = np.zeros((HEIGHT, WIDTH), np.uint8)
    soft[10:26, 6:26] = 255
    soft[10, 6:26] = np.arange(230, 250)
    Image.fromarray(soft).save(root / "train/masks/2.png")
    Image.fromarray(soft * 0).save(root / "train/masks/3.png")
    Image.fromarray(soft[:-1] // 255).save(root / "train/masks/4.png")
    shutil.copy(root / "train/images/5.png", root / "train/images/5.bmp")
    assert found(examined(root, "folder")) == {
        "unlabelled_image": ["train/images/0.png", "train/images/3.png"],
        "label_without_image": ["train/masks/1.png"],
        "ambiguous_mask": ["train/masks/2.png"],
        "size_mismatch": ["train/masks/4.png"],
        "duplicate_id": ["train/images"],
        "too_few_images": ["train"],
    }


def test_a_split_that_cannot_be_opened_hides_nothing_of_the_others(
    coco_set: Callable[..., Path], examined: Callable[..., Examination]
) -> None:
    root = coco_set(change("annotations", 0, **square(6, 10, 3, 2)))
    (root / "annotations/instances_val.json").write_text("{")
    examination = examined(root)
    cases = found(examination)
    assert cases["cannot_open"] == ["annotations/instances_val.json"]
    assert cases["tiny_mask"] == [f"{TRAIN}/0.png: object 0"]
    assert len(examination.sources["test"]) == 5
    assert not passed(examination, strict=False)


def test_nothing_can_be_opened(coco_set: Callable[..., Path], examined: Callable[..., Examination]) -> None:
    def edit(content: Any, root: Path) -> None:
        for entry in content["annotations"]:
            entry["segmentation"] = []

    examination = examined(coco_set(edit))
    cases = found(examination)
    assert len(cases["empty_mask"]) == 24  # each told once, however often it was tried
    assert "cannot_open" in cases
    assert not examination.looks
    assert not passed(examination, strict=False)


def test_classes() -> None:
    common: list[tuple[str, ...]] = [("cell",) * 5] * 10
    data = Memory({"train": [*common, ("debris",)], "val": common[:3], "test": [*common[:5], ("crystal", "cell")]})
    examination = examine(data, Path("/nowhere"), 0, None)  # type: ignore[arg-type]
    assert found(examination) == {"class_imbalance": ["debris"], "unseen_class": ["test: crystal"]}
    assert examination.classes["train"] == {"cell": 50, "debris": 1}
    assert examination.notes == ("kept in memory",)


def test_only_some_images_are_looked_at(coco_set: Callable[..., Path], examined: Callable[..., Examination]) -> None:
    examination = examined(coco_set(change("annotations", 2, bbox=[30, 10, 20, 16])), most=2)
    assert [look.id for look in examination.looks] == [
        f"images/{split}/{index}.png"
        for split, index in (("train", 0), ("train", 11), ("val", 0), ("val", 2), ("test", 0), ("test", 4))
    ]
    assert found(examination) == {}  # the damage is in image 1
    assert list(spread(5, None)) == list(spread(5, 9)) == [0, 1, 2, 3, 4]


def test_progress_is_told(coco_set: Callable[..., Path], option: Callable[..., Any]) -> None:
    root, told = coco_set(), []
    examine(option("data/coco", root=str(root)), root, 0, None, lambda done, of: told.append((done, of)))
    assert told == [(20, 20)]


@pytest.mark.parametrize(
    ("ring", "crosses"),
    [
        (BOW_TIE, True),
        (square(0, 0)["segmentation"][0], False),
        ([0, 0, 4, 0, 4, 4, 2, 0, 0, 4], False),  # touches itself
        ([0, 0, 4, 0, 4, 0, 4, 4], False),  # a vertex twice
        ([0, 0, 8, 0, 8, 8, 4, -2, 0, 8], True),
        ([0, 0, 4, 4, 0, 4], False),
        ([], False),
    ],
)
def test_crossing_outlines(ring: list[float], crosses: bool) -> None:
    assert crosses_itself(np.array(ring, float).reshape(-1, 2)) is crosses


def test_order_and_totals() -> None:
    groups = grouped(
        Finding(name, str(number), "")
        for number, name in enumerate(["nested_object", "tiny_mask", "low_contrast", "tiny_mask", "bad_box"])
    )
    assert [group.defect.name for group in groups] == ["bad_box", "tiny_mask", "low_contrast", "nested_object"]
    assert [total(groups, severity) for severity in SEVERITIES] == [1, 3, 1]


def refusals() -> Iterator[tuple[re.Pattern[str], str | None]]:
    """For each `DataError` that a reader raises: a pattern of its message, and the kind that it is given."""
    for file in Path(data_package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "DataError":
                kind = node.args[1] if len(node.args) > 1 else None
                if kind is None or isinstance(kind, ast.Constant):
                    parts = node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else [node.args[0]]
                    texts = (re.escape(part.value) if isinstance(part, ast.Constant) else ".+?" for part in parts)
                    # some are worded without their owner, which is put in front
                    yield re.compile(f"(?:.* )?{''.join(texts)}\\.?", re.DOTALL), None if kind is None else kind.value


REFUSALS = list(refusals())


@pytest.mark.parametrize(
    ("message", "defect"),
    [
        ("a.xml: is not valid XML (no element); export the annotation again.", "bad_annotation"),
        (
            "a.xml: declares a document type or entities (EntitiesForbidden), which an annotation does not need and "
            "which can exhaust memory or read other files; remove them.",
            "bad_annotation",
        ),
        ("a.npy: is damaged or no .npy file (magic); save it again with numpy.save.", "unreadable_file"),
        ("a.npy: has float32 values; save labels as uint8, uint16 or int32.", "ambiguous_mask"),
        (
            "a.npy: has negative values (-2); use 0 for background, labels > 0, or leave them out with "
            "data.ignore=[-2].",
            "ambiguous_mask",
        ),
        (
            "a.png: has colours that dataset_meta.json does not list: (1, 2, 3); add their classes there, or "
            "correct the mask (edges must not be smoothed).",
            "ambiguous_mask",
        ),
        ("a.json: item 'x': images/x.png is the image of another item too; merge the two.", "duplicate_id"),
        ("a.json: item 'x' has an ellipse in [1, 2]; it takes four finite numbers [x0, y0, x1, y1].", "bad_polygon"),
        ("a.jpg: has no mask SegmentationObject/a.png; add it, or remove 'a' from the list.", "image_without_label"),
    ],
)
def test_messages_of_other_formats(message: str, defect: str) -> None:
    """Every reader that words a refusal like this one gives its error this kind."""
    kinds = [kind for pattern, kind in REFUSALS if pattern.fullmatch(message)]
    assert kinds == [defect] * len(kinds)
    assert kinds


def test_every_kind_of_error_is_a_defect() -> None:
    assert set(get_args(DataDefect)) <= set(DEFECTS)
    assert {kind for _, kind in REFUSALS if kind is not None} == set(get_args(DataDefect))
    assert DataError("broken").kind is None


def test_every_kind_that_a_format_notices_is_a_defect() -> None:
    """The list of kinds is that of the defects, with a severity and a remedy each; no other finding is an error."""
    kinds = set(get_args(NoticeKind))
    assert kinds <= set(DEFECTS)
    assert {DEFECTS[kind].severity for kind in kinds} == {"warning", "info"}
    source = "\n".join(path.read_text() for path in Path("lora_sam/data").rglob("*.py"))
    unused = {kind for kind in kinds if not re.search(rf'(found|left_out)[(\[]\s*"{kind}"', source)}
    assert not unused
    assert not re.search(r"notes\.append\([^)]*warning", source)


def test_notes_keep_their_order_and_their_kinds() -> None:
    notes = Notes()
    notes.append("read as usual")
    notes.found("trimap", "masks: warning: 1 lies around 2")
    notes.counted(
        "train", Counter({("no_outline", "points outline nothing"): 3, (None, "of no kind"): 1, ("odd_ids", "x"): 0})
    )
    assert notes.texts == (
        "read as usual",
        "masks: warning: 1 lies around 2",
        "train: 3 points outline nothing",
        "train: 1 of no kind",
    )
    assert [one.kind for one in notes.noticed] == ["trimap", "no_outline"]
    finding = as_finding(notes.noticed[0], Path("/data"))
    assert (finding.id, finding.detail) == ("masks", "masks: 1 lies around 2")


def test_messages_of_readers() -> None:
    root = Path("/data/set")
    finding = refusal(DataError("/data/set/a.json: annotation 7 (image x.png) has an RLE of size 3.", "bad_rle"), root)
    assert (finding.id, finding.defect) == ("a.json: annotation 7", "bad_rle")
    assert finding.detail == "a.json: annotation 7 (image x.png) has an RLE of size 3."
    assert refusal(DataError("/data/set/x.png: is broken\n somehow."), root).id == "x.png"
    assert refusal(DataError("/data/set/x.png: is of a kind that nobody knows."), root).defect == "refused"
    assert refusal(DataError("/data/set/x.png: is gone.", "missing_file"), root, "cannot_open").defect == "cannot_open"


def test_json_that_is_no_coco_is_passed_over(
    coco_set: Callable[..., Path], examined: Callable[..., Examination]
) -> None:
    """Entries that the reader does not need may be anything."""

    def edit(content: Any, root: Path) -> None:
        del content["categories"]
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][2]["bbox"] = None
        del content["annotations"][4]["bbox"]

    assert found(examined(coco_set(edit))) == {"crowds_left_out": ["train"]}


@pytest.mark.parametrize(("small", "tiles"), [(1, True), (0, False)])
def test_small_objects_of_large_images_name_a_tile(
    coco_set: Callable[..., Path], examined: Callable[..., Examination], small: int, tiles: bool
) -> None:
    """Objects of 304 pixels in 800 x 600 span 17.4, 2.2 % of it: tiles of 20 x 17.4 = 349, 320 by steps of 64."""

    def edit(content: Any, root: Path) -> None:
        for index in range(small):
            Image.fromarray(pixels(9, 9, size=(600, 800))).save(root / TRAIN / f"{index}.png")
            content["images"][index].update(height=600, width=800)

    groups = examined(coco_set(edit, {"train": 4, "val": 2, "test": 2})).groups
    findings = [one for group in groups if group.defect.name == "small_in_image" for one in group.findings]
    assert len(findings) == tiles
    if tiles:
        assert findings[0].image == f"{TRAIN}/0.png"
        assert "1 of 8 images" in findings[0].detail
        assert "17 of 800 pixels" in findings[0].detail
        assert "data.tile=320" in findings[0].detail
