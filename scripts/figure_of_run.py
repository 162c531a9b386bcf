"""One picture of a finished run for a README: its curves, and test images with the masks before and after."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lora_sam.core.errors import AdapterError
from lora_sam.core.files import atomic_path, read_json
from lora_sam.core.metrics_log import read_metrics
from lora_sam.core.run_directory import RunDirectory
from lora_sam.evaluation.layout import validate_report
from lora_sam.evaluation.result import verdict
from lora_sam.report.curves import Axis, Chart, loss_chart, validation_chart
from lora_sam.report.found import PREFIX
from lora_sam.report.overlays import NAMES, panels_of

WIDTH = 1600
FILE_LIMIT = 400_000

_CHART = (500, 330)  # width, height
_PANEL, _GAP, _MARGIN, _LABEL, _BETWEEN = 240, 10, 24, 30, 40
_ORDER = ("image", "base", "tuned", "truth")
_ROWS = ("best", "median", "worst")
_PAPER, _INK, _FAINT, _GRID = (255, 255, 255), (29, 35, 39), (90, 100, 107), (223, 220, 213)
_COLOURS = {"raw": (196, 200, 203), "tuned": (0, 105, 168), "validation": (0, 105, 168), "base": (180, 90, 0)}
_FINE = 4  # lines are drawn this much larger, then reduced


def run_figure(run: RunDirectory, rows: int = 3) -> Image.Image:
    """Curves on the left, up to `rows` overlay strips as image | base | tuned | truth on the right, 1600 px wide.

    Reads `metrics.jsonl`, `evaluation.json` and `overlays/*.png`.

    Raises:
        AdapterError: the run is not finished, or one of these files is damaged.
    """
    if not run.evaluation.is_file():
        raise AdapterError(f"{run.root}: evaluation.json is missing; give the directory of a finished run")
    report = read_json(run.evaluation, "train again")
    validate_report(report)
    log = read_metrics(run.metrics)
    strips = [_fitted(_open(run.overlays / f"{name}.png")) for name in _ROWS[:rows]]
    body = max(2 * _CHART[1], sum(panels["image"].height + _LABEL for panels in strips) + _LABEL)
    figure = Image.new("RGB", (WIDTH, body + 2 * _MARGIN + _BETWEEN), _PAPER)
    draw = ImageDraw.Draw(figure)
    height = body // 2
    for index, chart in enumerate((loss_chart(log), validation_chart(log))):
        figure.paste(_draw_chart(chart, (_CHART[0], height)), (_MARGIN, _MARGIN + index * height))
    left, top = WIDTH - _MARGIN - len(_ORDER) * _PANEL - (len(_ORDER) - 1) * _GAP, _MARGIN
    for column, name in enumerate(_ORDER):
        draw.text((left + column * (_PANEL + _GAP), top), name, _INK, _font(20), anchor="la")
    top += _LABEL
    ranked = sorted(report["per_image"], key=lambda row: (row["tuned_iou"] - row["base_iou"], row["id"]))
    cases = {"best": ranked[-1], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[0]}
    for name, panels in zip(_ROWS, strips, strict=False):
        for column, panel in enumerate(_ORDER):
            figure.paste(panels[panel], (left + column * (_PANEL + _GAP), top))
        top += panels["image"].height
        text = f"{name} of {report['images']}: mean IoU {cases[name]['base_iou']:.3f} -> {cases[name]['tuned_iou']:.3f}"
        draw.text((left, top + 5), text, _FAINT, _font(16), anchor="la")
        top += _LABEL
    draw.text((_MARGIN, figure.height - _MARGIN), verdict(report), _INK, _font(19), anchor="ld")
    return figure


def write_figure(path: Path, run: RunDirectory) -> int:
    """Write the picture of `run` as a PNG below 400 kB; returns its size in bytes.

    Where all colours would take more, they are reduced to a palette, then rows are left out.

    Raises:
        AdapterError: see `run_figure`.
        TrainingError: the disk is full or the directory cannot be written.
    """
    return _written(path, lambda rows: run_figure(run, rows))


def write_found(path: Path, run: RunDirectory) -> int:
    """Write up to three strips of what base and tuned find without a prompt, as `write_figure` does.

    Reads `overlays/everything_*.png`: images of largest, median and smallest gain.

    Raises:
        AdapterError: the run was not measured without prompts, or one of these files is damaged.
        TrainingError: the disk is full or the directory cannot be written.
    """

    def figure(rows: int) -> Image.Image:
        strips = [_open(run.overlays / f"{PREFIX}{name}.png") for name in _ROWS[:rows]]
        strips = [
            one.resize((WIDTH, round(one.height * WIDTH / one.width)), Image.Resampling.LANCZOS) for one in strips
        ]
        made = Image.new("RGB", (WIDTH, sum(one.height for one in strips)), _PAPER)
        top = 0
        for one in strips:
            made.paste(one, (0, top))
            top += one.height
        return made

    return _written(path, figure)


def _written(path: Path, draw: Callable[[int], Image.Image]) -> int:
    content = b""
    for rows in range(len(NAMES), 0, -1):
        figure = draw(rows)
        for colours in (None, 256, 128, 64):
            content = _png(figure if colours is None else _with_palette(figure, colours))
            if len(content) < FILE_LIMIT:
                break
        if len(content) < FILE_LIMIT:
            break
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return len(content)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _with_palette(image: Image.Image, colours: int) -> Image.Image:
    return image.quantize(colours, dither=Image.Dither.NONE)


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path} cannot be read ({error}); train again") from error


def _fitted(strip: Image.Image) -> dict[str, Image.Image]:
    """The panels of a strip, reduced to fit a square cell."""
    panels = panels_of(strip)
    width, height = panels["image"].size
    scale = min(_PANEL / width, _PANEL / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return {name: panel.resize(size, Image.Resampling.LANCZOS) for name, panel in panels.items()}


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _draw_chart(chart: Chart, size: tuple[int, int]) -> Image.Image:
    """`chart` in pixels: lines with smooth edges, letters drawn at their final size."""
    left, top, right, bottom = 62, 58, size[0] - 14, size[1] - 56

    def at(x: float, y: float) -> tuple[float, float]:
        return left + chart.x.share(x) * (right - left), bottom - chart.y.share(y) * (bottom - top)

    fine = Image.new("RGB", (size[0] * _FINE, size[1] * _FINE), _PAPER)
    pen = ImageDraw.Draw(fine)

    def line(points: list[tuple[float, float]], colour: tuple[int, int, int], width: float) -> None:
        scaled = [(x * _FINE, y * _FINE) for x, y in points]
        pen.line(scaled, colour, round(width * _FINE), joint="curve")

    def ring(centre: tuple[float, float], radius: float, colour: tuple[int, int, int], width: float | None) -> None:
        box = [(part + sign * radius) * _FINE for sign in (-1, 1) for part in centre]
        if width is None:
            pen.ellipse(box, fill=colour)
        else:
            pen.ellipse(box, outline=colour, width=round(width * _FINE))

    for tick in chart.y.ticks:
        line([(left, at(0, tick)[1]), (right, at(0, tick)[1])], _GRID, 1)
    line([(left, bottom), (right, bottom)], _FAINT, 1.25)
    for tick in chart.x.ticks:
        line([(at(tick, 0)[0], bottom), (at(tick, 0)[0], bottom + 5)], _FAINT, 1.25)
    for curve in chart.curves:
        for piece in curve.pieces:
            line([at(x, y) for x, y in piece], _COLOURS[curve.kind], 1.25 if curve.kind == "raw" else 2.5)
            for x, y in piece if curve.kind == "validation" or len(piece) == 1 else ():
                ring(at(x, y), 3.5, _COLOURS[curve.kind], None)
    if chart.level is not None:
        y = at(0, chart.level[0])[1]
        for start in range(left, right, 12):
            line([(start, y), (min(start + 7, right), y)], _COLOURS["base"], 1.75)
    if chart.best is not None:
        ring(at(*chart.best[0]), 7, _INK, 2)
    image = fine.resize(size, Image.Resampling.BOX)
    _label_chart(ImageDraw.Draw(image), chart, (left, top, right, bottom), size)
    return image


def _label_chart(
    draw: ImageDraw.ImageDraw, chart: Chart, box: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    left, top, right, bottom = box
    small = _font(16)
    draw.text((left, 0), chart.title, _INK, _font(20), anchor="la")
    notes = [curve.name for curve in chart.curves] if len(chart.curves) > 1 else []
    notes += [marked[1] for marked in (chart.best, chart.level) if marked is not None]
    draw.text((left, 27), ", ".join(notes), _FAINT, small, anchor="la")
    if chart.empty:
        draw.text(((left + right) / 2, (top + bottom) / 2), "nothing was logged", _FAINT, small, anchor="mm")
        return
    _label_ticks(draw, chart.x, [(left + chart.x.share(t) * (right - left), bottom + 9) for t in chart.x.ticks], "ma")
    _label_ticks(draw, chart.y, [(left - 8, bottom - chart.y.share(t) * (bottom - top)) for t in chart.y.ticks], "rm")
    draw.text(((left + right) / 2, size[1] - 22), chart.x_label, _FAINT, small, anchor="ma")


def _label_ticks(draw: ImageDraw.ImageDraw, axis: Axis, places: list[tuple[float, float]], anchor: str) -> None:
    for tick, place in zip(axis.ticks, places, strict=True):
        draw.text(place, axis.label(tick), _FAINT, _font(15), anchor=anchor)
