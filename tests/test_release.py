"""What goes along with a release: how much an install brings, the bill of materials, the audit, both archives."""

from __future__ import annotations

import json
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from scripts import audit, install_size, sbom

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def locked() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))["package"]
    return found


def test_the_core_brings_few_packages_and_the_page_says_how_many() -> None:
    core, *extras = install_size.read()
    assert {"torch", "peft", "pillow", "hydra-core"} <= set(core.packages)
    assert not {"gradio", "openvino", "nncf", "pytest", "mkdocs"} & set(core.packages)
    assert len(core.packages) <= install_size.BAR
    assert all(set(core.packages) < set(row.packages) for row in extras)
    assert {row.name: set(row.packages) >= {"gradio"} for row in extras}['pip install ".[app]"']
    page = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    for row in (core, *extras):
        line = next(line for line in page.splitlines() if line.startswith(f"| `{row.name}` |"))
        counts = [cell.strip().split(",")[0] for cell in line.strip("|").split("|")]
        assert counts[1] == str(len(row.packages))
        assert counts[3] == str(len(row.packages) + len(row.of_gpu))


def test_extras_and_markers_decide_what_is_brought() -> None:
    from packaging.requirements import Requirement

    def package(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "version": "1", **more}

    listed = [
        package("a", dependencies={
            "b": ">=1", "C_c": {"version": "*", "markers": 'sys_platform == "win32"'},
            "d": {"version": "*", "optional": True}, "e": [{"version": "1", "markers": 'python_version < "4"'}],
        }, extras={"more": ["D (>=1)"]}),
        package("b", dependencies={"a": "*"}), package("c-c"), package("d"), package("e"),
    ]  # fmt: skip
    assert install_size.brought([Requirement("A")], listed) == {"a", "b", "e"}
    assert install_size.brought([Requirement("a[more]")], listed) == {"a", "b", "d", "e"}


def test_the_bill_of_materials_names_every_locked_package(
    locked: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dist" / "sbom.json"
    assert sbom.main([str(path)]) == 0
    assert f"{len(locked)} packages" in capsys.readouterr().out
    bill = json.loads(path.read_text(encoding="utf-8"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    named = {one["name"]: one for one in bill["components"]}
    assert named.keys() == {package["name"] for package in locked}
    torch = next(package for package in locked if package["name"] == "torch")
    assert named["torch"]["purl"] == f"pkg:pypi/torch@{torch['version']}"
    assert len(named["torch"]["hashes"]) == len({file["hash"] for file in torch["files"]})
    assert all(len(one["content"]) == 64 for one in named["torch"]["hashes"])
    assert sbom.main([]) == 2


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ("", 0, "NOT AUDITED: pip-audit got no answer about the"),
        ("Could not connect", 0, "no route to the service"),
        ('{"dependencies": [{"name": "torch", "version": "1", "vulns": []}], "fixes": []}', 0, "0 known weaknesses"),
        (
            '{"dependencies": [{"name": "x", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]},'
            ' {"name": "y", "skip_reason": "unknown"}]}',
            1,
            "x 1: CVE-1, mended by 2\ny: not asked about: unknown\n1 of",
        ),
    ],
)
def test_the_audit_says_what_it_knows(
    answer: str, code: int, words: str, locked: list[dict[str, Any]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("LORA_SAM_AUDIT", raising=False)
    asked = tmp_path / "asked"
    program = tmp_path / "pip-audit"
    program.write_text(
        f"#!/bin/sh\nwhile [ $# -gt 0 ]; do [ $1 = --requirement ] && cp $2 {asked}; shift; done\n"
        f"cat {tmp_path}/answer\necho no route to the service >&2\nexit 1\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "answer").write_text(answer)
    assert audit.main([str(program)]) == code
    assert words in capsys.readouterr().out
    assert asked.read_text().splitlines() == [f"{one['name']}=={one['version']}" for one in locked]
    monkeypatch.setenv("LORA_SAM_AUDIT", "strict")
    assert audit.main([str(program)]) == (code if "{" in answer else 3)


def test_one_version_everywhere_and_the_changelog_dates_it() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", changelog, re.M)
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == version
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {version}\ndate-released: {headings[1][1]}\n" in citation
    released = changelog[changelog.index(f"## [{version}]") :]
    assert all(len(line) <= 150 for line in released.splitlines())  # one line, one change


def test_the_release_tools_have_an_environment_of_their_own() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "twine check --strict dist/*.whl dist/*.tar.gz" in makefile
    assert "scripts/audit.py .release/bin/pip-audit" in makefile
    tools = (ROOT / "scripts" / "release.txt").read_text(encoding="utf-8")
    assert {re.split("[>=<]", line)[0] for line in tools.splitlines() if not line.startswith("#")} == {
        "pip-audit", "poetry-core", "twine",
    }  # fmt: skip
