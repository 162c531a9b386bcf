"""What the page shows beside the canvas: table, snippet, slider, files and metrics of a state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.app import collected, downloads
from lora_sam.app.comparison import scaled
from lora_sam.app.drawing import overlay, tagged
from lora_sam.app.figures import means, table
from lora_sam.app.leaderboard import leaderboard
from lora_sam.app.patches import Patch
from lora_sam.app.pictures import Picture
from lora_sam.app.runs import curves_html
from lora_sam.app.scene import HEADINGS, Scene, objects_json, objects_of, rows_of, scene_from
from lora_sam.app.workbench import Workbench
from lora_sam.core.errors import DataError, LoraSamError
from lora_sam.core.wording import plural
from lora_sam.evaluation.result import verdict
from lora_sam.report.markup import element, serialize

_PICTURES = 12
_PICTURE_SIDE = 200


def state_of(bench: Workbench, text: str) -> tuple[Scene, float]:
    """Scene and opacity (0 to 1) from what the page sends. Raises `DataError` if it is not such a state."""
    try:
        given = json.loads(text or "{}")
        scene, opacity = scene_from(json.dumps(given["scene"])), float(given.get("opacity", 0.45))
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, LoraSamError):
            raise
        raise DataError("the page has not loaded yet; wait for the masks") from error
    if not scene.runs:
        scene = replace(scene, runs=(next(iter(bench.runs)),))
    return scene, min(max(opacity, 0.0), 1.0)


def controls_of(bench: Workbench, text: str) -> list[Any]:
    """Values of the controls for a state: runs, strength, back end, choice."""
    scene, _ = state_of(bench, text)
    return [list(scene.runs), scene.alpha, scene.backend, scene.choice]


def table_and_code(bench: Workbench, text: str) -> list[Any]:
    """The table of prompts, and Python that makes the masks."""
    scene, _ = state_of(bench, text)
    run = bench.runs.get(scene.runs[0])
    code = "" if run is None else downloads.snippet(scene, bench.picture(scene.image, scene.runs[0]), run)
    return [rows_of(scene.objects) or [[None] * len(HEADINGS)], code]


def objects_of_table(rows: Sequence[Sequence[Any]]) -> str:
    """The prompts of an edited table as JSON. Raises `DataError` that names the row."""
    return json.dumps(objects_json(objects_of(rows)))


def slider_images(bench: Workbench, text: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The image with the masks of base, and with those of the first tuned model."""
    scene, opacity = state_of(bench, text)
    comparison = bench.compare(scene, "slider")
    rows = table(comparison)
    drawn = []
    objects = [scaled(one, comparison.picture.scale) for one in comparison.objects]
    columns = list(zip(comparison.columns, means(rows, len(comparison.columns)), strict=True))[:2]
    for place, (column, mean) in enumerate(columns):
        tag = ("tuned" if place else "base") + ("" if mean is None else f" · IoU {mean:.3f}")
        image = overlay(comparison.picture.image, column.patches, opacity)
        drawn.append(tagged(image, tag, objects, right=bool(place)))
    return drawn[0], drawn[1]


def files(bench: Workbench, text: str) -> dict[str, bytes]:
    """Name and content of the files of a state. Raises `DataError` where there are no prompts."""
    scene, _ = state_of(bench, text)
    if all(one.empty for one in scene.objects):
        raise DataError("there are no prompts yet: click an object, or drag a box around it")
    return downloads.files_of(*_in_order(scene, *bench.whole(scene)))


def keep(bench: Workbench, text: str, which: str, names: str) -> list[str]:
    """Keep the masks of a model as training data; says how many, and the command that trains on with them.

    Args:
        bench: What is shown.
        text: The state: masks of prompts, or with `everything` those found without that have the mark `found`, except
            the places `left_out` of the column `left_out_of`; without that key, of the one that is kept.
        which: Key of the model.
        names: One class for all masks, or one for each, with commas.

    Raises:
        DataError: there are no such masks, or they cannot be kept.
    """
    if bench.folder is None:
        raise DataError("this app keeps no masks; save them as files instead")
    scene, _ = state_of(bench, text)
    given = json.loads(text)
    if given.get("everything"):
        found = bench.found(scene, str(given.get("found") or ""))
        column = next((one for one in found.columns if one.key == which), found.columns[-1])
        skipped = set(given.get("left_out") or ()) if given.get("left_out_of", column.key) == column.key else set()
        patches = [patch for place, patch in enumerate(column.patches) if patch is not None and place not in skipped]
        told = [name for place, name in enumerate(column.names) if place not in skipped]
        if not patches:
            raise DataError("all masks are left out; click some of them to take them back")
        picture = found.picture
        masks = np.stack([_at_original(patch, picture) for patch in patches])
        told = told or bench.told(scene, "base", picture, masks)
    else:
        picture, by_model, _ = bench.whole(scene)
        which = which if which in by_model else list(by_model)[-1]
        masks = by_model[which]
        told = bench.told(scene, which, picture, masks)
    made = collected.collect(bench.folder, picture, masks, collected.names_for(names, len(masks), told))
    run = bench.runs[scene.runs[0]].directory.root
    sentence = (
        f"{plural(made.kept, 'object')} of {picture.name} kept in {made.folder}, which now holds "
        f"{plural(made.objects, 'object')} in {plural(made.images, 'image')}."
    )
    return [sentence, collected.tune_again(bench.program, run, made.folder)]


def _at_original(patch: Patch, picture: Picture) -> NDArray[np.bool_]:
    mask = patch.full(picture.shown_size)
    if picture.shown_size == picture.size:
        return mask
    rows, columns = (
        np.minimum((np.arange(whole) * (shown / whole)).astype(np.intp), shown - 1)
        for whole, shown in zip(picture.size, picture.shown_size, strict=True)
    )
    return mask[rows[:, None], columns]


def metrics(bench: Workbench, runs: Sequence[str]) -> list[Any]:
    """Verdict, figures, curves, pictures and the leaderboard, for the first of `runs`."""
    board = leaderboard(list(bench.runs.values()))
    run = bench.runs.get(runs[0]) if runs else None
    if run is None:
        return ["Choose a run.", "", "", "", board]
    report = run.report
    text = f"## {run.name}\n\nThis run was not evaluated." if report is None else f"## {run.name}\n\n{verdict(report)}"
    table = "" if report is None else _figures(report)
    pictures = ""
    try:
        images = bench.evaluated(run.name)
    except LoraSamError as error:
        text += f"\n\n{error}"
    else:
        order = images.order()
        shown = order if len(order) <= _PICTURES else [*order[: _PICTURES // 2], *order[-_PICTURES // 2 :]]
        pictures = pictures_html([images.thumbnail(index, _PICTURE_SIDE) for index in shown])
    return [text.replace("->", "→"), table, curves_html(run), pictures, board]


def _figures(report: Mapping[str, Any]) -> str:
    """All figures in few columns, which a phone has room for."""
    from lora_sam.report.further import further_section
    from lora_sam.report.page import all_figures

    return serialize(element("div", all_figures(report), further_section(report)))


def pictures_html(thumbnails: Sequence[Mapping[str, Any]]) -> str:
    """Buttons with pictures, their names, and mean IoU before and after; `data-id` is the id of the image."""
    buttons = []
    for one in thumbnails:
        scores = "" if one["iou"] is None else "{:.3f} → {:.3f}".format(*one["iou"])
        picture = element("img", src=one["url"], alt="", width=_PICTURE_SIDE)
        name = element("span", f"{one['name'].rpartition('/')[2]} {scores}")
        buttons.append(element("button", picture, name, type="button", data_id=one["id"]))
    return serialize(element("div", *buttons, class_="pictures"))


def _in_order(scene: Scene, picture: Any, masks: Any, scores: Any) -> tuple[Any, Scene, Any, Any]:
    names = {key: "base" if key == "base" else f"tuned_{key}" for key in masks}
    return picture, scene, {names[key]: masks[key] for key in masks}, {names[key]: scores[key] for key in masks}
