"""What do the published recipes reach with the small SAM, base and tuned on the same fixed prompts?"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.needs import data_directory, packaged_nano
from benchmarks.processes import run
from benchmarks.record import ROOT, BenchmarkError, Figure, Outcome, figure, usable_cores
from lora_sam.evaluation.layout import validate_report

QUESTION = (
    "Published recipes with the small SAM of the package: test IoU of base and tuned on rings (5 seeds) and nuclei"
)
QUICK = False

SEEDS = range(5)
STEPS = 200  # of the recipes on nuclei: a look at each, not its best
FEWER = {"micro_sam_iterative": 25}  # all weights, eight rounds a step: a step takes as long as ten of the others
ON_NUCLEI = ("otx_decoder", "stamp_decoder", "river_points", "micro_sam_iterative")
SHARED = ("model=nano", "tracker=none")


def measure(*, rehearse: bool) -> Outcome:
    """Run each recipe as a user would, with the small SAM in place of ViT-B."""
    packaged_nano()
    data = data_directory()
    environment = {**os.environ, "LORA_SAM_DATA": str(data)}
    short = ["trainer.max_steps=2", "trainer.validation_objects=2"] if rehearse else []
    jobs = {
        f"sam_lora_rings, seed {seed}": ["experiment=sam_lora_rings", f"seed={seed}", *SHARED, *short]
        for seed in (SEEDS[:1] if rehearse else SEEDS)
    }
    if not rehearse:
        nuclei = ["data=coco", f"data.root={data / 'nuclei'}", "data.max_objects_per_image=8"]
        jobs |= {
            name: [
                f"experiment={name}",
                *SHARED,
                *nuclei,
                f"trainer.max_steps={FEWER.get(name, STEPS)}",
                "trainer.batch_size=1",
            ]
            for name in ON_NUCLEI
        }
    runs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for number, (name, words) in enumerate(jobs.items()):
            sys.stderr.write(f"  python train.py {' '.join(words)}\n")
            output = Path(temporary) / str(number)
            run(
                [sys.executable, str(ROOT / "train.py"), *words, f"hydra.run.dir={output}"],
                directory=Path(temporary),
                environment=environment,
                show_progress=True,
            )
            report = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
            validate_report(report)
            runs[name] = {
                key: report[key] for key in ("base", "tuned", "delta", "images", "objects", "prompt", "seconds")
            }
    return Outcome(
        settings={
            "threads": usable_cores(),
            "jobs": {name: [word.replace(str(data), "$LORA_SAM_DATA") for word in jobs[name]] for name in jobs},
        },
        checks=same_base(runs),
        figures=figures(runs),
        details={"runs": runs},
    )


def same_base(runs: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The base on rings does not depend on the seed: the prompts are fixed. Raises `BenchmarkError` where it does."""
    bases = {one["base"]["iou"] for name, one in runs.items() if name.startswith("sam_lora_rings")}
    if len(bases) != 1:
        raise BenchmarkError(f"the base was measured differently with another seed: IoU {sorted(bases)}")
    return {"base": f"test IoU on rings {bases.pop():.4f} with every seed"}


def figures(runs: dict[str, dict[str, Any]]) -> list[Figure]:
    """Rings over all seeds, then each recipe on nuclei."""
    rings = [one for name, one in runs.items() if name.startswith("sam_lora_rings")]
    gains = np.array([one["delta"]["iou"] for one in rings])
    # Student's t with 4 degrees of freedom, 95 %: what five seeds say of the next one
    spread = 2.776 * gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) == len(SEEDS) else None
    result = [
        figure("rings_base", "sam_lora_rings: test IoU, base", float(np.mean([one["base"]["iou"] for one in rings]))),
        figure("rings_tuned", "sam_lora_rings: test IoU, tuned", [one["tuned"]["iou"] for one in rings]),
        figure(
            "rings_gain",
            "sam_lora_rings: tuned − base, mean over seeds with its 95 % interval",
            float(gains.mean()),
            relation=">",
            limit=0.0,
            interval=None if spread is None else (float(gains.mean() - spread), float(gains.mean() + spread)),
        ),
    ]
    for name in (name for name in runs if name in ON_NUCLEI):
        one = runs[name]
        result += [
            figure(f"{name}_base", f"{name}: test IoU on nuclei, base", one["base"]["iou"]),
            figure(
                f"{name}_tuned", f"{name}: the same, tuned", one["tuned"]["iou"],
                interval=tuple(one["tuned"]["iou_interval"]),
            ),
        ]  # fmt: skip
    return result
