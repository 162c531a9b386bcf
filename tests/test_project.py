"""The project around the package: make targets, lock file, metadata, and nothing of one machine in any file."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

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


def goes_into_the_image(name: str) -> bool:
    """Whether `COPY .` takes a file: of the lines in .dockerignore that match it or a folder of it, the last counts."""
    path, taken = PurePosixPath(name), True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip().removeprefix("!").strip("/")
        if not pattern or pattern.startswith("#"):
            continue
        # `**/` stands for any folders or none; the other lines here match from the top of the checkout
        names = path.parts if pattern.startswith("**/") else path.parts[:1]
        if any(fnmatchcase(one, pattern.removeprefix("**/")) for one in names):
            taken = line.startswith("!")
    return taken


def test_the_image_has_all_that_the_package_is_built_from_and_nothing_of_its_user() -> None:
    """There is no Docker here; the wheel itself is built and run by tests/integration/test_wheel.py."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    built_from = {entry["include"] for entry in project["tool"]["poetry"]["packages"]}
    files = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    names = {path.relative_to(ROOT).as_posix() for path in files_of_the_project()}
    wanted = {name for name in names if name in files or name.split("/")[0] in built_from}
    assert {name for name in names if goes_into_the_image(name)} == wanted
    assert files <= wanted
    # docs/index.md lets people put their images into the checkout
    for name in (
        *("my_data/images/secret.png", "outputs/1/report.html", "data/washers/a.json", "vit_b.pth", ".git/config"),
        *(".venv/bin/python", ".env", "lora_sam/core/__pycache__/files.cpython-312.pyc", "multirun/1/sweep.json"),
    ):
        assert not goes_into_the_image(name), name


def test_the_image_starts_the_command_for_any_user() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    steps = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (extra,) = re.findall(r"/tmp/lora_sam\[(\w+)\]", steps)
    assert extra in project["optional-dependencies"]
    (entry,) = re.findall(r'^ENTRYPOINT \["([\w-]+)"\]', steps, re.MULTILINE)
    assert entry in project["scripts"]
    (python,) = re.findall(r"^FROM python:([\d.]+)-slim$", steps, re.MULTILINE)
    assert python in ("3.11", "3.12", "3.13")
    # Docker makes a WORKDIR that is not there for root, where nobody else may write
    (place,) = re.findall(r"^WORKDIR (\S+)$", steps, re.MULTILINE)
    assert re.search(rf"^RUN .*mkdir {place} && chmod 1777 {place}\b", steps, re.MULTILINE)
    assert steps.index("mkdir") < steps.index("USER user") < steps.index("WORKDIR")
    # a container that is removed takes its home with it
    (cache,) = re.findall(r"^ENV XDG_CACHE_HOME=(\S+)$", steps, re.MULTILINE)
    assert cache.startswith(f"{place}/")


def test_commands_for_the_image_are_those_of_the_docs() -> None:
    from lora_sam.cli.app import _parser

    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    told = re.findall(r"^docker run .* lora_sam (\w+) (.*)$", page, re.MULTILINE)
    assert [command for command, _ in told] == ["train", "app"]
    assert _parser(None).parse_args(told[1][1].split()).host == "0.0.0.0"  # or nobody outside is answered
    for line in re.findall(r"^docker run .*$", page, re.MULTILINE):
        assert line in (ROOT / "Dockerfile").read_text(encoding="utf-8")
        assert '--user "$(id -u):$(id -g)"' in line  # whoever owns the folder
        assert '-v "$PWD:/workspace"' in line


def test_the_files_that_come_first_are_there() -> None:
    from tests.conftest import LONGEST

    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []


def test_these_tests_report_nothing_home() -> None:
    """Some of their files import OpenVINO before anything of ours does; its package for reports is not to be found."""
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
