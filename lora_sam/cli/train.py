"""The training command, shared by `train.py` of a checkout and `lora-sam train` of an installed package."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from lora_sam.cli import BUG, at_work, main, report
from lora_sam.cli.composing import composed_once
from lora_sam.cli.engines import ends_with_command, program
from lora_sam.cli.jobs import process_number, run_job
from lora_sam.cli.sharing import Shared, jobs_share, what_is_shared
from lora_sam.cli.study import ShouldStop, pruning
from lora_sam.cli.sweeping import advice, end_broken_sweep, forget_sweep
from lora_sam.cli.sweeps import again_with_sweep, with_sweep
from lora_sam.core.conf_files import conf_directory
from lora_sam.core.errors import LoraSamError
from lora_sam.core.run_directory import RunDirectory, last_started
from lora_sam.runs.status import correct_status

CONF = conf_directory()
# for the help, which says it as it was called
OmegaConf.register_new_resolver("program", program, replace=True)
DEMO = "experiment=demo"

# what may be said beside the choice of a job: Hydra's own words for running it, or showing its configuration
_WITHOUT_CHOICE = {"--multirun", "-m", "--resolve", "--cfg", "-c", "job", "hydra", "all"}


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def train(config: DictConfig) -> float:
    """One job of the command line; returns the best validation IoU, which sweepers maximise."""
    with ends_with_command():
        task = partial(fine_tune, again=again_with_sweep(), should_stop=pruning(), shared=what_is_shared())
        return run_job(config, task)


def fine_tune(
    config: dict[str, Any],
    output_dir: Path,
    overrides: Sequence[str],
    *,
    again: str | None = None,
    should_stop: ShouldStop | None = None,
    shared: Shared | None = None,
) -> float:
    """Check everything that can be checked without torch, then run."""
    from lora_sam.runs.resuming import resumed_config
    from lora_sam.runs.starting import started_config
    from lora_sam.training.settings import settings_from

    config = started_config(resumed_config(config, overrides), overrides, output_dir)
    settings = settings_from(config)
    settings.tracker.require()
    goes_on = RunDirectory(output_dir).last.is_file()  # a job of a sweep; else nobody may start there
    if goes_on:
        from lora_sam.runs.unchanged import check_config

        check_config(output_dir, config)
    _note_start(output_dir)

    from lora_sam.cli.run import run  # imports torch

    return run(
        settings,
        config=config,
        output_dir=output_dir,
        overrides=overrides,
        program=program(),
        goes_on=goes_on,
        again=again,
        should_stop=should_stop,
        shared=shared,
    )


def _note_start(directory: Path) -> None:
    """Of several processes only the first has a run directory that stays."""
    if process_number() == 0:
        earlier = last_started()
        if earlier is not None:
            correct_status(earlier.root)
        RunDirectory(directory).note_start()


def run_train(program: str, arguments: Sequence[str]) -> int:
    """Run the training command; where `arguments` choose nothing, the demo. Returns the exit code, as `main` does."""
    try:
        arguments = with_sweep(arguments)
    except LoraSamError as error:
        return report(str(error).splitlines())
    chosen = with_job(arguments)
    if len(chosen) > len(arguments) and "--cfg" not in arguments and "-c" not in arguments:
        print(f"nothing was chosen, so this is the demo ({DEMO}); --help shows what else there is", file=sys.stderr)
    sys.argv = [program, *chosen]
    try:
        # the advice is for a signal between the jobs of a sweep, or while others run them
        with jobs_share(bool({"-m", "--multirun"} & set(chosen))), composed_once(), at_work(advice):
            code = main(train, conf=CONF)
        if code == BUG:
            end_broken_sweep()
        return code
    finally:
        forget_sweep()


def with_job(arguments: Sequence[str]) -> list[str]:
    """`arguments`, with the demo in front where they choose nothing."""
    return [DEMO, *arguments] if _WITHOUT_CHOICE.issuperset(arguments) else list(arguments)
