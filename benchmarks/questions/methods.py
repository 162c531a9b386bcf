"""Which method gains most, at the same steps on the same few images, and what does it cost?

Every method of `conf/method` is trained on small sets, at the learning rate that served it best on a set that the table
does not have: a rate that suits LoRA leaves others where they began. A cell that is done is kept under `outputs/`, so
that a run that was ended goes on where it was; Ctrl-C ends it early, and the table says how many seeds it has.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.needs import data_directory, packaged_nano
from benchmarks.over_seeds import by_place
from benchmarks.record import ROOT, BenchmarkError, Figure, Outcome, figure
from lora_sam.core.config import from_conf
from lora_sam.core.errors import LoraSamError
from lora_sam.core.files import write_text
from lora_sam.evaluation.over_seeds import mean_over_seeds

QUESTION = "Every method of conf/method at the same steps on four small sets with the packaged nano: gain and cost"
QUICK = False

SEEDS = (0, 1, 2)
SIDE, TRAIN, TEST, OBJECTS, STEPS = 192, 6, 6, 4, 48
DRAWN = {"train": 1000, "val": 1, "side": 256, "labelled": 8}
SETS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "smear": ("data/world_held_out", {**DRAWN, "styles": ["smear"]}),
    "nuclei": ("data/coco", {"root": "nuclei"}),
    "electron": ("data/world_held_out", {**DRAWN, "styles": ["electron"]}),
    "rings": ("data/folder", {"root": "rings"}),
}
"""Files of `conf/`, with what is changed in them; a root lies under $LORA_SAM_DATA."""

VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "lora, rank 1 on q, v": ("lora", {"rank": 1, "alpha": 2.0, "decoder": "frozen"})
}
"""Rows beside those of the files in `conf/method`: of which method, and its changes."""

SMALL = VARIANTS.keys()
OPTIM: Mapping[str, Any] = {
    "lr": 1e-3, "decoder_lr": 2e-4, "pretrained_lr_fraction": 1.0, "warmup_steps": 5, "warmup_fraction": 0.0
}  # fmt: skip
RATES_ON: Sequence[tuple[str, Mapping[str, Any]]] = (("data/drawn_crowded", {}), ("data/drawn_photographic", {}))
"""The sets that learning rates are chosen on, by the mean over both; none is in the table."""

ADDED, OF_THE_BASE = (3e-4, 1e-3, 3e-3, 1e-2), (3e-5, 1e-4, 3e-4, 1e-3)
"""Rates that are tried: of weights that are added, and of those that begin as the base's."""

IN_DECODER = ("decoder", "decoder_tokens", "lora_decoder")
"""Methods that `decoder_lr` is the rate of; that of `decoder` is the decoder's with all others."""

BASE_WEIGHTS = ("decoder", "full", "bitfit", "ln_tuning", "decoder_tokens")

FIRST = ("lora", "full", "decoder")
"""What the others are compared with is measured before them."""

MERGED = 1e-3  # of logits; those of a mask go from about -30 to 30
COUNT, BETTER, SHARE, OF_SETS = 20, 0.01, 0.95, 3


def measure(*, rehearse: bool) -> Outcome:
    """Train and score what is not there yet, then compare."""
    import torch

    from benchmarks.sides.methods import CLICKS, Bench, Sizes

    data, weights = data_directory(), packaged_nano()
    torch.set_num_threads(1)
    sizes = Sizes(side=SIDE, train=TRAIN, test=TEST, objects=OBJECTS, steps=STEPS)
    sets = dict(SETS)
    seeds: tuple[int, ...] = SEEDS
    names, model = list(dict.fromkeys((*FIRST, *VARIANTS, *method_names()))), "nano"
    if rehearse:
        sizes = replace(sizes, side=64, train=2, test=1, objects=2, steps=2)
        sets, seeds, model = {"smear": sets["smear"]}, SEEDS[:1], "tiny_random"
        names = ["lora", "adaptformer", "full", *VARIANTS]
    bench = Bench(model, sizes)
    version = bench.base.sha256[:8]
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) if rehearse else ROOT / "outputs" / "benchmark_methods" / f"{version}-{_asked(sizes)}"
        kept = len(list(place.glob("*-[0-9]-*.json")))
        rates = Rates(bench, place, [_opened(one, data) for one in RATES_ON], 1 if rehearse else None)
        opened = {name: _opened(one, data) for name, one in sets.items()}
        cells = list(_cells(bench, place, names, opened, seeds, rates))
    if not cells:
        raise BenchmarkError("ended before the first cell was done: measure again")
    table = summarised(cells)
    return Outcome(
        settings={
            "threads": 1,
            **asdict(sizes),
            "cells": f"{len(cells)}, of which {kept} were kept from earlier runs",
            "clicks": CLICKS,
            "base": f"{weights.name if not rehearse else model}, SHA-256 {version}",
            "data": {name: [file, dict(changes)] for name, (file, changes) in sets.items()},
            "optim": OPTIM,
            "rates": {"chosen on": [file for file, _ in RATES_ON], **{name: rates(name) for name in table}},
        },
        checks={"merged": merging_of(cells)},
        figures=figures(table),
        details={
            "base": base_of(cells),
            "table": table,
            "rows of the base": {cell["set"]: cell["base"] for cell in cells},
            "cells": [{name: value for name, value in cell.items() if name != "base"} for cell in cells],
        },
    )


def method_names() -> list[str]:
    """All of `conf/method`."""
    return sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml"))


def _opened(described: tuple[str, Mapping[str, Any]], data: Path) -> Any:
    """The set as it is opened."""
    file, changes = described
    rooted = {"root": str(data / changes["root"])} if "root" in changes else {}
    return from_conf(file, **{**changes, **rooted})


def _asked(sizes: Any) -> str:
    """What tells cells of other settings apart."""
    settings = [asdict(sizes), SETS, VARIANTS, OPTIM, RATES_ON, ADDED, OF_THE_BASE]
    return hashlib.sha256(json.dumps(settings, default=dict, sort_keys=True).encode()).hexdigest()[:8]


def described(name: str) -> Any:
    """The method of a row."""
    chosen, changes = VARIANTS.get(name, (name, {}))
    return from_conf(f"method/{chosen}", **changes)


@dataclass
class Rates:
    """The learning rates that serve a method best, chosen once and kept.

    Attributes:
        bench: Trains and scores.
        place: Directory of what is kept.
        options: The sets they are chosen on.
        most: Of how many rates; None for all.
    """

    bench: Any
    place: Path
    options: Sequence[Any]
    most: int | None = None

    def __call__(self, name: str) -> dict[str, float]:
        """Changes of `OPTIM` for a method."""
        file = self.place / f"rate-{file_name(name)}.json"
        if not file.is_file():
            decoder = {} if name == "decoder" else {"decoder_lr": self("decoder")["decoder_lr"]}
            key = "decoder_lr" if name in IN_DECODER else "lr"
            rates = (OF_THE_BASE if name in BASE_WEIGHTS else ADDED)[: self.most]
            sys.stderr.write(f"  the rate of {name}, of {len(rates)}\n")
            scores = {}
            for rate in rates:
                optim = from_conf("optim/adamw", **{**OPTIM, **decoder, key: rate})
                of_sets = [self.bench.boxed(described(name), one, 0, optim) for one in self.options]
                scores[rate] = statistics.fmean(of_sets)
            best = max(scores, key=scores.__getitem__)
            found = {"changes": {**decoder, key: best}, "scores": {str(rate): iou for rate, iou in scores.items()}}
            self.place.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(found) + "\n")
        changes: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))["changes"]
        return changes


def file_name(name: str) -> str:
    """A row as part of the name of a file."""
    return name.replace(" ", "_").replace(",", "")


def _cells(
    bench: Any,
    place: Path,
    names: Sequence[str],
    sets: Mapping[str, Any],
    seeds: Sequence[int],
    rates: Callable[[str], Mapping[str, float]],
) -> Iterator[dict[str, Any]]:
    """Cells by seed, set and method; those that are kept are read. Ends at Ctrl-C with what is there."""
    for seed in seeds:
        for of_set, options in sets.items():
            for name in names:
                file = place / f"{of_set}-{seed}-{file_name(name)}.json"
                if file.is_file():
                    yield json.loads(file.read_text(encoding="utf-8"))
                    continue
                sys.stderr.write(f"  {of_set}, seed {seed}: {name}\n")
                try:
                    base = _base(bench, place, of_set, options, seed)
                    optim = from_conf("optim/adamw", **{**OPTIM, **rates(name)})
                    found = bench.cell(described(name), options, seed, optim)
                except LoraSamError as error:
                    raise BenchmarkError(f"{name} on {of_set}: {error}") from error
                except KeyboardInterrupt:
                    sys.stderr.write("  ended; what is done is kept and counts\n")
                    return
                cell = {"method": name, "set": of_set, "seed": seed, "base": base, **found}
                place.mkdir(parents=True, exist_ok=True)
                write_text(file, json.dumps(cell) + "\n")
                yield cell


def _base(bench: Any, place: Path, of_set: str, options: Any, seed: int) -> list[list[float]]:
    """The scores of the base on a set, measured once."""
    file = place / f"{of_set}-base.json"
    if not file.is_file():
        _, samples = bench.data(options, seed)
        place.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(bench.score(bench.base.sam, samples)) + "\n")
    rows: list[list[float]] = json.loads(file.read_text(encoding="utf-8"))
    return rows


def summarised(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By method what the table shows: gains by set, over all sets, after clicks, and costs."""
    table = {}
    for name in dict.fromkeys(cell["method"] for cell in cells):
        of_method = [cell for cell in cells if cell["method"] == name]
        sets = {
            of_set: _gain([cell for cell in of_method if cell["set"] == of_set])
            for of_set in dict.fromkeys(cell["set"] for cell in of_method)
        }
        first = of_method[0]
        table[name] = {
            "sets": sets,
            "gain": _gain(of_method),
            "clicks": _gain(of_method, 2),
            "trained": first["trained"],
            "bytes": first["bytes"],
            "cpu_seconds": statistics.median(cell["cpu_seconds"] for cell in of_method),
            "folds": all(cell["folds"] for cell in of_method),
            "seeds": min(
                len({cell["seed"] for cell in of_method if cell["set"] == of_set}) for of_set in sets
            ),
        }  # fmt: skip
    return table


def base_of(cells: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean IoU of the base with tight boxes, by set."""
    bases = {cell["set"]: cell["base"] for cell in cells}
    return {
        of_set: sum(count * iou for count, iou, _ in rows) / sum(row[0] for row in rows)
        for of_set, rows in bases.items()
    }


def _gain(cells: Sequence[Mapping[str, Any]], column: int = 1) -> dict[str, Any]:
    """Mean over cells of tuned - base, and its 95 % interval over cells and their images."""
    runs = [
        by_place(
            [(tuned[0], tuned[column] - base[column]) for tuned, base in zip(cell["rows"], cell["base"], strict=True)],
            cell["set"],
        )
        for cell in cells
    ]
    mean, (low, high) = mean_over_seeds(runs, 0)
    return {"mean": mean, "low": low, "high": high, "runs": len(runs)}


def merging_of(cells: Sequence[Mapping[str, Any]]) -> str:
    """What the merged models were found to compute. Raises `BenchmarkError` where one computes something else."""
    worst = max(cells, key=lambda cell: float(cell["merge_difference"]))
    if worst["merge_difference"] > MERGED:
        raise BenchmarkError(
            f"{worst['method']} on {worst['set']}: merged logits differ by {worst['merge_difference']:.1e}"
        )
    return f"logits of {len(cells)} merged models differ by {worst['merge_difference']:.1e} at most ({worst['method']})"


def figures(table: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """The bars, then the mean gain of each method."""
    sets = list(table["lora"]["sets"])

    def gain(name: str, of_set: str) -> float | None:
        found = table[name]["sets"].get(of_set)
        return None if found is None else float(found["mean"])

    def better(name: str) -> int:
        pairs = ((gain(name, one), gain("lora", one)) for one in sets)
        return sum(mine is not None and lora is not None and mine >= lora + BETTER for mine, lora in pairs)

    mergeable = [name for name, row in table.items() if row["folds"] and name != "full"]
    best = max(mergeable, key=lambda name: (better(name), table[name]["gain"]["mean"]))
    result = [
        figure("methods", "methods compared", len(table), relation=">=", limit=COUNT),
        figure(
            "better_than_lora",
            f"sets on which a method that folds gains at least 1 point more than `lora`: {best}",
            better(best),
            relation=">=",
            limit=OF_SETS,
        ),
    ]
    small, full = next(iter(SMALL)), "full"
    if small in table and full in table:
        shares = {one: _share(gain(small, one), gain(full, one)) for one in sets}
        told = ", ".join(f"{one} {'–' if share is None else f'{share:.0%}'}" for one, share in shares.items())
        result.append(
            figure(
                "rank_1",
                f"sets on which rank 1 on q, v ({table[small]['trained']:,} weights) has at least 95 % of the gain of "
                f"full fine-tuning: {told}",
                sum(share is not None and share >= SHARE for share in shares.values()),
                relation=">=",
                limit=OF_SETS,
            )
        )
    for name, row in sorted(table.items(), key=lambda item: -item[1]["gain"]["mean"]):
        mean = row["gain"]
        result.append(
            figure(
                f"gain_{name.replace(', ', '_').replace(' ', '_')}",
                f"{name}: test IoU tuned − base, mean over sets",
                mean["mean"],
                interval=(mean["low"], mean["high"]),
            )
        )
    return result


def _share(small: float | None, full: float | None) -> float | None:
    """Of the gain of full fine-tuning; None where that has none."""
    return None if small is None or full is None or full <= 0 else small / full
