"""Is a deployed model the model that was trained? Merge, IR and INT8 of a real run, on the whole test split."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.needs import data_directory, packaged_nano
from benchmarks.processes import run
from benchmarks.record import ROOT, Figure, Outcome, figure, usable_cores

QUESTION = "What merging, OpenVINO export and INT8 change of a fine-tuned model (nano on nuclei, test split)"
QUICK = False

LOGITS = 1e-4  # largest difference, adapted against merged
IOU_WITH_TORCH = 0.999
POINTS_LOST = 0.5  # of IoU, INT8 against the FP32 IR


def measure(*, rehearse: bool) -> Outcome:
    """Fine-tune, deploy with the defaults, and read what the steps measured of themselves."""
    packaged_nano()
    environment = {**os.environ, "LORA_SAM_DATA": str(data_directory())}
    training = ["tracker=none"]
    training += ["trainer.max_steps=2", "trainer.validation_objects=2"] if rehearse else []
    experiment = "rings_lora" if rehearse else "nuclei_lora"
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        output = directory / "run"
        for words in (
            [str(ROOT / "train.py"), f"experiment={experiment}", f"hydra.run.dir={output}", *training],
            ["-m", "lora_sam.deploy", f"run={output}", *(["max_drop=100"] if rehearse else [])],
        ):
            sys.stderr.write(f"  python {' '.join(Path(word).name for word in words)}\n")
            run(
                [sys.executable, *words],
                directory=directory,
                environment={**environment, "PYTHONPATH": str(ROOT)},
                show_progress=True,
            )
        found = collect(output)
    return Outcome(
        settings={"experiment": experiment, "overrides": training, "threads": usable_cores()},
        checks=_checks(found),
        figures=figures(found),
        details=found,
    )


def _checks(found: dict[str, Any]) -> dict[str, str]:
    """What the steps said of themselves, for people."""
    merged, int8 = found["merge"]["checks"]["merged"], found["quantize"]["checks"]
    exported = {name: found[f"export_{name}"]["checks"] for name in ("fp32", "fp16")}
    return {
        "merged": f"mean mask IoU {merged['mean_mask_iou']:.6f} on {merged['masks']} masks",
        **{
            f"exported, {name}": f"mean mask IoU with torch {one['mask_iou']:.6f} on {one['prompts']} prompts"
            for name, one in exported.items()
        },
        "INT8": f"{int8['rung']}; {int8['drop']:.2f} points lost on {int8['images']} validation images",
    }


def collect(output: Path) -> dict[str, Any]:
    """Manifests of the steps, `backends.json`, and sizes of the encoders' weights in bytes."""

    def read(path: Path) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return values

    parts = output / "openvino"
    return {
        "merge": read(output / "merged" / "manifest.json"),
        "export_fp32": read(parts / "fp32" / "manifest.json"),
        "export_fp16": read(parts / "fp16" / "manifest.json"),
        "quantize": read(parts / "int8" / "manifest.json"),
        "backends": read(output / "backends.json"),
        "encoder_bytes": {
            name: (parts / name / "image_encoder.bin").stat().st_size for name in ("fp32", "fp16", "int8")
        },
    }


def figures(found: dict[str, Any]) -> list[Figure]:
    """The promises, then the table of back ends."""
    backends: dict[str, dict[str, Any]] = found["backends"]["backends"]
    sizes = found["encoder_bytes"]
    result = [
        figure(
            "merged_logits",
            "merged against adapted: largest difference of logits",
            found["merge"]["checks"]["merged"]["largest_logit_difference"],
            limit=LOGITS,
        ),
        figure(
            "fp32_iou_with_torch",
            "IR FP32 against torch: mean mask IoU",
            backends["fp32"]["iou_with_torch"],
            limit=IOU_WITH_TORCH,
            relation=">=",
        ),
        figure(
            "int8_points_lost",
            "INT8 against IR FP32: points of IoU lost",
            100 * (backends["fp32"]["iou"] - backends["int8"]["iou"]),
            limit=POINTS_LOST,
        ),
        figure("int8_size", "size of the INT8 encoder over FP16, nano", sizes["int8"] / sizes["fp16"]),
    ]
    for name, one in backends.items():
        result += [
            figure(f"{name}_iou", f"{name}: IoU", one["iou"]),
            figure(f"{name}_map", f"{name}: mask AP (COCO)", one["map"]),
            figure(f"{name}_encoder_ms", f"{name}: encode an image", one["encoder_ms"], unit="ms"),
            figure(f"{name}_next_prompt_ms", f"{name}: next prompt", one["next_prompt_ms"], unit="ms"),
            figure(f"{name}_megabytes", f"{name}: files", one["bytes"] / 1e6, unit="MB"),
        ]
    return result
