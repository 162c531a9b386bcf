"""Writes what poetry.lock pins as a bill of materials: `python scripts/sbom.py OUT.json`.

CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/): a component for each package, with its package URL
(https://github.com/package-url/purl-spec) and the SHA-256 of every file that may be installed.
"""

from __future__ import annotations

import json
import sys
import tomllib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def bill(project: Mapping[str, Any], locked: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The document; the same lock file gives the same document.

    Args:
        project: `[project]` of pyproject.toml.
        locked: `[[package]]` of poetry.lock.
    """
    components = [_component(package) for package in sorted(locked, key=lambda package: str(package["name"]))]
    name, version = project["name"], project["version"]
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([name, version, components], sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": _address(name, version),
                "name": name,
                "version": version,
                "purl": _address(name, version),
                "licenses": [{"license": {"id": project["license"]}}],
            }
        },
        "components": components,
    }


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 once the file is written, 2 after a mistake."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python scripts/sbom.py OUT.json\n")
        return 2
    path = Path(arguments[0])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))["package"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(bill(project, locked), indent=2) + "\n", encoding="utf-8")
    print(f"{path}: {len(locked)} packages")
    return 0


def _component(package: Mapping[str, Any]) -> dict[str, Any]:
    name, version = str(package["name"]), str(package["version"])
    digests = sorted(
        {file["hash"].partition(":")[2] for file in package["files"] if file["hash"].startswith("sha256:")}
    )
    return {
        "type": "library",
        "bom-ref": _address(name, version),
        "name": name,
        "version": version,
        "description": str(package.get("description", "")),
        "purl": _address(name, version),
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in digests],
    }


def _address(name: str, version: str) -> str:
    return f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
