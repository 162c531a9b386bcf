"""How a data set is damaged: an attack, and the pieces that attacks are made of."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attack_sets as sets
import numpy as np
from PIL import Image

DEEP = 10**5
NAN, INF = float("nan"), float("inf")
Damage = Callable[[Path], None]


@dataclass(frozen=True)
class Attack:
    """What is done to a data set of a format, what the message must name, and options beside those of conf/."""

    format: str
    title: str
    damage: Damage
    names: str
    options: tuple[tuple[str, Any], ...] = ()


ATTACKS: list[Attack] = []


def attack(kind: str, title: str, damage: Damage, names: str, **options: Any) -> None:
    ATTACKS.append(Attack(kind, title, damage, names, tuple(options.items())))


def edited(file: str, change: Callable[[Any], Any]) -> Damage:
    def damage(root: Path) -> None:
        content = json.loads((root / file).read_text())
        changed = change(content)
        (root / file).write_text(json.dumps(content if changed is None else changed))

    return damage


def replaced(file: str, content: bytes | str | Callable[[], str]) -> Damage:
    """With `content` in place of a file; what is large is made when it is needed."""
    return lambda root: sets.save(root / file, content() if callable(content) else content)


def linked(file: str, target: str) -> Damage:
    def damage(root: Path) -> None:
        (root / file).unlink()
        (root / file).symlink_to(target)

    return damage


def encoded(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def blank_png(width: int, height: int, depth: int = 1, colour: int = 0, extra: bytes = b"") -> bytes:
    """A PNG of zeros, made without an array of that size; wider than it says how much is there."""
    packed = zlib.compressobj(1)
    line = b"\0" * (1 + (width * depth * {0: 1, 2: 3, 6: 4}[colour] + 7) // 8)
    body = b"".join(packed.compress(line) for _ in range(min(height, 8000))) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def relink(root: Path, folder: str, target: str) -> None:
    shutil.rmtree(root / folder)
    (root / folder).symlink_to(target)


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00", length: int | None = None) -> bytes:
    text = header.encode("latin-1")
    size = len(text) if length is None else length
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\x01\x00" else "<I", size) + text + body
