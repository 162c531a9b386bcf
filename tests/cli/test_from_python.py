"""Training as a function gives the run that the command gives, and says what it would say."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_sam import Run, train
from lora_sam.app.leaderboard import LEADERBOARD, leaderboard
from lora_sam.app.runs import Run as RunOfApp
from lora_sam.core.errors import ConfigError, DataError
from lora_sam.core.run_directory import RunDirectory
from lora_sam.evaluation.result import difference
from lora_sam.runs.adapter_files import method_typed

QUICK: dict[str, Any] = {
    "model": "tiny_random",
    "trainer": {"max_epochs": None, "max_steps": 1, "overlays": 0},
    "tracker": "none",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_like_any_other(blobs: Path) -> None:
    run = train(blobs, **QUICK, method__rank=np.int64(2), method__targets=["q", "v"])
    assert isinstance(run, Run)
    assert run.path.parts[-3] == "outputs"
    assert Run("latest").path == run.path
    config = json.loads((run.path / "config.json").read_text())
    assert (config["method"]["rank"], config["method"]["targets"], config["data"]["root"]) == (
        2,
        ["q", "v"],
        str(blobs),
    )
    status = json.loads((run.path / "status.json").read_text())
    assert status["status"] == "completed"
    assert status["overrides"] == [
        f"data.root={blobs}", "model=tiny_random", "trainer.max_epochs=null", "trainer.max_steps=1",
        "trainer.overlays=0", "tracker=none", "method.rank=2", "method.targets=[q,v]",
    ]  # fmt: skip
    assert run.evaluation["images"] == 3
    assert "training_tile" not in run.facts
    assert run.report.is_file()
    assert f"\n{difference(run.evaluation)}\n" in (run.adapter / "README.md").read_text()  # better, worse or neither
    on = train(resume=str(run.path), trainer__max_steps=2, output="on")
    assert on.path == Path("on").resolve()
    assert on.facts["steps"] == 2
    with pytest.raises(ConfigError, match=r"^output = on: holds an earlier run"):
        train(blobs, **QUICK, output="on")


def test_mistakes_are_those_of_the_command(blobs: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key method\.rnk; did you mean method\.rank\?"):
        train(blobs, **QUICK, method__rnk=2)
    with pytest.raises(ConfigError, match=r"model=vit_x"):
        train(blobs, model="vit_x")
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        train("nowhere", **QUICK)
    statuses = [json.loads(path.read_text()) for path in Path("outputs").rglob("status.json")]
    assert {one["status"] for one in statuses} == {"failed"}


def test_text_that_hydra_would_take_for_something_else(blobs: Path, tmp_path: Path) -> None:
    place = tmp_path / "it's, [my] data=1"
    place.symlink_to(blobs)
    run = train(place, **QUICK, data__tile=48)
    assert json.loads((run.path / "config.json").read_text())["data"]["root"] == str(place)
    # what predicts cuts images as they were cut here
    assert (run.facts["training_tile"], run.facts["training_side"]) == (48, 48)


def test_the_method_is_read_as_it_was_typed(blobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of `conf/method/` that are options of one class have names of their own: lora_all was read as lora."""
    run = train(blobs, **QUICK, method="lora_all", method__rank=2, output="first")
    on = train(resume=str(run.path), trainer__max_steps=2, output="on")
    after = train(blobs, **QUICK, init_from=str(run.path), output="after")
    other = train(blobs, **QUICK, method="rslora", output="other")
    told = capsys.readouterr()
    assert re.findall(r"px, method=(\w+):", " ".join((told.out + told.err).split())) == [*["lora_all"] * 3, "rslora"]
    board = leaderboard([RunOfApp(one.path.name, RunDirectory(one.path)) for one in (run, on, after, other)])
    assert {row[0]: row[LEADERBOARD.index("method")] for row in board} == {
        "first": "lora_all", "on": "lora_all", "after": "lora_all", "other": "rslora",
    }  # fmt: skip
    for one, method in ((run, "lora_all"), (on, "lora_all"), (after, "lora_all"), (other, "rslora")):
        assert (one.facts["method"]["name"], one.facts["method"]["option"]) == ("lora", method)
        card = (one.path / "adapter" / "README.md").read_text()
        assert f"`method={method}`" in card
        assert "| name |" not in card
        page = one.report.read_text()
        assert re.search(rf"<th[^>]*>method</th><td>{method}</td>", page)
        assert json.loads((one.path / "config.json").read_text())["method"]["_option_"] == method


def test_a_run_that_does_not_say_how_it_was_typed_goes_on(blobs: Path) -> None:
    """Of runs that are older nobody knows more than the class; a continuation is not refused for it."""
    run = train(blobs, **QUICK, method="lora_all", method__rank=2, output="first")
    place = run.path / "config.json"
    config = json.loads(place.read_text())
    for group in config.values():
        if isinstance(group, dict):
            group.pop("_option_", None)
    place.write_text(json.dumps(config))
    on = train(resume=str(run.path), trainer__max_steps=2, method__rank=2, output="on")
    assert on.facts["method"]["option"] == "lora"
    facts = json.loads((run.adapter / "lora_sam.json").read_text())
    del facts["method"]["option"]
    assert method_typed(facts) == "lora"


def test_threads_train_one_after_the_other(blobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were refused in words of Hydra, and would have drawn their weights from one generator."""
    training = threading.Lock()

    def fine_tune(config: dict[str, Any], directory: Path, words: list[str]) -> float:
        assert training.acquire(blocking=False), "two at once"
        try:
            (directory / "seed.txt").write_text(str(config["seed"]))
            return 0.5
        finally:
            training.release()

    monkeypatch.setattr("lora_sam.cli.train.fine_tune", fine_tune)
    monkeypatch.setattr("lora_sam.cli.from_python.Run", Path)
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda seed: train(blobs, **QUICK, seed=seed, output=f"run{seed}"), range(2)))
    assert [(Path(run) / "seed.txt").read_text() for run in runs] == ["0", "1"]
