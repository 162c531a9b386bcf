"""Paths as they are typed, and as messages tell them: Hydra takes braces, parentheses and commas for syntax."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lora_sam.cli.overrides import with_quotes
from lora_sam.cli.preview import preview
from lora_sam.cli.step import run_step
from lora_sam.core.calling import data_words

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
    (word,) = with_quotes(shlex.split(typed))
    (override,) = OverridesParser.create().parse_overrides([word])
    found = list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]
    assert [str(one).strip("'") for one in found] == values


def test_the_path_of_what_exists_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra reads parentheses, commas and quotes as syntax; folders that people copy have them in their names."""
    monkeypatch.chdir(tmp_path)
    for name in ("set (1)", "a, b", "it's", "x=1", "[old]", "plain"):
        (tmp_path / name).mkdir()
        for path in (name, str(tmp_path / name)):
            (word,) = with_quotes([f"data.root={path}"])
            (override,) = OverridesParser.create().parse_overrides([word])
            assert not override.is_sweep_override()
            value = override.value()
            assert value == path or (isinstance(value, list) and name == "[old]")
    assert with_quotes(["data.root=gone (1)"]) == ["data.root=gone (1)"]


@pytest.mark.parametrize(
    "name", ["plain", "my set", "{split}/images", "set (1)", "a, b", "it's", '"$HOME"', "a`b", "x=1"]
)
def test_what_is_told_is_read_by_shell_and_hydra(name: str) -> None:
    (typed,) = shlex.split(data_words(root=name))
    (override,) = OverridesParser.create().parse_overrides(with_quotes([typed]))
    assert (override.key_or_group, override.value()) == ("data.root", name)


def test_where_the_data_is_told_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The check leaves the root out of what it says, but not out of what is typed."""
    place = written(tmp_path / "my set (1)/cells, all", "labels", labels)
    assert run_step("check", "check", [f"data.root={place.parent}", f"out={tmp_path / 'a'}"]) == 1
    told = re.search(r"so set (.*?)\. Looked", capsys.readouterr().out)
    assert told
    assert run_step("check", "check", [*shlex.split(told[1]), f"out={tmp_path / 'b'}"]) == 0


@pytest.mark.parametrize(
    "typed", ["method={rank:4}", "x={a:{b}}", "x=${data.root}/a", "x=[{split}]", "--help", "x=1,2", "~x", "x={}"]
)
def test_all_else_is_left_as_it_is(typed: str) -> None:
    assert with_quotes([typed]) == [typed]


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
    assert run_step("check", "check", [root]) == 1
    told = re.search(r"read it with (.*?);", capsys.readouterr().out)
    assert told
    assert run_step("check", "check", [root, *shlex.split(told[1])]) == 0
    assert f"in {COUNT} images with {4 * COUNT} objects" in capsys.readouterr().out
