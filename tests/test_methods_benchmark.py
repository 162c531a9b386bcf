"""The table of methods: cells are trained, kept, gone on with and summed up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.methods_table import seeds_told
from benchmarks.questions import methods
from benchmarks.record import BenchmarkError
from benchmarks.sides.methods import Bench, Sizes
from lora_sam.core.config import from_conf

ELLIPSES = from_conf("data/ellipses", train=9, test=3, side=64)


def cell(method: str, of_set: str, gain: float, seed: int = 0, **changes: Any) -> dict[str, Any]:
    rows = [[2, 0.5 + gain, 0.4], [1, 0.8 + gain, 0.6]]
    costs = {"trained": 10, "bytes": 20, "cpu_seconds": 1.0, "folds": True, "merge_difference": 1e-6}
    base = [[2, 0.5, 0.3], [1, 0.8, 0.3]]
    return {"method": method, "set": of_set, "seed": seed, "base": base, "rows": rows, **costs, **changes}


def test_cells_are_trained_and_scored() -> None:
    bench = Bench("tiny_random", Sizes(side=64, train=2, test=2, objects=2, steps=2))
    examples, samples = bench.data(ELLIPSES, 0)
    assert (len(examples), len(samples)) == (2, 2)
    assert max(len(one.object_ids) for one in (*examples, *samples)) <= 2
    assert [one.id for one in bench.data(ELLIPSES, 1)[1]] == [one.id for one in samples]
    optim = from_conf("optim/adamw")
    base = bench.score(bench.base.sam, samples)
    for name, folds in (("adaptformer", False), ("lora", True), ("decoder", True)):
        found = bench.cell(from_conf(f"method/{name}"), ELLIPSES, 0, optim)
        assert found["folds"] is folds
        assert found["merge_difference"] <= 1e-4
        assert found["bytes"] > 4 * found["trained"]
        assert [row[0] for row in found["rows"]] == [row[0] for row in base]
    # what came out of the frozen encoder is kept, for the method that leaves it as it is
    assert {stage for stage, _ in bench._encoded} == {"embedding"}
    # the same seed again is the same cell
    again = bench.cell(from_conf("method/decoder"), ELLIPSES, 0, optim)
    assert again["rows"] == found["rows"]


def test_few_images_are_lent_to_the_test_and_never_trained_on() -> None:
    bench = Bench("tiny_random", Sizes(side=64, train=4, test=8, objects=2, steps=1))
    for seed in (0, 1):
        examples, samples = bench.data(from_conf("data/ellipses", train=9, test=3, side=64), seed)
        assert (len(examples), len(samples)) == (4, 8)
        assert not {one.id for one in examples} & {one.id for one in samples if "train" in one.id}


class _Counted:
    """Stands for the bench: says how often it was asked."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, 0

    def data(self, *_: Any) -> tuple[list[Any], list[Any]]:
        return [], []

    @property
    def base(self) -> Any:
        return self

    sam = None

    def score(self, *_: Any) -> list[list[float]]:
        return [[1, 0.5, 0.5]]

    def cell(self, *_: Any) -> dict[str, Any]:
        self.asked += 1
        if self.asked > self.most:
            raise KeyboardInterrupt
        return {"rows": [[1, 0.6, 0.5]]}


def test_a_run_that_was_ended_goes_on_where_it_was(tmp_path: Path) -> None:
    sets, names = {"one": None, "two": None}, ["lora", "decoder"]
    first, second = _Counted(3), _Counted(9)
    assert len(list(methods._cells(first, tmp_path, names, sets, (0, 1), lambda name: {}))) == 3
    found = list(methods._cells(second, tmp_path, names, sets, (0, 1), lambda name: {}))
    assert second.asked == 5
    assert [(one["seed"], one["set"], one["method"]) for one in found][:3] == [
        (0, "one", "lora"),
        (0, "one", "decoder"),
        (0, "two", "lora"),
    ]
    assert len(found) == 8


class _Scored:
    """Stands for the bench: rates of 1e-3 serve best; of the decoder's, 3e-4."""

    def __init__(self) -> None:
        self.tried: list[tuple[str, float, float]] = []

    def boxed(self, method: Any, _options: Any, _seed: int, optim: Any) -> float:
        self.tried.append((type(method).__name__, optim.lr, optim.decoder_lr))
        return -abs(optim.lr - 1e-3) - abs(optim.decoder_lr - 3e-4)


def test_each_method_trains_at_the_rate_that_served_it_best_on_another_set(tmp_path: Path) -> None:
    bench = _Scored()
    rates = methods.Rates(bench, tmp_path, [None])
    assert rates("lora") == {"decoder_lr": 3e-4, "lr": 1e-3}
    # the decoder's rate is that of the decoder alone, and chosen before
    assert [one[2] for one in bench.tried[: len(methods.OF_THE_BASE)]] == list(methods.OF_THE_BASE)
    assert {one[2] for one in bench.tried[len(methods.OF_THE_BASE) :]} == {3e-4}
    assert [one[1] for one in bench.tried[len(methods.OF_THE_BASE) :]] == list(methods.ADDED)
    # chosen once, and kept
    asked = len(bench.tried)
    assert methods.Rates(bench, tmp_path, [None])("lora") == {"decoder_lr": 3e-4, "lr": 1e-3}
    assert len(bench.tried) == asked
    assert not set(map(str, methods.RATES_ON)) & set(map(str, methods.SETS.values()))


def test_cells_of_other_settings_are_not_taken_up() -> None:
    first = methods._asked(Sizes(side=64, train=2, test=2, objects=2, steps=2))
    assert first != methods._asked(Sizes(side=64, train=2, test=2, objects=2, steps=3))


def test_what_the_cells_say() -> None:
    small = next(iter(methods.VARIANTS))
    gains = {"lora": 0.01, "ssf": 0.03, "adaptformer": 0.09, "full": 0.04, small: 0.039}
    cells = [cell(name, of_set, gain, folds=name != "adaptformer") for name, gain in gains.items() for of_set in "abcd"]
    table = methods.summarised([*cells, cell("lora", "a", 0.03, seed=1)])
    assert table["lora"]["sets"]["a"]["mean"] == pytest.approx(0.02)
    assert table["lora"]["sets"]["a"]["runs"] == 2
    assert table["lora"]["clicks"]["mean"] == pytest.approx((2 * 0.1 + 0.3) / 3)
    assert seeds_told(table) == "1 seed, up to 2 on a"
    found = {one.id: one for one in methods.figures(table)}
    assert found["methods"].value == 5
    # what does not fold does not count, nor does full fine-tuning; one point more than LoRA on b, c and d
    assert found["better_than_lora"].value == 4
    assert small in found["better_than_lora"].what
    assert found["rank_1"].value == 4
    assert "a 98%" in found["rank_1"].what
    assert found["gain_ssf"].value == pytest.approx(0.03)
    assert methods.base_of(cells)["a"] == pytest.approx(0.6)
    with pytest.raises(BenchmarkError, match=r"ssf on a: merged logits differ by 5\.0e-01"):
        methods.merging_of([*cells, cell("ssf", "a", 0.0, merge_difference=0.5)])


def test_a_share_of_no_gain_is_none() -> None:
    assert methods._share(0.1, -0.1) is None
    assert methods._share(0.05, 0.1) == 0.5


def test_every_method_is_asked() -> None:
    assert {"lora", "adaptformer", "salt", "full"} <= set(methods.method_names())
    assert len(methods.method_names()) >= methods.COUNT
