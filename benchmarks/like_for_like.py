"""The table of the README: four rows, each with the same arithmetic and the same trained blocks on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.record import BenchmarkError, Result


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison, from the committed result of one benchmark.

    Attributes:
        what: What is compared.
        ours: Our side, for people.
        beside: The other side, for people.
        benchmark: Where it was measured.
        times: Id of its figure for "times as fast".
        memory: Id of its figure for our peak memory as a share of the other side's; empty where there is none.
        sides: The two in the details of the result, of which `equal` has to be the same; empty where a side says none.
        equal: Keys of what every measurement of both sides has to agree in.
    """

    what: str
    ours: str
    beside: str
    benchmark: str
    times: str
    memory: str = ""
    sides: tuple[str, ...] = ()
    equal: tuple[str, ...] = ("precision",)


ROWS = (
    Row(
        what="LoRA step through all blocks of ViT-B at 1024 px",
        ours="fp32",
        beside="`transformers` + `peft`, fp32",
        benchmark="lora_step",
        times="speedup_peer_fp32",
        memory="memory_fp32",
        sides=("ours, fp32", "transformers + peft, fp32"),
        equal=("precision", "trainable_parameters"),
    ),
    Row(
        what="what our default adds to it, where the processor multiplies in bf16",
        ours="bf16",
        beside="ours, fp32",
        benchmark="lora_step",
        times="default_adds",
        memory="default_adds_memory",
        sides=("ours, default precision", "ours, fp32"),
        equal=("trainable_parameters",),
    ),
    Row(
        what="20 epochs of the mask decoder alone",
        ours="every image encoded once, building the cache included",
        beside="ours, encoding at every step",
        benchmark="cached_epoch",
        times="epochs_with_build",
        sides=("ours, cached", "ours, encoding at every step"),
    ),
    Row(
        what="encoding an image after export",
        ours="OpenVINO, executed in fp32",
        beside="SamPredictor, fp32",
        benchmark="openvino_encode",
        times="f32_speed_up",
    ),
)


def table(results: Mapping[str, Result]) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    """Heading and rows; of a benchmark that has not been measured, a row that says so.

    Raises:
        BenchmarkError: two sides differ in what the row says is equal, or a result lacks the figure.
    """
    heading = ("what", "ours", "beside", "times as fast", "peak memory")
    return heading, [_cells(row, results.get(row.benchmark)) for row in ROWS]


def _cells(row: Row, result: Result | None) -> tuple[str, ...]:
    if result is None:
        return (row.what, row.ours, row.beside, "not measured yet", "–")
    _check(row, result.details)
    figures = {one.id: one for one in result.figures}
    missing = [name for name in (row.times, row.memory) if name and name not in figures]
    if missing:
        raise BenchmarkError(f"{row.benchmark}.json has no figure {missing[0]}: measure again")
    times = figures[row.times]
    spread = "" if times.low is None or times.high is None else f" [{times.low:.2f}, {times.high:.2f}]"
    memory = f"{100 * figures[row.memory].value:.0f} %" if row.memory else "–"
    return (row.what, row.ours, row.beside, f"{times.value:.2f}{spread}", memory)


def _check(row: Row, details: Mapping[str, Any]) -> None:
    for key in row.equal if row.sides else ():
        found = {name: {run[key] for run in details["sides"][name]} for name in row.sides}
        if len(set().union(*found.values())) != 1:
            shown = ", ".join(f"{name}: {', '.join(map(str, values))}" for name, values in found.items())
            raise BenchmarkError(
                f"{row.benchmark}.json: {row.what}: {key} differs ({shown}), this is not like for like"
            )
