"""Free memory of machine and control groups, speed of matrix products."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from lora_sam.training.planning.machine import free_memory, group_limits, look_at, matrix_rate


def group(path: Path, most: str, used: int, files: int, names: tuple[str, str] = ("memory.max", "memory.current")):
    path.mkdir(parents=True, exist_ok=True)
    (path / names[0]).write_text(f"{most}\n")
    (path / names[1]).write_text(f"{used}\n")
    (path / "memory.stat").write_text(f"anon 5\ninactive_file {files}\n")


def membership(root: Path, text: str) -> Path:
    (root / "cgroup").write_text(text)
    return root / "cgroup"


def test_every_group_above_the_process_counts_and_cached_files_are_free(tmp_path):
    root = tmp_path / "cgroups"
    group(root / "user" / "job", "max", 10, 0)
    group(root / "user", "1000", 700, 100)
    group(root, "5000", 100, 0)
    found = list(group_limits(root, membership(tmp_path, "0::/user/job\n")))
    assert found == [400, 4900]


def test_a_container_sees_its_own_group_at_the_top(tmp_path):
    root = tmp_path / "cgroups"
    group(root, "2000", 500, 0)
    assert list(group_limits(root, membership(tmp_path, "0::/docker/0123abcd\n"))) == [1500]


def test_version_1(tmp_path):
    root = tmp_path / "cgroups"
    group(root / "memory" / "job", "800", 900, 0, ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    text = "12:cpu,cpuacct:/job\n5:memory:/job\n1:name=systemd:/job\n"
    assert list(group_limits(root, membership(tmp_path, text))) == [0]


def test_what_cannot_be_read_limits_nothing(tmp_path):
    assert list(group_limits(tmp_path, tmp_path / "absent")) == []
    (tmp_path / "memory.max").write_text("10")
    assert list(group_limits(tmp_path, membership(tmp_path, "nonsense\n0::/job\n"))) == []


def test_this_machine():
    assert 0 < free_memory() <= psutil.virtual_memory().total
    device = torch.device("cpu")
    held = psutil.Process().memory_info().rss
    found = look_at(device, "fp32", 1000)
    assert (found.kind, list(found.rates)) == ("cpu", ["fp32"])
    assert abs(found.process_bytes - held) < 200e6
    assert found.free_bytes > found.process_bytes
    assert look_at(device, "fp32", 2**60).process_bytes == 0


def test_rates_are_those_of_products():
    """A core makes more than a tenth of a GFLOP and fewer than ten TFLOP in a second."""
    for precision in ("fp32", "bf16"):
        assert 1e8 < matrix_rate(torch.device("cpu"), precision, seconds=0.01) < 1e13
