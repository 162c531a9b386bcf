"""Which file under the root an annotation means, however its tool wrote the name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from lora_sam.core.errors import DataError
from lora_sam.data.reading.images import SUFFIXES
from lora_sam.data.reading.paths import data_folders, inside, is_text, listing, shown

_OF_LABELS = re.compile(r"masks?|labels?|gts?|ground_?truths?|segmentation(class|object)?|seg_?maps?|trimaps?", re.I)
"""Folders of pictures that are labels, and no images."""

MAX_FILES = 10**6
"""More entries under the root are not gone through for a name."""


class ImageFinder:
    """Finds images by the names in annotation files.

    A name is taken as a path first. Where no such file is there, the only file under the root counts whose name is the
    same: in another folder, with `\\` for `/`, with `%20` for a blank, as a URL or as a path of another machine, in
    the other Unicode normalisation, in other letters' case, or with another ending. Of several such files the one
    counts that has more of the name's folders; where that leaves several, none does. What lies in a folder of masks is
    no image, unless the name says that folder.

    Args:
        root: As returned by `data_root`; no other file is found.
        suffixes: Lower-case endings of images.
    """

    def __init__(self, root: Path, suffixes: Iterable[str] = SUFFIXES) -> None:
        self.searched = 0
        self._root = root
        self._suffixes = frozenset(suffixes)

    def find(self, name: object, owner: str, *folders: Path) -> Path:
        """The file that `name` means.

        Args:
            name: As the annotation file has it.
            owner: Which annotation file and entry, for messages.
            folders: Where it may lie, under the root; looked at in this order, and then the root itself.

        Raises:
            DataError: there is no such file, or there are several.
        """
        if not isinstance(name, str) or not name.strip() or "\0" in name or not is_text(name):
            raise DataError(f"{owner} names the image {shown(name)}; it takes the name of a file.", "missing_file")
        parts = _parts(name)
        if parts:
            for folder in (*folders, self._root):
                path = self._exact(folder, "/".join(parts), owner)
                if path is not None:
                    return path
        alike = self._alike(parts)
        if not alike and "%" in name:
            alike = self._alike(_parts(unquote(name)))
        found = [path for path in alike if not _OF_LABELS.fullmatch(path.parent.name) or path.parent.name in parts]
        for folder in folders if len(found) > 1 else ():
            found = [path for path in found if path.parent == folder] or found
        if len(found) == 1:
            return found[0]
        if found:
            places = " and ".join(path.relative_to(self._root).as_posix() for path in found[:2])
            raise DataError(
                f"{owner} names the image {shown(name)}, which may be {places} ({len(found)} files); give it with its "
                "folder, or keep one of them.",
                "missing_file",
            )
        if alike:
            raise DataError(
                f"{owner} names the image {shown(name)}, and only {alike[0].relative_to(self._root).as_posix()} has "
                "that name, which seems to be its mask; copy the image there, or remove the entry.",
                "missing_file",
            )
        raise DataError(
            f"{owner} names the image {shown(name)}, and no file of that name is under {self._root} "
            f"({len(self._files)} images are); copy it there, or remove the entry.",
            "missing_file",
        )

    def search(self, name: object, owner: str, *folders: Path) -> Path | None:
        """What `find` finds, counted in `searched`; None where there is no such file or there are several.

        Raises:
            DataError: nobody can tell, as not all of the root can be gone through.
        """
        try:
            found = self.find(name, owner, *folders)
        except DataError as error:
            if error.kind != "missing_file":
                raise
            return None
        self.searched += 1
        return found

    def unnamed(self, used: Iterable[Path]) -> int:
        """How many images under the root are none of `used`."""
        return len(set(self._files) - set(used))

    @cached_property
    def _files(self) -> list[Path]:
        files: list[Path] = []
        seen = 0
        with listing(self._root):
            for folder, names in data_folders(self._root):
                seen += 1 + len(names)
                if seen > MAX_FILES:
                    raise DataError(
                        f"{self._root}: has more than {MAX_FILES} entries; set data.root to the data alone.",
                        "bad_annotation",
                    )
                paths = (folder / name for name in names)
                files += [path for path in paths if path.suffix.lower() in self._suffixes and path.is_file()]
        return sorted(files)

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        names: dict[str, list[Path]] = {}
        for path in self._files:
            for key in {_key(path.name), _key(path.stem) + "."}:
                names.setdefault(key, []).append(path)
        return names

    def _exact(self, folder: Path, relative: str, owner: str) -> Path | None:
        try:
            path = inside(self._root, relative, owner, base=folder)
            return path if path.is_file() else None
        except (DataError, OSError):
            return None

    def _alike(self, parts: list[str]) -> list[Path]:
        if not parts:
            return []
        stem = parts[-1].rpartition(".")[0] or parts[-1]
        for key in (_key(parts[-1]), _key(stem) + "."):
            found = [path for path in self._by_name.get(key, ()) if self._exact_of(path)]
            if found:
                best = max(_common(path.relative_to(self._root).parts[:-1], parts[:-1]) for path in found)
                return [path for path in found if _common(path.relative_to(self._root).parts[:-1], parts[:-1]) == best]
        return []

    def _exact_of(self, path: Path) -> bool:
        return self._exact(self._root, path.relative_to(self._root).as_posix(), "") is not None


def _parts(name: str) -> list[str]:
    """The folders and the file of a path or URL, without `.` and `..`."""
    if "://" in name or name.startswith("/data/local-files/"):
        url = urlsplit(name)
        # Label Studio serves local files as ?d=folder/name
        name = parse_qs(url.query).get("d", [unquote(url.path)])[0]
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..") and part[-1] != ":"]


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _common(one: tuple[str, ...], other: list[str]) -> int:
    """How many folders at the end are the same."""
    count = 0
    for first, second in zip(reversed(one), reversed(other), strict=False):
        if _key(first) != _key(second):
            break
        count += 1
    return count
