"""What was measured on this machine, kept in the user's cache directory so that each run chooses the same."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path

from lora_sam.core.errors import LoraSamError
from lora_sam.core.files import read_json, write_text

SCHEMA_VERSION = 1


class Measurements:
    """Milliseconds by question and by what was tried, in one file; a damaged file counts as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, float]] = {}
        self._new = False
        with suppress(LoraSamError):
            values = read_json(path, "it is measured again")
            if values.get("schema_version") == SCHEMA_VERSION and isinstance(values.get("milliseconds"), dict):
                self._known = {key: times for key, times in values["milliseconds"].items() if _is_times(times)}

    def get(self, question: str) -> dict[str, float] | None:
        """What is known; None where nothing is."""
        return self._known.get(question)

    def put(self, question: str, times: dict[str, float]) -> None:
        """Remember, until `keep` writes it."""
        self._known[question] = times
        self._new = True

    def keep(self) -> None:
        """Write what is new; where that is not possible, it is measured again the next time."""
        if self._new:
            content = {"schema_version": SCHEMA_VERSION, "milliseconds": self._known}
            with suppress(LoraSamError, OSError):
                write_text(self._path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def _is_times(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(each, float | int) and not isinstance(each, bool) and math.isfinite(each) and each > 0
        for each in value.values()
    )
