"""The canvas on which prompts are given: HTML, CSS and JavaScript, and the functions it calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import gradio as gr

from lora_sam.app.answers import Answer, Answers
from lora_sam.app.drawing import BROKEN, CHANGED, FIXED
from lora_sam.core.painting import PALETTE


def canvas(answers: Answers) -> gr.HTML:
    """The component; it triggers `opened`, `settled` when new masks are shown, and `slide` while it is hidden."""
    script = _text("canvas.js")
    for name, value in {"PALETTE": PALETTE, "FIXED": FIXED, "BROKEN": BROKEN, "CHANGED": CHANGED}.items():
        script = script.replace(f"__{name}__", json.dumps(value))
    return gr.HTML(
        html_template=_text("canvas.html"),
        js_on_load=script,
        server_functions=_functions(answers),
        elem_id="canvas",
        label="Image with prompts",
    )


def style() -> str:
    """CSS of the canvas and of the metrics."""
    return _text("canvas.css")


def _functions(answers: Answers) -> list[Callable[..., Any]]:
    """Named functions of one argument, as Gradio hands them what the page sent."""

    def opening(link: Any) -> Answer:
        return answers.opening(str(link or ""))

    def examples(run: Any) -> Answer:
        return answers.examples(str(run))

    def open_picture(given: Any) -> Answer:
        return answers.open_picture(*_texts(given))

    def upload(given: Any) -> Answer:
        return answers.upload(*_texts(given))

    def masks(given: Any) -> Answer:
        return answers.masks(*_texts(given, 3))

    def everything(given: Any) -> Answer:
        return answers.everything(*_texts(given, 3))

    def ahead(ticket: Any) -> int:
        return answers.ahead(str(ticket))

    return [opening, examples, open_picture, upload, masks, everything, ahead]


def _texts(given: Any, count: int = 2) -> list[str]:
    values = [str(value) for value in given] if isinstance(given, list) else []
    return [*values, *[""] * count][:count]


def _text(name: str) -> str:
    return files("lora_sam.app.web").joinpath(name).read_text(encoding="utf-8")
