"""The project around the package: make targets, lock file, metadata, and nothing of one machine in any file."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("setup", "demo", "test", "test-all", "test-browser", "lint", "type", "benchmark", "app")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`make` in the checkout, as a user calls it: what an outer make passes down is left out."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def locked() -> list[dict[str, object]]:
    packages = tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))["package"]
    assert isinstance(packages, list)
    return packages


def files_of_the_project() -> list[Path]:
    """What is or would be committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so what belongs to the project is unknown")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


# --- make ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("help",)])
def test_help_is_the_default_and_describes_every_target(arguments: tuple[str, ...]) -> None:
    result = make(*arguments)
    assert result.returncode == 0
    described = dict(re.findall(r"^  ([a-z-]+) +(\S.*)$", result.stdout, re.MULTILINE))
    assert set(TARGETS) <= described.keys()
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) - {"FORCE", "chromium"} == described.keys()


def test_tests_run_in_private_environments() -> None:
    planned = make("--dry-run", "--always-make", "test").stdout
    assert "-m venv .poetry" in planned
    assert ".poetry/bin/poetry install" in planned
    steps = [
        planned.index(step) for step in (".poetry/bin/python -m pip", "poetry install", ".venv/bin/python -m pytest")
    ]
    assert steps == sorted(steps)
    assert not re.search(r"(^|[\s\"&;])poetry (install|run)", planned)  # never one from PATH


def test_a_python_that_will_not_do_is_named(tmp_path: Path) -> None:
    old = tmp_path / "python3.8"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "poetry.txt").write_text("")
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text(encoding="utf-8"), encoding="utf-8")
    result = make("-C", str(tmp_path), "setup", f"PYTHON={old}")
    assert result.returncode == 2
    assert f"No Python 3.11, 3.12 or 3.13 with its venv module (PYTHON is '{old}')." in result.stderr
    assert "make PYTHON=/path/to/python3.12 setup" in result.stderr
    assert not (tmp_path / ".poetry").exists()


def test_the_app_and_its_tests_need_the_environment_only() -> None:
    assert ".venv/bin/lora-sam app --port 7861" in make("--dry-run", "app", "ARGS=--port 7861").stdout
    planned = make("--dry-run", "test-browser").stdout
    assert "apt-get install --yes --no-install-recommends chromium" in planned
    assert "-m browser tests/browser" in planned


# --- dependencies ----------------------------------------------------------------------------------------------------


def test_the_lock_file_names_no_index() -> None:
    assert [package["name"] for package in locked() if "source" in package] == []
    for package in locked():
        for file in package["files"]:  # type: ignore[attr-defined]
            assert file.keys() == {"file", "hash"}
            assert "/" not in file["file"]


def test_the_lock_file_has_one_version_of_each_package() -> None:
    # two versions for one platform are installed into the same folder at once, and spoil each other
    names = [str(package["name"]) for package in locked()]
    assert {name for name in names if names.count(name) > 1} == set()


@pytest.mark.parametrize(
    ("name", "floor"),
    [
        ("hydra-core", (1, 3, 8)),  # instantiate() ran whatever a configuration named
        ("gradio", (6, 20)),
        ("pillow", (12, 3)),
        ("monai", (1, 6, 1)),
        ("accelerate", (1, 15)),
    ],
)
def test_known_weaknesses_are_locked_out(name: str, floor: tuple[int, ...]) -> None:
    (version,) = [str(package["version"]) for package in locked() if package["name"] == name]
    assert tuple(int(part) for part in version.split(".")) >= floor


def test_the_metadata_say_apache() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "Apache-2.0"
    assert project["requires-python"] == ">=3.11,<3.14"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert [path for path in project["license-files"] if not (ROOT / path).is_file()] == []


def test_the_installed_package_says_apache() -> None:
    try:
        metadata = importlib.metadata.metadata("lora_sam")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed here; `make setup` does that")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"


# --- what must not be in the repository ------------------------------------------------------------------------------


def test_no_file_holds_a_path_or_an_index_of_one_machine() -> None:
    # put together here, so that this file does not hold them either
    private = re.compile(
        r"(?<![\w.~-])/(?:" + "|".join(("work", "root", "home", "Users")) + r")/[\w.-]"
        r"|pypi\." + r"org|pythonhosted\." + "org"
    )
    found = []
    for path in files_of_the_project():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # images and weights
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in private.finditer(text)]
    assert found == []


def test_large_files_stay_out() -> None:
    large = {path.name: path.stat().st_size for path in files_of_the_project() if path.stat().st_size > 20 << 20}
    assert large == {}


# --- the image -------------------------------------------------------------------------------------------------------


def test_the_image_has_all_that_the_package_is_built_from() -> None:
    """There is no Docker here; the wheel itself is built and run by tests/integration/test_wheel.py."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    left_out = {line.strip("/") for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split()}
    needed = {entry["include"] for entry in project["tool"]["poetry"]["packages"]}
    needed |= {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    assert not needed & left_out
    assert all((ROOT / name).exists() for name in needed)
    steps = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (extra,) = re.findall(r"/tmp/lora_sam\[(\w+)\]", steps)
    assert extra in project["project"]["optional-dependencies"]
    (entry,) = re.findall(r'^ENTRYPOINT \["([\w-]+)"\]', steps, re.MULTILINE)
    assert entry in project["project"]["scripts"]
    (python,) = re.findall(r"^FROM python:([\d.]+)-slim$", steps, re.MULTILINE)
    assert python in ("3.11", "3.12", "3.13")


def test_the_files_that_come_first_are_there() -> None:
    from tests.conftest import LONGEST

    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []


def test_these_tests_report_nothing_home() -> None:
    """Some of their files import OpenVINO before anything of ours does; its package for reports is not to be found."""
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
