"""Command lines worth trying after a run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_sam.core.calling import quoted, step_called
from lora_sam.core.run_directory import from_here
from lora_sam.evaluation.result import kept_base, knocked_down, refuted
from lora_sam.prompts.iterative import most_rounds

LONGER = 2


@dataclass(frozen=True)
class NextStep:
    """A command and, in a few words, what it is good for."""

    purpose: str
    command: str


def next_steps(
    directory: Path,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    program: str = "python train.py",
    report: Mapping[str, Any] | None = None,
) -> tuple[NextStep, ...]:
    """What to do after the run in `directory`.

    Args:
        directory: The run directory; shown relative to the working directory where it lies inside.
        config: Its composed configuration.
        overrides: What was typed, as Hydra's task overrides (`key=value`).
        program: How the trainer is called.
        report: Content of its `evaluation.json`: what beats the base comes first where nothing did.
    """
    shown = from_here(directory)
    keys = [override.partition("=")[0].lstrip("+~") for override in overrides]
    # what a resumed run was made of is not what was typed
    same = ["data.root=my_data"] if "resume" in keys else list(overrides)

    def command(*arguments: str) -> str:
        return " ".join([program, *(shlex.quote(argument) for argument in arguments)])

    named = shlex.quote(f"run={quoted(shown)}")
    steps = [
        *_to_beat_the_base(report, config, same, command),
        NextStep("Train on your own images", command("model=vit_b", "data=auto", "data.root=my_data")),
        NextStep("Masks for all images of a folder", f"{step_of(program, 'predict')} {named} source=my_images"),
        NextStep(
            "Two OpenVINO files, INT8 too, beside the torch model",
            f"{step_of(program, 'deploy')} {named}",
        ),
        NextStep(
            "Other prompts, simulated clicks, classes, and what was forgotten",
            f"{step_of(program, 'robustness')} {named}",
        ),
    ]
    if most_rounds(config.get("prompt", {})) > 1:
        steps.append(
            NextStep(
                "The evaluation used the first prompt alone: what do corrections add?",
                f"{step_of(program, 'robustness')} {named} {shlex.quote('sections=[clicks]')}",
            )
        )
    method = config["method"]
    target = str(method["_target_"])
    other = "lora" if target.endswith("DecoderOnly") else "decoder"
    without_method = [override for override in same if not _sets(override, "method")]
    purpose = {"decoder": "Is the mask decoder alone enough?", "lora": "Does LoRA in the image encoder help?"}[other]
    steps.append(NextStep(purpose, command(*without_method, f"method={other}")))
    if "rank" in method:
        without_rank = [override for override in same if not _sets(override, "method.rank")]
        steps.append(NextStep("How much capacity pays?", command("-m", *without_rank, "method.rank=4,8,16")))
    else:
        rate = float(config["optim"]["lr"])
        rates = ",".join(f"{rate * factor:.3g}" for factor in (1 / 3, 1, 3))
        without_rate = [override for override in same if not _sets(override, "optim.lr")]
        steps.append(NextStep("Which learning rate is best?", command("-m", *without_rate, f"optim.lr={rates}")))
    limits = {name: config["trainer"].get(name) for name in ("max_epochs", "max_steps")}
    more = [f"trainer.{name}={value * LONGER}" for name, value in limits.items() if value is not None]
    steps.append(NextStep("Train this one for longer", command(f"resume={quoted(shown)}", *more)))
    return tuple(steps)


def _to_beat_the_base(
    report: Mapping[str, Any] | None,
    config: Mapping[str, Any],
    same: Sequence[str],
    command: Callable[..., str],
) -> list[NextStep]:
    """The rate to try where no validation beat the base."""
    if report is None or not kept_base(report) or refuted(report):  # no rate helps where images are too few
        return []
    down = knocked_down(report)
    rate = f"optim.lr={float(config['optim']['lr']) * (0.1 if down else 3):.3g}"
    without_rate = [override for override in same if not _sets(override, "optim.lr")]
    start = "the adapter it began with" if "init_from" in report else "the base"
    purpose = f"Training fell below {start}: a lower rate" if down else f"Training hardly moved {start}: a higher rate"
    return [NextStep(purpose, command(*without_rate, rate))]


def python_lines(directory: Path, *, scaled: bool = False) -> str:
    """Python that uses the adapter of the run in `directory`; `scaled`: whether it has a scale of pixels of its own."""
    shown = from_here(directory)
    scale = f", {shown!r}" if scaled else ""
    return (
        "from lora_sam import load, read_image\n\n"
        f"predictor = load({shown!r})\n"
        f'result = predictor.segment(read_image("image.png"{scale}), boxes=[[10, 10, 60, 60]])\n'
        "print(result.masks.shape, result.scores)\n"
    )


def step_of(program: str, verb: str) -> str:
    """How a step after training is called, where training is called `program`."""
    console, _, own = program.rpartition(" ")
    return f"{console} {verb}" if own == "train" else step_called(verb)


def _sets(override: str, key: str) -> bool:
    name = override.partition("=")[0].lstrip("+~")
    return name == key or name.startswith(f"{key}.")
