"""Manifests: what a step was made from and wrote, and every way in which that can cease to hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from safetensors import SafetensorError

from lora_sam.core.errors import AdapterError, TrainingError
from lora_sam.core.version import __version__
from lora_sam.runs.manifest import (
    MANIFEST,
    adapter_digest,
    command,
    is_done,
    read_step,
    require_step,
    step_directory,
    write_step,
)

ORIGIN = {"adapter": "a" * 64, "base": "b" * 64}
SETTINGS = {"alpha": 1.0, "runs": ("x", "y")}
REMEDY = "python -m lora_sam.merge run=here"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    directory = tmp_path / "merged"
    (directory / "inner").mkdir(parents=True)
    (directory / "sam.bin").write_bytes(b"weights")
    (directory / "inner" / "more.bin").write_bytes(b"more")
    write_step(directory, "merge", made_from=ORIGIN, settings=SETTINGS, checks={"difference": 1e-6})
    return directory


def test_round_trip(made: Path) -> None:
    found = require_step(made, "merge", ORIGIN, REMEDY)
    assert set(found.files) == {"sam.bin", "inner/more.bin"}
    assert found.checks == {"difference": 1e-6}
    assert is_done(made, "merge", ORIGIN, SETTINGS)
    assert not is_done(made, "merge", ORIGIN, {**SETTINGS, "alpha": 0.5})
    assert not is_done(made, "export", ORIGIN, SETTINGS)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="not there yet; make it with: python -m lora_sam.merge run=here"):
        read_step(tmp_path / "merged", "merge", REMEDY)


@pytest.mark.parametrize(
    ("now", "named"),
    [
        ({**ORIGIN, "adapter": "c" * 64}, r"another adapter \(SHA-256 aaaaaaaaaaaa, now cccccccccccc\)"),
        ({"adapter": "a" * 64}, "another base .*now none"),
        ({**ORIGIN, "data": "d" * 64}, r"another data \(SHA-256 none"),
    ],
)
def test_stale(made: Path, now: dict[str, str], named: str) -> None:
    with pytest.raises(AdapterError, match=f"is stale: it was made from {named}.*{REMEDY}"):
        require_step(made, "merge", now, REMEDY)
    assert not is_done(made, "merge", now, SETTINGS)


def test_changed_by_hand(made: Path) -> None:
    (made / "inner" / "more.bin").write_bytes(b"mare")
    with pytest.raises(AdapterError, match=r"more\.bin was changed after it was made"):
        require_step(made, "merge", ORIGIN, REMEDY)
    (made / "inner" / "more.bin").unlink()
    with pytest.raises(AdapterError, match=r"more\.bin is missing"):
        require_step(made, "merge", ORIGIN, REMEDY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema version 2, this lora_sam reads 1"),
        ({"step": "export"}, "step of the wrong type"),
        ({"files": []}, "files of the wrong type"),
        ({"made_from": {"adapter": 3}}, "made_from of the wrong type"),
        ({"checks": None}, "checks of the wrong type"),
        ({"files": {"../../secret": "0"}}, "outside"),
        ({"files": {"/etc/passwd": "0"}}, "outside"),
    ],
)
def test_a_manifest_is_data_that_may_be_wrong(made: Path, changes: dict[str, object], message: str) -> None:
    path = made / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(AdapterError, match=message):
        require_step(made, "merge", ORIGIN, REMEDY)


def test_not_json(made: Path) -> None:
    (made / MANIFEST).write_text("{")
    with pytest.raises(AdapterError, match="damaged"):
        read_step(made, "merge", REMEDY)


def test_commands_can_be_typed() -> None:
    assert command("export", "my runs/one", precision="fp32") == (
        "python -m lora_sam.export 'run=my runs/one' precision=fp32"
    )


def test_the_digest_of_an_adapter_is_that_of_its_two_files(tmp_path: Path) -> None:
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        with pytest.raises(AdapterError, match=name):
            adapter_digest(tmp_path)
        (tmp_path / name).write_text("x")
    first = adapter_digest(tmp_path)
    (tmp_path / "README.md").write_text("no part of it")
    assert adapter_digest(tmp_path) == first
    (tmp_path / "adapter_config.json").write_text("y")
    assert adapter_digest(tmp_path) != first


@pytest.mark.parametrize(
    ("cause", "told"), [(OSError(28, "No space left on device"), "No space left on device"), (None, "it broke")]
)
def test_a_directory_that_cannot_be_written_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: OSError | None, told: str
) -> None:
    def fail(_: Path) -> None:
        raise TrainingError("it broke") from cause

    monkeypatch.setattr("lora_sam.runs.manifest.atomic_directory", fail)
    message = rf"merged cannot be written: .*{told}; make room .*then: {REMEDY}$"
    with pytest.raises(AdapterError, match=message), step_directory(tmp_path / "merged", REMEDY):
        pass


def test_a_manifest_is_whole_and_readable(made: Path) -> None:
    text = (made / MANIFEST).read_text()
    values = json.loads(text)
    assert list(values) == ["checks", "files", "lora_sam", "made_from", "schema_version", "settings", "step"]
    assert text == json.dumps(values, indent=2) + "\n"
    assert (values["schema_version"], values["step"], values["lora_sam"]) == (1, "merge", __version__)
    assert values["files"]["sam.bin"] == hashlib.sha256(b"weights").hexdigest()
    # written again, it is no file of its own
    again = write_step(made, "merge", made_from=ORIGIN, settings=SETTINGS, checks={})
    assert set(again.files) == {"sam.bin", "inner/more.bin"}


def test_a_step_without_inputs_and_files_is_whole(tmp_path: Path) -> None:
    write_step(tmp_path, "merge", made_from={}, settings={}, checks={})
    assert dict(require_step(tmp_path, "merge", {}, REMEDY).files) == {}
    assert is_done(tmp_path, "merge", {}, {})


def test_several_things_of_the_wrong_type_are_all_named(made: Path) -> None:
    path = made / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": {"a": 3}, "checks": 3, "settings": []}))
    with pytest.raises(AdapterError, match=r"is damaged \(settings, checks, files of the wrong type\)"):
        read_step(made, "merge", REMEDY)


def test_what_safetensors_cannot_write_is_told_and_nothing_stays(tmp_path: Path) -> None:
    def fail(temporary: Path) -> None:
        (temporary / "half").touch()
        raise SafetensorError("the disk is full")

    message = rf"merged cannot be written: .*the disk is full.*then: {REMEDY}$"
    with pytest.raises(AdapterError, match=message), step_directory(tmp_path / "merged", REMEDY) as temporary:
        fail(temporary)
    assert list(tmp_path.iterdir()) == []
    with step_directory(tmp_path / "merged", REMEDY) as temporary:
        (temporary / "whole").touch()
    assert [path.name for path in (tmp_path / "merged").iterdir()] == ["whole"]


def test_what_a_killed_process_moved_aside_is_read(made: Path) -> None:
    """Where names cannot be exchanged; the next who asks puts it back."""
    leftover = made.with_name(".merged.0123abcd.lora_sam-tmp")
    leftover.mkdir()
    made.rename(leftover / "replaced")
    assert require_step(made, "merge", ORIGIN, REMEDY).step == "merge"
    assert made.is_dir()
