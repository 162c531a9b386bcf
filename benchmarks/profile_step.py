"""Where the time of a step goes: `python -m benchmarks.profile_step lora|decoder [key=value ...]`, as a text table."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.record import RESULTS, host, usable_cores
from benchmarks.sides.lora_step import Conditions, lora_settings, our_step
from lora_sam.core.files import write_text

ROWS = 25
STEPS = {"lora": 2, "decoder": 10}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and keep it as `results/profile_<step>.txt` unless `--rehearse` is given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_step", description=__doc__)
    parser.add_argument("step", choices=tuple(STEPS), help="LoRA on all blocks, or the mask decoder from a cached row")
    parser.add_argument("--rehearse", action="store_true", help="a tiny model, and nothing is kept")
    parser.add_argument("overrides", nargs="*", help="of the configuration, as in train.py")
    given = parser.parse_intermixed_args(arguments)
    torch.set_num_threads(min(2, usable_cores()))
    overrides = ["model=tiny_random" if given.rehearse else "model=vit_b", "model.weights=random", *given.overrides]
    with tempfile.TemporaryDirectory() as temporary:
        step = (lora_step if given.step == "lora" else decoder_step)(overrides, Path(temporary))
        steps = 1 if given.rehearse else STEPS[given.step]
        table = profile(step, steps)
    machine = host(None, None)
    heading = (
        f"{given.step} step, {' '.join(overrides)}, {steps} steps, {torch.get_num_threads()} threads, "
        f"{machine.cpu}, torch {torch.__version__}\n"
    )
    sys.stdout.write(heading + table)
    if not given.rehearse:
        write_text(RESULTS / f"profile_{given.step}.txt", heading + table)
    return 0


def lora_step(overrides: Sequence[str], directory: Path) -> Callable[[], object]:
    """LoRA on all blocks at the default precision."""
    step, _ = our_step(lora_settings(overrides), Conditions(directory=directory, precision="auto"))
    return step


def decoder_step(overrides: Sequence[str], directory: Path) -> Callable[[], object]:
    """The mask decoder from an embedding of the cache, at the default precision, loading included."""
    from benchmarks.sides.cached_epoch import Training, decoder_settings
    from benchmarks.sides.loader import write

    write(directory / "data", 3, 1, (256, 256))
    training = Training.of(decoder_settings(directory / "data", directory / "cache", overrides))
    settings = training.settings
    # one view of one image, so that nothing is encoded while the profiler looks
    settings = replace(settings, cache=replace(settings.cache, views=1))
    training = replace(training, settings=settings)
    encodings = training.encodings()
    split = encodings.training(training.source, settings.augmentation, settings.seed)
    encodings.before_epoch(0)
    examples = training.examples(split)
    return lambda: training.epoch(examples, 0, 1)


def profile(step: Callable[[], object], steps: int) -> str:
    """A table of operators by their own time on the CPU over `steps` steps, after one that warms up."""
    from torch.profiler import ProfilerActivity

    step()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step()
    return str(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=ROWS, max_name_column_width=60))


if __name__ == "__main__":
    sys.exit(main())
