"""What a finished run is measured for beside its own prompts, and the section of its page about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

from lora_sam.core.config import from_conf
from lora_sam.core.seeds import drawn_places
from lora_sam.evaluation.further_rows import ROWS
from lora_sam.evaluation.kinds import kind_lines, where_further
from lora_sam.prompts.interface import Kind, trained_kinds
from lora_sam.report.before_after import compared
from lora_sam.report.markup import element, figures_table
from lora_sam.training.validation import POINTS_PER_SIDE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lora_sam.core.predictor import Predictor
    from lora_sam.core.scores import MaskChoice, Scores
    from lora_sam.core.structures import Prompts, Sample
    from lora_sam.evaluation.further import Further
    from lora_sam.predictors.class_head import ClassHead
    from lora_sam.report.pictures import ReportPicture
    from lora_sam.training.parts import Parts
    from lora_sam.training.settings import Settings


def further_of(parts: Parts, predictors: Mapping[str, Predictor], head: ClassHead | None = None) -> Further:
    """What measures base and tuned of a run, with thresholds chosen where masks without a prompt are wanted.

    Args:
        parts: The run.
        predictors: `base` and `tuned`.
        head: Names the classes of tuned masks; None where there are not several.
    """
    from lora_sam.evaluation.further import Further

    settings = parts.settings
    trained = trained_kinds(settings.prompt)
    points = "point" in trained
    automatic, clicks = (
        points if option == "auto" else option for option in (settings.evaluate_automatic, settings.evaluate_clicks)
    )
    per_side = _points_per_side(parts) if automatic else POINTS_PER_SIDE
    return Further(
        predictors=predictors,
        seed=settings.seed,
        scores=_fitted(parts, predictors, per_side) if automatic else None,
        find=partial(find_masks, points_per_side=per_side),
        clicks=clicks,
        kinds=_kinds(trained, settings.seed),
        points_per_side=per_side,
        tell=None if head is None else head.told,
    )


def find_masks(
    predictor: Predictor, image: NDArray[np.uint8], scores: Scores, *, points_per_side: int
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Masks without a prompt, bool [N, H, W], and what ranks them [N]."""
    from lora_sam.predictors.automatic import AutomaticMasks

    found = AutomaticMasks(**{**vars(scores), "points_per_side": points_per_side}).generate(predictor, image)
    return found.masks, found.scores


def measured_places(settings: Settings, images: int) -> tuple[int, ...]:
    """Places of the images that a run's further figures are measured on, of so many."""
    chosen = drawn_places(images, settings.evaluate_images, settings.seed, "further")
    return tuple(range(images) if chosen is None else chosen.tolist())


def choices_of(settings: Settings) -> dict[str, tuple[MaskChoice, ...]]:
    """Which masks of a point base and tuned may show: of the tuned model those that were trained."""
    return {"base": ("three", "single"), "tuned": settings.trainer.trained_masks}


def further_section(report: Mapping[str, Any], pictures: Sequence[ReportPicture] = ()) -> Element | None:
    """The section of a run's page; None where nothing was measured.

    Args:
        report: Content of `evaluation.json`.
        pictures: What base and tuned find without a prompt.
    """
    rows = [row for row in ROWS if row.section in report]
    kinds = kind_lines(report)
    if not rows and not kinds:
        return None
    lines = []
    for row in rows:
        values = report[row.section][row.name]
        cells = []
        for key, sign in (("base", ""), ("tuned", ""), ("delta", "+")):
            low, high = values[f"{key}_interval"]
            interval = f"[{low:{sign}{row.form}}, {high:{sign}{row.form}}]"
            cells.append(element("td", f"{values[key]:{sign}{row.form}}", element("small", interval)))
        head = element("th", row.heading, element("small", row.explanation), scope="row")
        lines.append(element("tr", head, *cells))
    return element(
        "section",
        element("h2", "Without prompts, and with other prompts" if rows else "With other prompts"),
        figures_table(("base", "tuned", "difference"), lines) if lines else None,
        element("ul", *(element("li", line.replace("->", "→")) for line in kinds)) if kinds else None,
        element("p", " ".join(where_further(report)), class_="note") if rows else None,
        element("h3", "What both find without a prompt") if pictures else None,
        element("div", *(compared(f"found-{n}", one) for n, one in enumerate(pictures, 1)), class_="pictures")
        if pictures
        else None,
    )


def _points_per_side(parts: Parts) -> int:
    """Points along each side of an image: as the run was told, or as many as find its objects where it trains them."""
    from lora_sam.training.trained_on import points_per_side

    prompt = parts.settings.prompt
    told: int | None = getattr(prompt, "points_per_side", None)
    if told is None and "everything" in trained_kinds(prompt):
        told = points_per_side(parts.splits.train, parts.settings.seed)
        parts.say(f"masks without a prompt: {told} x {told} points, by the size of the training objects")
    return POINTS_PER_SIDE if told is None else told


def _fitted(parts: Parts, predictors: Mapping[str, Predictor], per_side: int) -> dict[str, Scores]:
    from lora_sam.core.console import progress
    from lora_sam.training.fitted_scores import fitted

    settings, source = parts.settings, parts.splits.val
    places = measured_places(settings, len(source))
    found = {}
    for name, predictor in predictors.items():
        with progress(f"choosing thresholds of {name} on {len(places)} validation images", "images") as on_image:
            found[name], _ = fitted(
                predictor, source, places, choices_of(settings)[name], points_per_side=per_side, on_image=on_image
            )
    return found


def _kinds(trained: tuple[Kind, ...], seed: int) -> dict[Kind, Callable[[Sample], Prompts]]:
    """Boxes and points; not those that a run's main figures are about."""
    main = [kind for kind in trained if kind in ("box", "point")]
    made: dict[Kind, Callable[[Sample], Prompts]] = {}
    sources: tuple[tuple[Kind, str], ...] = (("box", "prompt/box"), ("point", "prompt/point"))
    for kind, name in sources:
        if main != [kind]:
            made[kind] = partial(from_conf(name).evaluation_prompts, seed=seed)
    return made
