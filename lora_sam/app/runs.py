"""The runs below an outputs directory, and what they measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_sam.core.errors import LoraSamError
from lora_sam.core.files import read_json
from lora_sam.core.metrics_log import read_metrics
from lora_sam.core.run_directory import SWEEP, RunDirectory, find_run
from lora_sam.core.wording import plural
from lora_sam.evaluation.layout import validate_report
from lora_sam.evaluation.lead import lead, measured_on
from lora_sam.evaluation.result import verdict
from lora_sam.runs.adapter_files import read_facts

_DEPTHS = 4  # outputs/<date>/<time>, multirun/<date>/<time>/<job>


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        name: Path below the outputs directory, with `/`; the whole path for a run elsewhere.
        directory: Where it is.
    """

    name: str
    directory: RunDirectory

    @property
    def facts(self) -> dict[str, Any]:
        """`lora_sam.json` of its adapter. Raises `AdapterError` if damaged."""
        return read_facts(self.directory.adapter)

    @property
    def report(self) -> dict[str, Any] | None:
        """`evaluation.json`; None where there is none, or it is damaged."""
        try:
            report = read_json(self.directory.evaluation, "evaluate again")
            validate_report(report)
        except LoraSamError:
            return None
        return report

    @property
    def log(self) -> list[dict[str, Any]]:
        """Lines of `metrics.jsonl`; none where it cannot be read."""
        try:
            return list(read_metrics(self.directory.metrics))
        except (LoraSamError, OSError, ValueError):
            return []


def find_runs(outputs: Path, wanted: str | None = None) -> list[Run]:
    """All runs with an adapter below `outputs`, the one called `wanted` first, then the latest, then by falling date.

    Args:
        outputs: Directory that runs are written to; may be absent.
        wanted: `latest`, `best`, the name of a run below `outputs`, or the path of a run or of a sweep, whose best job
            is the first then; None for the latest.

    Raises:
        AdapterError: there is no run `wanted`.
    """
    found: dict[Path, Run] = {}
    for depth in range(_DEPTHS + 1):
        for facts in outputs.glob("/".join([*["*"] * depth, "adapter", "lora_sam.json"])):
            root = facts.parent.parent
            if not root.is_symlink():
                name = root.relative_to(outputs).as_posix()
                found.setdefault(root.resolve(), Run(outputs.name if name == "." else name, RunDirectory(root)))
    for sweep in (outputs.parent / "multirun").glob(f"*/*/{SWEEP}"):
        for job in sweep.parent.glob("*/adapter/lora_sam.json"):
            root = job.parent.parent
            if not root.is_symlink():
                found.setdefault(root.resolve(), Run(root.as_posix(), RunDirectory(root)))
    latest = outputs / "latest"
    first = [latest.resolve()] if latest.is_dir() else []
    # the best job of a sweep, which lies elsewhere
    found.update((root, Run("latest", RunDirectory(root))) for root in first if root not in found and _is_run(root))
    if wanted is not None and wanted != "latest":
        inside = outputs / wanted
        asked = str(inside if inside.is_dir() else wanted)
        run = find_run(asked)
        read_facts(run.adapter)
        sweep = Path(asked) if (Path(asked) / SWEEP).is_file() else run.root.parent
        if (sweep / SWEEP).is_file():
            for job in sorted(sweep.glob("*/adapter/lora_sam.json")):
                root = job.parent.parent
                if not root.is_symlink():
                    found.setdefault(root.resolve(), Run(root.as_posix(), RunDirectory(root)))
        found.setdefault(run.root, Run(wanted, run))
        first.insert(0, run.root)
    by_date = sorted(found, key=lambda root: (-_written(found[root].directory), found[root].name))
    order = [*(root for root in first if root in found), *by_date]
    return [found[root] for root in dict.fromkeys(order)]


def _is_run(root: Path) -> bool:
    return (root / "adapter" / "lora_sam.json").is_file()


def described(run: Run) -> str:
    """One line about a run: its name, model and method, and what tuning changed."""
    try:
        facts = run.facts
    except LoraSamError:
        return f"{run.name} (damaged)"
    text = f"{run.name} · {facts['architecture'].get('variant', '?')}, {facts['method'].get('name', '?')}"
    report = run.report
    if report is None:
        return text
    first = lead(report)
    return f"{text} · {first.short} {first.base:.3f} → {first.tuned:.3f}"


def headline(run: Run) -> dict[str, str]:
    """What stands above everything: `run`, `model`, `data`, a `claim` in few words, `figures`, the whole `verdict`."""
    try:
        facts = run.facts
    except LoraSamError:
        return {"run": run.name, "claim": "damaged"}
    config = configuration(run) or {}
    data = config.get("data") or {}
    root = data.get("root") or str(data.get("_target_", "")).rpartition(".")[2].lower()
    made = {
        "run": run.name,
        "model": f"{facts['architecture'].get('variant', '?')}, {facts['method'].get('name', '?')}",
        "data": str(root),
        "claim": "not evaluated",
        "figures": "",
        "verdict": "",
    }
    report = run.report
    if report is None:
        return made
    first, (objects, images) = lead(report), measured_on(report)
    low, high = first.interval
    made["claim"] = (
        "tuned is better" if first.better else "tuned is worse" if first.worse else "no measurable difference"
    )
    made["figures"] = (
        f"{first.short} {first.base:.3f} → {first.tuned:.3f}, {first.delta:+.3f} (95 % interval {low:+.3f} to "
        f"{high:+.3f}), {plural(objects, 'object')} in {images}"
    )
    made["verdict"] = verdict(report).replace("->", "→")
    return made


def headline_html(run: Run) -> str:
    """The header of the page."""
    from lora_sam.report.markup import element, serialize

    told = headline(run)
    better = {"tuned is better": "good", "tuned is worse": "bad"}.get(told["claim"], "even")
    return serialize(
        element(
            "header",
            element("h1", "lora_sam"),
            element("span", told["run"], class_="ls-run", title="run"),
            element("span", told.get("model", ""), title="model and method"),
            element("span", told.get("data", ""), title="data"),
            element("p", element("strong", told["claim"], class_=f"ls-{better}"), f" {told.get('figures', '')}",
                    title=told.get("verdict", "")),
            class_="ls-head",
        )
    )  # fmt: skip


def ranked_images(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The images of a report, the largest rise of the mean IoU first."""
    images: list[dict[str, Any]] = list(report["per_image"])
    return sorted(images, key=lambda image: (image["base_iou"] - image["tuned_iou"], image["id"]))


def curves_html(run: Run) -> str:
    """Training loss, validation IoU and IoU per image of a run as inline SVG; empty where nothing was logged."""
    from lora_sam.report.charts import histogram, line_chart
    from lora_sam.report.curves import loss_chart, validation_chart
    from lora_sam.report.markup import element, serialize

    log, report = run.log, run.report
    charts = (
        [
            line_chart(loss_chart(log)),
            line_chart(validation_chart(log, start="begun with" if report and "init_from" in report else "base")),
        ]
        if log
        else []
    )
    if report is not None:
        values = [(key, key, [image[f"{key}_iou"] for image in report["per_image"]]) for key in ("base", "tuned")]
        charts.append(histogram("Mean IoU of every image", "IoU", "images", values))
    return serialize(element("div", *charts, class_="charts")) if charts else ""


def configuration(run: Run) -> dict[str, Any] | None:
    """`config.json` of a run; None where there is none."""
    try:
        return read_json(run.directory.saved_config, "train again")
    except LoraSamError:
        return None


def _written(run: RunDirectory) -> float:
    try:
        return (run.adapter / "lora_sam.json").stat().st_mtime
    except OSError:
        return 0.0
