"""A memo of which image file decodes to which pixels, so that later runs need not decode to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from lora_sam.predictors.embeddings.index import IndexDamaged, connected
from lora_sam.predictors.embeddings.layout import FORMAT_VERSION, CacheUnavailable

MEMO = "pixels.sqlite"
_TABLE = "CREATE TABLE IF NOT EXISTS pixels(decoder TEXT, file TEXT, pixels TEXT, PRIMARY KEY (decoder, file))"
_AT_ONCE = 500


def known_pixels(directory: Path, files: Sequence[str]) -> dict[str, str]:
    """Digest of the decoded pixels by the SHA-256 of the image file, for those of `files` that are known."""
    known: dict[str, str] = {}
    path = directory / MEMO
    if path.is_symlink() or not path.is_file():
        return known
    decoder = _decoder()
    with suppress(CacheUnavailable), connected(path) as connection:
        for start in range(0, len(files), _AT_ONCE):
            some = files[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            query = f"SELECT file, pixels FROM pixels WHERE decoder = ? AND file IN ({marks})"
            known.update(connection.execute(query, (decoder, *some)))
    return {file: pixels for file, pixels in known.items() if isinstance(pixels, str)}


def note_pixels(directory: Path, pixels: Mapping[str, str]) -> None:
    """Add to the memo; one that is damaged begins anew, and where it cannot be written nothing happens."""
    path = directory / MEMO
    values = [(_decoder(), file, digest) for file, digest in pixels.items()]
    with suppress(CacheUnavailable, OSError):
        if path.is_symlink():
            return
        for _ in range(2):
            try:
                path.touch(mode=0o600)
                with connected(path) as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute(_TABLE)
                    connection.executemany("INSERT OR REPLACE INTO pixels VALUES (?, ?, ?)", values)
                    connection.execute("COMMIT")
                return
            except IndexDamaged:
                path.with_name(f"{MEMO}-journal").unlink(missing_ok=True)
                path.unlink(missing_ok=True)


def _decoder() -> str:
    """What decodes: another version may give other pixels."""
    return f"{FORMAT_VERSION}, pillow {version('pillow')}"
