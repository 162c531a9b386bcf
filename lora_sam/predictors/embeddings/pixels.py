"""A memo of the pixels in image files, so that an image that was met is not decoded for its digest again."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from lora_sam.core.errors import TrainingError
from lora_sam.core.files import atomic_path

MEMO = "pixels.txt"
_LINE = re.compile(r"^([0-9a-f]{64}) ([0-9a-f]{64})$", re.MULTILINE)


def known_pixels(directory: Path, files: Collection[str]) -> dict[str, str]:
    """Digest of the decoded pixels by that of the image file and its decoder, for those of `files` that are known."""
    wanted = set(files)
    return {file: pixels for file, pixels in _memo(directory) if file in wanted}


def note_pixels(directory: Path, pixels: Mapping[str, str]) -> None:
    """Add to the memo; where it cannot be written nothing happens.

    It is written whole and renamed. Where two processes do so at once, what one of them adds is lost and is found anew.
    """
    lines = "".join(f"{file} {digest}\n" for file, digest in {**dict(_memo(directory)), **pixels}.items())
    with suppress(TrainingError), atomic_path(directory / MEMO) as temporary:
        temporary.write_text(lines)


def _memo(directory: Path) -> list[tuple[str, str]]:
    path = directory / MEMO
    with suppress(OSError):
        if not path.is_symlink():
            return _LINE.findall(path.read_text(errors="replace"))
    return []
