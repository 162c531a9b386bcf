"""Where files are kept, and how they are written so that a crash loses nothing: beside, synced, renamed."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lora_sam.core.errors import AdapterError, TrainingError

MAX_JSON_BYTES = 2**24


def user_cache() -> Path:
    """What can be made or fetched again is kept here: `lora_sam` under `$XDG_CACHE_HOME`, else under `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lora_sam"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed to `path`, on failure removed.

    Raises:
        TrainingError: the disk is full or the directory cannot be written (names the directory and what is free).
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)  # with the mode of any other new file, where mkstemp's would be 0600
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory beside `path` that replaces `path` on success and is removed on failure.

    Raises:
        TrainingError: the disk is full or the directory cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        content = temporary / "content"
        content.mkdir()
        yield content
        for entry in (*content.rglob("*"), content):
            sync(entry)
        _exchange(content, path, temporary / "replaced")
        sync(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically. Raises `TrainingError` as `atomic_path` does."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The mapping in a JSON file, which may come from elsewhere.

    Args:
        path: The file.
        remedy: What the user can do if it is damaged; ends the error message.

    Raises:
        AdapterError: it cannot be read, is larger than 16 MiB, or holds something else.
    """
    try:
        size = path.stat().st_size
        values = json.loads(path.read_text(encoding="utf-8")) if size <= MAX_JSON_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{path} is damaged ({error}); {remedy}") from error
    if not isinstance(values, dict):
        reason = "not a mapping" if size <= MAX_JSON_BYTES else f"{size} bytes, at most {MAX_JSON_BYTES} are read"
        raise AdapterError(f"{path} is damaged ({reason}); {remedy}")
    return values


def sha256_of(path: Path) -> str:
    """SHA-256 of the whole file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _exchange(new: Path, path: Path, replaced: Path) -> None:
    """Rename `path`, if it is there, to `replaced`, and `new` to `path`; a failure leaves `path` as it was."""
    if path.exists():
        os.replace(path, replaced)
    try:
        os.replace(new, path)
    except BaseException:
        if replaced.exists():
            os.replace(replaced, path)
        raise


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> TrainingError:
    try:
        free = f"{shutil.disk_usage(path.parent).free / 2**20:.0f} MiB free there"
    except OSError:
        free = "free space unknown"
    reason = error.strerror or str(error)
    return TrainingError(
        f"cannot write {path}: {reason} ({free}). Free some space or choose another place with hydra.run.dir=..., "
        "then go on with resume=latest."
    )


def digest_of(values: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
