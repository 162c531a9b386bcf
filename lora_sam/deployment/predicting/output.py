"""The directory that predictions are written to: whose it is, what it was made with, and what is in it already."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.files import digest_of, followed, read_json, walked, write_text
from lora_sam.core.version import __version__
from lora_sam.deployment.predicting.found import FoundImage, read_found
from lora_sam.deployment.predicting.sources import short, stems_of
from lora_sam.deployment.predicting.walking import OWN_FILE
from lora_sam.deployment.predicting.writers.table import FORMATS

SCHEMA_VERSION = 1
PLACE = Path("predictions")
RECORDS = "records"
PAGE = "predictions.html"


@dataclass(frozen=True)
class Output:
    """A directory of predictions.

    Attributes:
        root: Where it is.
        settings: What all of it is made with.
        before: Whether there are predictions with these settings already.
    """

    root: Path
    settings: Mapping[str, Any]
    before: bool

    @property
    def digest(self) -> str:
        """Digest of the settings."""
        return digest_of(self.settings)

    @property
    def page(self) -> Path:
        """The summary for people."""
        return self.root / PAGE

    def record(self, name: str) -> Path:
        """Where the record of an image is."""
        return self.root / RECORDS / f"{short(name)}.json"

    def found(self) -> Iterator[FoundImage]:
        """The records of all images that are there, one after the other, in order of their names."""
        for path in _records(self.root):
            image = read_found(path)
            if image is not None and image.settings == self.digest:
                yield image

    def stems(self, names: Iterable[str]) -> dict[str, str]:
        """`stems_of` images, none of which takes the place of files of an image that is no longer there."""
        return stems_of(dict.fromkeys((*names, *self.others(()))))

    def others(self, images: Iterable[str]) -> tuple[str, ...]:
        """Names of the records that are there of other images than these, in order."""
        records = self.root / RECORDS
        wanted = {self.record(name) for name in images}
        found = (path.relative_to(records).as_posix() for path in _records(self.root) if path not in wanted)
        return tuple(sorted(name.removesuffix(".json") for name in found))

    def remove(self, files: Iterable[str]) -> None:
        """Remove files by their paths relative to the root, and folders that are empty then; nothing outside of it."""
        for relative in files:
            file = self.root / relative
            if ".." not in Path(relative).parts and followed(file).is_relative_to(followed(self.root)):
                file.unlink(missing_ok=True)
                _remove_empty(file.parent, self.root)

    def begin(self) -> None:
        """Note down the settings, before anything else is written. Raises `TrainingError`."""
        if not self.before:
            self.note({})

    def note(self, about: Mapping[str, Any]) -> None:
        """Write `predictions.json`: the settings and what is said about the images. Raises `TrainingError`."""
        content = {
            "schema_version": SCHEMA_VERSION,
            "lora_sam": __version__,
            "settings": dict(self.settings),
            **about,
        }
        write_text(self.root / OWN_FILE, json.dumps(content, indent=2) + "\n")

    def whole(self, image: FoundImage, formats: Sequence[str]) -> tuple[str, ...]:
        """Those of `formats` of which an image's files are not all there."""
        return tuple(
            name
            for name in formats
            if FORMATS[name].each is not None
            and not (name in image.files and all((self.root / file).is_file() for file in image.files[name]))
        )


def open_output(given: str | None, subject: str, settings: Mapping[str, Any], *, overwrite: bool) -> Output:
    """The directory to write to.

    Args:
        given: As typed; None takes `predictions/<subject>`, or the first of `<subject>-2` and so on that is free or has
            predictions with the same settings.
        subject: Name of the source.
        settings: What the predictions are made with.
        overwrite: Remove the predictions that are there; other files stay.

    Raises:
        ConfigError: it is no directory, has predictions with other settings, or other files; with `overwrite` where
            these are at the places of predictions.
    """
    plain = json.loads(json.dumps(dict(settings)))
    if given is None:
        number, root = 1, PLACE / subject
        while not overwrite and _in_use(root, plain):
            number += 1
            root = PLACE / f"{subject}-{number}"
    else:
        root = Path(given).expanduser()
    if root.exists() and not root.is_dir():
        raise ConfigError(f"output = {root}: is a file; give a directory")
    stored = _settings(root)
    if overwrite:
        if stored is not None:
            _remove(root)
        elif _occupied(root) and given is None:
            raise ConfigError(f"output = {root}: holds files of others; give another directory with output=...")
        elif (other := _in_place_of_ours(root)) is not None:
            raise ConfigError(
                f"output = {root}: has {other}, which predictions did not write and would replace; "
                "choose another output="
            )
        return Output(root, plain, before=False)
    if stored is not None and stored != plain:
        raise ConfigError(
            f"output = {root}: holds predictions that were made with {_difference(stored, plain)}; choose another "
            "output=, or replace them with overwrite=true"
        )
    if stored is None and _occupied(root):
        raise ConfigError(
            f"output = {root}: is not empty, and nothing of it says that predictions wrote it; choose another output=, "
            "or write into it all the same with overwrite=true"
        )
    return Output(root, plain, before=stored is not None)


def _in_use(root: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a directory is taken by something else than these predictions."""
    if not root.exists():
        return False
    stored = _settings(root)
    return not root.is_dir() or (stored != settings if stored is not None else _occupied(root))


def _settings(root: Path) -> dict[str, Any] | None:
    """The settings of the predictions in a directory; None where there are none. Raises `ConfigError`."""
    path = root / OWN_FILE
    if not path.is_file():
        return None
    try:
        content = read_json(path, "")
    except AdapterError:
        content = {}
    if content.get("schema_version") != SCHEMA_VERSION or not isinstance(content.get("settings"), dict):
        return {"damaged": True}
    stored: dict[str, Any] = content["settings"]
    return stored


def _occupied(root: Path) -> bool:
    return root.is_dir() and any(True for _ in root.iterdir())


def _in_place_of_ours(root: Path) -> str | None:
    """What lies in a directory where predictions would be written, such as the labels of a data set; None if nothing.

    Whatever formats are asked for now: the directory is that of predictions from then on.
    """
    places = [*(Path(one.place).parts[0] for one in FORMATS.values()), RECORDS, PAGE]
    return next((place for place in dict.fromkeys(places) if (root / place).exists()), None)


def _difference(stored: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if stored == {"damaged": True}:
        return f"settings that cannot be read ({OWN_FILE} is damaged)"
    for key in sorted(stored.keys() | now.keys()):
        then, wanted = stored.get(key), now.get(key)
        if then != wanted:
            if isinstance(then, dict) and isinstance(wanted, dict):
                return _difference(then, wanted)
            return f"{key} = {_short(then)}, now it is {_short(wanted)}"
    return "other settings"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}…" if len(text) == 64 and text.isalnum() else text[:80]


def _records(root: Path) -> list[Path]:
    """The records below a directory, in order. Raises `AdapterError` where a folder of them cannot be listed."""
    records = root / RECORDS
    if not records.is_dir():
        return []
    try:
        paths = [folder / name for folder, _, names in walked(records) for name in names if name.endswith(".json")]
    except OSError as error:
        raise AdapterError(f"{error.filename} cannot be listed ({error.strerror}); correct its permissions") from error
    return sorted(paths, key=lambda path: path.as_posix())


def _remove(root: Path) -> None:
    """Remove what predictions have written into a directory, and nothing else; `predictions.json` last."""
    records = root / RECORDS
    for path in _records(root):
        image = read_found(path)
        if image is not None:
            Output(root, {}, before=True).remove(file for files in image.files.values() for file in files)
    shutil.rmtree(records, ignore_errors=True)
    wholes = [one.place for one in FORMATS.values() if one.whole is not None and not one.place.endswith("/")]
    also = [name for one in FORMATS.values() for name in one.also]
    for name in (*wholes, *also, PAGE, OWN_FILE):
        (root / name).unlink(missing_ok=True)
        _remove_empty((root / name).parent, root)


def _remove_empty(folder: Path, root: Path) -> None:
    with suppress(OSError):  # it has other files
        while folder not in (root, root.parent):
            folder.rmdir()
            folder = folder.parent
