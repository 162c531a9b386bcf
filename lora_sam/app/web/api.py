"""Named endpoints for programs: `/segment`, `/compare`, `/everything`."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr

from lora_sam.app.answers import automatic_settings
from lora_sam.app.downloads import coco
from lora_sam.app.figures import means, table
from lora_sam.app.scene import MAX_ALPHA, Scene, checked_scene, objects_from
from lora_sam.app.turns import WAITING
from lora_sam.app.workbench import Workbench
from lora_sam.core.errors import DataError, LoraSamError


def endpoints(bench: Workbench) -> None:
    """Add the endpoints to the page that is being built; they are not seen on it."""

    def scene_of(image: bytes | None, prompts: str, run: str, alpha: float, backend: str, choice: str) -> Scene:
        if image is None:
            raise DataError("there is no image; give a PNG, JPEG, WebP, BMP, GIF or TIFF file")
        if not bench.ready.is_set():
            bench.start()
        bench.ready.wait()
        if bench.failure is not None:
            raise DataError(bench.failure)
        if isinstance(alpha, bool) or not isinstance(alpha, int | float):
            raise DataError(f"alpha is {json.dumps(alpha)}, must be a number from 0 to {MAX_ALPHA:g}; 1 is as trained")
        objects = objects_from(prompts or "[]")
        for number, one in enumerate(objects, 1):
            if one.empty:
                raise DataError(
                    f'object {number} has neither a box nor a point; give it "box": [x1, y1, x2, y2] or '
                    '"points": [[x, y, 1]]'
                )
        picture = bench.upload("image", image)
        return checked_scene(
            image=picture.id,
            objects=objects,
            runs=(run,) if run else (next(iter(bench.runs)),),
            alpha=alpha,
            backend=backend,
            choice=choice,
        )

    def segment(
        image: bytes | None, prompts: str, model: str, run: str, alpha: float, backend: str, choice: str
    ) -> dict[str, Any]:
        scene = scene_of(image, prompts, run, alpha, backend, choice)
        picture, masks, scores = bench.whole(scene, "api")
        key = "base" if model == "base" else scene.runs[0]
        return coco(picture, masks[key], scores[key])

    def compare(image: bytes | None, prompts: str, run: str, alpha: float, backend: str, choice: str) -> dict[str, Any]:
        scene = scene_of(image, prompts, run, alpha, backend, choice)
        comparison = bench.compare(scene, "api")
        picture, masks, scores = bench.whole(scene, "api")
        rows = table(comparison)
        names = {"base": "base", scene.runs[0]: "tuned"}
        return {
            "figures": [
                {
                    "object": row["object"],
                    **{names[c.key]: cell for c, cell in zip(comparison.columns, row["columns"], strict=True)},
                }
                for row in rows
            ],
            "mean_iou": dict(zip(names.values(), means(rows, len(names)), strict=True)),
            **{names[key]: coco(picture, found, scores[key]) for key, found in masks.items()},
        }

    def everything(image: bytes | None, options: str, run: str, alpha: float, backend: str) -> dict[str, Any]:
        scene = scene_of(image, "[]", run, alpha, backend, "single")
        comparison = bench.everything(scene, automatic_settings(options), "api")
        names = {"base": "base", scene.runs[0]: "tuned"}
        return {
            names[column.key]: [
                {"score": score, "area": patch.area, "mask": patch.packed()}
                for patch, score in zip(column.patches, column.scores, strict=True)
                if patch is not None
            ]
            for column in comparison.columns
        } | {"size": list(comparison.picture.shown_size)}

    with gr.Group(visible=False):
        image = gr.File(label="image", type="binary")
        prompts = gr.Textbox("[]", label="prompts")
        model = gr.Radio(["base", "tuned"], value="tuned", label="model")
        run = gr.Textbox("", label="run")
        alpha = gr.Number(1.0, label="alpha")
        backend = gr.Textbox("torch", label="backend")
        choice = gr.Radio(["single", "best", "1", "2", "3"], value="single", label="choice")
        options = gr.Textbox("{}", label="options")
        answer = gr.JSON(label="answer")
        shared: dict[str, Any] = {"outputs": answer, "concurrency_id": "model", "concurrency_limit": 2 * WAITING}
        gr.Button().click(
            _told(segment), [image, prompts, model, run, alpha, backend, choice], api_name="segment",
            api_description="Masks of one model as COCO instances. `prompts` is a JSON list of "
            '{"box": [x1, y1, x2, y2] or null, "points": [[x, y, label], ...]}, one for each object.', **shared,
        )  # fmt: skip
        gr.Button().click(
            _told(compare), [image, prompts, run, alpha, backend, choice], api_name="compare",
            api_description="Masks of base and tuned as COCO instances, and the figures of every object.", **shared,
        )  # fmt: skip
        gr.Button().click(
            _told(everything), [image, options, run, alpha, backend], api_name="everything",
            api_description="All masks that base and tuned find without a prompt. `options` are fields of "
            "`lora_sam.predictors.automatic.AutomaticMasks` as a JSON object.", **shared,
        )  # fmt: skip


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose user errors reach the caller as their one sentence."""

    @wraps(function)  # whose parameters are the names that programs use
    def told(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except LoraSamError as error:
            raise gr.Error(" ".join(str(error).split()), print_exception=False) from error

    return told
