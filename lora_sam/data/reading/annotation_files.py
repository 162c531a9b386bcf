"""JSON annotation files from anywhere: parsed within limits, and the values in them that formats share."""

from __future__ import annotations

import gc
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lora_sam.core.errors import DataError
from lora_sam.data.reading.numbers import is_number
from lora_sam.data.reading.paths import is_text, shown

MAX_ANNOTATION_BYTES = 2 * 2**30
"""Larger annotation files are refused before they are read."""

MAX_TEXT_BYTES = 2**20
"""Larger texts are refused before they are read, unless the format has large ones."""

_BOX_SLACK = 1.0  # pixels by which a bounding box may leave the image: tools round differently


def parsed_json(file: Path, lists: tuple[str, ...], what: str) -> dict[str, Any]:
    """The mapping in a JSON file.

    Args:
        file: The file.
        lists: Keys that it must have, each with a list.
        what: What the file should be, for the message.

    Raises:
        DataError: it cannot be read, is too large, is not JSON in UTF-8, has a key twice in a mapping, or lacks one of
            `lists`.
    """
    content = any_json(file)
    for key in lists:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(
                f'{file}: has no list "{key}"; it must be {what}: export the annotations again.', "bad_annotation"
            )
    return content  # type: ignore[no-any-return]


def any_json(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it cannot be read, is too large, is not JSON in UTF-8, or has a key twice in a mapping.
    """
    try:
        if not file.is_file():
            raise DataError(
                f"{file}: is not a regular file; put the annotations there, or correct its name.", "missing_file"
            )
        if file.stat().st_size > MAX_ANNOTATION_BYTES:
            limit = MAX_ANNOTATION_BYTES // 2**30
            raise DataError(
                f"{file}: is larger than {limit} GiB; split the data set, or store masks as compressed RLE.",
                "too_large",
            )
        stored = file.read_bytes()
        return json.loads(stored.decode(json.detect_encoding(stored)), object_pairs_hook=without_repeats)
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror}); check its permissions.", "unreadable_file"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: is not valid JSON ({error}); export the annotations again.", "bad_annotation"
        ) from error
    except MemoryError as error:
        raise DataError(f"{file}: does not fit into memory; split the data set into several.", "too_large") from error


@contextmanager
def without_collecting() -> Iterator[None]:
    """No garbage collection meanwhile: it would go through millions of parsed values again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def identifier_of(entry: object, key: str) -> str | None:
    """An id as text, so that 7 and "7" are one; None when there is none."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if type(value) is float and value.is_integer():  # as spreadsheets and data frames write whole numbers
        value = int(value)
    return str(value) if type(value) is int or (isinstance(value, str) and value and is_text(value)) else None


def whole(value: object) -> int | None:
    """A positive whole number, also when a tool wrote it as 640.0; None for anything else."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and value > 0 else None


def check_box(box: object, size: tuple[int, int], owner: str) -> None:
    """Refuse a box [x, y, width, height] that is not one, or lies outside the image.

    Args:
        box: As it was found; None is no box, and passes.
        size: (height, width) of the image in pixels.
        owner: Whose box, for the message.

    Raises:
        DataError: it is not four finite numbers, has a negative side, or leaves the image by more than a pixel.
    """
    if box is None:
        return
    height, width = size
    numbers = [value for value in box if is_number(value)] if isinstance(box, list) and len(box) == 4 else []
    if len(numbers) != 4 or min(numbers[2:]) < 0:
        raise DataError(
            f"{owner} has the box {shown(box)}; it takes four finite numbers [x, y, width, height].", "bad_box"
        )
    x, y, w, h = numbers
    if x < -_BOX_SLACK or y < -_BOX_SLACK or x + w > width + _BOX_SLACK or y + h > height + _BOX_SLACK:
        raise DataError(
            f"{owner} has a box outside the image: {shown(box)} (x, y, width, height) in {width}x{height} pixels; "
            "correct it, or check that the image was not scaled after labelling.",
            "bad_box",
        )


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping for `json.loads`, which itself would keep the last of equal keys and lose the labels under the others.

    Raises:
        ValueError: a key is there twice.
    """
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        repeated = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {shown(repeated)} is there twice in one mapping")
    return mapping


_UTF_16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_END_BYTES = 2**18  # bytes at either end; keys come in any order, but the short ones are at one of the ends

_COCO_KEY = re.compile(rb'"(?:images|annotations)"\s*:\s*\[')
_COCO_ENTRY = re.compile(rb'"(?:file_name|image_id|iscrowd)"\s*:')
_DATUMARO_KEY = re.compile(rb'"(?:items)"\s*:\s*\[')
_DATUMARO_HEAD = re.compile(rb'"(?:dm_format_version|media_type|infos)"\s*:|"categories"\s*:\s*\{')
_ONE_IMAGE = re.compile(rb'"image"\s*:\s*\{')
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')


def json_kind(file: Path) -> Literal["coco", "datumaro"] | None:
    """Which annotation format a JSON file seems to be in; None for any other, and for what cannot be read."""
    text = ends_of(file)
    if _DATUMARO_KEY.search(text) and _DATUMARO_HEAD.search(text):
        return "datumaro"
    # Label Studio's list of tasks, and SA-1B's file for each image, have annotations too
    if text.lstrip(b" \t\r\n").startswith(b"[") or (_ONE_IMAGE.search(text) and b'"images"' not in text):
        return None
    whole = len(text) < _END_BYTES
    both = all(key in text for key in (b'"images"', b'"annotations"'))
    return "coco" if _COCO_KEY.search(text) and (both if whole else _COCO_ENTRY.search(text)) else None


def first_file_name(file: Path) -> str | None:
    """Some image's name in a COCO file; None where none is found."""
    match = _FILE_NAME.search(ends_of(file))
    try:
        name = None if match is None else json.loads(match[1])
    except ValueError:
        return None
    return name if isinstance(name, str) else None


def ends_of(file: Path) -> bytes:
    """The beginning and the end of a file; nothing of what cannot be read."""
    try:
        if not file.is_file():  # a pipe would wait for ever
            return b""
        with file.open("rb") as opened:
            text = opened.read(_END_BYTES)
            wide = _UTF_16.get(text[:2])  # as PowerShell writes
            text = _narrow(text, wide).removeprefix(b"\xef\xbb\xbf")
            size = file.stat().st_size
            if size > _END_BYTES:
                opened.seek(max(_END_BYTES, size - _END_BYTES) // 2 * 2)
                text += b"\n" + _narrow(opened.read(_END_BYTES), wide)
    except OSError:
        return b""
    return text


def _narrow(text: bytes, encoding: str | None) -> bytes:
    return text if encoding is None else text.decode(encoding, "ignore").encode("utf-8", "ignore")


def read_lines(file: Path, most: int | None = None) -> list[str]:
    """The lines of a UTF-8 text. Raises `DataError` where it is none, or has over `most` bytes (`MAX_TEXT_BYTES`)."""
    most = MAX_TEXT_BYTES if most is None else most
    try:
        if not file.is_file():
            raise DataError(f"{file}: is not a regular file; restore it.", "missing_file")
        if file.stat().st_size > most:
            raise DataError(f"{file}: is larger than {most // 2**20} MiB; is it the right file?", "too_large")
        return file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror}); check its permissions.", "unreadable_file"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: is not UTF-8 text (byte {error.start}); save it as UTF-8.", "unreadable_file"
        ) from error
