"""Hooks of mkdocs: the reference pages are made from the commands, conf/ and the public names, at every build."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    pages = {"commands": commands(), "options": options(), "python": public_names()}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A link to a file of the checkout beside docs/ becomes the name of that file: the site does not have it."""
    if "/" in page.file.src_uri:  # a generated page, one folder down, whose links stay in the site
        return markdown
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)+([^)#]+)\)", r"\1 (`\2` of the checkout)", markdown)


def commands() -> str:
    """What every command answers to --help."""
    parts = ["# Commands", "What each command answers to `--help`. `python train.py` is `lora-sam train`.", ""]
    parts += ["```text", _help(), "```", ""]
    for name in _names():
        parts += [f"## lora-sam {name}", "", "```text", _help(name), "```", ""]
    return "\n".join(parts)


def options() -> str:
    """The files of conf/, which hold every default."""
    parts = [
        "# Files of options",
        "Every default stands in one of these files: `group=option` on the command line takes another file of a group, "
        "`key=value` another value. What the keys mean stands in [options](../configuration.md).",
        "",
    ]
    conf = ROOT / "conf"
    for folder in (conf, *sorted(path for path in conf.iterdir() if path.is_dir() and path.name != "hydra")):
        files = sorted(folder.glob("*.yaml"))
        if files:
            parts += [f"## {folder.name if folder != conf else 'Commands'}", ""]
        for file in files:
            name = file.stem if folder == conf else f"{folder.name}={file.stem}"
            parts += [f"### `{name}`", "", "```yaml", file.read_text(encoding="utf-8").strip(), "```", ""]
    return "\n".join(parts)


def public_names() -> str:
    """Every public name of the package, from its docstring."""
    sys.path.insert(0, str(ROOT))
    import lora_sam

    parts = ["# Python", "What `from lora_sam import …` offers. [Examples](../python.md) stand elsewhere.", ""]
    for name in sorted(lora_sam.__all__):
        parts += [f"::: {lora_sam._PUBLIC[name]}.{name}", ""]
    return "\n".join(parts)


def _names() -> Iterator[str]:
    """The commands in the order of `lora-sam --help`."""
    for line in _help().splitlines():
        if found := re.match(r"  ([a-z][a-z-]*)  +\S", line):
            yield found[1]


_SAID: dict[tuple[str, ...], str] = {}


def _help(*words: str) -> str:
    if words not in _SAID:
        done = subprocess.run(
            [sys.executable, "-m", "lora_sam.cli", *words, "--help"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [
            line if line.startswith(" ") else textwrap.fill(line, 100) for line in done.stdout.strip().splitlines()
        ]
        _SAID[words] = "\n".join(lines)
    return _SAID[words]
