"""How fast are encoding and a LoRA step on a GPU, beside the peers, and beside what the card could do?"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from typing import Any

from benchmarks.processes import run_side, take_turns
from benchmarks.record import BenchmarkError, Figure, Outcome, figure, usable_cores

QUESTION = "ViT-B and ViT-H on a GPU: encoding (batch 32) and a LoRA step (batch 8) in bf16, ours against the peers"
QUICK = False

MODELS = {"vit_b": 0.20, "vit_h": 0.30}
"""By model, the share of the card's peak in bf16 that encoding must reach."""
ENCODE_BATCH, STEP_BATCH = 32, 8
ENCODERS = ("ours_bf16", "eager_fp32", "eager_tf32", "hf_bf16")
STEPS = {"ours": ("ours", "bf16"), "tutorial": ("tutorial", "fp32"), "peer": ("peer", "bf16")}
FP32_TOLERANCE = 1e-3  # of embeddings, relative to the largest value, and of the tutorial loop's masks
BF16_EMBEDDINGS = 0.1  # of embeddings in bf16, relative to the largest value
BF16_LOSS = 2e-2  # of the first loss in bf16, relative


def measure(*, rehearse: bool) -> Outcome:
    """Check that what is compared computes the same, then let the sides take turns, model after model."""
    device = "cpu" if rehearse else "cuda"
    if not rehearse:
        _need_cuda()
    rounds, repeats, steps = (1, 1, 1) if rehearse else (3, 10, 5)
    batches = {"encode": 2, "step": 2} if rehearse else {"encode": ENCODE_BATCH, "step": STEP_BATCH}
    models = {"tiny_random": 0.0} if rehearse else MODELS
    measured: dict[str, Any] = {}
    checks: dict[str, str] = {}
    for model in models:
        one = _measure(model, device, batches, rounds=rounds, repeats=repeats, steps=steps)
        checks |= {f"{model}, {what}": found for what, found in check(one).items()}
        measured[model] = one
    return Outcome(
        settings={
            "device": device,
            "models": list(models),
            "weights": "random",
            "batch_sizes": batches,
            "rank": 8,
            "rounds": rounds,
            "repeats": repeats,
            "steps": steps,
            "precision": "ours: bf16 autocast; transformers: bf16 weights to encode, bf16 autocast with fp32 adapters "
            "to train; tutorial loop and eager: fp32",
            "too_large": "a side whose batch does not fit into the card's memory gets half of it; times are per image",
        },
        checks=checks,
        figures=[one for model, share in models.items() for one in figures(model, measured[model], share)],
        details=measured,
    )


def _need_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise BenchmarkError(
            "there is no CUDA device here, and this is about one; `python -m benchmarks --rehearse gpu` runs the same "
            "code on the CPU"
        )


def _measure(
    model: str, device: str, batches: dict[str, int], *, rounds: int, repeats: int, steps: int
) -> dict[str, Any]:
    overrides = [f"model={model}", "model.weights=random"]
    threads = usable_cores()
    with tempfile.TemporaryDirectory() as temporary:

        def encode(name: str) -> Callable[[], dict[str, Any]]:
            options = ["--device", device, "--repeats", str(repeats), *overrides]
            return lambda: fitting(
                lambda batch: run_side("gpu", [name, "--batch", str(batch), *options], threads=threads),
                batches["encode"],
            )

        def step(name: str, precision: str) -> Callable[[], dict[str, Any]]:
            options = ["--directory", temporary, "--device", device, "--precision", precision, "--steps", str(steps)]
            return lambda: fitting(
                lambda batch: run_side(
                    "lora_step", [name, "--batch", str(batch), *options, *overrides], threads=threads
                ),
                batches["step"],
            )

        common = ["--device", device, *overrides]
        found = {
            "card": run_side("gpu", ["card", *common], threads=threads),
            "embeddings": run_side("gpu", ["compare", *common], threads=threads),
            "bases": run_side("lora_step", ["prepare", "--directory", temporary, *common], threads=threads),
        }
        return found | {
            "encode": take_turns({name: encode(name) for name in ENCODERS}, rounds),
            "step": take_turns({name: step(*how) for name, how in STEPS.items()}, rounds),
        }


def fitting(run: Callable[[int], dict[str, Any]], batch_size: int) -> dict[str, Any]:
    """What `run` answers for a batch, with half of it for as long as that does not fit; and its `batch_size`.

    Raises:
        BenchmarkError: it failed for another reason, or a single image does not fit.
    """
    while True:
        try:
            return run(batch_size) | {"batch_size": batch_size}
        except BenchmarkError as error:
            if "out of memory" not in str(error) or batch_size == 1:
                raise
        batch_size //= 2


def check(one: dict[str, Any]) -> dict[str, str]:
    """What was found equal, for people. Raises `BenchmarkError` where sides do not compute the same."""
    embeddings, bases = one["embeddings"], one["bases"]
    for name in ("ours_fp32", "ours_bf16", "hf_bf16"):
        allowed = (FP32_TOLERANCE if name.endswith("fp32") else BF16_EMBEDDINGS) * embeddings["largest"]
        if embeddings[name] > allowed:
            raise BenchmarkError(
                f"{name} and segment_anything in fp32 do not compute the same: embeddings differ by "
                f"{embeddings[name]:.2e}, {allowed:.2e} is allowed"
            )
    if bases["tutorial"] > FP32_TOLERANCE * bases["largest_logit"]:
        raise BenchmarkError(f"the base of the tutorial loop does not compute the same: {bases['tutorial']:.2e}")
    ours, peer = (one["step"][name][0]["losses"][0] for name in ("ours", "peer"))
    if abs(ours - peer) > BF16_LOSS * abs(peer):
        raise BenchmarkError(f"our step begins with loss {ours:.5f}, the peer's with {peer:.5f}: not the same step")
    differences = ", ".join(f"{name} {value:.1e}" for name, value in embeddings.items() if name != "largest")
    return {
        "embeddings": f"values up to {embeddings['largest']:.2g}; differences to segment_anything in fp32: "
        f"{differences}",
        "steps": f"loss before the first step: ours {ours:.5f}, transformers + peft {peer:.5f}; masks of the tutorial "
        f"loop's base differ by {bases['tutorial']:.1e}; it has another loss",
        "batches": ", ".join(
            f"{name} {runs[0]['batch_size']}" for kind in ("encode", "step") for name, runs in one[kind].items()
        ),
    }


def figures(model: str, one: dict[str, Any], share: float) -> list[Figure]:
    """Times per image; ratios to ours; the share of the card's peak. `share` is what must be reached of that."""
    encode, step, card = one["encode"], one["step"], one["card"]
    rate = [card["encode_tflop"] / seconds for seconds in _per_image(encode["ours_bf16"])]

    def times(name: str, what: str, sides: tuple[list[Any], list[Any]], limit: float | None) -> Figure:
        theirs, ours = (_per_image(side) for side in sides)
        ratios = [other / own for other, own in zip(theirs, ours, strict=True)]
        value = statistics.median(theirs) / statistics.median(ours)
        return figure(f"{model}_{name}", f"{model}, {what}", ratios, value=value, limit=limit, relation=">=")

    def memory(name: str, what: str, peer: list[Any], limit: float) -> Figure:
        ratios = [own["peak"] / other["peak"] for own, other in zip(step["ours"], peer, strict=True)]
        return figure(f"{model}_{name}", f"{model}, {what}", ratios, limit=limit)

    ours, bf16 = step["ours"], encode["ours_bf16"]
    of_peak = f"{card['tflops']:.0f} TFLOP/s, {card['source']}"
    return [
        times("encode_eager", "encoding, times as fast: segment_anything in fp32 (no TF32) / ours in bf16",
              (encode["eager_fp32"], bf16), 5),
        times("encode_tf32", "encoding, times as fast: segment_anything in fp32 (TF32 allowed) / ours in bf16",
              (encode["eager_tf32"], bf16), None),
        times("encode_hf", "encoding, times as fast: transformers in bf16 / ours in bf16", (encode["hf_bf16"], bf16),
              1.3),
        figure(f"{model}_share", f"{model}, encoding in bf16: share of the card's peak ({of_peak})",
               [value / card["tflops"] for value in rate], limit=share, relation=">="),
        times("step_tutorial", "LoRA step, times as fast: tutorial loop in fp32 / ours in bf16",
              (step["tutorial"], ours), 4),
        memory("step_tutorial_memory", "LoRA step, memory: ours in bf16 / tutorial loop in fp32", step["tutorial"],
               0.35),
        times("step_peer", "LoRA step, times as fast: transformers + peft in bf16 / ours in bf16",
              (step["peer"], ours), 1.3),
        memory("step_peer_memory", "LoRA step, memory: ours in bf16 / transformers + peft in bf16", step["peer"], 0.5),
        *(
            figure(f"{model}_{kind}_{name}_ms", f"{model}, {kind}, {name}: time per image",
                   [1e3 * value for value in _per_image(runs)], unit="ms")
            for kind in ("encode", "step")
            for name, runs in one[kind].items()
        ),
        *(
            figure(f"{model}_step_{name}_gib", f"{model}, step, {name}: peak memory on the card",
                   [run["peak"] / 2**30 for run in runs], unit="GiB")
            for name, runs in step.items()
        ),
    ]  # fmt: skip


def _per_image(runs: list[dict[str, Any]]) -> list[float]:
    """Median seconds per image, by run."""
    return [statistics.median(run["seconds"]) / run["batch_size"] for run in runs]
