"""`python -m lora_sam.embeddings`: what is listed, verified, removed, and said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lora_sam.cli.step import run_step
from lora_sam.predictors.embeddings.store import CacheUnavailable, EmbeddingCache, RowSpec

ROOT = Path(__file__).resolve().parents[2]
SPEC = RowSpec(
    variant="vit_b",
    weights="ab" * 32,
    stage="embedding",
    image_size=1024,
    precision="float32",
    shapes={"values": (4, 1024)},
    dtype="float16",
)
TOKENS = RowSpec(
    variant="nano",
    weights="cd" * 32,
    stage="tokens-9",
    image_size=256,
    precision="float32",
    shapes={"values": (9,)},
    dtype="float32",
)

pytestmark = pytest.mark.usefixtures("quiet_logging")


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """Three rows of embeddings of 8192 bytes used in 2020, two token maps used now, in the user's own directory."""
    place = tmp_path / "embeddings"
    monkeypatch.setenv("LORA_SAM_EMBEDDINGS", str(place))
    for spec, count in ((SPEC, 3), (TOKENS, 2)):
        with EmbeddingCache.open(place, spec, max_bytes=10**9) as cache:
            keys = [f"{number:064x}" for number in range(count)]
            shape = spec.shapes["values"]
            cache.fill(keys, lambda positions, shape=shape: {"values": np.ones((len(positions), *shape), np.float32)})
    for path in rows(place, SPEC):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return place


@pytest.fixture
def call(capsys):
    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_step("embeddings", "python -m lora_sam.embeddings", list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def rows(directory: Path, spec: RowSpec) -> list[Path]:
    return sorted((directory / spec.name).glob("*/*.safetensors"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-77] ^= 1
    path.write_bytes(data)
    os.utime(path, (1_600_000_000, 1_600_000_000))


@pytest.mark.parametrize("arguments", [(), ("list",), ("action=list",)])
def test_list(call, directory, arguments):
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines() if line.strip().startswith(("vit_b", "nano"))]
    size = sum(path.stat().st_size for path in rows(directory, SPEC))
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(1_600_000_000)).split()
    assert lines[0][:6] == ["nano", "cdcdcdcd", "tokens-9", "256", "px", "float32"]
    assert lines[1] == [
        *["vit_b", "abababab", "embedding", "1024", "px", "float32,", "kept", "as", "float16", "3"],
        f"{size / 1e9:.3f}",
        *when,
    ]
    assert f"GB of at most 50 GB (cache.max_gb) in {directory}" in " ".join(out.split())


def test_list_names_groups_in_use_and_groups_that_cannot_be_used(call, directory):
    (directory / TOKENS.name / "group.json").write_text('{"format": 0}')
    with EmbeddingCache.open(directory, SPEC, max_bytes=10**9):
        _, out, _ = call("list")
    assert any("vit_b" in line and line.rstrip().endswith("in use") for line in out.splitlines())
    assert any(TOKENS.name[:8] in line and line.rstrip().endswith("cannot be used") for line in out.splitlines())
    assert f"{TOKENS.name}: {directory / TOKENS.name / 'group.json'} is of format 0, this is 2; remove" in out


def test_list_as_json(call, directory):
    code, out, _ = call("list", "json=true")
    found = json.loads(out)
    assert code == 0
    assert found["directory"] == str(directory)
    assert found["max_bytes"] == 50 * 10**9
    assert [(group["spec"]["stage"], group["rows"], group["in_use"]) for group in found["groups"]] == [
        ("tokens-9", 2, False),
        ("embedding", 3, False),
    ]
    assert found["bytes"] == sum(group["bytes"] for group in found["groups"])


def test_there_may_be_none(call, tmp_path):
    place = tmp_path / "nowhere"
    assert call("list", f"directory={place}") == (
        0,
        f"no embeddings: 0.000 GB of at most 50 GB (cache.max_gb) in {place}\n",
        "",
    )
    assert call("verify", f"directory={place}")[:2] == (0, "0 rows verified, 0 damaged\n")
    assert call("prune", f"directory={place}")[:2] == (0, f"nothing removed in {place}\n")
    assert not place.exists()


def test_verify(call, directory):
    code, out, _ = call("verify")
    assert (code, out) == (0, "5 rows verified, 0 damaged\n")
    flip(rows(directory, SPEC)[1])
    code, out, _ = call("verify")
    assert code == 3
    assert out == (
        f"{directory / SPEC.name}: 1 of 3 rows were damaged\n5 rows verified, 1 damaged; training makes them again\n"
    )
    # what was damaged is no longer there
    assert call("verify")[:2] == (0, "4 rows verified, 0 damaged\n")
    # and none of this was a use
    assert json.loads(call("json=true")[1])["groups"][1]["used"] == 1_600_000_000


def test_verify_as_json(call, directory):
    flip(rows(directory, SPEC)[1])
    code, out, err = call("verify", "json=true")
    assert (code, err) == (3, "")
    found = json.loads(out)
    assert (found["rows"], found["damaged"]) == (5, 1)
    assert [group["damaged"] for group in found["groups"]] == [0, 1]


def test_verify_tells_of_what_it_cannot_check(call, directory):
    (directory / TOKENS.name / "group.json").write_text("{")
    code, out, _ = call("verify")
    assert code == 0
    assert f"not checked: {directory / TOKENS.name / 'group.json'} is damaged" in out
    assert out.endswith("3 rows verified, 0 damaged\n")


def test_an_older_format_is_told_and_removed(call, tmp_path):
    old = tmp_path / "old" / ("0" * 32)
    old.mkdir(parents=True)
    (old / "index.sqlite").write_bytes(b"x" * 7000)
    (old / "group.json").write_text('{"format": 1}')
    assert "older format" not in call("list", f"directory={old.parent}")[1]
    assert call("prune", f"directory={old.parent}")[1] == (
        f"nothing removed in {old.parent}\n"
        f"7.01e-06 GB in {old.parent} were of an older format that is not read, and were removed\n"
    )
    assert list(old.parent.iterdir()) == []


def test_verify_goes_on_where_a_group_cannot_be_opened(call, directory, monkeypatch):
    def refuse(self, on_rows):
        if self.spec == TOKENS:
            raise CacheUnavailable("somebody holds it")
        return verify(self, on_rows)

    verify = EmbeddingCache.verify
    monkeypatch.setattr(EmbeddingCache, "verify", refuse)
    assert call("verify")[:2] == (0, "not checked: somebody holds it\n3 rows verified, 0 damaged\n")


def test_prune_by_age(call, directory):
    code, out, _ = call("prune", "older_than_days=30")
    assert code == 0
    assert "vit_b abababab" in out
    assert f"GB freed in {directory}" in out
    assert not (directory / SPEC.name).exists()
    assert (directory / TOKENS.name).exists()
    assert call("prune", "older_than_days=30")[1] == f"nothing removed in {directory}\n"


def test_prune_by_size_leaves_what_is_in_use(call, directory):
    assert call("prune")[1] == f"nothing removed in {directory}\n"  # within cache.max_gb
    with EmbeddingCache.open(directory, SPEC, max_bytes=10**9):
        code, out, _ = call("prune", "max_gb=0")
    assert code == 0
    assert "nano cdcdcdcd" in out
    assert f"{directory / SPEC.name} (0.000 GB) is in use by another process and stays" in out
    assert (directory / SPEC.name).exists()
    assert not (directory / TOKENS.name).exists()
    found = json.loads(call("prune", "max_gb=0", "json=true")[1])
    assert found["freed_bytes"] == found["removed"][0]["bytes"] > 3 * 8192
    assert found["in_use"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verfy"], "action = verfy: must be one of list, verify, prune; did you mean verify?"),
        (["prune", "max_g=1"], "unknown key max_g; did you mean max_gb? Valid keys: "),
        (["prune", "max_gb=-1"], "max_gb = -1: must be greater than or equal to 0"),
        (["max_gb=1"], "max_gb = 1: list does not take it, prune does"),
        (["verify", "older_than_days=1"], "older_than_days = 1: verify does not take it, prune does"),
        (["prune", "verify"], "verify"),
    ],
)
def test_mistakes_are_told(call, arguments, message):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_file_in_the_place_of_the_directory(call, tmp_path):
    (tmp_path / "file").touch()
    assert call("list", f"directory={tmp_path / 'file'}")[0] == 0
    assert call("prune", f"directory={tmp_path / 'file'}")[1] == f"nothing removed in {tmp_path / 'file'}\n"


def test_help_needs_no_torch(tmp_path):
    program = (
        "import runpy, sys\n"
        "try: runpy.run_module('lora_sam.embeddings', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop: print(f'code={stop.code} torch={\"torch\" in sys.modules}')\n"
    )
    for arguments, expected in ((["--help"], 0), (["list", f"directory={tmp_path}"], 0), (["lst"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == f"code={expected} torch=False"
        if "--help" in arguments:
            assert "  older_than_days=null\n" in done.stdout
            assert "list (or nothing), verify, prune." in " ".join(done.stdout.split())
