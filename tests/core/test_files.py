"""Atomic writing: what is there before, during and after, on success, failure, full disk and crash."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lora_sam.core import beside, files
from lora_sam.core.errors import AdapterError, TrainingError
from lora_sam.core.files import (
    atomic_directory,
    atomic_path,
    read_json,
    recorded_sha256,
    recover,
    sha256_of,
    walked,
    without_ending,
    write_text,
)
from lora_sam.core.seeds import generator_for, seed_for

FULL = r"cannot write {}: No space left on device \(\d+ MiB free there\)\. Free some space .* resume=latest\."


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_half(path: Path) -> None:
    path.write_text("half")
    raise ZeroDivisionError


def become_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    full_disk()


def test_text_is_written_as_utf8_with_the_usual_mode(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    write_text(path, "naïve – ✓\n")
    assert path.read_bytes() == "naïve – ✓\n".encode()
    other = tmp_path / "other"
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode
    assert os.listdir(path.parent) == ["a.txt"]


def test_the_old_file_is_whole_until_the_new_one_is(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent  # renaming works on one file system only
        temporary.write_text("new, but not yet")
        assert path.read_text() == "old"
    assert path.read_text() == "new, but not yet"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        write_half(temporary)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_a_full_disk_is_told_with_path_and_free_space(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with monkeypatch.context() as patched:
        if fails == "write":
            patched.setattr(Path, "write_text", full_disk)
        else:
            patched.setattr(os, fails, full_disk)
        with pytest.raises(TrainingError, match=FULL.format(re.escape(str(path)))) as caught:
            write_text(path, "new")
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("atomic", [atomic_path, atomic_directory])
def test_a_place_that_is_no_directory(atomic, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "below"
    with (
        pytest.raises(TrainingError, match=r"cannot write .*file/below: (File exists|Not a directory) \("),
        atomic(path),
    ):
        pytest.fail("must not get here")
    assert os.listdir(tmp_path) == ["file"]


def test_a_place_whose_free_space_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "deeper" / "a.txt"
    (tmp_path / "gone").touch()
    with pytest.raises(TrainingError, match=r"a\.txt: Not a directory \(free space unknown\)"):
        write_text(path, "")


def test_an_error_without_a_number_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(TrainingError, match=r"a\.txt: Error while serializing: full \("), atomic_path(path):
        raise OSError("Error while serializing: full")


def test_that_the_temporary_cannot_be_removed_hides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(TrainingError, match="No space left"), atomic_path(path) as temporary:
        become_a_directory(temporary)


def tree(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_a_directory_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "very" / "deep" / "adapter"
    with atomic_directory(path) as content:
        (content / "a").write_text("old a")
        (content / "b").write_text("old b")
    with atomic_directory(path) as content:
        (content / "sub").mkdir()
        (content / "sub" / "a").write_text("new a")
        (content / "sub" / "a").chmod(0o400)
        assert tree(path) == {"a": "old a", "b": "old b"}
    assert tree(path) == {"sub/a": "new a"}
    assert os.listdir(path.parent) == ["adapter"]
    usual = tmp_path / "usual"
    usual.mkdir()
    assert path.stat().st_mode == usual.stat().st_mode


def test_a_failure_leaves_the_old_directory(tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    with atomic_directory(path) as content:
        (content / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_directory(path) as content:
        write_half(content / "a")
    assert tree(path) == {"a": "old"}
    assert os.listdir(tmp_path) == ["adapter"]


@pytest.mark.parametrize("rename", [1, 2], ids=["moving the old one away", "moving the new one in"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=type)
def test_a_failure_between_the_renames_brings_the_old_directory_back(
    rename: int, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "adapter"
    with atomic_directory(path) as content:
        (content / "a").write_text("old")
    replace, calls = os.replace, []
    monkeypatch.setattr(files, "_swap", lambda *_: False)  # a system that cannot exchange names

    def failing(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == rename:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    expected = TrainingError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected), atomic_directory(path) as content:
        (content / "a").write_text("new")
    assert tree(path) == {"a": "old"}
    assert os.listdir(tmp_path) == ["adapter"]


def test_a_first_directory_that_cannot_be_moved_in_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", full_disk)
    path = tmp_path / "adapter"
    with (
        pytest.raises(TrainingError, match=FULL.format(re.escape(str(path)))),
        atomic_directory(path) as content,
    ):
        (content / "a").write_text("new")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc to tell which file was synced")
def test_everything_is_synced_before_the_first_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(Path(f"/proc/self/fd/{fd}").resolve().name), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), replace(a, b)))
    with atomic_directory(tmp_path / "adapter") as content:
        (content / "a").write_text("x")
        (content / "sub").mkdir()
        (content / "sub" / "b").write_text("y")
    assert set(events[:4]) == {"a", "b", "sub", "content"}
    assert events[4:] == ["rename", tmp_path.name]


def test_a_killed_process_leaves_the_old_content(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with atomic_directory(tmp_path / "adapter") as content:
        (content / "a").write_text("old")
    code = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from lora_sam.core.files import atomic_directory, atomic_path
root = Path(sys.argv[1])
with atomic_path(root / "a.txt") as file, atomic_directory(root / "adapter") as content:
    file.write_text("half")
    (content / "a").write_text("half")
    os._exit(3)
"""
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == 3
    assert (tmp_path / "a.txt").read_text() == "old"
    assert tree(tmp_path / "adapter") == {"a": "old"}
    assert len(os.listdir(tmp_path)) == 4
    write_text(tmp_path / "a.txt", "new")  # what it left behind goes with the next success
    assert (tmp_path / "a.txt").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "adapter"]


def test_what_another_process_still_writes_is_no_leftover(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "slow.txt") as slow, atomic_directory(tmp_path / "slow") as content:
        slow.write_text("slow")
        (content / "a").write_text("slow")
        code = "import sys; from pathlib import Path; from lora_sam.core.files import write_text\n"
        code += "write_text(Path(sys.argv[1]) / 'quick.txt', 'quick')"
        subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
        assert len(os.listdir(tmp_path)) == 3
    assert sorted(os.listdir(tmp_path)) == ["quick.txt", "slow", "slow.txt"]
    assert tree(tmp_path) == {"quick.txt": "quick", "slow.txt": "slow", "slow/a": "slow"}


def test_files_of_others_are_no_leftovers(tmp_path: Path) -> None:
    for name in (".a.txt.0123abcd.tmp", ".a.txt.swp", "a.txt.0123abcd.lora_sam-tmp"):
        (tmp_path / name).touch()
    before = set(os.listdir(tmp_path))
    write_text(tmp_path / "a.txt", "x")
    assert set(os.listdir(tmp_path)) == before | {"a.txt"}


@pytest.mark.skipif(sys.platform != "linux", reason="names are exchanged on Linux")
@pytest.mark.parametrize("swaps", [True, False])
def test_the_old_or_the_new_directory_is_there_at_every_moment(
    swaps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed at any call to the system; without exchange the next who asks gets one of the two."""
    path = tmp_path / "adapter"
    code = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from lora_sam.core import beside, files
path, last, swaps = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
if not swaps:
    files._swap = lambda *_: False
calls = 0
def counted(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == last:
            os._exit(9)
        result = function(*arguments, **options)
        if not swaps or (path / "a").is_file():
            return result
        os._exit(7)
    return call
for name in ("mkdir", "replace", "fsync", "unlink", "rmdir"):
    setattr(os, name, counted(getattr(os, name)))
with files.atomic_directory(path) as content:
    (content / "a").write_text("new")
"""
    ends = []
    while not ends or ends[-1] != 0:
        with atomic_directory(path) as content:
            (content / "a").write_text("old")
        assert os.listdir(tmp_path) == ["adapter"]
        arguments = [sys.executable, "-c", code, path, str(len(ends) + 1), str(swaps)]
        ends.append(subprocess.run(arguments, check=False).returncode)
        if swaps:
            assert tree(path)["a"] in ("old", "new")
        recover(path)
        assert tree(path) in ({"a": "old"}, {"a": "new"})
    assert set(ends[:-1]) == {9}
    assert len(ends) > 6
    assert tree(path) == {"a": "new"}


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_sha256(size: int, tmp_path: Path) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "a").write_bytes(data)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_what_a_step_wrote_down_is_found_beside_a_file_or_one_directory_up(tmp_path: Path) -> None:
    file = tmp_path / "fp32" / "part.bin"
    file.parent.mkdir()
    assert recorded_sha256(file) is None
    write_text(tmp_path / "manifest.json", '{"files": {"fp32/part.bin": "above"}}')
    assert recorded_sha256(file) == "above"
    for names_nothing in ('{"files": {"other.bin": "no"}}', '{"files": {"part.bin": 7}}', '{"files": 7}', "{"):
        write_text(file.parent / "manifest.json", names_nothing)
        assert recorded_sha256(file) == "above"
    write_text(file.parent / "manifest.json", '{"files": {"part.bin": "beside"}}')
    assert recorded_sha256(file) == "beside"
    assert recorded_sha256(tmp_path / "fp32" / "deeper" / "still" / "part.bin") is None


def test_seeds_depend_on_names_and_nothing_else() -> None:
    # fixed for ever: prompts and splits of earlier runs hang on them
    assert seed_for(0, "jitter", 1, "a.png") == 3745920896802948200
    assert seed_for("a", "b") != seed_for("b", "a")
    assert seed_for("ab", "c") != seed_for("a", "bc")
    assert seed_for(1) == seed_for("1")
    seeds = [seed_for("x", index) for index in range(1000)]
    assert len(set(seeds)) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62
    draws = generator_for(0, "x").random(3)
    assert (generator_for(0, "x").random(3) == draws).all()
    assert (generator_for(1, "x").random(3) != draws).all()


def test_json_of_sixteen_mebibytes_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    path.write_bytes(b'{"a": 1}'.ljust(16 * 2**20))
    assert read_json(path, "mend it") == {"a": 1}
    path.write_bytes(b'{"a": 1}'.ljust(16 * 2**20 + 1))
    with pytest.raises(
        AdapterError, match=r"values.json is damaged \(16777217 bytes, at most 16777216 are read\); mend it"
    ):
        read_json(path, "mend it")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux' list of open files")
def test_saving_leaves_no_file_open(tmp_path: Path) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    (tmp_path / ".old.0123abcd.lora_sam-tmp").touch()  # what a killed process left
    before = opened()
    for number in range(3):
        write_text(tmp_path / "file", str(number))
        with atomic_directory(tmp_path / "directory") as made:
            (made / "a").write_text(str(number))
        with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "file") as temporary:
            write_half(temporary)
        recover(tmp_path / "directory")
        assert opened() == before


@pytest.mark.skipif(sys.platform != "linux", reason="names are exchanged on Linux")
def test_relative_names_are_exchanged_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "other"):
        Path(name).mkdir()
        Path(name, name).touch()
    assert files._swap(Path("one"), Path("other"))
    assert [path.name for path in Path("one").iterdir()] == ["other"]


def test_the_limit_of_json_is_told_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "facts.json"
    path.write_text("[1, 2]", encoding="utf-8")
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 6)
    with pytest.raises(AdapterError, match="not a mapping"):
        files.read_json(path, "train again")
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 5)
    with pytest.raises(AdapterError, match="6 bytes, at most 5 are read"):
        files.read_json(path, "train again")


def test_what_comes_back_from_a_leftover_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(beside, "sync", synced.append)
    leftover = tmp_path / ".adapter.0123abcd.lora_sam-tmp"
    (leftover / "replaced").mkdir(parents=True)
    beside.remove_leftover(leftover, "adapter")
    assert (tmp_path / "adapter").is_dir()
    assert synced == [tmp_path]


@pytest.mark.skipif(sys.platform != "linux", reason="open files are counted in /proc")
def test_what_others_hold_leaves_no_file_open(tmp_path: Path) -> None:
    path = tmp_path / "held"
    path.touch()
    held = beside.hold(path)
    if held is None:
        pytest.skip("this file system has no locks")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            beside.hold(path)
    assert len(os.listdir("/proc/self/fd")) == before
    beside.let_go(held)


def test_what_cannot_be_listed_is_not_left_out(tmp_path: Path, cannot_be_listed: Callable[..., None]) -> None:
    for name in ("a/b", "c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
    (tmp_path / "link").symlink_to("a")
    found = {
        folder.relative_to(tmp_path).as_posix(): (sorted(inside), names) for folder, inside, names in walked(tmp_path)
    }
    assert found == {
        ".": (["a", "c", "link"], []), "a": (["b"], []), "a/b": ([], ["file"]), "c": ([], ["file"]),
    }  # fmt: skip
    for number in (errno.EACCES, errno.EIO):
        cannot_be_listed(tmp_path / "a" / "b", number)
        with pytest.raises(OSError, match=rf"\[Errno {number}\] .*: '{tmp_path}/a/b'"):
            list(walked(tmp_path))
    with pytest.raises(FileNotFoundError):
        list(walked(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("path", "less"),
    [
        ("a/b.png", "a/b"),
        ("a.b/c", "a.b/c"),
        ("b.tar.gz", "b.tar"),
        (".png", ".png"),
        ("..png", "."),
        ("a/..png", "a/."),
    ],
)
def test_endings_are_taken_away_alike_on_every_python(path: str, less: str) -> None:
    """Of `..png` Python 3.13 makes an error, and those before it `.`."""
    assert without_ending(path) == less


def test_what_a_file_was_and_is_are_told_by_the_first_digits(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    now, then = hashlib.sha256(b"x").hexdigest(), hashlib.sha256(b"y").hexdigest()
    files.check_sha256(path, now, "restore it")
    with pytest.raises(AdapterError) as caught:
        files.check_sha256(path, then, "restore it")
    assert str(caught.value) == (
        f"{path} is not what was saved: its SHA-256 is {now[:12]}, it was {then[:12]} when it was written; restore it"
    )


@pytest.mark.parametrize(
    ("path", "last"), [("a/b.png", "b.png"), ("a\\b.png", "b.png"), ("a/b\\c", "c"), ("b", "b"), ("a/", ""), ("", "")]
)
def test_the_last_part_of_a_path_of_whichever_system(path: str, last: str) -> None:
    assert files.last_part(path) == last


def test_the_digest_of_values_does_not_depend_on_their_order() -> None:
    one, other = {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}
    assert files.digest_of(one) == files.digest_of(other) == hashlib.sha256(
        b'{"a": 1, "b": {"c": 2, "d": 3}}'
    ).hexdigest()  # fmt: skip


def test_links_are_followed_as_far_as_they_lead(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    root = Path(os.path.realpath(tmp_path))
    assert files.followed(tmp_path / "link") == root / "file"
    assert files.followed(tmp_path / "one").parent == root


def test_the_remedy_ends_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(TrainingError, match=r"\(\d+ MiB free there\)\. Write elsewhere$"):
        write_text(tmp_path / "a.txt", "x", "Write elsewhere")


def test_free_space_is_in_mebibytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 2**20 + 2**18))
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(TrainingError, match=r"No space left on device \(5 MiB free there\)"):
        write_text(tmp_path / "a.txt", "x")


def test_a_link_to_nothing_is_there_and_is_not_put_back(tmp_path: Path) -> None:
    leftover = tmp_path / ".adapter.0123abcd.lora_sam-tmp"
    (leftover / "replaced").mkdir(parents=True)
    (tmp_path / "adapter").symlink_to("absent")
    recover(tmp_path / "adapter")
    assert leftover.is_dir()


def test_only_what_was_moved_away_from_a_place_comes_back_to_it(tmp_path: Path) -> None:
    for name in ("adapter", "merged"):
        (tmp_path / f".{name}.0123abcd.lora_sam-tmp" / "replaced").mkdir(parents=True)
    recover(tmp_path / "adapter")
    assert sorted(os.listdir(tmp_path)) == [".merged.0123abcd.lora_sam-tmp", "adapter"]


def test_of_two_directories_the_whole_new_one_comes_back(tmp_path: Path) -> None:
    leftover = tmp_path / ".adapter.0123abcd.lora_sam-tmp"
    for name in ("replaced", "content"):
        (leftover / name).mkdir(parents=True)
        (leftover / name / "a").write_text(name)
    recover(tmp_path / "adapter")
    assert tree(tmp_path) == {"adapter/a": "content"}


def test_a_leftover_of_what_is_there_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / ".adapter.0123abcd.lora_sam-tmp"
    (leftover / "replaced").mkdir(parents=True)
    (tmp_path / "adapter").mkdir()
    beside.remove_leftover(leftover, "adapter")
    assert os.listdir(tmp_path) == ["adapter"]


@pytest.mark.skipif(sys.platform != "linux", reason="open files are counted in /proc")
def test_where_nobody_can_tell_who_holds_it_a_leftover_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leftover = tmp_path / ".a.txt.0123abcd.lora_sam-tmp"
    leftover.touch()

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patched:
        patched.setattr(beside._fcntl, "flock", no_locks)
        before = os.listdir("/proc/self/fd")
        assert beside.hold(leftover) is None
        assert len(os.listdir("/proc/self/fd")) == len(before)
        write_text(tmp_path / "b.txt", "x")  # files are written all the same
        with beside.alone_in(tmp_path):
            pass
    with monkeypatch.context() as patched:
        patched.setattr(beside, "_fcntl", None)  # Windows
        assert beside.hold(leftover) is None
        beside.remove_leftover(leftover, "a.txt")
    assert sorted(os.listdir(tmp_path)) == [leftover.name, "b.txt"]
    held = beside.hold(leftover)
    beside.remove_leftover(leftover, "a.txt")  # somebody writes it
    assert leftover.is_file()
    beside.let_go(held)
    beside.remove_leftover(leftover, "a.txt")
    assert os.listdir(tmp_path) == ["b.txt"]


def test_what_is_written_is_held_and_for_its_owner_alone_until_it_is_whole(tmp_path: Path) -> None:
    for directory in (True, False):
        temporary, held = beside.beside(tmp_path / "a", directory=directory)
        assert temporary.is_dir() == directory
        assert beside.leftovers(tmp_path) == [(temporary, "a")]
        if directory:
            assert temporary.stat().st_mode & 0o777 == 0o700
        if beside._fcntl is not None:
            with pytest.raises(FileNotFoundError):
                beside.hold(temporary)
        beside.let_go(held)
        beside.remove_leftover(temporary, "a")
    assert beside.leftovers(tmp_path) == beside.leftovers(tmp_path / "absent") == []


@pytest.mark.skipif(beside._fcntl is None, reason="needs locks")
def test_a_name_that_was_taken_for_a_leftover_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold, tries = beside.hold, []

    def swept(path: Path) -> int | None:
        tries.append(path)
        if len(tries) == 1:
            path.unlink()
        return hold(path)

    monkeypatch.setattr(beside, "hold", swept)
    temporary, held = beside.beside(tmp_path / "a", directory=False)
    assert tries == [tries[0], temporary]
    assert tries[0] != temporary
    beside.let_go(held)


@pytest.mark.skipif(sys.platform != "linux", reason="open files are counted in /proc")
def test_a_file_that_was_replaced_before_it_was_locked_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.touch()
    other.touch()
    flock = beside._fcntl.flock
    before = len(os.listdir("/proc/self/fd"))
    for gone in (lambda: os.replace(other, path), path.unlink):
        monkeypatch.setattr(beside._fcntl, "flock", lambda *how, gone=gone: (flock(*how), gone()))
        with pytest.raises(FileNotFoundError):
            beside.hold(path)
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(beside._fcntl is None, reason="needs locks")
def test_one_process_at_a_time_is_in_a_directory(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "er"
    with beside.alone_in(place):
        assert place.is_dir()
        with pytest.raises(FileNotFoundError):
            beside.hold(place)
    with beside.alone_in(place):  # it was let go
        pass
    (tmp_path / "file").touch()
    with beside.alone_in(tmp_path / "file" / "below"):  # who writes into it will say so
        pass


def test_the_user_s_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for said, place in (("", ".cache"), (None, ".cache"), ("~/own", "own"), (str(tmp_path / "xdg"), "xdg")):
        if said is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", said)
        assert files.user_cache() == tmp_path / place / "lora_sam"


def test_what_a_step_wrote_down_two_directories_up_is_of_another_step(tmp_path: Path) -> None:
    write_text(tmp_path / "manifest.json", '{"files": {"a/b/part.bin": "far", "a/part.bin": "near"}}')
    assert recorded_sha256(tmp_path / "a" / "b" / "part.bin") is None
    assert recorded_sha256(tmp_path / "a" / "part.bin") == "near"


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_a_system_that_cannot_exchange_names_replaces_all_the_same(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not Linux, an old C library, Windows."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    for text in ("old", "new"):
        with atomic_directory(tmp_path / "adapter") as content:
            (content / "a").write_text(text)
        assert tree(tmp_path) == {"adapter/a": text}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc to tell which file was synced")
def test_a_file_is_synced_before_it_is_renamed_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: events.append(Path(f"/proc/self/fd/{fd}").resolve().name))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), replace(a, b)))
    with atomic_path(tmp_path / "a") as temporary:
        temporary.touch()
    assert events == [temporary.name, "rename", tmp_path.name]


def test_what_was_moved_aside_is_back_before_anything_is_written(tmp_path: Path) -> None:
    leftover = tmp_path / ".adapter.0123abcd.lora_sam-tmp"
    (leftover / "replaced").mkdir(parents=True)
    (leftover / "replaced" / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_directory(tmp_path / "adapter") as content:
        write_half(content / "a")
    assert tree(tmp_path) == {"adapter/a": "old"}
