"""Checkpoints from the network: resumed, verified, put in place by one rename."""

from __future__ import annotations

import errno
import http.client
import ipaddress
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urljoin, urlsplit

from lora_sam.core.console import note
from lora_sam.core.errors import CheckpointError, TrainingError
from lora_sam.core.files import sha256_of, write_text
from lora_sam.models.hub import HubError, fetch_from_hub, on_hub

if TYPE_CHECKING:
    from lora_sam.models.checkpoints import Checkpoint

    pass


Progress: TypeAlias = Callable[[int, int], None]
"""Called with (bytes here, bytes in all)."""


CHUNK_BYTES = 1 << 20


TIMEOUT_SECONDS = 30.0


SPARE_BYTES = 16 << 20  # left free on the disk beyond the file itself


MAX_REDIRECTS = 5


IDLE_TRIES = 3  # connections in a row that brought no byte before we give up


PAUSE_SECONDS = 1.0


def fetch_checkpoint(
    checkpoint: Checkpoint,
    directory: Path,
    *,
    offline: bool,
    progress: Progress | None = None,
    terms: str | None = None,
) -> Path:
    """The path of the checkpoint's file in `directory`, downloaded first if it is not there; size and SHA-256 hold.

    A download goes to `<filename>.part` and is resumed from there, also by a later call. What was verified once is
    remembered in `<filename>.verified.json` by size and modification time, so that it is not hashed on every run.
    Processes that ask for the same file wait for the one that downloads it.

    Args:
        checkpoint: What to fetch.
        directory: Where the file is kept; made if missing. One that can only be read serves files that are there.
        offline: Never connect. The environment variable `LORA_SAM_OFFLINE=1` does the same.
        progress: Called with (bytes here, bytes in all) while downloading or waiting for another process.
        terms: Said before the download, on standard error.

    Raises:
        CheckpointError: the file is not there and cannot be had: offline, no connection, not enough disk, or the
            server has another file. Says where to put it by hand, its size and its SHA-256.
    """
    path = directory / checkpoint.filename
    if _is_verified(path, checkpoint):
        return path
    if offline or os.environ.get("LORA_SAM_OFFLINE", "").lower() in ("1", "true", "yes"):
        raise _cannot_have(checkpoint, path, "downloads are off (offline mode)")
    _require_safe(checkpoint.url, checkpoint, path)
    if terms is not None:
        note(terms)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(path, checkpoint, progress):
            if not _is_verified(path, checkpoint):  # another process may have brought it meanwhile
                if on_hub(checkpoint):
                    try:
                        fetch_from_hub(checkpoint, path)
                    except HubError as error:
                        raise _cannot_have(checkpoint, path, str(error)) from error
                    if not _is_verified(path, checkpoint):
                        raise _cannot_have(checkpoint, path, "the Hub has another file")
                else:
                    _download_verified(checkpoint, path, progress)
    except OSError as error:
        raise _cannot_have(checkpoint, path, error.strerror or str(error)) from error
    return path


@contextmanager
def download_progress(checkpoint: Checkpoint) -> Iterator[Progress]:
    """Yield a callback for `fetch_checkpoint` that draws a bar on standard error from its first call on."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task(f"Downloading {checkpoint.filename}", visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield show


def _is_verified(path: Path, checkpoint: Checkpoint) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    if found.st_size != checkpoint.size:
        return False
    record = path.with_name(path.name + ".verified.json")
    expected = {"schema": 1, "size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": checkpoint.sha256}
    with suppress(OSError, ValueError):
        if json.loads(record.read_text(encoding="utf-8")) == expected:
            return True
    if sha256_of(path) != checkpoint.sha256:
        return False
    with suppress(TrainingError):  # a directory that can only be read: hash again next time
        write_text(record, json.dumps(expected) + "\n")
    return True


def _cannot_have(checkpoint: Checkpoint, path: Path, reason: str) -> CheckpointError:
    try:
        size = path.stat().st_size
        state = f"{path} has {f'{size} bytes' if size != checkpoint.size else 'another SHA-256'}"
    except OSError:
        state = f"there is no {path}"
    return CheckpointError(
        f"no usable weights for {checkpoint.variant}: {state}, and {reason}. Download {checkpoint.url} by hand to "
        f"{path} ({checkpoint.size} bytes, SHA-256 {checkpoint.sha256})."
    )


@contextmanager
def _locked(path: Path, checkpoint: Checkpoint, progress: Progress | None) -> Iterator[None]:
    import fcntl

    # the lock file stays: removing it would let a third process lock a new file beside a waiting second one
    with path.with_name(path.name + ".lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if progress is not None:
                    progress(_size_of(_part(path)), checkpoint.size)
                time.sleep(0.1)
        yield  # closing the file releases the lock


_Response: TypeAlias = http.client.HTTPResponse | urllib.error.HTTPError


class _TransferError(Exception):
    """The connection failed or ended early; what has arrived can be resumed."""


def _download_verified(checkpoint: Checkpoint, path: Path, progress: Progress | None) -> None:
    part = _part(path)
    if part.is_file() and part.stat().st_size > checkpoint.size:
        part.unlink()
    needed = checkpoint.size - _size_of(part) + SPARE_BYTES
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise _cannot_have(checkpoint, path, f"only {free} bytes are free there where {needed} are needed")
    for _ in range(2):  # a damaged file is fetched once more, from its start
        _download(checkpoint, path, progress)
        if sha256_of(part) == checkpoint.sha256:
            # no sync of the directory: were the renaming lost in a crash, the whole part is still there
            os.replace(part, path)
            _is_verified(path, checkpoint)
            return
        part.unlink()
    raise _cannot_have(checkpoint, path, "what the server sent twice has another SHA-256")


def _download(checkpoint: Checkpoint, path: Path, progress: Progress | None) -> None:
    """Bring `<path>.part` to its full size, going on where a connection ended."""
    part = _part(path)
    idle = 0
    while (before := _size_of(part)) < checkpoint.size:
        try:
            _receive(checkpoint, path, before, progress)
        except _TransferError as interruption:
            idle = 0 if _size_of(part) > before else idle + 1
            if idle >= IDLE_TRIES:
                raise _cannot_have(checkpoint, path, f"the download failed: {interruption}") from interruption
            time.sleep(PAUSE_SECONDS)


def _receive(checkpoint: Checkpoint, path: Path, offset: int, progress: Progress | None) -> None:
    """Append what one connection gives to the part file, which has `offset` bytes.

    Raises:
        _TransferError: it ended early.
        CheckpointError: the server refuses, redirects elsewhere or has a file of another size.
    """
    part = _part(path)
    with _open(checkpoint, path, offset) as response:
        if response.status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            # the server's file ends before our part does: start over, and let the sizes below say what is wrong
            part.unlink(missing_ok=True)
            raise _TransferError("the server has no bytes beyond those already here (HTTP 416)")
        resumed = response.status == http.client.PARTIAL_CONTENT
        start, total = _extent(response)
        if total is not None and total != checkpoint.size:
            raise _cannot_have(checkpoint, path, f"the server has another file, of {total} bytes")
        if resumed and start != offset:
            part.unlink(missing_ok=True)
            raise _TransferError("the server answered with another range than the one asked for")
        done = offset if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            try:
                while chunk := _read(response):
                    done += len(chunk)
                    if done > checkpoint.size:  # before it can fill the disk
                        raise _cannot_have(checkpoint, path, f"the server sends more than {checkpoint.size} bytes")
                    file.write(chunk)
                    if progress is not None:
                        progress(done, checkpoint.size)
            finally:
                file.flush()
                os.fsync(file.fileno())
    if done < checkpoint.size:
        raise _TransferError(f"the connection ended after {done} bytes")


def _open(checkpoint: Checkpoint, path: Path, offset: int) -> _Response:
    """An open response with status 200, 206 or 416."""
    url = checkpoint.url
    for _ in range(MAX_REDIRECTS + 1):
        headers = {"User-Agent": "lora_sam", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        try:
            response: _Response = _opener(url).open(
                urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS
            )
            return response
        except urllib.error.HTTPError as error:
            location = error.headers.get("Location") if 300 <= error.code < 400 else None
            if location is not None:
                error.close()
                url = _redirected(url, location, checkpoint, path)
                continue
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
                return error
            error.close()
            if error.code >= 500:
                raise _TransferError(f"the server answered HTTP {error.code} {error.reason}") from error
            raise _cannot_have(checkpoint, path, f"the server answered HTTP {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise _TransferError(f"no connection ({error.reason})") from error
        except (OSError, http.client.HTTPException) as error:
            raise _TransferError(f"no connection ({error or type(error).__name__})") from error
    raise _cannot_have(checkpoint, path, f"the server redirected more than {MAX_REDIRECTS} times")


def _opener(url: str) -> urllib.request.OpenerDirector:
    """An opener that follows no redirect by itself and speaks nothing but http(s)."""
    opener = urllib.request.OpenerDirector()
    handlers = [
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ]
    if not _is_loopback(url):
        handlers.append(urllib.request.ProxyHandler())
    for handler in handlers:
        opener.add_handler(handler)
    return opener


def _redirected(url: str, location: str, checkpoint: Checkpoint, path: Path) -> str:
    target = urljoin(url, location)
    if urlsplit(target).netloc.lower() != urlsplit(url).netloc.lower():
        raise _cannot_have(checkpoint, path, f"the server redirects to another host ({target}), which is refused")
    _require_safe(target, checkpoint, path)
    return target


def _require_safe(url: str, checkpoint: Checkpoint, path: Path) -> None:
    scheme = urlsplit(url).scheme
    if scheme != "https" and not (scheme == "http" and _is_loopback(url)):
        raise _cannot_have(checkpoint, path, f"only https is allowed, not {url}")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _extent(response: _Response) -> tuple[int, int | None]:
    """(first byte, bytes of the whole file or None) as the response states them."""
    if response.status == http.client.PARTIAL_CONTENT:
        # "bytes 500-999/1000", RFC 9110 14.4; the total may be "*"
        unit_range, _, total = response.headers.get("Content-Range", "").partition("/")
        first = unit_range.removeprefix("bytes").strip().partition("-")[0]
        return int(first) if first.isdigit() else -1, int(total) if total.isdigit() else None
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _read(response: _Response) -> bytes:
    try:
        chunk: bytes = response.read(CHUNK_BYTES)
    except http.client.IncompleteRead as error:
        return error.partial
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(f"the connection broke ({error or type(error).__name__})") from error
    return chunk


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return 0
