"""Runs beside each other, ranked by what chose their weights, with what differs between them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lora_sam.app.runs import Run, configuration
from lora_sam.core.chosen import OPTION
from lora_sam.core.errors import LoraSamError
from lora_sam.report.sweep_table import letter_of
from lora_sam.runs.adapter_files import adapter_bytes, method_typed
from lora_sam.runs.resuming import flat
from lora_sam.runs.sweep_sets import measured

_MOST_VARIED = 8
# paths, limits of the machine, and what only shows
_NOT_VARIED = frozenset(("cache", "tracker", "resume", "evaluate_automatic", "evaluate_clicks", "evaluate_images"))
LEADERBOARD = (
    "run",
    "validation IoU",
    "base IoU",
    "tuned IoU",
    "difference",
    "95 % interval",
    "model",
    "method",
    "what differs",
    "weights trained",
    "adapter MB",
    "minutes",
    "split",
)


def leaderboard(runs: Sequence[Run]) -> list[list[Any]]:
    """One row per run with the columns `LEADERBOARD`, the best validation IoU first; runs without one last.

    The split of the final table is not what chooses: who picks the best of many by it flatters it. Runs that validated
    on other images or prompts are ranked apart, those of the first run first, with a letter before the figure.
    """
    rows = []
    reports = {run.name: run.report for run in runs}
    keys = {name: measured(report) for name, report in reports.items() if report is not None}
    sets = list(dict.fromkeys(key for key in keys.values() if key is not None))
    differing = varied(runs)
    for run in runs:
        try:
            facts = run.facts
            size = f"{adapter_bytes(run.directory.adapter) / 1e6:.2f}"
        except (LoraSamError, OSError):
            continue
        model, method = facts["architecture"].get("variant", "?"), method_typed(facts)
        report, different = reports[run.name], differing.get(run.name, "")
        validated, key = facts.get("validation_iou"), keys.get(run.name)
        place = len(sets) if key is None else sets.index(key)
        rank, shown = (-1.0, "") if validated is None else (float(validated), f"{validated:.3f}")
        if key is not None and len(sets) > 1:
            shown = f"{letter_of(place + 1)} {shown}"
        if report is None:
            head = [run.name, shown, "", "not evaluated", "", "", model, method]
            rows.append((place, rank, [*head, different, "", size, "", ""]))
            continue
        delta, (low, high) = report["delta"]["iou"], report["delta"]["iou_interval"]
        rows.append(
            (
                place,
                rank,
                [
                    run.name, shown, f"{report['base']['iou']:.3f}", f"{report['tuned']['iou']:.3f}",
                    f"{delta:+.3f}", f"{low:+.3f} to {high:+.3f}", model, method, different,
                    f"{report['trainable_parameters']:,}", size, f"{report['seconds'] / 60:.1f}", report["split"],
                ],
            )
        )  # fmt: skip
    return [row for *_, row in sorted(rows, key=lambda one: (one[0], -one[1]))]


def varied(runs: Sequence[Run]) -> dict[str, str]:
    """What differs between the configurations of runs, as `key=value`, by the name of a run."""
    found = {run.name: config for run in runs if (config := configuration(run)) is not None}
    configs = {name: flat(config) for name, config in found.items()}
    keys = sorted({key for values in configs.values() for key in values if key.split(".")[0] not in _NOT_VARIED})
    told: dict[str, list[str]] = {name: [] for name in configs}
    apart: tuple[str, ...] = ()
    for key in keys:
        if key.startswith(apart):
            continue
        if key.endswith("_target_"):
            kinds = {name: str(values.get(key)).rpartition(".")[2] for name, values in configs.items()}
            group = key.rpartition("_target_")[0]
            if len(set(kinds.values())) > 1 and group:
                apart = (*apart, group)  # of another kind, with keys of its own
                for name, kind in kinds.items():
                    chosen = found[name].get(group[:-1])
                    typed = chosen.get(OPTION) if isinstance(chosen, dict) else None
                    told[name].append(f"{group[:-1]}: {kind}" if typed is None else f"{group[:-1]}={typed}")
            continue
        if len({json.dumps(values.get(key)) for values in configs.values()}) > 1:
            for name, values in configs.items():
                if key in values:
                    told[name].append(f"{key}={_plain(values[key])}")
    return {
        name: " ".join(words[:_MOST_VARIED]) + (" …" if len(words) > _MOST_VARIED else "")
        for name, words in told.items()
    }


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
