"""Checkpoints: downloads over a real (loopback) connection."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lora_sam.core.errors import CheckpointError, TrainingError
from lora_sam.core.files import sha256_of
from lora_sam.models import download
from lora_sam.models.checkpoints import OFFICIAL, Checkpoint
from lora_sam.models.download import download_progress, fetch_checkpoint

CONTENT = bytes(range(256)) * 40_000  # 10 MB: several chunks


@dataclass
class Site:
    """A server whose misbehaviour a test sets; records the `Range` header of every request."""

    content: bytes = CONTENT
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)  # bytes of the body sent by the next connections
    redirect: str | None = None
    status: int | None = None
    content_range: str | None = None
    announce: bool = True
    slow: float = 0.0
    requests: list[str | None] = field(default_factory=list)
    url: str = ""

    def checkpoint(self) -> Checkpoint:
        digest = hashlib.sha256(CONTENT).hexdigest()
        return Checkpoint("toy", "toy.pth", f"{self.url}/toy.pth", len(CONTENT), digest)


@pytest.fixture
def site() -> Iterator[Site]:
    state = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.headers.get("Range"))
            time.sleep(state.slow)
            if state.redirect is not None and self.path == "/toy.pth":
                self.send_response(302)
                self.send_header("Location", state.redirect)
                self.end_headers()
                return
            if state.status is not None:
                self.send_error(state.status)
                return
            asked, body = self.headers.get("Range"), state.content
            if asked and state.ranges:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(body):
                    self.send_error(416)
                    return
                self.send_response(206)
                default = f"bytes {start}-{len(body) - 1}/{len(body)}"
                self.send_header("Content-Range", state.content_range or default)
                body = body[start:]
            else:
                self.send_response(200)
            if state.announce:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body[: state.cut_after.pop(0)] if state.cut_after else body)
            except OSError:
                self.close_connection = True  # the client had enough

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    monkeypatch.delenv("LORA_SAM_OFFLINE", raising=False)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# --- fetching --------------------------------------------------------------------------------------------------------


def test_a_download_is_complete_and_reported(site: Site, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch_checkpoint(
        site.checkpoint(),
        tmp_path / "new" / "cache",
        offline=False,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert path == tmp_path / "new" / "cache" / "toy.pth"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert names(path.parent) == ["toy.pth", "toy.pth.lock", "toy.pth.verified.json"]
    assert site.requests == [None]


def test_a_file_that_is_there_is_hashed_once_and_never_fetched(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy.pth").write_bytes(CONTENT)
    hashed: list[Path] = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return sha256_of(path)

    monkeypatch.setattr(download, "sha256_of", counted)
    for _ in range(3):
        assert fetch_checkpoint(site.checkpoint(), tmp_path, offline=True) == tmp_path / "toy.pth"
    assert hashed == [tmp_path / "toy.pth"]
    assert site.requests == []
    # a change of the file, even to the same bytes, is hashed again
    os.utime(tmp_path / "toy.pth", ns=(1, 1))
    fetch_checkpoint(site.checkpoint(), tmp_path, offline=True)
    assert len(hashed) == 2


def test_weights_on_a_disk_that_can_only_be_read_are_verified_each_time(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy.pth").write_bytes(CONTENT)

    def refuse(*_: object, **__: object) -> None:
        raise TrainingError("read-only")

    monkeypatch.setattr(download, "write_text", refuse)
    for _ in range(2):
        assert fetch_checkpoint(site.checkpoint(), tmp_path, offline=True) == tmp_path / "toy.pth"
    assert [path.name for path in tmp_path.iterdir()] == ["toy.pth"]
    (tmp_path / "toy.pth").write_bytes(CONTENT[::-1])
    with pytest.raises(CheckpointError, match="has another SHA-256"):
        fetch_checkpoint(site.checkpoint(), tmp_path, offline=True)


def test_a_record_of_another_file_is_not_believed(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "toy.pth"
    path.write_bytes(CONTENT[::-1])
    found = path.stat()
    record = {"schema": 1, "size": found.st_size, "mtime_ns": found.st_mtime_ns + 1, "sha256": site.checkpoint().sha256}
    (tmp_path / "toy.pth.verified.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="has another SHA-256"):
        fetch_checkpoint(site.checkpoint(), tmp_path, offline=True)
    (tmp_path / "toy.pth.verified.json").write_text("{not json")
    with pytest.raises(CheckpointError, match="has another SHA-256"):
        fetch_checkpoint(site.checkpoint(), tmp_path, offline=True)


def test_a_damaged_file_is_replaced(site: Site, tmp_path: Path) -> None:
    (tmp_path / "toy.pth").write_bytes(CONTENT[:-1] + b"x")
    assert fetch_checkpoint(site.checkpoint(), tmp_path, offline=False).read_bytes() == CONTENT
    assert site.requests == [None]


def test_a_cut_connection_is_resumed_within_one_call(site: Site, tmp_path: Path) -> None:
    site.cut_after = [3_000_000, 4_000_000]
    assert fetch_checkpoint(site.checkpoint(), tmp_path, offline=False).read_bytes() == CONTENT
    assert site.requests == [None, "bytes=3000000-", "bytes=7000000-"]


def test_a_cut_connection_is_resumed_by_the_next_call(site: Site, tmp_path: Path) -> None:
    site.cut_after = [3_000_000, 0, 0, 0]
    with pytest.raises(CheckpointError, match="the connection ended after 3000000 bytes"):
        fetch_checkpoint(site.checkpoint(), tmp_path, offline=False)
    assert names(tmp_path) == ["toy.pth.lock", "toy.pth.part"]
    assert (tmp_path / "toy.pth.part").read_bytes() == CONTENT[:3_000_000]
    site.requests.clear()
    assert fetch_checkpoint(site.checkpoint(), tmp_path, offline=False).read_bytes() == CONTENT
    assert site.requests == ["bytes=3000000-"]


def test_a_part_that_is_whole_needs_no_connection(site: Site, tmp_path: Path) -> None:
    (tmp_path / "toy.pth.part").write_bytes(CONTENT)
    assert fetch_checkpoint(site.checkpoint(), tmp_path, offline=False).read_bytes() == CONTENT
    assert site.requests == []


def test_a_server_without_ranges_sends_the_whole_file_again(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    (tmp_path / "toy.pth.part").write_bytes(b"y" * 1000)
    assert fetch_checkpoint(site.checkpoint(), tmp_path, offline=False).read_bytes() == CONTENT
    assert site.requests == ["bytes=1000-"]


def test_another_range_than_the_one_asked_for_starts_over(site: Site, tmp_path: Path) -> None:
    site.content_range = f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"
    (tmp_path / "toy.pth.part").write_bytes(CONTENT[:1000])
    assert fetch_checkpoint(site.checkpoint(), tmp_path, offline=False).read_bytes() == CONTENT
    assert site.requests == ["bytes=1000-", None]


@pytest.mark.parametrize("stale", [b"z" * 1000, CONTENT + b"more"])
def test_a_damaged_part_is_thrown_away_and_fetched_once_more(site: Site, tmp_path: Path, stale: bytes) -> None:
    (tmp_path / "toy.pth.part").write_bytes(stale)
    assert fetch_checkpoint(site.checkpoint(), tmp_path, offline=False).read_bytes() == CONTENT
    assert site.requests == (["bytes=1000-", None] if len(stale) == 1000 else [None])


def test_a_wrong_hash_is_fetched_twice_and_kept_nowhere(site: Site, tmp_path: Path) -> None:
    site.content = CONTENT[::-1]
    with pytest.raises(CheckpointError, match="what the server sent twice has another SHA-256"):
        fetch_checkpoint(site.checkpoint(), tmp_path, offline=False)
    assert site.requests == [None, None]
    assert names(tmp_path) == ["toy.pth.lock"]


@pytest.mark.parametrize("length", [5_000_000, len(CONTENT) + 5])
def test_a_wrong_size_is_told_before_anything_is_stored(site: Site, tmp_path: Path, length: int) -> None:
    site.content = (CONTENT + b"12345")[:length]
    with pytest.raises(CheckpointError, match=f"the server has another file, of {length} bytes"):
        fetch_checkpoint(site.checkpoint(), tmp_path, offline=False)
    assert names(tmp_path) == ["toy.pth.lock"]


def test_a_server_that_does_not_stop_is_cut_off(site: Site, tmp_path: Path) -> None:
    site.announce = False
    site.content = CONTENT * 2
    with pytest.raises(CheckpointError, match="the server sends more than 10240000 bytes"):
        fetch_checkpoint(site.checkpoint(), tmp_path, offline=False)
    assert (tmp_path / "toy.pth.part").stat().st_size <= len(CONTENT)


def test_a_file_that_became_shorter_on_the_server_is_told(site: Site, tmp_path: Path) -> None:
    site.content = CONTENT[:500]
    (tmp_path / "toy.pth.part").write_bytes(CONTENT[:1000])  # 416: nothing beyond 1000 bytes
    with pytest.raises(CheckpointError, match="the server has another file, of 500 bytes"):
        fetch_checkpoint(site.checkpoint(), tmp_path, offline=False)
    assert site.requests == ["bytes=1000-", None]


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (503, 3)])
def test_a_refusal_is_told(site: Site, tmp_path: Path, status: int, tries: int) -> None:
    site.status = status
    with pytest.raises(CheckpointError, match=f"the server answered HTTP {status}"):
        fetch_checkpoint(site.checkpoint(), tmp_path, offline=False)
    assert len(site.requests) == tries


def test_a_redirect_on_the_same_host_is_followed(site: Site, tmp_path: Path) -> None:
    site.redirect = "/elsewhere/toy.pth"
    assert fetch_checkpoint(site.checkpoint(), tmp_path, offline=False).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://localhost:1/toy.pth", "the server redirects to another host (http://localhost:1/toy.pth)"),
        ("https://example.invalid/toy.pth", "the server redirects to another host (https://example.invalid/toy.pth)"),
        ("file:///etc/hostname", "the server redirects to another host (file:///etc/hostname)"),
        ("/toy.pth", "the server redirected more than 5 times"),
    ],
)
def test_other_redirects_are_refused(site: Site, tmp_path: Path, target: str, reason: str) -> None:
    site.redirect = target
    with pytest.raises(CheckpointError) as caught:
        fetch_checkpoint(site.checkpoint(), tmp_path, offline=False)
    assert reason in str(caught.value)
    assert names(tmp_path) == ["toy.pth.lock"]


@pytest.mark.parametrize("url", ["http://example.invalid/toy.pth", "ftp://127.0.0.1/toy.pth", "file:///etc/hostname"])
def test_only_https_is_spoken_beyond_this_machine(site: Site, tmp_path: Path, url: str) -> None:
    with pytest.raises(CheckpointError, match="only https is allowed, not " + url):
        fetch_checkpoint(replace(site.checkpoint(), url=url), tmp_path, offline=False)


@pytest.mark.parametrize("by_variable", [False, True])
def test_offline_says_what_to_put_where(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_variable: bool
) -> None:
    if by_variable:
        monkeypatch.setenv("LORA_SAM_OFFLINE", "1")
    official = OFFICIAL["vit_b"]
    with pytest.raises(CheckpointError) as caught:
        fetch_checkpoint(official, tmp_path / "cache", offline=not by_variable)
    where = tmp_path / "cache" / "sam_vit_b_01ec64.pth"
    assert str(caught.value) == (
        f"no usable weights for vit_b: there is no {where}, and downloads are off (offline mode). Download "
        f"https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth by hand to {where} (375042383 bytes, "
        "SHA-256 ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912)."
    )
    assert not (tmp_path / "cache").exists()


def test_no_connection_says_the_same(site: Site, tmp_path: Path) -> None:
    nobody = replace(site.checkpoint(), url="http://127.0.0.1:9/toy.pth")
    with pytest.raises(CheckpointError) as caught:
        fetch_checkpoint(nobody, tmp_path, offline=False)
    message = str(caught.value)
    assert "the download failed: no connection" in message
    assert f"by hand to {tmp_path / 'toy.pth'} (10240000 bytes, SHA-256 {nobody.sha256})" in message
    assert "\n" not in message


def test_a_full_disk_is_told_before_the_download(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.pth.part").write_bytes(CONTENT[:240_000])

    @dataclass
    class Usage:
        free: int = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage())
    with pytest.raises(CheckpointError, match=f"only 1000 bytes are free there where {10_000_000 + (16 << 20)} are"):
        fetch_checkpoint(site.checkpoint(), tmp_path, offline=False)
    assert site.requests == []


def test_a_directory_that_cannot_be_made_is_told(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="by hand to .*file/cache/toy.pth"):
        fetch_checkpoint(site.checkpoint(), tmp_path / "file" / "cache", offline=False)


def test_two_processes_download_once(site: Site, tmp_path: Path) -> None:
    site.slow = 0.3
    processes = [
        multiprocessing.get_context("spawn").Process(
            target=fetch_checkpoint, args=(site.checkpoint(), tmp_path), kwargs={"offline": False}
        )
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0]
    assert site.requests == [None]
    assert (tmp_path / "toy.pth").read_bytes() == CONTENT


def test_two_threads_download_once_and_the_waiting_one_reports(site: Site, tmp_path: Path) -> None:
    site.slow = 0.3
    seen: list[list[tuple[int, int]]] = [[], []]
    threads = [
        threading.Thread(
            target=fetch_checkpoint,
            args=(site.checkpoint(), tmp_path),
            kwargs={"offline": False, "progress": lambda done, total, log=log: log.append((done, total))},
        )
        for log in seen
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert site.requests == [None]
    assert all((0, len(CONTENT)) in log or log[-1] == (len(CONTENT), len(CONTENT)) for log in seen)


def test_the_bar_shows_only_when_something_is_fetched(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shown in (True, False):
        with download_progress(site.checkpoint()) as progress:
            fetch_checkpoint(site.checkpoint(), tmp_path, offline=False, progress=progress)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert ("Downloading toy.pth" in captured.err) is shown
