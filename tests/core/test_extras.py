"""What an install without extras says of what it lacks."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from lora_sam.core import extras
from lora_sam.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.usefixtures("active_environment")
def test_what_is_missing_is_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    extras.require_extra("deploy", "export")
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "nncf" else object())
    extras.require_extra("app", "app")
    with pytest.raises(ConfigError, match="^quantize: needs the package nncf, which is not .*: pip install nncf$"):
        extras.require_extra("deploy", "quantize")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="packages openvino and nncf, which are not .*: pip install openvino nncf$"):
        extras.require_extra("deploy", "quantize")


def test_they_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    optional = project["project"]["optional-dependencies"]
    names = {extra: tuple(line.split(">")[0] for line in lines) for extra, lines in optional.items()}
    assert {extra: names[extra] for extra in extras.EXTRAS} == extras.EXTRAS
    assert set(names["all"]) == {*extras.EXTRAS["app"], *extras.EXTRAS["deploy"], *extras.EXTRAS["onnx"]}
    # a checkout has them without asking: what `poetry install` installs is what the tests run with
    dev = {line.split(">")[0] for line in project["dependency-groups"]["dev"]}
    assert dev >= set(names["all"])
