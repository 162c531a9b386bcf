"""The wheel, built and installed elsewhere: it has everything that the demo needs, and the demo runs from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# poetry-core comes with the Poetry that `make setup` installs
BUILDERS = [ROOT / ".poetry" / "bin" / "python", Path(sys.executable)]
BUILD = "import sys; from poetry.core.masonry.api import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built as `poetry build` does it."""
    builder = next((python for python in BUILDERS if _has_poetry_core(python)), None)
    if builder is None:
        pytest.skip("poetry-core is not installed here; `make setup` does that")
    directory = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [builder, "-c", BUILD, str(directory)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return directory / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the wheel alone is installed into."""
    directory = tmp_path_factory.mktemp("installed") / "site"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(directory), str(wheel)],
        timeout=60,
        check=True,
    )
    return directory


def installed(site: Path, cwd: Path, *command: str) -> str:
    """Run a command in `cwd` with the packages in `site` before all others; returns what it prints."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "PYTHON"))}
    environment = kept | {"PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _has_poetry_core(python: Path) -> bool:
    command = [str(python), "-c", "import poetry.core"]
    return python.is_file() and subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_it_has_the_configuration_and_all_data_of_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = {f"lora_sam/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "lora_sam").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    own = {name for name in names if ".dist-info/" not in name}
    assert own == conf | package | {"lora_sam/conf/__init__.py", "hydra_plugins/lora_sam_optuna.py"}


def test_the_demo_runs_from_it_in_an_empty_directory(site: Path, tmp_path: Path) -> None:
    where = installed(site, tmp_path, "-c", "import lora_sam; print(lora_sam.__file__)")
    assert Path(where.strip()) == site / "lora_sam" / "__init__.py"
    installed(
        site, tmp_path, str(site / "bin" / "lora-sam"), "demo", "data.train=2", "data.val=1", "data.test=1",
        "trainer.max_epochs=null", "trainer.max_steps=2", "hydra.run.dir=run",
    )  # fmt: skip
    report = json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert report["images"] == 1
    assert report["tuned"]["iou"] > 0
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    assert (tmp_path / "run" / "report.html").is_file()
    facts = json.loads((tmp_path / "run" / "adapter" / "lora_sam.json").read_text(encoding="utf-8"))
    assert facts["base"]["source"] == "nano.safetensors"
    assert (tmp_path / "data" / "washers" / "images" / "train" / "0001.png").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "outputs", "run"]
