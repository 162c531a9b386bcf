"""`sweep.html`: one page that shows a sweep, without a single request to anywhere."""

from __future__ import annotations

import html
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from xml.etree.ElementTree import Element

from lora_sam.core.calling import quoted, step_called, training_called
from lora_sam.core.run_directory import RunDirectory
from lora_sam.core.wording import in_bytes, in_short, plural
from lora_sam.report.markup import append, element, serialize
from lora_sam.report.sweep_charts import cost_chart, heat_map, parallel_chart
from lora_sam.report.sweep_table import (
    BY_HEART,
    SETS,
    chose_nothing,
    figure,
    interval,
    letter_of,
    may_be_as_good,
    places_of,
    short_names,
    split_of,
    time_of,
    title_of,
    why_none_is_best,
)
from lora_sam.runs.sweep import Sweep
from lora_sam.runs.sweep_jobs import Group, Job
from lora_sam.runs.sweep_ranking import pareto

PAGE = "sweep.html"
_COSTS = (
    ("trained_parameters", "IoU against trained weights", "trained weights, thousands", 1e3),
    ("adapter_bytes", "IoU against size of the adapter", "adapter, MB", 1e6),
    ("seconds", "IoU against time", "seconds of the job", 1.0),
)
_STYLE = (
    ".cell { fill: var(--tuned); } td.state { color: var(--bad); } tr.best td, tr.best th { font-weight: 650; } "
    # a figure stays with its unit; what was typed may be long
    ".jobs td { white-space: nowrap; } .jobs td.value { white-space: normal; } "
    '.jobs th[scope="row"] { min-width: 3em; white-space: nowrap; }'
)


def sweep_page(sweep: Sweep, directory: Path) -> str:
    """The whole page.

    Args:
        sweep: Content of `sweep.json`.
        directory: Directory of the sweep; reports of its jobs are named relative to it.
    """
    ranking = sweep.ranking()
    done = [job for job in ranking if job.state == "done" and job.validation is not None]
    names = short_names(sweep.varied)
    main = element("main")
    append(
        main,
        _header(sweep),
        _groups(sweep, names) if sweep.groups else None,
        _jobs(sweep, ranking, names, directory),
        *(_charts(sweep, [job for job in done if job.validation_set == number], names) for number in _sets_of(done)),
        _failures([job for job in sweep.jobs if job.error is not None]),
        _next(sweep, directory),
    )
    template = Template(files("lora_sam.report").joinpath("template.html").read_text(encoding="utf-8"))
    page = template.substitute(title=html.escape(f"{title_of(sweep)} · lora_sam"), main=serialize(main))
    return page.replace("</style>", f"{_STYLE}</style>", 1)


def _sets_of(done: Sequence[Job]) -> list[int | None]:
    return list(dict.fromkeys(job.validation_set for job in done))


def _header(sweep: Sweep) -> Element:
    head = element("header", element("p", f"lora_sam · {title_of(sweep)}", class_="kicker"))
    if sweep.best is None:
        claim = why_none_is_best(sweep)
        yet = " yet" if sweep.state == "running" else ""
        append(head, element("h1", f"{claim[0].upper()}{claim[1:]}{yet}", class_="even"))
        if len(sweep.validation_sets) > 1:
            append(head, element("p", f"{SETS}: an IoU says nothing about a job of another letter.", class_="lead"))
        return head
    best = sweep.job(sweep.best)
    chosen = ", ".join(f"{key} = {best.values[key]}" for key in sweep.varied if key in best.values and key != "seed")
    claim = f"Best: {chosen}" if chosen else f"Best: job {best.job}"
    if sweep.only_base:
        claim = "No job beat the base"
    # of a configuration the mean of its seeds: that of the best of them is luck
    shown: Job | Group = sweep.groups[0] if sweep.groups else best
    of = f"job {best.job}" if shown is best else f"{plural(len(sweep.groups[0].jobs), 'seed')}, mean"
    tiles = [(figure(shown.validation), f"validation IoU of {of} {interval(shown.validation_interval)}")]
    if shown.test is not None and shown.test_delta is not None:
        delta = f"{shown.test_delta:+.3f} against the base, 95 % interval {interval(shown.test_delta_interval, '+.3f')}"
        tiles.append((figure(shown.test), f"IoU on the {best.split} images: {delta}"))
    if best.trained_parameters is not None and best.adapter_bytes is not None:
        tiles.append((in_short(best.trained_parameters), f"trained weights, adapter of {in_bytes(best.adapter_bytes)}"))
    tied = sum(job.state == "done" and job is not best and may_be_as_good(job) for job in sweep.jobs)
    lead = "Ranked by the validation images, which chose the weights of every job too. "
    lead += (
        f"{plural(tied, 'job')} may be as good: what the best has more may be luck of the images."
        if tied and not sweep.groups
        else "The test images choose nothing: their figures are those of a model they have not seen."
        if chose_nothing(sweep)
        else "They are also the images that are reported (evaluate_split=val), so those figures flatter."
    )
    append(
        head,
        element("h1", claim, class_="bad" if best.better_than_base is False else "good"),
        element("p", lead, class_="lead"),
        element("p", f"{BY_HEART[0].upper()}{BY_HEART[1:]}.", class_="note") if best.held_out is False else None,
        element("dl", *(element("div", element("dt", what), element("dd", value)) for value, what in tiles)),
        element(
            "p",
            "The highest of several validations is a little too high: it was chosen for being high. What the best job "
            f"is worth is its figure on {'the test images' if chose_nothing(sweep) else 'images that chose nothing'}.",
            class_="note",
        ),
    )
    return head


def _jobs(sweep: Sweep, ranking: Sequence[Job], names: Mapping[str, str], directory: Path) -> Element:
    test = f"{split_of(sweep)} IoU"
    columns = ["job", *names.values(), "validation IoU", "behind the best", test, "trained", "adapter", "time"]
    head = element("tr", *(element("th", name, scope="col") for name in columns))
    sets = [[job for job in ranking if job.validation_set == number] for number in _sets_of(ranking)]
    front = {job for cost, *_ in _COSTS for jobs in sets for job in pareto(jobs, cost)}
    rows = [_row(sweep, job, names, job.job in front, directory) for job in ranking]
    return element(
        "section",
        element("h2", "Jobs"),
        element("div", element("table", element("thead", head), element("tbody", *rows)), class_="scroll jobs"),
        element(
            "p",
            f"In brackets: 95 % interval from drawing whole images again and again, below the {test} of what tuning "
            "added. Behind the best: of the difference on the same validation images; one that contains 0 may be luck, "
            "and – cannot be told, as from one image. = base: no validation beat the base. "
            "◆: no other job is better at the same cost.",
            class_="note",
        ),
    )


def _row(sweep: Sweep, job: Job, names: Mapping[str, str], front: bool, directory: Path) -> Element:
    place = "" if job.directory is None else f"{job.directory}/{RunDirectory(directory).report.name}"
    label = f"{job.job} ◆" if front else str(job.job)
    first = "best" if job.job == sweep.best else None
    if len(sweep.validation_sets) > 1:
        letter = letter_of(job.validation_set)
        label = f"{letter} {label}"
        if job is next(other for other in sweep.ranking() if other.validation_set == job.validation_set):
            first = f"best of {letter}"
    shown = element("a", label, href=place) if job.state == "done" and place else label
    values = [element("td", job.values.get(key, "–"), class_="value") for key in names]
    if job.state != "done":
        rest = [
            element("td", job.state, class_="state"),
            *(element("td") for _ in range(4)),
            element("td", time_of(job)),
        ]
    else:
        rest = [
            element("td", figure(job.validation), element("small", interval(job.validation_interval))),
            element(
                "td",
                first or interval(job.behind, "+.3f") or "–",
                element("small", "= base") if job.better_than_base is False else None,
            ),
            element("td", figure(job.test), element("small", interval(job.test_delta_interval, "+.3f"))),
            element("td", "" if job.trained_parameters is None else in_short(job.trained_parameters)),
            element("td", "" if job.adapter_bytes is None else in_bytes(job.adapter_bytes)),
            element("td", time_of(job)),
        ]
    kind = "best" if first else None
    return element("tr", element("th", shown, scope="row"), *values, *rest, class_=kind)


def _groups(sweep: Sweep, names: Mapping[str, str]) -> Element:
    keys, split = {key: name for key, name in names.items() if key != "seed"}, split_of(sweep)
    columns = [
        "",
        *keys.values(),
        "seeds",
        "validation IoU",
        "over seeds",
        f"{split} IoU",
        f"{split}, against the base",
    ]
    head = element("tr", *(element("th", name, scope="col") for name in columns))
    rows = []
    for place, group in zip(places_of(sweep), sweep.groups, strict=True):
        values = group.values
        cells = [
            *(element("td", values.get(key, "–"), class_="value") for key in keys),
            element("td", f"{len(group.jobs)} of {group.planned}"),
            element("td", figure(group.validation), element("small", interval(group.validation_interval))),
            element("td", "" if group.spread is None else f"± {group.spread:.4f}"),
            element("td", figure(group.test)),
            element(
                "td",
                "" if group.test_delta is None else f"{group.test_delta:+.3f}",
                element("small", interval(group.test_delta_interval, "+.3f")),
            ),
        ]
        rows.append(element("tr", element("th", place, scope="row"), *cells))
    return element(
        "section",
        element("h2", "Over seeds"),
        element("div", element("table", element("thead", head), element("tbody", *rows)), class_="scroll jobs"),
        element(
            "p",
            "In brackets: 95 % interval over seeds and images: images are drawn, the same for all seeds that share "
            "them, and errors of seeds added (Student's t). It is wider than that of one job, which knows nothing of "
            "other seeds, and very wide with two. Over seeds: standard deviation.",
            class_="note",
        ),
    )


def _charts(sweep: Sweep, done: Sequence[Job], names: Mapping[str, str]) -> Element | None:
    """Charts of jobs whose validations measured the same."""
    keys = list(names)
    pairs = [key for key in ("method.rank", "optim.lr") if key in keys] + [
        key for key in keys if key not in ("method.rank", "optim.lr", "seed")
    ]
    number = done[0].validation_set
    # one value for several seeds: their mean, of which none is the lucky one
    cells: Sequence[Job | Group] = [group for group in sweep.groups if group.validation_set == number] or done
    found = [
        parallel_chart(done, names, sweep.best),
        heat_map(cells, (pairs[0], pairs[1]), names) if len(pairs) > 1 else None,
        *(cost_chart(done, *cost) for cost in _COSTS),
    ]
    drawn = [chart for chart in found if chart is not None]
    which = f", set {letter_of(number)}" if len(sweep.validation_sets) > 1 else ""
    heading = element("h2", f"At a glance{which}")
    return element("section", heading, element("div", *drawn, class_="charts")) if drawn else None


def _failures(jobs: Sequence[Job]) -> Element | None:
    if not jobs:
        return None
    lines = [element("li", f"job {job.job}, {job.state}: ", element("code", str(job.error))) for job in jobs]
    return element("section", element("h2", "What failed"), element("ul", *lines))


def _next(sweep: Sweep, directory: Path) -> Element | None:
    again = [("Go on with what is missing or failed", f"{training_called()} {shlex.quote(f'sweep={directory}')}")]
    lines = again if sweep.failed else []
    if sweep.best is not None:
        run = shlex.quote(f"run={quoted(str(directory))}")
        lines = [
            ("Two OpenVINO files of the best job", f"{step_called('deploy')} {run}"),
            ("Other prompts and clicks with the best job", f"{step_called('robustness')} {run}"),
            *lines,
        ]
    items = [element("li", element("p", purpose), element("pre", element("code", line))) for purpose, line in lines]
    return element("section", element("h2", "What next"), element("ul", *items, class_="steps")) if items else None
