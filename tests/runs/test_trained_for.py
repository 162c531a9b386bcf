"""What a run was trained for, as its configuration says it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from lora_sam.cli.jobs import plain
from lora_sam.core.run_directory import RunDirectory
from lora_sam.runs.trained_for import in_words, not_trained_alone, trained_for

ROOT = Path(__file__).resolve().parents[2]


def run_with(prompt: object, directory: Path) -> RunDirectory:
    run = RunDirectory(directory)
    run.saved_config.write_text(json.dumps({"prompt": prompt}), encoding="utf-8")
    return run


@pytest.mark.parametrize(
    ("option", "words", "told"),
    [
        ("box", "boxes", True),
        ("box_or_point", "boxes and single points", True),
        ("everything", "single points and masks without prompts", False),
    ],
)
def test_kinds_are_those_of_the_prompt(option: str, words: str, told: bool, tmp_path: Path) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        prompt = plain(compose("train", [f"prompt={option}"]))["prompt"]
    kinds = trained_for(run_with(prompt, tmp_path))
    assert in_words(kinds) == words
    note = not_trained_alone(kinds)
    assert (note is not None) == told
    assert note is None or f"trained with {words}: without prompts" in note


@pytest.mark.parametrize("prompt", [None, {}, {"_target_": "os.system"}, {"_target_": "lora_sam.prompts.boxes.X"}])
def test_what_is_not_known_is_not_claimed(prompt: object, tmp_path: Path) -> None:
    assert trained_for(run_with(prompt, tmp_path)) == ()
    assert not_trained_alone(()) is None


def test_an_adapter_alone_has_no_configuration(tmp_path: Path) -> None:
    assert trained_for(RunDirectory(tmp_path)) == ()
