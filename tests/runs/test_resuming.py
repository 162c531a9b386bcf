"""Resuming: what may change between a run and its continuation, and that the earlier run is left as it was."""

from __future__ import annotations

import copy
import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lora_sam.core.chosen import OPTION
from lora_sam.core.errors import AdapterError, ConfigError, LoraSamError, TrainingError
from lora_sam.core.moved import BEFORE
from lora_sam.core.run_directory import RunDirectory
from lora_sam.runs import resuming
from lora_sam.runs.resuming import FREE_TO_CHANGE, completed, copy_state, flat, resumed_config, settings_of
from lora_sam.training.settings import GROUPS, RUN_KEYS, settings_from

ROOT = Path(__file__).resolve().parents[2]
CONFIG: dict[str, Any] = {
    "method": {"_target_": "lora_sam.methods.lora.LoRA", "rank": 8, "targets": ["q", "v"]},
    "optim": {"_target_": "lora_sam.training.optim.AdamW", "lr": 0.0005},
    "trainer": {"max_epochs": 20, "max_steps": None, "workers": 0, "batch_size": 1, "early_stopping": {"patience": 5}},
    "tracker": {"_target_": "lora_sam.training.tracking.TensorBoard", "directory": "tensorboard"},
    "seed": 0,
    "resume": None,
    "evaluate_split": "test",
}
NO_TRACKER = {"_target_": "lora_sam.training.tracking.NoTracker"}


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of a configuration with values at dotted keys replaced, or removed where they are `...`."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        *parents, last = key.split(".")
        target = result
        for parent in parents:
            target = target[parent]
        if value is ...:
            del target[last]
        else:
            target[last] = value
    return result


@pytest.fixture
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configurations are read back as they are, so that they may be short."""
    monkeypatch.setattr("lora_sam.runs.resuming.completed", lambda saved: (copy.deepcopy(saved), ()))


@pytest.fixture
def resume(tmp_path: Path, as_it_is: None) -> Callable[..., dict[str, Any]]:
    """Resumes a run that was made with changes `before` by typing `typed`, which composes with changes `now`."""

    def do(
        typed: Sequence[str] = (), now: dict[str, Any] | None = None, before: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        (run / "config.json").write_text(json.dumps(changed(CONFIG, before or {})))
        composed = changed(CONFIG, {**(now or {}), "resume": str(run)})
        kept = copy.deepcopy(composed)
        result = resumed_config(composed, [f"resume={run}", *typed])
        assert composed == kept, "the configuration given was changed"
        assert result["resume"] == str(run)
        return {**result, "resume": None}

    return do


def refused(error: type[LoraSamError], attempt: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        attempt()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what may change -------------------------------------------------------------------------------------------------


def test_without_resume_nothing_happens() -> None:
    assert resumed_config(CONFIG, ["optim.lr=1"]) == CONFIG


def test_nothing_typed_takes_the_whole_configuration_of_the_run(resume) -> None:
    before = {"optim.lr": 0.1, "method": {"_target_": "decoder"}, "trainer.max_epochs": 3, "tracker": NO_TRACKER}
    assert resume(before=before) == changed(CONFIG, before)


def test_a_run_can_be_extended(resume) -> None:
    before = {"optim.lr": 0.1, "trainer.max_epochs": 3}
    result = resume(["trainer.max_epochs=30"], now={"trainer.max_epochs": 30}, before=before)
    assert result == changed(CONFIG, {"optim.lr": 0.1, "trainer.max_epochs": 30})


def test_several_free_keys(resume) -> None:
    now = {"trainer.max_steps": 7, "evaluate_split": "val", "trainer.max_epochs": None}
    typed = ["trainer.max_steps=7", "++evaluate_split=val", "trainer.max_epochs=null"]
    assert resume(typed, now=now, before={"seed": 4}) == changed(CONFIG, {**now, "seed": 4})


def test_another_tracker_replaces_the_old_one_as_a_whole(resume) -> None:
    before = {"optim.lr": 0.1}
    assert resume(["tracker=none"], now={"tracker": NO_TRACKER}, before=before) == changed(
        CONFIG, {"optim.lr": 0.1, "tracker": NO_TRACKER}
    )
    # and one key of it alone
    result = resume(["tracker.directory=tb"], now={"tracker.directory": "tb"}, before=before)
    assert result == changed(CONFIG, {"optim.lr": 0.1, "tracker.directory": "tb"})


def test_typing_what_the_run_has_anyway_is_no_change(resume) -> None:
    before = {"optim.lr": 0.1, "seed": 4, "method.targets": ["q"]}
    now = {"optim.lr": 0.1, "method.targets": ["q"]}  # seed= was not typed, and stays the run's
    assert resume(["optim.lr=0.1", "method.targets=[q]"], now=now, before=before) == changed(CONFIG, before)


def test_the_group_of_the_run_typed_again_is_no_change(resume) -> None:
    assert resume(["method=lora", "trainer=default"], before={"optim.lr": 0.1}) == changed(CONFIG, {"optim.lr": 0.1})


def test_a_group_brings_its_free_keys_along(resume) -> None:
    now = {"trainer.max_epochs": 50, "trainer.workers": 2}
    assert resume(["trainer=long"], now=now, before={"trainer.workers": 1}) == changed(CONFIG, now)


def test_the_same_experiment_typed_again_may_be_extended(resume) -> None:
    # an experiment is no key itself, and may set anything: everything composed counts
    before = {"optim.lr": 0.1, "tracker": {**CONFIG["tracker"], "old": 1}, "trainer.max_epochs": 5}
    now = {"optim.lr": 0.1, "tracker": NO_TRACKER, "trainer.max_epochs": 9}
    assert resume(["experiment=nuclei", "trainer.max_epochs=9"], now=now, before=before) == changed(CONFIG, now)


# --- what may not ----------------------------------------------------------------------------------------------------


def test_another_learning_rate_is_refused_with_both_values(resume, tmp_path: Path) -> None:
    before = {"seed": 4, "method.rank": 2}  # not typed, so not compared
    message = refused(
        ConfigError,
        lambda: resume(["trainer.max_epochs=9", "optim.lr=0.01"], now={"optim.lr": 0.01}, before=before),
    )
    assert message == (
        f"resume={tmp_path / 'run'}: optim.lr was 0.0005 in that run and is 0.01 now; a resumed run may only change "
        f"{', '.join(FREE_TO_CHANGE)}. Leave the others out"
    )


def test_another_group_is_refused(resume) -> None:
    now = {"method": {"_target_": "lora_sam.methods.decoder.DecoderOnly"}}
    message = refused(ConfigError, lambda: resume(["method=decoder"], now=now))
    assert (
        ": method._target_ was 'lora_sam.methods.lora.LoRA' in that run and is "
        "'lora_sam.methods.decoder.DecoderOnly' now (2 more differ); a resumed run may only change trainer.max_epochs, "
    ) in message


@pytest.mark.parametrize(
    ("typed", "now", "told"),
    [
        ("trainer.batch_size=2", {"trainer.batch_size": 2}, "trainer.batch_size was 1 in that run and is 2 now;"),
        (
            "trainer.early_stopping.patience=9",
            {"trainer.early_stopping.patience": 9},
            "trainer.early_stopping.patience was 5 in that run and is 9 now;",
        ),
        ("trainer=long", {"trainer.batch_size": 2, "trainer.max_epochs": 9}, "trainer.batch_size was 1"),
        ("~method.rank", {"method.rank": ...}, "method.rank was 8 in that run and is None now;"),
        ("+method.extra=1", {"method.extra": 1}, "method.extra was None in that run and is 1 now;"),
        ("method.targets=[q]", {"method.targets": ["q"]}, "method.targets was ['q', 'v'] in that run and is ['q'] now"),
        (
            "experiment=rings",
            {"seed": 9, "optim.lr": 1},
            "optim.lr was 0.0005 in that run and is 1 now (1 more differ)",
        ),
        ("seed=1", {"seed": 1}, "seed was 0 in that run and is 1 now;"),
        ("trainer=null", {"trainer": None}, "trainer.batch_size was 1 in that run and is None now (1 more differ)"),
    ],
)
def test_what_may_not_change(resume, typed: str, now: dict[str, Any], told: str) -> None:
    assert f": {told}" in refused(ConfigError, lambda: resume([typed], now=now))


def test_keys_that_are_nowhere_are_left_to_the_check_of_the_configuration(resume) -> None:
    result = resume(["tracker.directory=x"], now={"tracker.directory": "x"}, before={"tracker": None})
    assert result["tracker"] is None
    result = resume(["~trainer.max_steps"], now={"trainer.max_steps": ...})
    assert result == CONFIG


# --- runs that cannot be resumed -------------------------------------------------------------------------------------


def resume_from(name: object) -> Callable[[], object]:
    return lambda: resumed_config({**CONFIG, "resume": str(name)}, [f"resume={name}"])


def test_a_run_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(AdapterError, resume_from("outputs/x")).startswith("outputs/x: no such run directory (outputs/x)")
    assert "no run has been made here yet" in refused(AdapterError, resume_from("latest"))


@pytest.mark.usefixtures("as_it_is")
def test_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunDirectory(Path("outputs/1"))
    run.root.mkdir(parents=True)
    run.saved_config.write_text(json.dumps(changed(CONFIG, {"seed": 7})))
    run.point_latest_here()
    result = resumed_config({**CONFIG, "resume": "latest"}, ["resume=latest"])
    assert result == {**CONFIG, "seed": 7, "resume": "latest"}


def test_a_run_that_ended_before_its_first_step(tmp_path: Path) -> None:
    message = refused(AdapterError, resume_from(tmp_path))
    assert message == (
        f"resume={tmp_path}: {tmp_path / 'config.json'} is missing: that run ended before its first step"
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"method":', "Expecting value"),
        (b"[1]", "not a mapping"),
        (b"\xff", "codec can't decode"),
        (b"", "Expecting"),
    ],
)
def test_a_damaged_configuration(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "config.json").write_bytes(data)
    message = refused(AdapterError, resume_from(tmp_path))
    assert message.startswith(f"{tmp_path / 'config.json'} is damaged (")
    assert reason in message
    assert message.endswith("; start a new run without resume=")


# --- runs that are older than an option ------------------------------------------------------------------------------


def composed(*overrides: str) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir

    from lora_sam.cli.jobs import plain

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return plain(compose("train", ["data=coco", "data.root=my_data", *overrides]))


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ([], ["cache", "semantic", "prompt.jitter", "trainer.cache", "trainer.multimask"]),
        (["prompt=iterative"], ["prompt.box.jitter", "prompt.last_without_click"]),
        (["model=tiny_random"], ["model.prompt_frequency", "model.offline", "model.window_size"]),
        (["augmentation=strong"], ["augmentation.hue", "augmentation.scale"]),
        (["augmentation=none", "augmentation.hue=0.2"], ["augmentation.horizontal_flip"]),
        (["method=lora_all"], ["method.rank", "method.init"]),
        (["loss=tversky"], ["loss.tversky", "loss.boundary"]),
        (["optim=adam"], ["optim.decoupled_weight_decay", "optim.betas"]),
        (["trainer.max_epochs=3"], ["trainer.early_stopping.min_delta"]),
        (["data=voc"], ["data.instances", "data.min_area", "evaluate_split"]),
    ],
)
def test_missing_keys_get_the_values_of_the_file_they_are_from(overrides: list[str], keys: list[str]) -> None:
    whole = composed(*overrides)
    older = changed(whole, dict.fromkeys(keys, ...))
    kept = copy.deepcopy(older)
    found, filled = completed(older)
    assert older == kept, "what was given was changed"
    assert found == whole
    assert sorted(filled) == sorted(keys)
    settings_from(found)
    assert completed(whole) == (whole, ())


def test_every_key_of_every_option_may_be_missing() -> None:
    """Each alone, of the default options and of the prompt with groups of keys inside."""
    for overrides in ([], ["prompt=mask"]):
        whole = composed(*overrides)
        for key in flat(whole):
            if not key.endswith("_target_"):
                found, filled = completed(changed(whole, {key: ...}))
                expected = changed(whole, {"data.root": "???"}) if key == "data.root" else whole
                expected = changed(expected, {key: BEFORE[key]}) if key in BEFORE else expected
                assert (found, filled) == (expected, (key,))


def test_where_several_files_agree_as_much_the_default_of_the_group_fills() -> None:
    """Of a group that names its class and nothing else, all files of that class do."""
    whole = composed()
    for group in GROUPS:
        if group != "data":
            found, _ = completed({**whole, group: {"_target_": whole[group]["_target_"]}})
            expected = {key: BEFORE.get(f"{group}.{key}", value) for key, value in whole[group].items()}
            assert found[group] == expected, group


def test_a_mapping_that_is_a_value_is_left_as_it_is() -> None:
    whole = composed("method=loha")
    assert isinstance(whole["method"]["options"], dict)
    shorter = changed(whole, {"method.options": {}})
    assert completed(shorter) == (shorter, ())


def test_a_run_older_than_the_rate_of_weights_of_the_base_goes_on_at_its_own() -> None:
    """All of its weights trained at `optim.lr`, and today's default would be a tenth of it for the mask decoder."""
    whole = composed("method=decoder")
    assert whole["optim"]["pretrained_lr_fraction"] < 1
    found, filled = completed(changed(whole, {"optim.pretrained_lr_fraction": ...}))
    assert filled == ("optim.pretrained_lr_fraction",)
    assert found == changed(whole, {"optim.pretrained_lr_fraction": 1.0})


def test_a_run_older_than_a_term_of_its_loss_goes_on_without_it() -> None:
    """Even where its weights are most like those of an option that has the term."""
    whole = composed("loss=cldice")
    found, _ = completed(changed(whole, {"loss.cldice": ..., "loss.cldice_iterations": ...}))
    assert found["loss"]["cldice"] == 0.0


@pytest.mark.parametrize("target", ["lora_sam.prompts.points.NoSuchPrompt", "lora_sam.core.structures.Prompts", None])
def test_a_class_that_no_file_is_of_gets_nothing_from_the_files_of_others(target: str | None) -> None:
    whole = composed()
    older = changed(whole, {"prompt._target_": target, "prompt.jitter": ...})
    found, filled = completed(older)
    assert filled == ()
    assert found["prompt"] == older["prompt"]
    with pytest.raises(ConfigError, match="prompt"):
        settings_from(found)


def test_what_is_missing_comes_from_a_file_of_the_same_class() -> None:
    """Of another class's file that has an option of this name, nothing is taken, however much of the rest agrees."""
    whole = composed("prompt=points")
    key = next(key for key in whole["prompt"] if key != "_target_")
    found, filled = completed(changed(whole, {f"prompt.{key}": ...}))
    assert filled == (f"prompt.{key}",)
    assert found["prompt"] == whole["prompt"]


def test_a_class_may_have_been_called_by_another_of_its_names() -> None:
    whole = composed()
    older = changed(whole, {"prompt._target_": "lora_sam.prompts.BoxPrompt", "prompt.jitter": ...})
    found, filled = completed(older)
    assert filled == ("prompt.jitter",)
    assert settings_from(found) == settings_from(whole)


def test_what_is_wrong_is_still_refused() -> None:
    whole = composed()
    for changes, message in (
        ({"prompt.jiter": "uniform", "prompt.jitter": ...}, "unknown key prompt.jiter; did you mean prompt.jitter?"),
        ({"semantics": True}, "unknown key semantics; did you mean semantic?"),
        ({"prompt.jitter": "much"}, "prompt.jitter = much: must be one of"),
        ({"data.root": ...}, "data.root is not set"),
        ({"prompt._target_": "os.system", "prompt.jitter": ...}, "prompt._target_ = os.system: must name a settings"),
        ({"prompt._target_": ..., "prompt.jitter": ...}, "prompt._target_ = null: must name a settings"),
        ({"prompt": None}, "prompt is missing"),
        ({"trainer.early_stopping": 3}, "trainer.early_stopping = 3: must be a group of keys"),
        ({"trainer.early_stopping": {"patiense": 3}}, "did you mean trainer.early_stopping.patience?"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            settings_from(completed(changed(whole, changes))[0])


def test_an_older_run_is_resumed_and_says_what_was_filled_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = changed(composed("optim.lr=0.1"), {"prompt.jitter": ..., "cache": ..., "trainer.multimask": ...})
    (tmp_path / "config.json").write_text(json.dumps(older))
    now = composed("optim.lr=0.1", f"resume={tmp_path}", "trainer.max_epochs=30", "trainer.multimask=null")
    typed = ["optim.lr=0.1", f"resume={tmp_path}", "trainer.max_epochs=30", "trainer.multimask=null"]
    found = resumed_config(now, typed)
    assert found == now
    settings_from(found)
    assert capsys.readouterr().err == (
        f"resume={tmp_path}: that run is older than prompt.jitter, trainer.multimask, cache; taken from the files in "
        "conf/\n"
    )
    changed_now = composed(f"resume={tmp_path}", "prompt.jitter=normal")
    message = refused(ConfigError, lambda: resumed_config(changed_now, ["prompt.jitter=normal"]))
    assert "prompt.jitter was 'uniform' in that run and is 'normal' now" in message


def test_steps_after_training_take_older_runs(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.saved_config.write_text(json.dumps(changed(composed("seed=7"), {"semantic": ..., "cache": ...})))
    settings = settings_of(run)
    assert (settings.seed, settings.semantic) == (7, False)
    assert settings.cache == settings_from(composed()).cache


def test_the_order_of_what_may_be_missing_is_that_of_the_settings() -> None:
    older = {"data": composed()["data"]}
    found, filled = completed(older)
    assert filled == (*(group for group in GROUPS if group != "data"), *RUN_KEYS)
    assert found == composed()


# --- the state -------------------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "old")
    for path, text in (
        (run.metrics, '{"step": 1}\n'),
        (run.best, "best"),
        (run.last, "last"),
        (run.saved_config, "{}"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return run


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def test_the_state_is_copied_and_the_old_run_left_alone(old: RunDirectory, tmp_path: Path) -> None:
    before = snapshot(old.root)
    new = RunDirectory(tmp_path / "new")
    assert copy_state(str(old.root), new.root) == new.last
    assert {name: data for name, (data, _) in snapshot(new.root).items()} == {
        "metrics.jsonl": b'{"step": 1}\n',
        "checkpoints/best/state.safetensors": b"best",
        "checkpoints/last/state.safetensors": b"last",
    }
    for path in (new.metrics, new.best, new.last):
        path.write_text("changed")  # copies, not links
    assert snapshot(old.root) == before


def test_what_is_not_there_yet_is_not_copied(old: RunDirectory, tmp_path: Path) -> None:
    shutil.rmtree(old.best.parent)
    old.metrics.unlink()
    new = RunDirectory(tmp_path / "new")
    copy_state(str(old.root), new.root)
    assert list(snapshot(new.root)) == ["checkpoints/last/state.safetensors"]


def test_a_run_without_state(old: RunDirectory, tmp_path: Path) -> None:
    old.last.unlink()
    message = refused(AdapterError, lambda: copy_state(str(old.root), tmp_path / "new"))
    assert message == f"resume={old.root}: {old.last} is missing: that run ended before it saved anything"
    assert not (tmp_path / "new").exists()


def test_a_run_does_not_go_on_in_its_own_directory(old: RunDirectory) -> None:
    before = snapshot(old.root)
    message = refused(ConfigError, lambda: copy_state(str(old.root), old.root / ".." / "old"))
    assert message == (f"resume={old.root}: hydra.run.dir is the directory of that run; leave it out or name a new one")
    assert snapshot(old.root) == before


def test_no_space_for_the_copy(old: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    message = refused(TrainingError, lambda: copy_state(str(old.root), tmp_path / "new"))
    assert message.startswith(f"cannot write {tmp_path / 'new' / 'metrics.jsonl'}: No space left on device (")


@pytest.mark.parametrize("saved", [True, False])
def test_a_later_run_than_latest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], saved: bool
) -> None:
    run, later = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "later")
    later.last.parent.mkdir(parents=True)
    if saved:
        later.last.touch()
    monkeypatch.setattr(resuming, "find_run", lambda _: run)
    monkeypatch.setattr(resuming, "last_started", lambda: later)
    resuming._tell_of_a_later_run()
    told = capsys.readouterr().err
    assert told.startswith(
        f"resume=latest goes on from {run.root}, not from the run that was started last: {later.root}"
    )
    assert told.endswith("has a state of its own\n" if saved else "has saved nothing to go on from\n")


def test_a_checkpoint_that_is_gone_is_looked_for_and_one_that_is_there_is_not(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    run = RunDirectory(tmp_path / "run")
    run.root.mkdir()
    saved = composed("model=vit_b", f"model.checkpoint={weights}", f"data.root={tmp_path}")
    run.saved_config.write_text(json.dumps(saved), encoding="utf-8")
    assert settings_of(run).model.checkpoint is None
    weights.write_bytes(b"there")
    assert settings_of(run).model.checkpoint == str(weights)


def test_nothing_is_told_where_latest_is_the_run_that_was_started_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(tmp_path)
    monkeypatch.setattr(resuming, "find_run", lambda _: run)
    for later in (None, RunDirectory(tmp_path)):
        monkeypatch.setattr(resuming, "last_started", lambda later=later: later)
        resuming._tell_of_a_later_run()
    assert capsys.readouterr().err == ""


def test_what_became_of_a_later_run_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, later = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "later")
    monkeypatch.setattr(resuming, "find_run", lambda _: run)
    monkeypatch.setattr(resuming, "last_started", lambda: later)
    for status, said in ((None, ""), (SimpleNamespace(status="killed"), " (killed)")):
        monkeypatch.setattr(resuming, "read_status", lambda _, status=status: status)
        resuming._tell_of_a_later_run()
        assert f"started last: {later.root}{said} has saved nothing to go on from" in capsys.readouterr().err


@pytest.mark.usefixtures("as_it_is")
def test_only_latest_asks_for_a_later_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(resuming, "_tell_of_a_later_run", lambda: asked.append(1))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    resumed_config({**CONFIG, "resume": str(tmp_path)}, [f"resume={tmp_path}"])
    assert asked == []
    monkeypatch.setattr(resuming, "find_run", lambda _: RunDirectory(tmp_path))
    resumed_config({**CONFIG, "resume": "latest"}, ["resume=latest"])
    assert asked == [1]


def test_a_configuration_that_is_missing_is_told(tmp_path: Path) -> None:
    message = refused(AdapterError, lambda: settings_of(RunDirectory(tmp_path)))
    assert message == f"{tmp_path / 'config.json'} is missing; give the directory of a finished run"


def test_two_refused_keys_are_one_and_another(resume) -> None:
    now = {"optim.lr": 0.01, "seed": 9}
    message = refused(ConfigError, lambda: resume(["optim.lr=0.01"], now=now))
    assert "is 0.01 now; a resumed run" in message
    message = refused(ConfigError, lambda: resume(["optim.lr=0.01", "seed=9"], now=now))
    assert "is 0.01 now (1 more differ); a resumed run" in message


def test_the_option_by_which_a_group_was_chosen_is_no_value() -> None:
    assert flat({"method": {OPTION: "lora", "rank": 8, "inner": {OPTION: "x", "a": None}}, "seed": 0}) == {
        "method.rank": 8,
        "method.inner.a": None,
        "seed": 0,
    }
