"""`{split}` in paths, as it is typed: Hydra takes braces for those of a mapping."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lora_sam.cli.overrides import with_placeholders
from lora_sam.cli.preview import preview
from lora_sam.cli.step import run_step

from ..data.test_coloured_masks import coloured
from ..data.test_siblings import COUNT, labels, written


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("data.images={split}/images", ["{split}/images"]),
        ("data.images='images/{split}'", ["images/{split}"]),
        ("data.images={split}", ["{split}"]),
        ("+x='a b/{split}'", ["a b/{split}"]),
        ("x={split}/a,{split}/b,c", ["{split}/a", "{split}/b", "c"]),
        ("""x='"{split}/a, b"'""", ["{split}/a, b"]),
    ],
)
def test_a_value_with_a_placeholder_is_text(typed: str, values: list[str]) -> None:
    (word,) = with_placeholders(shlex.split(typed))
    (override,) = OverridesParser.create().parse_overrides([word])
    found = list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]
    assert [str(one).strip("'") for one in found] == values


@pytest.mark.parametrize(
    "typed", ["method={rank:4}", "x={a:{b}}", "x=${data.root}/a", "x=[{split}]", "--help", "x=1,2", "~x", "x={}"]
)
def test_all_else_is_left_as_it_is(typed: str) -> None:
    assert with_placeholders([typed]) == [typed]


def test_what_is_documented_and_told_works_when_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "plain/images", "train", labels)  # images/images and images/train
    (tmp_path / "plain/images/images").rename(tmp_path / "plain/pictures_train")
    root = f"data.root={tmp_path / 'plain'}"
    assert (
        run_step("check", "check", ["data=labels", root, "data.images=pictures_{split}", "data.labels=images/{split}"])
        == 0
    )
    assert f"in {COUNT} images with {4 * COUNT} objects" in capsys.readouterr().out
    assert (
        preview(["data=labels", root, "data.images=pictures_{split}", "data.labels=images/{split}", "preview.images=1"])
        == 0
    )

    written(tmp_path / "coloured/train", "masks", coloured)
    root = f"data.root={tmp_path / 'coloured'}"
    assert run_step("check", "check", [root]) == 2
    told = re.search(r"read it with (.*?);", capsys.readouterr().out)
    assert told
    assert run_step("check", "check", [root, *shlex.split(told[1])]) == 0
    assert f"in {COUNT} images with {4 * COUNT} objects" in capsys.readouterr().out
