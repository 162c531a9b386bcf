"""How long does it take to open 118,000 images with 860,000 objects, and in how much memory?"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.processes import run_side
from benchmarks.record import BenchmarkError, Outcome, figure

QUESTION = "How long does opening and checking COCO instances of 118,000 images / 860,000 objects take?"
QUICK = False

IMAGES, OBJECTS = 118_000, 860_000
LIMIT_SECONDS = 60
LIMIT_GIB = 4
_CATEGORIES = 80


def measure(*, rehearse: bool) -> Outcome:
    """Write a set with polygons as large as COCO's, open it with `check=header`, and have pycocotools index it too.

    Every polygon is checked and rasterised and the header of every image read; pycocotools' index does neither.
    """
    images, objects = (40, 300) if rehearse else (IMAGES, OBJECTS)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "set"
        arguments = ["write", str(root), "--images", str(images), "--objects", str(objects)]
        written = run_side("index_coco", arguments, threads=1)
        ours = run_side("index_coco", ["open", str(root)], threads=1)
        theirs = run_side("index_coco", ["pycocotools", str(root)], threads=1)
    if (ours["objects"], theirs["objects"]) != (objects, objects):
        raise BenchmarkError(f"{objects} objects were written, {ours['objects']} opened, {theirs['objects']} indexed")
    if ours["images"] != written["labelled_images"]:
        raise BenchmarkError(f"{written['labelled_images']} images have objects, {ours['images']} were opened")
    gib = 2**30
    figures = [
        figure("seconds", "opened and checked", ours["seconds"], unit="s", limit=None if rehearse else LIMIT_SECONDS),
        figure("memory", "largest memory of the process", ours["peak_bytes"] / gib, unit="GiB", limit=LIMIT_GIB),
        figure("per_object", "time per object", 1e6 * ours["seconds"] / objects, unit="µs"),
        figure("pycocotools", "pycocotools: parsed and indexed, nothing checked", theirs["seconds"], unit="s"),
        figure("pycocotools_memory", "pycocotools: its memory", theirs["peak_bytes"] / gib, unit="GiB"),
    ]
    return Outcome(
        settings={
            "images": images,
            "objects": objects,
            "annotation_bytes": written["bytes"],
            "vertices_per_object": round(written["vertices"] / objects, 1),
            "check": "header",
        },
        checks={
            "objects": f"{objects:,} opened, as many as written and as pycocotools indexes",
            "images": f"{ours['images']:,} opened, all that have an object; a JPEG header was read for each",
            "classes": f"{ours['classes']} of {_CATEGORIES}",
        },
        figures=figures,
        details={"ours": ours, "pycocotools": theirs},
    )
