"""The name of the processor."""

from __future__ import annotations

import platform
import re
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """Name of the processor as its maker writes it, as far as the system tells."""
    if _CPUINFO.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", _CPUINFO.read_text(encoding="utf-8", errors="replace"), re.M)
        if found is not None:
            return " ".join(found[1].split())
    return platform.processor() or platform.machine() or "unknown"
