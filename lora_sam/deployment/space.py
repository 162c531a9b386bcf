"""A Space of the Hugging Face Hub: the app on one run, for a browser, with all that it needs in one folder.

The Hub builds what `README.md` names in its header (https://huggingface.co/docs/hub/spaces-config-reference): it
installs `requirements.txt` and starts `app.py`. The package itself lies beside them, so that no index has to know it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from lora_sam.core.calling import typed_here
from lora_sam.core.conf_files import conf_directory
from lora_sam.core.errors import ConfigError, LoraSamError
from lora_sam.core.files import last_part, read_json
from lora_sam.evaluation.layout import validate_report

PACKAGE = Path(__file__).resolve().parents[1]
_APP = '''"""Base and tuned masks in a browser: what the Space runs. `python app.py` does the same on any machine."""

import sys

from lora_sam.cli.app import serve_app

if __name__ == "__main__":
    sys.exit(serve_app(["run=shared", "--outputs", "outputs", "--host", "0.0.0.0", "--no-auth", "--no-collect"]))
'''
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "*.tmp")


def collect_space(adapter: dict[str, Path], evaluation: Path, repo: str, folder: Path) -> None:
    """Put together what a Space is made of.

    Of the run it has the adapter and its figures, without the names of images.

    Args:
        adapter: Files of the adapter directory by name, already checked.
        evaluation: `evaluation.json` of the run; may be missing.
        repo: Name of the adapter on the Hub, which the page of the Space leads to.
        folder: Where it is collected; empty.

    Raises:
        ConfigError: the app is not installed, so that its version is not known.
    """
    shutil.copytree(PACKAGE, folder / "lora_sam", ignore=_LEFT_OUT)
    if not (folder / "lora_sam" / "conf").is_dir():  # a checkout has it beside the package
        shutil.copytree(conf_directory(), folder / "lora_sam" / "conf", ignore=_LEFT_OUT)
    shared = folder / "outputs" / "shared"
    (shared / "adapter").mkdir(parents=True)
    for name, path in adapter.items():
        shutil.copyfile(path, shared / "adapter" / name)
    if (report := _without_names(evaluation)) is not None:
        (shared / "evaluation.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / "app.py").write_text(_APP, encoding="utf-8")
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in _requirements()), encoding="utf-8")
    (folder / "README.md").write_text(_card(repo), encoding="utf-8")


def _card(repo: str) -> str:
    title = repo.partition("/")[2]
    return (
        "---\n"
        f"title: {json.dumps(f'{title}: base and tuned')}\n"
        "sdk: gradio\n"
        f"sdk_version: {_installed('gradio')}\n"
        'python_version: "3.12"\n'
        "app_file: app.py\n"
        "license: apache-2.0\n"
        f"models: [{json.dumps(repo)}]\n"
        "short_description: Segment Anything before and after fine-tuning\n"
        "---\n\n"
        f"Upload an image, click an object or drag a box: base and tuned model of `{repo}` answer side by side.\n"
    )


def _requirements() -> Iterator[str]:
    """What the package and its app need, without the app's own package: the Hub installs that from the header."""
    try:
        needed = metadata.requires("lora_sam") or []
    except metadata.PackageNotFoundError as error:
        raise ConfigError("lora_sam is not installed, so that its requirements are not known; `make setup`") from error
    for line in needed:
        text, _, marker = line.partition(";")
        if "extra" not in marker and not re.match(r"gradio\b", text):
            yield text.strip() + (f" ; {marker.strip()}" if marker.strip() else "")


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError as error:
        command = typed_here("pip install 'lora-sam[app]'")
        raise ConfigError(f"a Space needs {name}, which is not installed: {command}") from error


def _without_names(path: Path) -> dict[str, Any] | None:
    """The figures of a run, its images called by their number."""
    try:
        report = read_json(path, "evaluate again")
        validate_report(report)
    except LoraSamError:
        return None
    for part in (report, report.get("validation") or {}):
        groups: dict[str, str] = {}
        for number, image in enumerate(part.get("per_image", ()), 1):
            image["id"] = f"image {number}"
            if "group" in image:
                image["group"] = groups.setdefault(image["group"], f"group {len(groups) + 1}")
    if "init_from" in report:
        report["init_from"] = last_part(report["init_from"].rstrip("/\\"))
    return report
