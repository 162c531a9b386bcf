"""Attacks in images, mask files and arrays."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import attack_sets as sets
import numpy as np
from attack_tools import attack, blank_png, chunk, encoded, linked, npy, relink, replaced
from PIL import Image

PIXELS = sets.SIZE[0] * sets.SIZE[1]


def picture_attacks() -> None:
    places = {
        "coco": ("images/train/p1.png",),
        "datumaro": ("images/train/p1.png",),
        "folder": ("train/images/p1.png", "train/masks/p1.png"),
        "labels": ("train/images/p1.png", "train/labels/p1.png"),
        "common_semantic": ("train/images/p1.png", "train/masks/p1.png"),
        "voc": ("JPEGImages/p1.png", "SegmentationObject/p1.png", "SegmentationClass/p1.png"),
    }
    good = sets.png(sets.picture(1))
    contents = {
        "truncated": good[:-300],
        "only a header": good[:33],
        "empty": b"",
        "text": b"not a picture",
        "of a billion pixels": blank_png(40_000, 40_000),
        "of 64 megapixels": blank_png(8000, 8000, 8, 2),
        "with text that expands": blank_png(30, 20, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(b"0" * 10**8, 1))),
        "without sides": blank_png(1, 1)[:16] + struct.pack(">II", 0, 0) + blank_png(1, 1)[24:],
    }
    for kind, files in places.items():
        for file in files:
            for title, content in contents.items():
                attack(kind, f"{file} {title}", replaced(file, content), "p1")
    several = encoded(sets.label_map(), format="TIFF", save_all=True, append_images=[Image.new("L", (30, 20))])
    for title, content in {
        "of several pages": several,
        "of fractions": encoded(np.full(sets.SIZE, 0.5, np.float32), format="TIFF"),
        "of colours": encoded(sets.picture(0)),
        "that is a JPEG": encoded(sets.label_map(), format="JPEG"),
        "of another size": encoded(np.ones((30, 20), np.uint8)),
    }.items():
        attack("labels", f"a label image {title}", replaced("train/labels/p1.png", content), "p1")
        if title != "that is a JPEG":
            attack("folder", f"a mask {title}", replaced("train/masks/p1.png", content), "p1")
    for kind, file in (
        ("folder", "train/masks/p1.png"),
        ("labels", "train/images/p1.png"),
        ("voc", "JPEGImages/p1.png"),
    ):
        attack(kind, f"{file} links out", linked(file, "/etc/hostname"), "p1")
        attack(kind, f"{file} links to itself", linked(file, "p1.png"), "p1")
        if (kind, file) != ("folder", "train/masks/p1.png"):  # an image without a mask is left out
            attack(kind, f"{file} is absent", lambda root, f=file: (root / f).unlink(), "p1")

    def pipe(root: Path) -> None:
        (root / "train/masks/p1.png").unlink()
        os.mkfifo(root / "train/masks/p1.png")

    attack("folder", "a mask that is a pipe", pipe, "p1")
    attack("folder", "a folder that links to itself", lambda root: relink(root, "train/masks", "masks"), "masks")
    attack("folder", "a folder out of the root", lambda root: relink(root, "train/masks", "/etc"), "masks")

    def misnamed(root: Path) -> None:
        for part in ("images", "masks"):
            folder = os.fsencode(root / "train" / part)
            os.rename(folder + b"/p1.png", folder + b"/p\xff.png")

    attack("folder", "a name that is not UTF-8", misnamed, r"udcff|\\xff|�")


def array_attacks() -> None:
    pickled = io.BytesIO()
    np.save(pickled, np.array([os.system, {"a": 1}], dtype=object), allow_pickle=True)
    shape = "'fortran_order': False, 'shape': (20, 30), }"
    zeros = b"\0" * PIXELS
    for title, content in {
        "with a pickle": pickled.getvalue(),
        "that is a pickle": b"cposix\nsystem\n(S'true'\ntR.",
        "of objects": npy("{'descr': '|O', " + shape, zeros),
        "of records": npy("{'descr': [('a', '<i4')], " + shape, zeros * 4),
        "of fractions": npy("{'descr': '<f8', " + shape, np.full(len(zeros), 0.5).tobytes()),
        "of a huge shape": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 1000000000), }"),
        "of a negative shape": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-20, 30), }", zeros),
        "of three dimensions": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (20, 30, 1), }", zeros),
        "of true sides": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (True, True), }", b"\1"),
        "that calls a function": npy("__import__('os').system('true')"),
        "of nested brackets": npy("(" * 3000),
        "of a long header": npy(" " * 60_000),
        "with a header without end": npy("{}", version=b"\x02\x00", length=2**32 - 1),
        "of another version": npy("{'descr': '|u1', " + shape, zeros, version=b"\x09\x09"),
        "cut off": npy("{'descr': '|u1', " + shape, zeros[:-1]),
        "with more behind": npy("{'descr': '|u1', " + shape, zeros + b"\0"),
        "of negative values": npy("{'descr': '|i1', " + shape, b"\xf0" * PIXELS),
        "that is an archive": b"PK\x03\x04" + zeros,
        "empty": b"",
    }.items():
        attack("labels", f".npy {title}", replaced("train/labels/p2.npy", content), "p2")
