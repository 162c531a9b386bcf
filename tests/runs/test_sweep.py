"""A sweep on disk: states, ranking by the validation, what may be luck, seeds, costs, and what may not be mixed."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from benchmarks.sweeps.quick_run import evaluation
from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.run_directory import find_run, find_sweep
from lora_sam.evaluation.over_seeds import mean_over_seeds
from lora_sam.report.sweep_table import may_be_as_good
from lora_sam.runs import sweep as sweep_module
from lora_sam.runs.status import Status, refuse
from lora_sam.runs.sweep import begin, collect, finish, plan_jobs, read_sweep, renew
from lora_sam.runs.sweep_ranking import pareto
from tests.runs.sweeps import grid, job


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "multirun" / "one"


def test_states_values_and_ranking(sweep: Path) -> None:
    """The test figure of the worst is the highest: nothing is chosen by it."""
    rows = [(2, 1e-3), (4, 1e-3), (8, 1e-3), (2, 3e-3), (4, 3e-3), (8, 3e-3), (16, 3e-3)]
    planned = grid(sweep, ["method.rank", "optim.lr"], rows)
    job(sweep, 0, planned[0], evaluation([0.5, 0.6], test=0.9))
    job(sweep, 1, planned[1], evaluation([0.7, 0.8], test=0.4))
    job(sweep, 2, planned[2], status="failed", error="two\nlines")
    job(sweep, 3, planned[3], status="running", process={"host": "elsewhere"})
    gone = job(sweep, 4, planned[4], status="running")
    status = json.loads((gone / "status.json").read_text())
    (gone / "status.json").write_text(json.dumps({**status, "process": {**status["process"], "began": 1}}))
    job(sweep, 5, planned[5], status="pruned")
    found = collect(sweep, "finished")
    assert [one.state for one in found.jobs] == ["done", "done", "failed", "running", "killed", "pruned", "missing"]
    assert found.varied == ("method.rank", "optim.lr")
    assert [one.job for one in found.ranking()] == [1, 0, 2, 3, 4, 5, 6]
    best = found.job(1)
    assert (found.best, best.validation, best.test, best.values["method.rank"]) == (1, 0.75, 0.4, "4")
    assert best.validation_interval == pytest.approx((0.7, 0.8))
    assert (best.trained_parameters, best.adapter_bytes, best.behind) == (1000, 4000, None)
    assert found.job(2).error == "two | lines"
    assert found.failed
    finish(sweep, found)
    assert read_sweep(sweep) == found


def test_what_the_best_has_more_may_be_luck(sweep: Path) -> None:
    """On the same images the difference counts, not whether intervals overlap."""
    planned = grid(sweep, ["method.rank"], [(1,), (2,), (3,), (4,)])
    best = [0.9, 0.5, 0.7, 0.3, 0.8, 0.6]
    job(sweep, 0, planned[0], evaluation(best))
    job(sweep, 1, planned[1], evaluation([value - 0.02 for value in best]))
    job(sweep, 2, planned[2], evaluation([0.6, 0.78, 0.5, 0.55, 0.7, 0.6]))
    job(sweep, 3, planned[3], evaluation([value - 0.02 for value in best], ids="hgfedcba"))
    jobs = collect(sweep).jobs
    assert jobs[1].behind == pytest.approx((0.02, 0.02))
    assert jobs[2].behind is not None
    assert jobs[2].behind[0] < 0 < jobs[2].behind[1]
    assert jobs[3].behind is None  # other images


@pytest.mark.parametrize("groups", [[None], ["patient", "patient"]], ids=["one image", "one patient"])
def test_of_one_image_nobody_can_tell_whether_the_best_is_better(sweep: Path, groups: list[str | None]) -> None:
    """Its objects are known by their mean alone: any difference would seem certain."""
    planned = grid(sweep, ["method.rank"], [(1,), (2,)])
    for number in range(2):
        report = evaluation([0.5 + number / 1000] * len(groups))
        for image, group in zip(report["validation"]["per_image"], groups, strict=True):
            image.update({} if group is None else {"group": group})
        job(sweep, number, planned[number], report)
    found = collect(sweep)
    assert (found.best, found.job(0).behind, may_be_as_good(found.job(0))) == (1, None, True)


@pytest.mark.parametrize("other", ["prompts", "images", "labels"])
def test_jobs_that_validated_on_something_else_are_not_ranked_against_each_other(sweep: Path, other: str) -> None:
    """A box is easier than a point: that its IoU is higher says nothing about the job."""
    planned = grid(sweep, ["x", "method.rank"], [("a", 1), ("a", 2), ("b", 1), ("b", 2)])
    for number, value in enumerate([0.5, 0.6, 0.9, 0.8]):
        second = number > 1
        report = evaluation([value, value], ids="zyxw" if second and other == "images" else "abcd")
        report["validation"]["asked"] = "point" if second and other == "prompts" else "box"
        directory = job(sweep, number, planned[number], report)
        labels = ["edited" if second and other == "labels" else "as they were"]
        (directory / "splits.json").write_text(json.dumps({"contents": {"val": {"images": ["i"], "labels": labels}}}))
    found = collect(sweep, "finished")
    assert [one.validation_set for one in found.jobs] == [1, 1, 2, 2]
    assert [one.job for one in found.ranking()] == [1, 0, 2, 3]
    assert found.best is None
    assert [one.behind is None for one in found.jobs] == [False, True, True, False]
    (sweep / "best").symlink_to("0")  # from when these were all
    finish(sweep, found)
    for name in ("multirun/one", "best"):
        with pytest.raises(
            AdapterError, match=r"validations measured different images or prompts.* of a job: .*/one/0$"
        ):
            find_run(name)
    assert read_sweep(sweep) == found


def test_older_jobs_that_do_not_say_what_they_were_asked_are_ranked_by_their_images(sweep: Path) -> None:
    planned = grid(sweep, ["method.rank"], [(1,), (2,)])
    job(sweep, 0, planned[0], evaluation([0.5]))
    newer = evaluation([0.6])
    newer["validation"]["asked"] = "box"
    job(sweep, 1, planned[1], newer)
    assert collect(sweep).best == 1


def test_each_seed_may_draw_its_own_validation_images(sweep: Path) -> None:
    """Configurations are compared seed by seed; one that drew others is apart."""
    rows = [(rank, seed) for rank in (2, 4) for seed in (0, 1)]
    planned = grid(sweep, ["method.rank", "seed"], rows)
    for number, (rank, seed) in enumerate(rows):
        job(sweep, number, planned[number], evaluation([rank / 10 - seed / 100] * 2, ids=("ab", "cd")[seed]))
    found = collect(sweep)
    assert (found.validation_sets, found.best) == ([1], 2)
    assert found.job(0).behind == pytest.approx((0.2, 0.2))
    assert found.job(1).behind is None  # the best has seen other images
    report = evaluation([0.9], ids="c")
    (sweep / "1" / "evaluation.json").write_text(json.dumps(report))
    apart = collect(sweep)
    assert [one.validation_set for one in apart.groups] == [1, 2]
    assert apart.best is None


def test_a_job_that_was_not_validated_is_not_the_best(sweep: Path) -> None:
    planned = grid(sweep, ["method.rank"], [(1,), (2,)])
    for number in range(2):
        job(sweep, number, planned[number], status="completed", seconds=1.0)
    assert collect(sweep).best is None


def test_of_values_that_were_typed_twice_one_is_best(sweep: Path) -> None:
    planned = grid(sweep, ["method.rank"], [(4,), (4,)])
    for number in range(2):
        job(sweep, number, planned[number], evaluation([0.5]))
    assert collect(sweep).best == 0


def test_of_equal_jobs_the_smallest_is_best(sweep: Path) -> None:
    planned = grid(sweep, ["method.rank"], [(8,), (2,)])
    job(sweep, 0, planned[0], evaluation([0.5, 0.5], parameters=800))
    job(sweep, 1, planned[1], evaluation([0.5, 0.5], parameters=200))
    assert collect(sweep).best == 1


def test_the_best_job_is_found_by_name(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = grid(sweep, ["method.rank"], [(1,), (2,)])
    with pytest.raises(AdapterError, match=r"no job of this sweep is done \(.*sweep.json\); go on with it: sweep="):
        find_run(str(sweep))
    with pytest.raises(AdapterError, match="best: no such run directory .*no sweep has been finished here yet"):
        find_run("best")
    job(sweep, 0, planned[0], evaluation([0.5]))
    job(sweep, 1, planned[1], evaluation([0.6]))
    finish(sweep, collect(sweep, "interrupted"))
    assert find_run(str(sweep)).root == find_run("multirun/one").root == sweep / "1"
    told = capsys.readouterr().err
    assert told.count("2 of 2 jobs of this sweep are done, and this is the best of them so far") == 1
    with pytest.raises(AdapterError, match="no sweep has been finished here yet"):
        find_run("best")
    finish(sweep, collect(sweep, "finished"))
    assert {find_run(name).root for name in ("best", "latest", "multirun/one", "multirun/latest")} == {sweep / "1"}
    assert find_sweep("latest") == sweep == find_sweep("multirun/one")
    with pytest.raises(AdapterError, match=r"sweep=nowhere: no sweep.json in nowhere; give the directory"):
        find_sweep("nowhere")
    # the link to the best is not one more job
    assert [one.directory for one in collect(sweep).jobs] == ["0", "1"]


def test_a_job_that_was_refused_is_told_whatever_its_directory_says(sweep: Path) -> None:
    planned = grid(sweep, ["method.rank"], [(1,), (2,)])
    job(sweep, 0, planned[0], evaluation([0.9]))
    job(sweep, 1, planned[1], evaluation([0.6]))
    refuse(sweep, Status(status="changed", job=0, overrides=planned[0], started=0.0, error="other data"))
    found = collect(sweep)
    assert (found.job(0).state, found.job(0).error, found.best) == ("changed", "other data", 1)
    finish(sweep, collect(sweep, "finished"))
    grid(sweep, ["method.rank"], [(1,), (2,)])  # begun again, all is looked at anew
    assert collect(sweep).best == 0


def test_directories_of_other_jobs_are_not_mixed_in(sweep: Path) -> None:
    """Same number, other values; or a number that this sweep does not have."""
    planned = grid(sweep, ["method.rank"], [(1,), (2,)])
    job(sweep, 0, ["data.root=x", "method.rank=7"], evaluation([0.9]))
    job(sweep, 1, planned[1], evaluation([0.6]))
    job(sweep, 2, ["data.root=x", "method.rank=3"], evaluation([0.95]), started=1.0)
    found = collect(sweep)
    assert [one.state for one in found.jobs] == ["missing", "done"]
    assert found.best == 1


def test_a_sweep_of_other_values_or_that_runs_now_is_refused(sweep: Path) -> None:
    sweep.mkdir(parents=True)
    typed = ["data.root=x", "method.rank=1,2"]
    begin(sweep, ["-m", *typed], typed, None)
    with pytest.raises(ConfigError, match="this sweep runs now, in process"):
        begin(sweep, ["-m", *typed], typed, None)
    finish(sweep, collect(sweep, "finished"))
    other = ["data.root=x", "method.rank=1,3"]
    with pytest.raises(ConfigError, match=r"other values: method.rank=1,2 there, method.rank=1,3 now; type the same"):
        begin(sweep, ["-m", *other], other, None)
    with pytest.raises(ConfigError, match="in another order number the jobs in another way; go on with sweep="):
        begin(sweep, ["-m", *typed], typed[::-1], None)
    begin(sweep, ["-m", *typed], typed, None)


def test_of_two_commands_at_the_same_moment_one_begins(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second looks only after the first has written that it runs."""
    sweep.mkdir(parents=True)
    typed = ["data.root=x", "method.rank=1,2"]
    found: list[str] = []

    def second() -> None:
        try:
            begin(sweep, ["-m", *typed], typed, None)
        except ConfigError as error:
            found.append(str(error))

    original, threads = sweep_module.write, []

    def write(directory: Path, begun: sweep_module.Sweep) -> None:
        monkeypatch.setattr(sweep_module, "write", original)
        threads.append(threading.Thread(target=second))
        threads[0].start()
        threads[0].join(timeout=0.2)  # it has all the time to look, and would find nothing
        original(directory, begun)

    monkeypatch.setattr(sweep_module, "write", write)
    begin(sweep, ["-m", *typed], typed, None)
    threads[0].join(timeout=20)
    assert len(found) == 1
    assert "this sweep runs now, in process" in found[0]


def test_what_a_sweeper_plans_is_not_written_over_by_the_thread_that_watches(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was done before this command is known by that plan alone."""
    sweep.mkdir(parents=True)
    job(sweep, 0, ["method.rank=4"], evaluation([0.5, 0.5]), started=1.0)
    begin(sweep, ["-m"], [], None)
    original, threads = sweep_module.finish, []

    def finish(directory: Path, found: sweep_module.Sweep) -> None:
        threads.append(threading.Thread(target=plan_jobs, args=(sweep, {0: ["method.rank=4"]})))
        threads[0].start()
        threads[0].join(timeout=0.2)  # it has all the time to plan in between
        original(directory, found)

    monkeypatch.setattr(sweep_module, "finish", finish)
    renew(sweep, "running")
    threads[0].join(timeout=20)
    assert collect(sweep).best == 0


def test_damaged_and_newer_files_are_refused(sweep: Path) -> None:
    grid(sweep, ["method.rank"], [(1,)])
    path = sweep / "sweep.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "schema_version": 9}))
    with pytest.raises(AdapterError, match="schema version 9, this lora_sam reads 1"):
        read_sweep(sweep)
    path.write_text(json.dumps({**values, "jobs": [{"job": 0, "state": "great", "overrides": []}]}))
    with pytest.raises(AdapterError, match=r"sweep.json is damaged \(.*state"):
        read_sweep(sweep)


def test_seeds_are_grouped_and_the_best_job_is_of_the_best_configuration(sweep: Path) -> None:
    """One lucky seed does not make a configuration the best."""
    rows = [(rank, seed) for rank in (1, 2) for seed in (0, 1, 2)]
    planned = grid(sweep, ["method.rank", "seed"], rows)
    values = {0: 0.4, 1: 0.9, 2: 0.4, 3: 0.7, 4: 0.72, 5: 0.71}
    for number, value in values.items():
        job(sweep, number, planned[number], evaluation([value - 0.1, value + 0.1], test=value))
    found = collect(sweep)
    assert [group.jobs for group in found.groups] == [(3, 4, 5), (0, 1, 2)]
    first, second = found.groups
    assert first.validation == pytest.approx(0.71)
    assert first.spread == pytest.approx(0.01)
    assert first.overrides == ("data.root=x", "method.rank=2")
    assert (first.test, first.test_delta) == (pytest.approx(0.71), pytest.approx(0.46))
    assert found.best == 4
    assert np.ptp(second.validation_interval) > np.ptp(first.validation_interval)


def test_the_interval_over_seeds_and_images_is_that_of_its_theory() -> None:
    """Of many runs Student's t is nearly normal: variance between seeds over their number, and that of their images."""
    generator = np.random.default_rng(0)
    runs = [
        {(number, place): (1, float(value)) for place, value in enumerate(generator.normal(level, 0.3, 200))}
        for number, level in enumerate(np.linspace(-0.5, 0.5, 25))
    ]
    means = [np.mean([value for _, value in run.values()]) for run in runs]
    mean, (low, high) = mean_over_seeds(runs, 0)
    assert mean == pytest.approx(np.mean(means))
    spread = np.sqrt((np.var(means, ddof=1) + 0.3**2 / 200) / 25)
    assert (high - low) / (2 * 2.06 * spread) == pytest.approx(1, abs=0.08)
    assert low < mean < high
    # one run: the images alone
    one, ends = mean_over_seeds(runs[:1], 0)
    assert one == pytest.approx(means[0])
    assert (ends[1] - ends[0]) / (2 * 1.96 * 0.3 / np.sqrt(200)) == pytest.approx(1, abs=0.12)
    # images count by their objects
    assert mean_over_seeds([{"a": (3, 1.0), "b": (1, 0.0)}], 0)[0] == 0.75


def test_what_no_other_job_beats_at_its_cost(sweep: Path) -> None:
    planned = grid(sweep, ["method.rank"], [(number,) for number in range(5)])
    for number, (value, size) in enumerate([(0.5, 100), (0.4, 200), (0.7, 300), (0.7, 400), (0.8, 900)]):
        job(sweep, number, planned[number], evaluation([value], parameters=size))
    jobs = collect(sweep).jobs
    assert pareto(jobs, "trained_parameters") == {0, 2, 4}
    assert pareto(jobs, "seconds") == {0, 2, 4}
