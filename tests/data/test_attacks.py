"""Defects and attacks over all formats end in a `DataError` that names what is wrong, soon and in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_SECONDS = 2.0
MAX_MIB = 320  # above what the process held before, which libraries and earlier attacks decide


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured with Linux's /proc")
def test_every_attack_is_answered_soon_and_in_little_memory(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    # without coverage, whose tracing would be timed too
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COV")} | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "HF_HOME": str(tmp_path / "cache"),
        "MALLOC_ARENA_MAX": "2",
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/data/attacks.py"), str(tmp_path / "sets")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    results = report["results"]
    faults = [f"{one['format']}: {one['title'][:80]}: {one['fault']}" for one in results if one["fault"]]
    slow = [
        f"{one['format']}: {one['title'][:80]}: {one['seconds']:.1f} s, {one['peak']:.0f} MiB"
        for one in results
        if one["seconds"] > MAX_SECONDS or one["peak"] > MAX_MIB
    ]
    assert not faults, "\n".join([f"{len(faults)} of {len(results)}", *faults])
    assert not slow, "\n".join(slow)
    assert report["named"] >= 470
    assert len({(one["format"], one["title"]) for one in results}) >= 620
    refused = [one for one in results if one["message"]]
    assert len(refused) > 300
    assert all("\n" not in one["message"] and len(one["message"]) < 2000 for one in refused)
