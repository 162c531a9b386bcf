"""Is anything lost, half there, mixed up or wrong in silence when something goes wrong?"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.processes import run_side
from benchmarks.record import Figure, Outcome, figure

QUESTION = "Kills, stops, flipped bits, bad disks, many clients and large images: what is lost, and what is silent?"
QUICK = False

# tries and seconds of each part; seconds are a bound, since the machine may be busy
PARTS: dict[str, tuple[int, float]] = {
    "kills": (340, 1560.0),
    "resumes": (40, 800.0),
    "flips": (210, 450.0),
    "disks": (35, 310.0),
    "clients": (20, 60.0),
    "peaks": (1, 120.0),
}
REHEARSED: dict[str, tuple[int, float]] = {
    "kills": (16, 120.0),
    "resumes": (2, 60.0),
    "flips": (14, 60.0),
    "disks": (8, 60.0),
    "clients": (4, 4.0),
    "peaks": (1, 60.0),
}
MOST_MIB = 1536
# those of a line run one after the other, the lines of BESIDE at once; ALONE is what times or weighs something
BESIDE = (("kills",), ("resumes", "flips", "disks"))
ALONE = ("clients", "peaks")
# what says nothing unless something else was counted
NEEDS = {"same directory": "runs in the same second"}
# what must never be counted, by part
NEVER: dict[str, dict[str, str]] = {
    "kills": {
        "lost": "results that were lost or half there after a kill",
        "other bits": "runs with other bits after a kill",
        "leftovers": "what was left for good after the next success",
        "broken": "parts that could not be tried",
    },
    "resumes": {
        "other bits": "pairs whose bits differ",
        "not resumed": "stopped runs that could not go on",
        "not stopped": "signals that saved nothing",
        "broken": "kinds of runs that could not be tried",
    },
    "flips": {
        "silent": "flipped bits that changed a result without a word",
        "crashed": "flipped bits that ended in a traceback",
        "broken": "artefacts that could not be tried",
    },
    "disks": {
        "lost": "results that were lost on a bad disk",
        "crashed": "commands that ended in more than a line",
        "leftovers": "what was left on a bad disk",
        "not mended": "commands that did not work once there was room",
        "same directory": "runs that shared a directory",
        "broken": "commands that could not be tried",
    },
    "clients": {
        "wrong masks": "answers with masks that a client alone does not get",
        "another session's image": "answers about another client's image",
        "broken": "clients that could not be tried",
    },
    "peaks": {"crashed": "what was too large", "broken": "parts that could not be tried"},
}


def measure(*, rehearse: bool) -> Outcome:
    """Each part in a process of its own with one thread, two at once where nothing is timed or weighed."""
    parts = REHEARSED if rehearse else PARTS
    found: dict[str, Any] = {}
    spent: dict[str, float] = {}

    def try_all(names: tuple[str, ...]) -> None:
        for name in names:
            tries, seconds = parts[name]
            sys.stderr.write(f"  {name}: {tries} tries in at most {seconds:.0f} s\n")
            start = time.perf_counter()
            found[name] = run_side("reliability", [name, "--tries", str(tries), "--seconds", str(seconds)], threads=1)
            spent[name] = round(time.perf_counter() - start, 1)

    with ThreadPoolExecutor(len(BESIDE)) as lines:
        list(lines.map(try_all, BESIDE))
    try_all(ALONE)
    return Outcome(
        settings={
            "model": "tiny_random",
            "parts": {name: {"tries": tries, "seconds": seconds} for name, (tries, seconds) in parts.items()},
            "part": "python -m benchmarks.sides.reliability <part> --tries N --seconds S",
            "clients": "threads at the workbench of the app; the page before it is driven by the benchmark app",
        },
        checks={
            "every kill": "leaves what a reader takes for whole; after each a run goes on or begins anew and ends with "
            "the bits of one that was left alone, and a step succeeds after all of its kills",
            "every flip": "is compared with what the sound file gives",
        },
        figures=figures({name: one["counts"] for name, one in found.items()}),
        details={"found": found, "seconds": spent},
    )


def figures(counts: dict[str, dict[str, int]]) -> list[Figure]:
    """How often each thing was tried, and how often it went wrong."""
    tried = [
        figure("kills", "kill -9 at a rename, exchange, fsync or mkdir, or at random",
               counts["kills"].get("kills", 0), limit=250, relation=">="),
        figure("pairs", "runs that were stopped and went on",
               counts["resumes"].get("pairs", 0), limit=40, relation=">="),
        figure("flips", "bits flipped in what was written", counts["flips"].get("flips", 0), limit=200, relation=">="),
        figure("artefacts", "kinds of files they were flipped in", counts["flips"].get("kinds of artefacts", 0),
               limit=12, relation=">="),
        figure("disks", "commands on a full or read-only disk", counts["disks"].get("commands on a bad disk", 0)),
        figure("second", "runs that were started at once", counts["disks"].get("runs in the same second", 0)),
        figure("builders", "runs that were stopped while they filled a cache that others use",
               counts["disks"].get("stopped builders", 0)),
        figure("clients", "clients of the app at once", counts["clients"].get("clients", 0), limit=20, relation=">="),
        figure("answers", "answers they got", counts["clients"].get("answers", 0)),
    ]  # fmt: skip
    wrong = [
        figure(f"{part}_{name}".replace(" ", "_").replace("'", ""), what, counts[part].get(name, 0), limit=0)
        for part, names in NEVER.items()
        for name, what in names.items()
        if name not in NEEDS or counts[part].get(NEEDS[name], 0)
    ]
    delayed = counts["disks"].get("seconds that a stopped builder delayed another run")
    if delayed is not None:
        wrong.append(figure("delayed", "a run beside one that was stopped while it filled the same cache, longer by",
                            delayed, unit="s", limit=30))  # fmt: skip
    memory = [counts["clients"].get(f"MiB of memory {when}", 0) for when in ("after half of the answers", "at the end")]
    wrong.append(figure("growth", "memory of the app, second half of the answers", memory[1] - memory[0], unit="MiB"))
    peaks = [(name, value) for name, value in counts["peaks"].items() if name.startswith("MiB above the model: ")]
    for number, (name, value) in enumerate(peaks):
        limit = MOST_MIB if "boxes" in name or "objects" in name else None
        what = f"memory above the model: {name.partition(': ')[2]}"
        wrong.append(figure(f"peak_{number}", what, value, unit="MiB", limit=limit))
    return [*tried, *wrong]
