"""The run directory: paths, the link to the latest run, and adapters that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from safetensors.torch import load_file

from lora_sam.core.errors import AdapterError, TrainingError
from lora_sam.core.files import read_json, sha256_of
from lora_sam.core.run_directory import RunDirectory, find_run
from lora_sam.models.base_model import BaseModel
from lora_sam.models.checkpoints import FORMER, PACKAGED_SHA256
from lora_sam.runs import adapter_files as artifacts
from lora_sam.runs.adapter_files import (
    adapter_bytes,
    check_base,
    find_adapter,
    read_facts,
    same_base,
    save_adapter,
    write_facts,
)

FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors", "lora_sam.json"]
FACTS: dict[str, Any] = {
    "schema_version": 1,
    "architecture": {"variant": "nano"},
    "base": {"source": "nano.safetensors", "sha256": "ab" * 32},
    "method": {"name": "lora"},
    "image_size": 512,
    "trains_encoder": True,
}


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_paths_of_a_run() -> None:
    run = RunDirectory(Path("r"))
    paths = (run.saved_config, run.metrics, run.last, run.best, run.adapter, run.evaluation, run.overlays)
    assert [path.as_posix() for path in paths] == [
        "r/config.json",
        "r/metrics.jsonl",
        "r/checkpoints/last/state.safetensors",
        "r/checkpoints/best/state.safetensors",
        "r/adapter",
        "r/evaluation.json",
        "r/overlays",
    ]


# --- latest ----------------------------------------------------------------------------------------------------------


def test_latest_moves_from_run_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = Path("outputs/day/1"), tmp_path / "elsewhere" / "2"
    for root in (first, second):
        root.mkdir(parents=True)
        RunDirectory(root).point_latest_here()
        assert Path("outputs/latest").resolve() == root.resolve()
        assert find_run("latest").root == root.resolve()
    assert not os.readlink("outputs/latest").startswith("/")  # the folder may be moved as a whole
    assert sorted(os.listdir("outputs")) == ["day", "latest"]


def test_latest_survives_what_a_killed_process_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path("outputs/1")
    root.mkdir(parents=True)
    Path(f"outputs/.latest.{os.getpid()}.tmp").symlink_to("nowhere")
    RunDirectory(root).point_latest_here()
    assert find_run("latest").root == root.resolve()
    assert sorted(os.listdir("outputs")) == ["1", "latest"]


@pytest.mark.parametrize("obstacle", ["no links", "outputs is a file", "latest is a directory"])
def test_where_there_can_be_no_link_training_goes_on(
    obstacle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "run"
    root.mkdir()
    if obstacle == "no links":

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "symlink_to", refuse)
    elif obstacle == "outputs is a file":
        Path("outputs").write_text("kept")
    else:
        Path("outputs/latest").mkdir(parents=True)
        Path("outputs/latest/mine").touch()
    RunDirectory(root).point_latest_here()
    left = sorted(path.as_posix() for path in Path().rglob("*"))
    assert (
        left
        == {
            "no links": ["outputs", "run"],
            "outputs is a file": ["outputs", "run"],
            "latest is a directory": ["outputs", "outputs/latest", "outputs/latest/mine", "run"],
        }[obstacle]
    )


def test_runs_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AdapterError, match=r"^latest: no such run directory \(outputs/latest\); no run has been made"):
        find_run("latest")
    with pytest.raises(AdapterError, match=r"^a/b: no such run directory \(a/b\); give the path of a run, or latest$"):
        find_run("a/b")
    root = Path("outputs/1")
    root.mkdir(parents=True)
    RunDirectory(root).point_latest_here()
    root.rmdir()
    with pytest.raises(AdapterError, match=r"\(outputs/latest\); 1, which it points to, is gone: give the path of an"):
        find_run("latest")


# --- adapters --------------------------------------------------------------------------------------------------------


def test_an_adapter_in_stock_layout(finished_run: Callable[..., Any], tmp_path: Path) -> None:
    adapted = finished_run(tmp_path / "run", "decoder")
    directory = RunDirectory(tmp_path / "run").adapter
    assert sorted(os.listdir(directory)) == FILES
    weights = load_file(directory / "adapter_model.safetensors")
    assert sum(value.numel() for value in weights.values()) == sum(
        parameter.numel() for parameter in adapted.sam.mask_decoder.modules_to_save["default"].parameters()
    )
    size = adapter_bytes(directory)
    assert size == (directory / "adapter_model.safetensors").stat().st_size
    assert (
        4 * sum(value.numel() for value in weights.values())
        < size
        < 20_000 + 4 * sum(value.numel() for value in weights.values())
    )
    config = json.loads((directory / "adapter_config.json").read_text())
    assert (config["peft_type"], config["modules_to_save"]) == ("LORA", ["mask_decoder"])
    facts = read_facts(directory)
    assert facts["base"]["source"] == "random"
    assert facts["trains_encoder"] is False
    modes = {path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert all(mode & 0o600 == 0o600 for mode in modes), modes


def test_two_savings_of_one_model_are_equal(finished_run: Callable[..., Any], tmp_path: Path) -> None:
    finished_run(tmp_path / "a")
    finished_run(tmp_path / "b")
    assert content(tmp_path / "a" / "adapter") == content(tmp_path / "b" / "adapter")


@pytest.mark.parametrize("where", ["weights", "safetensors", "facts", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_adapter(
    where: str, finished_run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted = finished_run(tmp_path / "run")
    directory = tmp_path / "run" / "adapter"
    before = content(directory)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_in_safetensors(*_: object, **__: object) -> None:
        raise SafetensorError('Error while serializing: IoError(Os { code: 28, message: "No space left on device" })')

    with monkeypatch.context() as patched:
        if where == "weights":
            patched.setattr(type(adapted.peft), "save_pretrained", full)
        elif where == "safetensors":
            patched.setattr(type(adapted.peft), "save_pretrained", full_in_safetensors)
        elif where == "facts":
            patched.setattr(artifacts, "write_text", full)
        else:
            patched.setattr(os, where, full)
        with pytest.raises(TrainingError, match=r"cannot write .*adapter.*No space left on device.*MiB free") as caught:
            save_adapter(adapted, directory, {"schema_version": 1}, "another card")
    assert str(tmp_path / "run") in str(caught.value)
    assert content(directory) == before
    assert sorted(os.listdir(tmp_path / "run")) == ["adapter", "config.json"]


def test_a_new_adapter_replaces_the_old_one_whole(finished_run: Callable[..., Any], tmp_path: Path) -> None:
    adapted = finished_run(tmp_path / "run")
    directory = tmp_path / "run" / "adapter"
    (directory / "left over").touch()
    save_adapter(adapted, directory, FACTS, "card")
    assert sorted(os.listdir(directory)) == FILES
    facts = read_facts(directory)
    assert facts.pop("files") == {name: sha256_of(directory / name) for name in FILES if name.startswith("adapter_")}
    assert facts == FACTS
    assert (directory / "README.md").read_text() == "card"


def test_an_adapter_where_a_file_is(finished_run: Callable[..., Any], tmp_path: Path) -> None:
    adapted = finished_run(tmp_path / "run")
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"cannot write .*file/adapter: "):
        save_adapter(adapted, tmp_path / "file" / "adapter", FACTS, "card")


def test_find_adapter(finished_run: Callable[..., Any], tmp_path: Path) -> None:
    finished_run(tmp_path / "run")
    directory = tmp_path / "run" / "adapter"
    assert find_adapter(tmp_path / "run") == find_adapter(directory) == directory
    message = r": no adapter there; give a finished run's directory or its adapter/$"
    for path in (tmp_path, tmp_path / "nowhere", directory / "README.md"):
        with pytest.raises(AdapterError, match=f"^{path}{message}"):
            find_adapter(path)


# --- what a file says about itself -----------------------------------------------------------------------------------


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., Path]:
    """Writes `lora_sam.json` with some facts changed, or left out where they are `...`."""

    def write(**changes: Any) -> Path:
        facts = {name: value for name, value in {**FACTS, **changes}.items() if value is not ...}
        write_facts(tmp_path, facts, "card")
        return tmp_path

    return write


def test_facts_round_trip(adapter: Callable[..., Path]) -> None:
    facts = read_facts(adapter(metrics={"base": None}, extra="–"))
    assert facts == {**FACTS, "metrics": {"base": None}, "extra": "–"}


@pytest.mark.parametrize(
    ("config", "tile"),
    [({"data": {"tile": 64}}, 64), ({"data": {"tile": None}}, None), ({"data": {"tile": "64"}}, None), ([], None)],
)
def test_tiles_of_a_run_whose_adapter_does_not_know_them(tmp_path: Path, config: Any, tile: Any) -> None:
    directory = tmp_path / "run" / "adapter"
    directory.mkdir(parents=True)
    write_facts(directory, FACTS, "card")
    (directory.parent / "config.json").write_text(json.dumps(config))
    assert read_facts(directory).get("training_tile") == tile
    (directory / "lora_sam.json").write_text(json.dumps({**FACTS, "training_tile": 32}))
    assert read_facts(directory)["training_tile"] == 32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema version 2, this lora_sam reads 1; use the version of lora_sam that wrote it"),
        ({"schema_version": "1\n2"}, r"schema version '1\n2', this lora_sam reads 1"),
        ({"schema_version": "9" * 999}, f"schema version '{'9' * 39}, this lora_sam reads 1"),
        ({"schema_version": ...}, "schema version None, this lora_sam reads 1"),
        ({"base": ..., "architecture": ...}, "architecture, base missing; train again or restore the file"),
        ({"base": "nano"}, "base of the wrong type; train again or restore the file"),
        ({"base": {"source": 3}}, "base.source, base.sha256 of the wrong type; train again or restore the file"),
        ({"architecture": [1], "trains_encoder": "yes"}, "architecture, trains_encoder of the wrong type; train again"),
        ({"image_size": "64"}, "image_size of the wrong type; train again or restore the file"),
        ({"training_side": "64"}, "training_side of the wrong type; train again or restore the file"),
        ({"training_tile": 0}, "training_tile of the wrong type; train again or restore the file"),
        ({"classes": [7]}, "classes of the wrong type; train again or restore the file"),
        ({"classes": 7}, "classes of the wrong type; train again or restore the file"),
        ({"classes": "cell"}, "classes of the wrong type; train again or restore the file"),
        ({"image_size": True}, "image_size of the wrong type; train again or restore the file"),
        (
            {"image_size": 65, "architecture": {"image_size": 64}},
            "image_size is 65, in architecture 64; train again or restore the file",
        ),
        ({"scores": {"stability": 1}}, "scores need exactly predicted_iou, stability, stability_offset; train again"),
        ({"scores": "all"}, "scores need exactly predicted_iou, stability, stability_offset; train again"),
    ],
)
def test_facts_that_cannot_be_used(adapter: Callable[..., Path], changes: dict[str, Any], message: str) -> None:
    directory = adapter(**changes)
    with pytest.raises(AdapterError) as caught:
        read_facts(directory)
    assert str(caught.value).startswith(f"{directory / 'lora_sam.json'}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"schema_version": 1', r"Expecting ',' delimiter"),
        (b"", r"Expecting value"),
        (b"\xff\xfe\x00", r"codec can't decode byte 0xff"),
        (b"[1, 2]", r"not a mapping"),
        (b"null", r"not a mapping"),
        (b"[" * 100_000, r"maximum recursion depth exceeded"),
        (b'{"a": ' + b"9" * 10_000 + b"}", r"Exceeds the limit"),
    ],
)
def test_damaged_json(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "lora_sam.json"
    path.write_bytes(data)
    with pytest.raises(AdapterError, match=rf"^{path} is damaged \(.*{reason}.*\); train again or restore the file$"):
        read_facts(tmp_path)


def test_json_that_is_too_large_or_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_json(path, "mend it") == {"a": 1}
    with pytest.raises(AdapterError, match=r"is damaged \(.*No such file or directory.*\); mend it$"):
        read_json(tmp_path / "b.json", "mend it")
    monkeypatch.setattr("lora_sam.core.files.MAX_JSON_BYTES", 7)
    with pytest.raises(AdapterError, match=r"a\.json is damaged \(8 bytes, at most 7 are read\); mend it$"):
        read_json(path, "mend it")


def test_facts_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(
        AdapterError, match=r"lora_sam\.json is missing; give the adapter/ directory of a finished run$"
    ):
        read_facts(tmp_path)


def test_the_base_is_the_one_it_was_trained_on() -> None:
    def base(variant: str = "nano", sha256: str = "ab" * 32) -> BaseModel:
        return BaseModel(None, variant, 512, sha256, "other.pth", lambda: "ef" * 32)

    check_base(FACTS, base(), Path("adapter"))
    with pytest.raises(AdapterError) as caught:
        check_base(FACTS, base(sha256="cd" * 32), Path("adapter"))
    assert str(caught.value) == (
        "adapter was trained on 'nano' 'nano.safetensors' (SHA-256 'abababababab'), this base is 'nano' 'other.pth' "
        "('cdcdcdcdcdcd'): give the base it was trained on, the very file: this adapter is older than the comparison "
        "of weights"
    )
    # where the weights are known, the file does not matter
    known = {**FACTS, "base": {**FACTS["base"], "tensors": "ef" * 32}}
    check_base(known, base(sha256="cd" * 32), Path("adapter"))
    other = {**FACTS, "base": {**FACTS["base"], "tensors": "01" * 32}}
    with pytest.raises(
        AdapterError, match=r"\(SHA-256 '010101010101'\), .* \('efefefefefef'\): give the base it was t"
    ):
        check_base(other, base(sha256="cd" * 32), Path("adapter"))
    with pytest.raises(AdapterError, match=r"this base is 'vit_b' 'other\.pth'"):
        check_base(FACTS, base("vit_b"), Path("adapter"))
    assert len(FORMER) == 2
    for former, what in FORMER.items():
        assert former not in PACKAGED_SHA256.values()
        first = {**FACTS, "base": {"source": "nano.safetensors", "sha256": former}}
        with pytest.raises(AdapterError) as caught:
            check_base(first, base(), Path("adapter"))
        assert str(caught.value) == f"adapter was trained on {what}, or give the old file as base=..."
        assert what.endswith("nano has other weights now: train again")
        check_base(first, base(sha256=former), Path("adapter"))
    hostile = {**FACTS, "base": {"source": "a\n\x1b[31mall is well" + "x" * 1000, "sha256": "\n"}}
    with pytest.raises(AdapterError) as caught:
        check_base(hostile, base(), Path("adapter"))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 450


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"sha256": "1", "tensors": "a"}, {"sha256": "2", "tensors": "a"}, True),
        ({"sha256": "1", "tensors": "a"}, {"sha256": "2", "tensors": "b"}, False),
        ({"sha256": "1"}, {"sha256": "1", "tensors": "a"}, True),
        ({"sha256": "1"}, {"sha256": "2", "tensors": "a"}, False),
    ],
)
def test_adapters_of_one_base(one: dict[str, str], other: dict[str, str], same: bool) -> None:
    assert same_base({"base": one, "architecture": {}}, {"base": other, "architecture": {}}) is same
    assert not same_base({"base": one, "architecture": {}}, {"base": other, "architecture": {"depth": 2}})


def test_an_adapter_without_its_weights(finished_run: Callable[..., Any], tmp_path: Path) -> None:
    finished_run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "adapter")
    with pytest.raises(AdapterError, match=r"no adapter there"):
        find_adapter(tmp_path / "run")
