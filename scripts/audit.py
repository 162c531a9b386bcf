"""Asks whether what poetry.lock pins has known weaknesses: `python scripts/audit.py PIP_AUDIT [word ...]`.

pip-audit asks the service; further words go to it. Where the service cannot be reached, nothing is known, and that is
said: exit status 0, or 3 with LORA_SAM_AUDIT=strict. 1 where a weakness is known.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str]) -> int:
    """Exit status, see above; 2 after a mistake."""
    if not arguments:
        sys.stderr.write("usage: python scripts/audit.py PIP_AUDIT [word ...]\n")
        return 2
    locked = tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))["package"]
    with tempfile.TemporaryDirectory() as temporary:
        listed = Path(temporary) / "requirements.txt"
        listed.write_text("".join(f"{package['name']}=={package['version']}\n" for package in locked))
        done = subprocess.run(
            [*arguments, "--requirement", str(listed), "--disable-pip", "--no-deps", "--format", "json",
             "--progress-spinner", "off"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    answer = _answer(done.stdout)
    if answer is None:
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        print(f"NOT AUDITED: pip-audit got no answer about the {len(locked)} locked packages ({why[:200]})")
        return 3 if os.environ.get("LORA_SAM_AUDIT") == "strict" else 0
    asked = [one for one in answer["dependencies"] if "skip_reason" not in one]
    known = [(one, weakness) for one in asked for weakness in one.get("vulns", ())]
    for one, weakness in known:
        mended = ", ".join(weakness.get("fix_versions", ())) or "no version yet"
        print(f"{one['name']} {one['version']}: {weakness['id']}, mended by {mended}")
    for one in answer["dependencies"]:
        if "skip_reason" in one:
            print(f"{one['name']}: not asked about: {one['skip_reason']}")
    print(f"{len(asked)} of {len(locked)} locked packages audited: {len(known)} known weaknesses")
    return 1 if known else 0


def _answer(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("dependencies"), list) else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
