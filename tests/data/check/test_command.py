"""`python -m lora_sam.data.check`: exit codes, files, errors, and what it prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_sam.cli.check import FILES, Check
from lora_sam.cli.step import run_step
from lora_sam.cli.train import run_train
from lora_sam.data.check.defects import DEFECTS, SEVERITIES
from lora_sam.training.settings import GROUPS, RUN_KEYS
from tests.conftest import Done
from tests.data.check.conftest import pixels, square

ROOT = Path(__file__).resolve().parents[3]


pytestmark = pytest.mark.usefixtures("quiet_logging")


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    """Runs the command in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["check"])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def call(*arguments: str) -> Done:
        code = run_step("check", "python -m lora_sam.data.check", arguments)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call


class Page(HTMLParser):
    """What a browser would load, and where links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "src":
                self.sources.append(value or "")
            elif name == "href":
                self.links.append(value or "")
            elif name == "id":
                self.ids.append(value or "")


def damaged(content: Any, root: Path) -> None:
    content["annotations"][0].update(square(6, 10, 3, 2))
    content["annotations"][2]["segmentation"] = []
    (root / "images/train/3.png").write_text("no picture")


def tiny(content: Any, root: Path) -> None:
    content["annotations"][0].update(square(6, 10, 3, 2))


def read(place: Path) -> tuple[dict[str, Any], str]:
    assert sorted(path.name for path in place.iterdir()) == sorted(FILES)
    content: dict[str, Any] = json.loads((place / "check.json").read_text())
    return content, (place / "check.html").read_text()


def test_clean_set(check: Callable[..., Done], coco_set: Callable[..., Path], tmp_path: Path) -> None:
    root = coco_set(cut=4)
    done = check(f"data.root={root}", "data=coco")
    assert done == Done(0, "no error and no warning in 20 images with 40 objects: outputs/check/coco/check.html\n", "")
    content, page = read(tmp_path / "outputs/check/coco")
    assert content["ok"]
    assert content["defects"] == []
    assert content["splits"]["val"] == {"images": 3, "looked_at": 3, "objects": 6}
    assert content["distributions"]["objects_per_image"] == {"min": 2, "p05": 2, "median": 2, "p95": 2, "max": 2}
    assert content["distributions"]["longer_side"]["median"] == 64
    assert "coco is ready to train on" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco", "outputs"]  # nothing of Hydra's


def test_what_a_format_notices_is_a_defect_that_strict_counts(
    check: Callable[..., Done], coco_set: Callable[..., Path], tmp_path: Path
) -> None:
    """In the table, the lines below it, the JSON and the page alike, with its remedy; no note any more."""
    root = coco_set(cut=0)
    done = check(f"data.root={root}", "data=coco")
    assert done.code == 0
    content, page = read(tmp_path / "outputs/check/coco")
    (defect,) = content["defects"]
    kind = DEFECTS["boxes_as_outlines"]
    assert (defect["name"], defect["remedy"], defect["count"]) == (kind.name, kind.remedy, 2)
    assert [case["id"] for case in defect["cases"]] == ["train", "test"]
    assert content["warnings"] == 2
    assert not any("rectangles" in note for note in content["notes"])
    for text in (done.out, page):
        assert text.count("nearly all outlines are rectangles") == 2
        assert kind.remedy.partition(":")[0] in text
    assert "boxes_as_outlines: train: nearly all outlines" in done.out
    assert "warning:" not in done.out
    assert done.out.splitlines()[-1] == "2 warnings in 20 images with 40 objects: outputs/check/coco/check.html"
    strict = check(f"data.root={root}", "data=coco", "strict=true")
    assert strict.code == 1
    assert "2 warnings in 20 images with 40 objects, which strict=true counts as errors" in strict.out


def test_damaged_set(check: Callable[..., Done], coco_set: Callable[..., Path], tmp_path: Path) -> None:
    done = check(f"data.root={coco_set(damaged)}", "data=coco", "out=found/here", "pictures=6", "prompt=points")
    assert (done.code, done.err) == (1, "")
    rows = [line.split() for line in done.out.splitlines() if line.split()[:1] and line.split()[0] in SEVERITIES]
    assert [row[:2] for row in rows] == [["error", "1"], ["error", "1"], ["warning", "1"]]
    assert done.out.splitlines()[-1] == ("2 errors and 1 warning in 19 images with 37 objects: found/here/check.html")
    for name in ("unreadable_file", "empty_mask", "tiny_mask"):
        assert f"({name})" in done.out
    content, text = read(tmp_path / "found/here")
    for defect in content["defects"]:
        for case in defect["cases"]:
            assert f"{defect['name']}: {case['detail']}" in done.out
    for note in content["notes"]:
        assert f"note: {note}" in done.out
    assert not content["ok"]
    assert [content[key] for key in ("schema_version", "data", "strict", "errors", "warnings", "infos")] == [
        1, "Coco", False, 2, 1, 0,
    ]  # fmt: skip
    assert set(content) == {
        "schema_version", "lora_sam", "data", "root", "strict", "ok", "errors", "warnings", "infos", "splits",
        "classes", "defects", "distributions", "notes",
    }  # fmt: skip
    for defect in content["defects"]:
        assert set(defect) == {"name", "severity", "title", "remedy", "count", "cases"}
        assert defect["remedy"] == DEFECTS[defect["name"]].remedy
        assert defect["count"] == len(defect["cases"]) == 1
        assert set(defect["cases"][0]) == {"id", "detail"}
    page = Page(text)
    assert not re.search(r"https?:|//[a-z]", re.sub(r'data:image/jpeg;base64,[^"]*', "", text))
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert len(page.sources) == 6 + 2  # the sheet, tiny and empty mask; what cannot be read cannot be shown
    assert {link for link in page.links if link != "data:,"} == {f"#{name}" for name in page.ids}
    assert page.ids == [defect["name"] for defect in content["defects"]]
    assert "PointsPrompt" in text
    assert page.tags.count("svg") == 4


def test_two_images_are_looked_at_once_each(
    check: Callable[..., Done], coco_set: Callable[..., Path], tmp_path: Path
) -> None:
    root = coco_set(lambda content, root: None)
    options = (f"data.root={root}", "data=coco", "data.val=train", "data.test=train", "pictures=0")
    done = check(*options)
    assert done.code == 0, done.out
    content, _ = read(tmp_path / "outputs/check/coco")
    (train,) = content["splits"].values()
    assert train["images"] == train["looked_at"] > 0
    (found,) = [defect for defect in content["defects"] if defect["name"] == "split_is_train"]
    assert found["severity"] == "warning"
    assert {case["id"] for case in found["cases"]} == {"val", "test"}
    assert not any(defect["name"] == "leaked_image" for defect in content["defects"])


def test_warnings_fail_if_strict(check: Callable[..., Done], coco_set: Callable[..., Path], tmp_path: Path) -> None:
    root = coco_set(tiny)
    assert check(f"data.root={root}", "data=coco").code == 0
    done = check(f"data.root={root}", "data=coco", "strict=true")  # the same directory again
    assert done.code == 1
    assert "which strict=true counts as errors" in done.out
    assert read(tmp_path / "outputs/check/coco")[0]["ok"] is False


def test_many_cases_are_counted_and_some_are_named(
    check: Callable[..., Done], coco_set: Callable[..., Path], tmp_path: Path
) -> None:
    def edit(content: Any, root: Path) -> None:
        for entry in content["annotations"]:
            entry.update(square(6, 10, 3, 2))

    assert check(f"data.root={coco_set(edit)}", "data=coco", "pictures=0").code == 0
    content, text = read(tmp_path / "outputs/check/coco")
    (found,) = [defect for defect in content["defects"] if defect["name"] == "tiny_mask"]
    assert found["count"] == 24
    assert len(found["cases"]) == 20
    assert "<summary>15 more</summary>" in text
    assert "and 4 that are not listed" in text
    assert len(Page(text).sources) == 8  # four of each kind: tiny, and twice the same
    assert "and 21 more" in check(f"data.root={tmp_path}/coco", "data=coco").out


def test_other_directories_are_left_alone(check: Callable[..., Done], coco_set: Callable[..., Path]) -> None:
    root = coco_set()
    for out in (root, root / "annotations/instances_train.json"):
        done = check(f"data.root={root}", "data=coco", f"out={out}")
        assert done == Done(
            2, "", f"error: out = {out}: holds something else and is left as it is; choose another with out=...\n"
        )
    assert (root / "annotations/instances_train.json").is_file()


def test_a_directory_that_cannot_be_written(check: Callable[..., Done], coco_set: Callable[..., Path]) -> None:
    root = coco_set()
    done = check(f"data.root={root}", "data=coco", f"out={root}/annotations/instances_val.json/below")
    assert done.code == 2
    assert "cannot be written" in done.err
    assert done.err.endswith("choose another place with out=...\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("data.rooot=x",),
        ("data=coc", "data.root=x"),
        ("prompt=boxx", "data.root=x"),
        ("data=coco", "data.root=x", "data.min_area=0"),
    ],
)
def test_mistakes_are_answered_as_training_answers_them(
    check: Callable[..., Done], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    done = check(*arguments)
    assert done.code == 2
    with pytest.raises(SystemExit) if "data.min_area=0" in arguments else _nothing():
        run_train("train.py", list(arguments))
    theirs = capsys.readouterr().err
    # the options of the check itself are valid keys too
    assert done.err.partition(" Valid keys")[0] == theirs.partition(" Valid keys")[0]
    assert done.err.startswith("error: ")


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def test_the_format_is_found_out(check: Callable[..., Done], folder_set: Callable[..., Path], tmp_path: Path) -> None:
    assert check(f"data.root={folder_set()}").code == 0
    content, _ = read(tmp_path / "outputs/check/folder")
    assert content["data"] == "Folder"
    assert any(note.startswith("read as data=folder") for note in content["notes"])
    (tmp_path / "empty").mkdir()
    done = check(f"data.root={tmp_path}/empty")
    assert done.code == 1
    assert "(cannot_open)" in done.out


def test_no_root_and_no_files(check: Callable[..., Done], tmp_path: Path) -> None:
    assert "data.root is not set" in check("data=coco").err
    missing = check("data=coco", f"data.root={tmp_path}/nowhere")
    assert missing.code == 2
    assert "nowhere does not exist" in missing.err
    drawn = check("data=ellipses")
    assert drawn == Done(
        2, "", "error: data: is drawn on the fly, so there are no files to check; choose another data=\n"
    )


def test_experiments_are_taken_without_their_weights(
    check: Callable[..., Done], coco_set: Callable[..., Path], tmp_path: Path
) -> None:
    done = check("experiment=nuclei_lora", f"data.root={coco_set()}", "model.checkpoint=not/there.pth", "seed=7")
    assert (done.code, done.err) == (0, "")


def test_options_are_those_of_training() -> None:
    names = {field.name for field in fields(Check)}
    assert names == {*GROUPS, *RUN_KEYS, "out", "strict", "images", "pictures"}


def test_names_are_no_markup(check: Callable[..., Done], folder_set: Callable[..., Path], tmp_path: Path) -> None:
    root = folder_set()
    evil = '<script>alert("[red]1")<!--.png'
    Image.fromarray(pixels(9, 9) // 32).save(root / "train/images" / evil)
    Image.fromarray(pixels(9, 9)[..., 0] // 200).save(root / "train/masks" / evil)
    done = check(f"data.root={root}", "data=folder", "strict=true")
    assert done.code == 1
    _, text = read(tmp_path / "outputs/check/folder")
    assert text.count("<script>") == 1  # the template's own
    assert "&lt;script&gt;alert" in text


def test_help_needs_no_torch() -> None:
    code = (
        "import runpy, sys; sys.argv = ['check', '--help']\n"
        "try: runpy.run_module('lora_sam.data.check', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'scipy', 'monai', 'PIL'} & sys.modules.keys(), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    for option in ("out=null", "strict=false", "images=null", "pictures=24"):
        assert f"  {option}\n" in done.stdout


def test_checking_needs_no_torch(coco_set: Callable[..., Path], tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.argv = ['check', 'data=coco', 'data.root=' + sys.argv[1]]\n"
        "try: runpy.run_module('lora_sam.data.check', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", code, str(coco_set())]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs/check/coco/check.html").is_file()
