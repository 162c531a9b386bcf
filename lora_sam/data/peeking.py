"""What kind of JSON a file holds, from its beginning and end, without parsing all of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

_PART = 2**18  # bytes at either end; keys come in any order, but the short ones are at one of the ends

_COCO = re.compile(rb'"(?:images|annotations)"\s*:\s*\[')
_COCO_ENTRY = re.compile(rb'"(?:file_name|image_id|iscrowd)"\s*:')
_DATUMARO = re.compile(rb'"(?:items)"\s*:\s*\[')
_DATUMARO_HEAD = re.compile(rb'"(?:dm_format_version|media_type|infos)"\s*:|"categories"\s*:\s*\{')
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')


def json_kind(file: Path) -> Literal["coco", "datumaro"] | None:
    """Which annotation format a JSON file seems to be in; None for any other, and for what cannot be read."""
    text = _ends(file)
    if _DATUMARO.search(text) and _DATUMARO_HEAD.search(text):
        return "datumaro"
    return "coco" if _COCO.search(text) and (_COCO_ENTRY.search(text) or len(text) < _PART) else None


def first_file_name(file: Path) -> str | None:
    """Some image's name in a COCO file; None where none is found."""
    match = _FILE_NAME.search(_ends(file))
    try:
        name = None if match is None else json.loads(match[1])
    except ValueError:
        return None
    return name if isinstance(name, str) else None


def _ends(file: Path) -> bytes:
    try:
        if not file.is_file():  # a pipe would wait for ever
            return b""
        with file.open("rb") as opened:
            text = opened.read(_PART)
            size = file.stat().st_size
            if size > _PART:
                opened.seek(max(_PART, size - _PART))
                text += b"\n" + opened.read(_PART)
    except OSError:
        return b""
    return text
