"""Paths that come from a configuration or an annotation file, kept under the data root."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_sam.core.errors import DataError
from lora_sam.core.files import followed, walked

_OF_DISKS = frozenset({"lost+found", "System Volume Information"})  # at the top of a disk, and closed to its users
_MAX_SHOWN = 120
_LEADS_OUT = "leads out of the data root through a symbolic link"
_SHORT = reprlib.Repr()  # what comes from a file may be long, or nested deeper than `repr` can follow
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 4, 20, 20
_SHORT.maxstring = _SHORT.maxother = 2 * _MAX_SHOWN


def shown(value: object) -> str:
    """`value` from an untrusted file as one short line."""
    text = _SHORT.repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


class FollowedRoot(type(Path())):  # type: ignore[misc]  # the path of this system
    """A data root whose links may lead out of it: who made them is who asked for them to be followed."""


def data_root(root: str, *, follow_links: bool = False) -> Path:
    """The data root as an absolute path without symbolic links.

    Args:
        root: As the user wrote it.
        follow_links: Whether links below it may lead out of it.

    Raises:
        DataError: it is not a directory.
    """
    path = Path(root).expanduser()
    if not path.is_dir():
        what = "is not a directory" if path.exists() else "does not exist"
        raise DataError(f"data.root: {path.absolute()} {what}; set data.root=<directory with your images and labels>.")
    found = path.resolve()
    return FollowedRoot(found) if follow_links else found


def inside(root: Path, relative: str, owner: str, *, base: Path | None = None) -> Path:
    """`base / relative`, refused unless it stays under `root` when all links are followed.

    Args:
        root: As returned by `data_root`.
        relative: Untrusted; may use `/`.
        owner: Who asks, for the message: a configuration key, or an annotation file and the id in it.
        base: A directory under `root`; `root` itself if None.

    Raises:
        DataError: `relative` is empty or absolute, has `..` or a NUL, or leads out of `root` through a link that is not
            to be followed.
    """
    base = root if base is None else base
    reason = _escape(root, base, relative)
    if reason:
        remedy = "set data.follow_links=true if you made the link" if reason == _LEADS_OUT else "copy the file there"
        raise DataError(
            f"{owner}: the path {shown(relative)} {reason}; only files under {root} are read. Use a path relative to "
            f"{base}, or {remedy}.",
            "path_escape",
        )
    return base / relative


def data_folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder from `root` down with the names of its files, none hidden; what a disk keeps at its top is no data.

    Raises:
        OSError: a folder cannot be listed; see `listing`.
    """
    for folder, folders, files in walked(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _OF_DISKS]
        yield folder, [name for name in files if not name.startswith(".")]


def files_in(folder: Path, ending: str) -> list[Path]:
    """What lies in a folder and has that ending, none of it hidden, in order; nothing where the folder is absent.

    Raises:
        DataError: it cannot be listed.
    """
    if not folder.is_dir():
        return []
    with listing(folder):
        return sorted(path for path in folder.iterdir() if path.suffix == ending and not path.name.startswith("."))


@contextmanager
def listing(place: Path) -> Iterator[None]:
    """What cannot be listed while `place` is gone through, as a `DataError` that names the folder."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or place}: cannot be listed ({error.strerror}); correct its permissions.",
            "unreadable_file",
        ) from error


def is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8: half a surrogate pair cannot, which JSON and file names may have."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def within(template: str, split: str) -> str:
    """`template` with `{split}` replaced; nothing else in it is interpreted."""
    return template.replace("{split}", split)


def without_split(template: str) -> str:
    """The template of a data set without splits: `{split}/images` and `images/{split}` both become `images`."""
    return "/".join(part for part in template.split("/") if part != "{split}") or "."


def _escape(root: Path, base: Path, relative: str) -> str | None:
    if not relative or "\0" in relative:
        return "is empty or has a NUL character"
    if not is_text(relative):
        return "is not UTF-8"
    parts = relative.replace("\\", "/").split("/")
    if Path(relative).is_absolute() or relative.startswith(("/", "\\")) or parts[0].endswith(":"):
        return "is absolute"
    if ".." in parts:
        return "has '..'"
    try:
        target = followed(base / relative)
        target.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # who opens it says so
    except OSError as error:  # a circle of links, no permission, or a name that is too long
        return f"cannot be used ({error.strerror})"
    return None if isinstance(root, FollowedRoot) or target.is_relative_to(root) else _LEADS_OUT
