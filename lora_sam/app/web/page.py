"""The layout of the page, and what its controls do."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from lora_sam.app import details
from lora_sam.app.answers import Answers
from lora_sam.app.leaderboard import LEADERBOARD
from lora_sam.app.runs import described, headline_html
from lora_sam.app.scene import HEADINGS, MAX_ALPHA, MAX_RUNS
from lora_sam.app.turns import WAITING
from lora_sam.app.web.api import endpoints
from lora_sam.app.web.canvas import canvas, style
from lora_sam.app.workbench import Workbench
from lora_sam.core.errors import LoraSamError

CHOICES = [
    ("single mask", "single"),
    ("best of three", "best"),
    ("1st of three", "1"),
    ("2nd of three", "2"),
    ("3rd of three", "3"),
]
__all__ = ["build", "style", "theme"]

_OPEN = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-id]");
  if (!button) return;
  window.loraSam.open(button.dataset.id);
  [...document.querySelectorAll("button[role=tab]")].find((tab) => tab.textContent.trim() === "Compare").click();
});"""
_STATE = "() => [window.loraSam ? window.loraSam.json() : '']"


def theme() -> Any:
    """Gradio's default with fonts of the user's own system, so that nothing is fetched from elsewhere."""
    made = gr.themes.Default(
        primary_hue="sky", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    # the greys of Gradio are too faint for WCAG's contrast of 4.5
    return made.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_label_text_color="*neutral_700",
    )


def build(bench: Workbench) -> gr.Blocks:
    """The whole page around a workbench, whose models may still be loading."""
    answers = Answers(bench)
    with gr.Blocks(
        title="lora_sam: base and tuned", analytics_enabled=False, delete_cache=(3600, 3600), fill_width=True
    ) as page:
        head = gr.HTML(headline_html(next(iter(bench.runs.values()))), elem_id="head")
        with gr.Tabs(selected="compare"):
            with gr.Tab("Compare", id="compare"):
                with gr.Row():
                    with gr.Column(scale=4, min_width=320), gr.Tabs():
                        with gr.Tab("Side by side"):
                            board = canvas(answers)
                        with gr.Tab("Slider: base | tuned") as sliding:
                            slider = gr.ImageSlider(
                                label="base on the left, tuned on the right",
                                show_label=False,
                                interactive=False,
                                max_height=720,
                            )
                    with gr.Column(scale=1, min_width=280):
                        controls = _controls(bench)
                        found = _everything()
                kept = _kept(bench)
                table, files, link, code = _results()
            with gr.Tab("Metrics", id="metrics") as metrics:
                shown = _metrics()
        told = gr.Textbox(visible="hidden", label="prompts")
        endpoints(bench)

        state = gr.Textbox(visible="hidden", label="state")
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        heavy: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 2 * WAITING}  # `Turns` has the line

        page.load(lambda: _run_choices(bench), None, controls["runs"], **quiet)
        board.opened(
            _safe(lambda text: details.controls_of(bench, text)), state, list(controls.values()), js=_STATE, **quiet
        ).then(_safe(lambda runs: _backend_choices(bench, runs)), controls["runs"], controls["backend"], **quiet)
        board.settled(
            _safe(lambda text: details.table_and_code(bench, text)), state, [table, code], js=_STATE,
            trigger_mode="always_last", **quiet,
        )  # fmt: skip
        for event in (board.slide, sliding.select):
            event(
                _safe(lambda text: details.slider_images(bench, text)), state, slider, js=_STATE,
                trigger_mode="always_last", **quiet, **heavy,
            )  # fmt: skip

        for name in ("runs", "alpha", "choice", "backend"):
            control = controls[name]
            control.input(
                None, control, None, js=f"(value) => {{ window.loraSam?.set({{ {name}: value }}); }}", **quiet
            )
        controls["runs"].input(
            _safe(lambda runs: _backend_choices(bench, runs)), controls["runs"], controls["backend"], **quiet
        )
        table.input(_safe(details.objects_of_table), table, told, **quiet).then(
            None, told, None, js="(text) => { window.loraSam.objects(text); }", **quiet
        )
        files["make"].click(
            partial(_written, bench), state, files["files"], js=_STATE, api_visibility="private", **heavy
        )
        link["copy"].click(None, None, link["text"], js="() => window.loraSam.link()", **quiet)
        found["find"].click(
            None, [found["side"], found["own"], found["iou"], found["stability"]], None, **quiet,
            js="(points_per_side, own, predicted_iou, stability) => { window.loraSam.everything("
            "own ? {} : { points_per_side, predicted_iou, stability }); }",
        )  # fmt: skip

        controls["runs"].input(
            lambda runs: headline_html(bench.runs[runs[0]]) if runs and runs[0] in bench.runs else gr.skip(),
            controls["runs"], head, **quiet,
        )  # fmt: skip
        kept["keep"].click(
            _safe(lambda text, which, names: details.keep(bench, text, _column(bench, text, which), names)),
            [state, kept["which"], kept["names"]], [kept["told"], kept["again"]],
            js="(text, which, names) => [window.loraSam ? window.loraSam.json() : '', which, names]",
            api_visibility="private", **heavy,
        )  # fmt: skip

        metrics.select(
            _safe(lambda runs: details.metrics(bench, runs)), controls["runs"], list(shown.values()), **quiet
        )
    page.queue(max_size=4 * WAITING, default_concurrency_limit=4)
    made: gr.Blocks = page
    return made


def _controls(bench: Workbench) -> dict[str, Any]:
    first = next(iter(bench.runs))
    with gr.Group():
        return {
            "runs": gr.Dropdown(
                _run_list(bench), value=[first], multiselect=True, max_choices=MAX_RUNS, label="Runs",
                info="base and test images come from the first",
            ),
            "alpha": gr.Slider(
                0, MAX_ALPHA, value=1, step=0.05, label="LoRA strength α", info="0 is the base, 1 as trained"
            ),
            "backend": gr.Dropdown([("torch", "torch")], value="torch", label="Back end of the tuned model",
                info="size; time to encode an image + to answer a prompt",
            ),
            "choice": gr.Dropdown(CHOICES, value="single", label="Mask of an ambiguous prompt"),
        }  # fmt: skip


def _everything() -> dict[str, Any]:
    with gr.Accordion("Everything, without prompts", open=False):
        return {
            "side": gr.Slider(4, 32, value=16, step=1, label="points per side"),
            "own": gr.Checkbox(value=True, label="points and thresholds of the weights, instead of these"),
            "iou": gr.Slider(0, 1, value=0.5, step=0.01, label="least predicted IoU"),
            "stability": gr.Slider(0, 1, value=0.85, step=0.01, label="least stability"),
            "find": gr.Button("Find everything"),
        }


def _kept(bench: Workbench) -> dict[str, Any]:
    kept = bench.folder is not None
    with gr.Accordion("Keep as training data, and tune again", open=False, visible=kept), gr.Row():
        with gr.Column(min_width=260):
            which = gr.Radio(["tuned", "base"], value="tuned", label="masks of")
            names = gr.Textbox(
                "", label="class names", max_lines=2,
                info="one for all, or one for each object with commas; nothing: as told, or “object”",
            )  # fmt: skip
            keep = gr.Button("Keep these masks")
        with gr.Column(min_width=260):
            told = gr.Textbox(label=f"kept in {bench.folder}", interactive=False, lines=2)
            again = gr.Textbox(label="tune again with", interactive=False, lines=2, buttons=["copy"])
    return {"which": which, "names": names, "keep": keep, "told": told, "again": again}


def _column(bench: Workbench, text: str, which: str) -> str:
    scene, _ = details.state_of(bench, text)
    return "base" if which == "base" else scene.runs[0]


def _results() -> tuple[Any, dict[str, Any], dict[str, Any], Any]:
    with gr.Accordion("Prompts as a table", open=False):
        table = gr.Dataframe(
            headers=list(HEADINGS), datatype=["number", "str", "number", "number", "number", "number"], type="array",
            interactive=True,
            label="kind is box, + or -; pixels of the image", row_count=1, column_count=len(HEADINGS), max_height=320,
        )  # fmt: skip
    files: dict[str, Any] = {}
    with gr.Accordion("Save and share", open=False):
        files["make"] = gr.Button("Make files of these masks")
        files["files"] = gr.File(
            label="PNG masks, label image, COCO JSON, prompts", file_count="multiple", interactive=False, visible=False
        )
        link = {
            "copy": gr.Button("Link to this state"),
            "text": gr.Textbox(label="link (an uploaded image is not in it)", buttons=["copy"], lines=1, max_lines=2),
        }
    with gr.Accordion("Python that makes these masks", open=False):
        # Gradio's own field for code has colours below WCAG's contrast, and cannot be scrolled by keyboard
        code = gr.Textbox(
            label="Python", interactive=False, lines=8, max_lines=24, buttons=["copy"], elem_classes="ls-code"
        )
    return table, files, link, code


def _metrics() -> dict[str, Any]:
    shown: dict[str, Any] = {
        "verdict": gr.Markdown(),
        "table": gr.HTML(elem_classes="ls-metrics"),
        "curves": gr.HTML(elem_classes="ls-metrics"),
    }
    gr.Markdown("## Test images: largest gain to largest loss\nChoose one to open it in Compare.")
    shown["images"] = gr.HTML(elem_classes="ls-metrics", js_on_load=_OPEN)
    gr.Markdown("## All runs")
    shown["runs"] = gr.Dataframe(
        headers=list(LEADERBOARD), interactive=False, wrap=True, label="leaderboard", buttons=[]
    )
    return shown


def _run_list(bench: Workbench) -> list[tuple[str, str]]:
    return [(described(run), run.name) for run in bench.runs.values()]


def _run_choices(bench: Workbench) -> Any:
    bench.refresh()
    return gr.Dropdown(choices=_run_list(bench))


def _backend_choices(bench: Workbench, runs: list[str]) -> Any:
    labels = bench.backends(runs[0] if runs else next(iter(bench.runs)))
    return gr.Dropdown(choices=[(label, name) for name, label in labels.items()])


def _written(bench: Workbench, text: str) -> Iterator[Any]:
    """Paths of the files; Gradio copies them into its own cache, which is emptied in time."""
    try:
        made = details.files(bench, text)
    except LoraSamError as error:
        raise _shown(error) from error
    with tempfile.TemporaryDirectory(prefix="lora_sam-") as folder:
        for name, content in made.items():
            (Path(folder) / name).write_bytes(content)
        yield gr.File([str(Path(folder) / name) for name in made], visible=True)


def _safe(function: Any) -> Any:
    """The same function, whose user errors are shown as a message."""

    def safe(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except LoraSamError as error:
            raise _shown(error) from error

    return safe


def _shown(error: LoraSamError) -> gr.Error:
    return gr.Error(html.escape(" ".join(str(error).split())), print_exception=False, title="This does not work")
