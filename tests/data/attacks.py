"""Damages data sets in every format and opens them, in one process with little memory; writes what came of it as JSON.

`python tests/data/attacks.py <empty directory>`
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import re
import resource
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import attack_sets as sets
from attack_annotations import COCO_FILE, DATUMARO_FILE, class_attacks, json_attacks, table_attacks, xml_attacks
from attack_layouts import TOOLS, layout_attacks
from attack_pictures import array_attacks, picture_attacks
from attack_tools import ATTACKS, Damage, replaced
from attack_volumes import VOLUMES, volume_attacks
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lora_sam.core.errors import DataError

ADDRESS_SPACE = 6 * 2**30
NEEDS = {
    "hf": "datasets", "hf_disk": "datasets", "voc": "defusedxml", "cvat": "defusedxml", "labels_of_nifti": "nibabel",
}  # fmt: skip
FORMATS = [name for name in sets.WRITERS if importlib.util.find_spec(NEEDS.get(name, "numpy"))]
ALL = [*FORMATS, *(name for name in TOOLS | VOLUMES if importlib.util.find_spec(NEEDS.get(name, "numpy")))]


class Arena:
    """Opens damaged copies of the data sets, and notes what came of it, how long it took and what it needed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.results: list[dict[str, Any]] = []
        for name in (*ALL, *FORMATS[-1:]):  # notes are counted of the last
            (root / "good" / name).mkdir(parents=True, exist_ok=True)
            (sets.WRITERS | TOOLS | VOLUMES)[name](root / "good" / name)
            options = {"slices": "middle"} if name in VOLUMES else {}
            splits = sets.opened(name, root / "good" / name, **options)
            assert images_and_objects(splits) == (sets.IMAGES, sets.OBJECTS), (name, images_and_objects(splits))
            self.notes = len(splits.notes)

    def opens(self, name: str, title: str, damage: Damage, **options: Any) -> tuple[str, Any]:
        """The message of the `DataError`, or "" and the splits; anything else is a fault."""
        copy = self.root / "copy"
        shutil.copytree(self.root / "good" / name, copy)
        splits, message, fault = None, "", ""
        try:
            damage(copy)
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)  # so that the peak is that of the reader
            Path("/proc/self/clear_refs").write_text("5")
            before = _of_status("VmRSS")
            began = time.process_time()
            try:
                splits = sets.opened(name, copy, **options)
                for source in (splits.train, splits.val, splits.test):
                    for index in range(len(source)):
                        str(source[index].id).encode()
            except DataError as error:
                message = str(error)
            except Exception:  # the fault that is looked for
                fault = traceback.format_exc(limit=-6)
            seconds = time.process_time() - began  # of the processor: others may use it too
            peak = _of_status("VmHWM") - before
        finally:
            shutil.rmtree(copy)
        result = {"format": name, "title": title, "message": message, "fault": fault, "seconds": seconds, "peak": peak}
        self.results.append(result)
        return message, splits


def _of_status(name: str) -> float:
    """A figure of /proc/self/status, in MiB."""
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0]) / 1024


def images_and_objects(splits: Any) -> tuple[int, int]:
    sources = [splits.train, splits.val, splits.test]
    return sum(map(len, sources)), sum(sum(source.object_counts) for source in sources)


def named_attacks(arena: Arena) -> None:
    for build in (
        json_attacks,
        picture_attacks,
        array_attacks,
        xml_attacks,
        class_attacks,
        table_attacks,
        layout_attacks,
        volume_attacks,
    ):
        build()
    gc.freeze()
    for one in [one for one in ATTACKS if one.format in ALL]:
        print(f"{one.format}: {one.title}", file=sys.stderr, flush=True)
        message, splits = arena.opens(one.format, one.title, one.damage, **dict(one.options))
        result = arena.results[-1]
        if splits is not None:
            if not (one.title.startswith("id of nested") and one.format == "datumaro"):
                result["fault"] = f"opened, with the notes {splits.notes}"
        elif not result["fault"] and not re.search(one.names, message):
            result["fault"] = f"the message does not name {one.names}"


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["../x", "/etc/passwd", "\ud800", "1", "p1.png", "bbox", "mask"]),
    st.recursive(st.integers(0, 30) | st.floats(), lambda inner: st.lists(inner, max_size=5), max_leaves=8),
    st.dictionaries(st.sampled_from(["size", "counts", "id", "name", "path"]), st.integers(0, 600), max_size=3),
)
JSON_FILES = {
    "coco": COCO_FILE,
    "datumaro": DATUMARO_FILE,
    "common_semantic": "dataset_meta.json",
    "hf_disk": "state.json",
}


def places_in(content: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place] * bool(place) + [found for key, value in entries for found in places_in(value, (*place, key))]


def drawn_attacks(arena: Arena, values: int, damages: int) -> None:
    """Junk in place of any value of any JSON file, and damaged bytes in any file."""
    quiet = {"database": None, "deadline": None, "derandomize": True, "phases": (Phase.generate,)}
    checks = list(HealthCheck)

    @settings(max_examples=values, suppress_health_check=checks, **quiet)
    @given(st.data())
    def junk(data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(JSON_FILES.keys() & set(FORMATS))))
        content = json.loads((arena.root / "good" / name / JSON_FILES[name]).read_text())
        place = data.draw(st.sampled_from(places_in(content)))
        value = data.draw(JUNK)
        parent = content
        for key in place[:-1]:
            parent = parent[key]
        if isinstance(parent, dict) and data.draw(st.integers(0, 3)) == 0:
            del parent[place[-1]]
        else:
            parent[place[-1]] = value
        text = json.dumps(content)
        _, splits = arena.opens(name, f"{place} = {value!r}", replaced(JSON_FILES[name], text))
        dropped(arena, splits, sets.OBJECTS)

    @settings(max_examples=damages, suppress_health_check=checks, **quiet)
    @given(st.data())
    def bytes_(data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(FORMATS))
        good = arena.root / "good" / name
        files = sorted(path.relative_to(good).as_posix() for path in good.rglob("*") if path.is_file())
        file = data.draw(st.sampled_from(files))
        content = bytearray((good / file).read_bytes())
        where = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["cut", "flip", "insert", "zero"]))
        if how == "cut":
            content = content[:where]
        elif how == "flip":
            content[where] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "insert":
            content[where:where] = data.draw(st.binary(min_size=1, max_size=20))
        else:
            content[where : where + 16] = bytes(len(content[where : where + 16]))
        _, splits = arena.opens(name, f"{file}: {how} at {where}", replaced(file, bytes(content)))
        dropped(arena, splits, None)

    def dropped(arena: Arena, splits: Any, objects: int | None) -> None:
        """What was opened has everything, or says what it left out."""
        if splits is not None and len(splits.notes) <= arena.notes:
            images, found = images_and_objects(splits)
            if images != sets.IMAGES or (objects is not None and found != objects):
                arena.results[-1]["fault"] = f"opened with {images} images and {found} objects, without a note"

    junk()
    bytes_()


def main(root: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    arena = Arena(root)
    gc.freeze()  # what was imported is not looked at again and again
    named_attacks(arena)
    named = len(arena.results)
    drawn_attacks(arena, 120, 80)
    json.dump({"named": named, "results": arena.results}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
