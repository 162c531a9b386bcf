"""Paths that come from a configuration or an annotation file, kept under the data root."""

from __future__ import annotations

import reprlib
from pathlib import Path

from lora_sam.core.errors import DataError
from lora_sam.core.files import followed

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


def is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8: half a surrogate pair cannot, which JSON and file names may have."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def within(template: str, split: str) -> str:
    """`template` with `{split}` replaced; nothing else in it is interpreted."""
    return template.replace("{split}", split)


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
