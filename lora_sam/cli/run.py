"""One run, from settings to result: data, model, method, plan, fit, evaluation, adapter, report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.core.console import print_table
from lora_sam.core.files import write_text
from lora_sam.core.run_directory import RunDirectory, find_run
from lora_sam.core.signals import exit_code
from lora_sam.report.facts import facts_of
from lora_sam.report.model_card import model_card
from lora_sam.report.of_run import evaluate_run, fit_classes, tell_result, write_result
from lora_sam.report.shown_validation import ShownValidation
from lora_sam.runs.adapter_files import save_adapter, write_facts
from lora_sam.runs.places import check_contents, check_weights, write_splits
from lora_sam.runs.resuming import copy_state, flat
from lora_sam.runs.starting import begin_with
from lora_sam.training.fit import fit
from lora_sam.training.frozen import check_frozen, give_back_frozen, hold_frozen
from lora_sam.training.parts import ready
from lora_sam.training.processes import join_processes
from lora_sam.training.setup import adapt, choose_attention, describe_data, encode_once, plan_run, settle_loss
from lora_sam.training.stopping import StopRequest

if TYPE_CHECKING:
    from lora_sam.cli.sharing import Shared
    from lora_sam.training.settings import Settings


def run(
    settings: Settings,
    *,
    config: Mapping[str, Any],
    output_dir: Path,
    overrides: Sequence[str] = (),
    program: str = "python train.py",
    goes_on: bool = False,
    again: str | None = None,
    should_stop: Callable[[int, float], str | None] | None = None,
    shared: Shared | None = None,
) -> float:
    """Train and evaluate as `settings` say, writing everything into `output_dir`.

    Args:
        settings: Checked settings, built from `config`.
        config: The composed configuration with nothing left to resolve, kept as `config.json`.
        output_dir: The new run directory.
        overrides: What was typed (`key=value`), for the report.
        program: How the trainer was called, for the commands that are proposed.
        goes_on: Go on from the state in `output_dir`, which a job of a sweep has left there with these settings.
        again: What is typed after the program to go on after a signal; None resumes this run.
        should_stop: Asked after each validation, with the number of the epoch, from 1, and the validation IoU, whether
            a sweeper wants no more of this job: why, or None.
        shared: Data and base that jobs of this process have in common; None reads and builds them.

    Returns:
        The best validation IoU: the objective of sweeps; NaN where only a plan was wanted.

    Raises:
        LoraSamError: a mistake in configuration, data, weights or adapter, found before training starts where possible.
        Pruned: `should_stop` has ended it.
        SystemExit: 130 after SIGINT, 143 after SIGTERM and 138 after SIGUSR1, once the state is saved.
    """
    # settings, and data: the order is that in which mistakes are cheapest to find
    directory = RunDirectory(output_dir)
    settings.method.check_depth(settings.model.depth)
    check_frozen(settings)
    if goes_on:
        earlier: Path | None = directory.last
    else:
        earlier = None if settings.resume is None else copy_state(settings.resume, output_dir)
    splits = settings.open_data() if shared is None else shared.data(settings)
    if goes_on:
        check_contents(str(output_dir), directory, splits)
    elif settings.resume is not None:
        check_contents(f"resume={settings.resume}", find_run(settings.resume), splits)

    from lora_sam.training.arithmetic import Arithmetic, differences  # imports torch: what is wrong was told before
    from lora_sam.training.state import read_progress

    then = None if earlier is None else Arithmetic.from_json(read_progress(earlier).arithmetic)
    processes = join_processes(settings.trainer, then)
    for line in describe_data(splits, settings):
        processes.say(line)

    # model and method
    base = settings.model.build() if shared is None else shared.base(settings)
    if goes_on or settings.resume is not None:
        asked = str(output_dir) if goes_on else f"resume={settings.resume}"
        check_weights(asked, directory if goes_on else find_run(str(settings.resume)), base.sha256)
    from lora_sam.models.held import linears_of

    linears = linears_of(base.sam.image_encoder)
    adapted = adapt(base, settings, splits, processes)
    begun = None
    if settings.init_from is not None:  # a resumed run has its weights in its own state
        begun = begin_with(adapted, base, settings) if earlier is None else {"run": settings.init_from}
        processes.say(f"begun with the adapter of {begun['run']}")

    # plan
    settings = settle_loss(settings, splits, adapted, processes, then)
    encodings = encode_once(base, adapted, settings, processes.say)
    hold_frozen(adapted, linears, settings, encodings, processes.say)
    attention = choose_attention(base, adapted, settings.trainer, processes, then)
    plan = plan_run(settings, splits, adapted, encodings, attention, processes, then)
    if earlier is not None:
        for line in differences(then, processes.arithmetic(attention, plan, settings.loss)):
            processes.say(f"  {line}")
    if settings.trainer.plan:
        print_table(plan.table())
        return math.nan

    with ready(settings, directory, splits, processes, base, adapted, encodings, attention, plan) as parts:
        if processes.main:
            write_text(directory.saved_config, json.dumps(dict(config), indent=2) + "\n")
            write_splits(directory, splits, config, base)

        # fit
        stop = StopRequest()
        validate = ShownValidation(parts)
        progress = fit(parts, validate, earlier, stop, should_stop)
        if not progress.finished:
            parts.say(
                f"stopped at step {progress.step}; everything is saved. Go on with: {program} "
                + (again or f"resume={output_dir}")
            )
            stop.hand_over()
            raise SystemExit(exit_code(stop.error()))

        if processes.main:
            # adapter of the best weights: first without, then with its figures
            parts.take_best()
            validated = validate.of_best(progress.best_step)  # as the base was: with frozen weights as in training
            give_back_frozen(adapted, linears, base, settings)
            head = fit_classes(parts)
            facts = facts_of(parts, progress, begun)
            save_adapter(adapted, directory.adapter, facts, model_card(facts, None), class_head=head)

            # evaluation: base and tuned on the same prompts
            outcome = evaluate_run(parts, progress, validated, head)
            report = outcome.report
            outcome.add_scores(facts)
            facts["metrics"] = {name: report[name] for name in ("base", "tuned", "delta")}
            write_facts(directory.adapter, facts, model_card(facts, outcome.table()))

            # report
            write_result(parts, outcome, facts, config=dict(config), overrides=overrides, program=program)
            directory.point_latest_here()
            means = {f"{name}/iou": float(report[name]["iou"]) for name in ("base", "tuned", "delta")}
            parts.tracker.hyperparameters(flat(config), means)
            tell_result(parts, report)
    assert progress.best is not None
    return progress.best
