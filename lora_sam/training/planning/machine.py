"""What this machine has: free memory, and the speed of matrix products."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    import torch

    from lora_sam.models.device import Precision

Kind = Literal["cpu", "cuda", "mps"]
CGROUPS = Path("/sys/fs/cgroup")
_CONTEXT_BYTES = 512 << 20  # of CUDA and its libraries, on the GPU
_SIDE = {"cpu": 1024, "cuda": 4096, "mps": 2048}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A device, as far as a plan depends on it.

    Attributes:
        kind: Kind of device.
        process_bytes: What the process holds on it beside weights, activations and optimiser.
        free_bytes: The most that the process can hold there: what is free, and what it holds already.
        rates: FLOP/s of large matrix products, by precision.
    """

    kind: Kind
    process_bytes: int
    free_bytes: int
    rates: Mapping[Precision, float]


def look_at(device: torch.device, precision: Precision, weight_bytes: int) -> Machine:
    """The device as it is now; takes less than a second.

    Args:
        device: Where the model is.
        precision: Arithmetic whose speed is measured.
        weight_bytes: What the model takes there already.
    """
    kind = cast("Kind", device.type)
    rates = {precision: matrix_rate(device, precision)}
    if kind == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        ours = torch.cuda.memory_reserved(device)
        return Machine(kind=kind, process_bytes=_CONTEXT_BYTES, free_bytes=free + ours + _CONTEXT_BYTES, rates=rates)
    import psutil

    held = int(psutil.Process().memory_info().rss)
    process = max(0, held - weight_bytes)
    return Machine(kind=kind, process_bytes=process, free_bytes=free_memory() + held, rates=rates)


def free_memory() -> int:
    """Bytes that this process may still take: what the machine has, or less where a control group limits it."""
    import psutil

    return min([int(psutil.virtual_memory().available), *group_limits(CGROUPS, Path("/proc/self/cgroup"))])


def group_limits(root: Path, membership: Path) -> Iterator[int]:
    """Bytes left to the control groups of this process, where these are limited.

    What the files of a group take in the page cache is left too: it is given back when memory is short.

    Args:
        root: Where control groups are mounted, version 2, or version 1 with `memory/` in it.
        membership: `/proc/<pid>/cgroup`: lines `number:controllers:path`.
    """
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return
    for line in lines:
        if len(line) < 3:
            continue
        _, controllers, path = line
        if controllers == "":
            top, limit, usage = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = top / path.strip("/")
        # inside of a container its own group is mounted at the top, whatever its path outside is
        for place in (group, *(parent for parent in group.parents if parent.is_relative_to(top))):
            left = _left(place, limit, usage)
            if left is not None:
                yield left


def _left(group: Path, limit: str, usage: str) -> int | None:
    try:
        most = (group / limit).read_text().strip()
        used = int((group / usage).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if not most.isdigit():  # "max"
        return None
    return max(0, int(most) - used + int(stat.get("inactive_file", "0")))


@functools.cache
def matrix_rate(device: torch.device, precision: Precision, seconds: float = 0.15) -> float:
    """FLOP/s of products of large square matrices, the best of those within `seconds`; once in a process."""
    import torch

    side = _SIDE[device.type]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.ones(side, side, device=device, dtype=dtype)
    wait: Callable[[], object] = lambda: None  # noqa: E731
    if device.type != "cpu":
        wait = torch.cuda.synchronize if device.type == "cuda" else torch.mps.synchronize
    best, end = float("inf"), time.perf_counter() + seconds
    torch.mm(a, a)  # libraries set themselves up
    wait()
    while True:
        start = time.perf_counter()
        torch.mm(a, a)
        wait()
        now = time.perf_counter()
        best = min(best, now - start)
        if now >= end:
            return 2 * side**3 / best
