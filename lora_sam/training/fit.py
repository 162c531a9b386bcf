"""The fit of a run: begun anew, with the base as the first candidate for the best weights, or gone on with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.core.metrics_log import MetricsLog, read_metrics
from lora_sam.training.parts import fitting

if TYPE_CHECKING:
    from lora_sam.training.parts import Parts
    from lora_sam.training.state import Progress
    from lora_sam.training.stopping import StopRequest
    from lora_sam.training.validation import Measure


def fit(
    parts: Parts,
    validate: Measure,
    resume_from: Path | None,
    stop: StopRequest,
    should_stop: Callable[[int, float], str | None] | None = None,
) -> Progress:
    """Train, or go on training from a saved state.

    Args:
        parts: The run.
        validate: The figure that chooses the best weights, at a step.
        resume_from: State file to go on from; None begins anew.
        stop: Remembers the signal that ended it.
        should_stop: See `Fit`.
    """
    from lora_sam.training.cross_validation import CrossValidated, cross_validated
    from lora_sam.training.display import Display
    from lora_sam.training.state import read_progress

    settings = parts.settings
    log = MetricsLog(parts.directory.metrics)
    done = 0
    if resume_from is not None:
        earlier = read_progress(resume_from)
        done = earlier.step
        log.truncate_after(done, earlier.epoch)
        parts.say(f"resuming at step {done}")
        if parts.processes.main:  # its curves begin where the record does
            for line in read_metrics(parts.directory.metrics):
                parts.tracker.scalars(line["step"], {key: line[key] for key in line if _is_curve(key, line[key])})

    def record(step: int, values: Mapping[str, float]) -> None:
        if parts.processes.main:
            log.append({"step": step, **values})
            parts.tracker.scalars(step, values)

    if resume_from is None:  # what the curves begin with
        base: float | None = validate(0)
        assert base is not None
        start = "base" if settings.init_from is None else "the adapter begun with"
        base_sums = validate.sums()
        parts.say(f"{start}, step 0: validation IoU {base:.4f}")
        cross = cross_validated(parts, stop)
        record(0, {"epoch": 0, "validation_iou": base, **({} if cross is None else cross.record())})
    else:
        lines = read_metrics(parts.directory.metrics)
        base, cross, base_sums = base_of(lines), CrossValidated.recorded(lines), None  # the state has them
    with Display(done, console=parts.processes.console, quiet=not parts.processes.main) as display:
        return fitting(
            parts,
            parts.splits.train,
            validate=validate,
            log=record,
            display=display,
            run=parts.directory,
            sums=validate.sums,
            base=base,
            base_sums=base_sums,
            base_stays=cross is not None and not cross.gained,
            should_stop=should_stop,
        ).fit(resume_from, stop)


def _is_curve(key: str, value: Any) -> bool:
    return key not in ("step", "time") and isinstance(value, int | float)


def base_of(log: Sequence[Mapping[str, Any]]) -> float | None:
    """Validation IoU of the base in lines of `metrics.jsonl`; None where step 0 was not measured."""
    found = (line.get("validation_iou") for line in log if line["step"] == 0)
    return next((float(value) for value in found if isinstance(value, float | int)), None)
