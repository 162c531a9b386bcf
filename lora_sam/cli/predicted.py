"""What predict says when it is done: its last lines, and what its page shows."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lora_sam.cli.step import as_typed
from lora_sam.core.calling import quoted, step_called
from lora_sam.core.errors import DataError
from lora_sam.core.run_directory import from_here
from lora_sam.core.wording import duration, plural
from lora_sam.data.check.samples import spread
from lora_sam.data.reading.image_file import MAX_TILED_PIXELS, read_up_to
from lora_sam.data.reading.images import read_image
from lora_sam.deployment.predicting.found import read_found
from lora_sam.deployment.predicting.outcome import Outcome
from lora_sam.deployment.predicting.output import Output
from lora_sam.deployment.predicting.task import Work
from lora_sam.deployment.predicting.writers.table import FORMATS
from lora_sam.report.predictions import (
    MOST_OBJECTS,
    Predictions,
    PredictionsPicture,
    predictions_html,
    predictions_picture,
)

PICTURES = 18
_DRAWN_SIDE = 1000
MOST_NAMED = 10
_NOT_SHOWN = frozenset({"weights", "scale", "classes", "tiles", "prompts"})  # digests, or said in words


def tell(work: Work, outcome: Outcome, *, run: Path, again: Callable[..., str]) -> None:
    """Write `predictions.json` and `predictions.html`, and print what was written where and what comes next.

    Args:
        work: What was done.
        outcome: What became of it.
        run: Directory of the run.
        again: Gives the command that does it again, with some options changed.

    Raises:
        TrainingError: it cannot be written.
    """
    from lora_sam.core.files import write_text

    output, page = work.output, work.output.page
    about = _about(outcome)
    output.note(about)
    places = {name: str(output.root / FORMATS[name].place) for name in work.formats}
    steps = _next(work, outcome, run, again)
    write_text(
        page,
        predictions_html(
            Predictions(
                run=from_here(run),
                settings=_settings(output),
                about=about,
                counts=tuple(outcome.counts.values()),
                scores=tuple(outcome.scores),
                pictures=_pictures(work, outcome),
                places={name: (FORMATS[name].meaning, place) for name, place in places.items()},
                next_steps=steps,
            )
        ),
    )
    for name, reason in list(outcome.failures.items())[:MOST_NAMED]:
        print(f"left out: {reason if name in reason else f'{name}: {reason}'}", file=sys.stderr)
    if len(outcome.failures) > MOST_NAMED:
        print(
            f"and {len(outcome.failures) - MOST_NAMED:,} more, all in {output.root}/predictions.json", file=sys.stderr
        )
    if outcome.others:
        is_or_are = "is" if len(outcome.others) == 1 else "are"
        print(
            f"note: what earlier calls found in {plural(len(outcome.others), 'image')} that {is_or_are} not done now, "
            f"such as {outcome.others[0]}, stays in {output.root}; remove it, or choose another output=",
            file=sys.stderr,
        )
    if outcome.unscaled:
        print(
            f"note: {plural(len(outcome.unscaled), 'image')} with more than 8 bits, such as {outcome.unscaled[0]}, and "
            "the training had 8: the high 8 of 16 are taken, which shows 10 to 14 bits nearly black; save them with 8 "
            "bits, as the training images were made",
            file=sys.stderr,
        )
    if outcome.unknown_frames and "geojson" in work.formats:
        print(_unknown_frames(outcome.unknown_frames), file=sys.stderr)
    if outcome.counts and not outcome.scores and outcome.nothing is not None:
        print(f"nothing was found in any image; the first of them: {outcome.nothing}")
    print(_sentence(outcome))
    width = max(len(name) for name in (*places, "page", "next"))
    for name, place in {**places, "page": str(page)}.items():
        print(f"{name:<{width}}  {place}")
    for purpose, command in steps:
        print(f"{'next':<{width}}  {purpose}: {command}")


def _about(outcome: Outcome) -> dict[str, Any]:
    return {
        "images": len(outcome.counts),
        "objects": len(outcome.scores),
        "empty": outcome.empty,
        "there_before": outcome.there,
        "failures": dict(outcome.failures),
        "others": list(outcome.others),
        # of this call: how much of its time the model was at work
        "timing": {
            "images": outcome.predicted,
            "seconds": round(outcome.seconds, 3),
            "model_seconds": round(outcome.model_seconds, 3),
        },
    }


def _unknown_frames(frames: Mapping[str, str]) -> str:
    name, words = next(iter(frames.items()))
    said = f", which calls it {words!r:.99}" if words else ""
    return (
        f"note: {plural(len(frames), 'image')} with a place on earth, such as {name}{said}, whose frame has no EPSG "
        "code: their GeoJSON has its coordinates and crs null; set the CRS where you open it"
    )


def _sentence(outcome: Outcome) -> str:
    images = len(outcome.counts)
    parts = [f"{plural(images, 'image')}, {plural(len(outcome.scores), 'object')}"]
    if outcome.there:
        parts.append(f"{outcome.there:,} were there already")
    if outcome.empty:
        parts.append(f"{plural(outcome.empty, 'prompt')} gave an empty mask")
    if outcome.failures:
        parts.append(f"{plural(len(outcome.failures), 'image')} could not be used")
    if outcome.predicted:
        parts.append(f"{duration(outcome.seconds / outcome.predicted)} an image")
    return "; ".join(parts)


def _next(work: Work, outcome: Outcome, run: Path, again: Callable[..., str]) -> list[tuple[str, str]]:
    """Purpose and command of what comes next."""
    settings = work.output.settings
    steps = []
    if outcome.failures:
        steps.append(("mend those images and give the same command, the others are skipped", again()))
    if outcome.counts and not outcome.scores and work.prompts is None:
        lower, less = (max(0.0, round(settings[name] - 0.2, 2)) for name in ("predicted_iou", "stability"))
        command = again(predicted_iou=lower, stability=less, points_per_side=max(32, settings["points_per_side"]))
        steps.append(("nothing was found; ask for less", command))
    elif "overlays" not in work.formats:
        command = again(formats=[*work.formats, "overlays"])
        steps.append(("the masks on the images, without computing them again", command))
    if settings["backend"] in ("tuned", "base"):
        named = shlex.quote(f"run={quoted(from_here(run))}")
        steps.append(("faster, on OpenVINO, with backend=int8 after this", f"{step_called('deploy')} {named}"))
    return steps


def _settings(output: Output) -> dict[str, str]:
    plain: Mapping[str, Any] = output.settings
    shown: dict[str, Any] = {key: value for key, value in plain.items() if key not in _NOT_SHOWN}
    shown["prompts"] = plain["prompts"] or "none: all objects of an image"
    if tiles := plain.get("tiles"):
        shown["tiles"] = ", ".join(f"{name} {value}" for name, value in tiles.items())
    if plain["scale"] is not None:
        shown["pixels"] = f"more than 8 bits, scaled as in the training: {plain['scale']}"
    return {key: as_typed(value) for key, value in shown.items()}


def _pictures(work: Work, outcome: Outcome) -> tuple[PredictionsPicture, ...]:
    """Images evenly spaced by the number of their objects, the fewest and the most among them."""
    sources = {image.name: image.path for image in work.images}
    ranked = sorted(outcome.counts, key=lambda name: (-outcome.counts[name], name))
    drawn = []
    for place in spread(len(ranked), PICTURES):
        name = ranked[place]
        path, found = sources[name], read_found(work.output.record(name))
        if path is None or found is None:
            continue
        try:
            with read_up_to(MAX_TILED_PIXELS):
                pixels = read_image(path, work.scale)
        except DataError:  # it is gone since
            continue
        scores = [one.score for one in found.objects]
        # every so many pixels: the picture is small
        step = max(1, max(found.size) // _DRAWN_SIDE)
        masks = found.some_masks(MOST_OBJECTS, step)
        mean = float(np.mean(scores)) if scores else None
        drawn.append(predictions_picture(name, pixels[::step, ::step], masks, mean, len(scores)))
    return tuple(drawn)
