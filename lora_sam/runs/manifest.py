"""What the steps after training leave behind: which files, made from what, with which settings.

Every step writes one directory of the run, with a `manifest.json` that holds the SHA-256 of what it was made from and
of what it wrote. A later step asks here whether an earlier one is there, is whole, and still belongs to the run.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lora_sam.core.calling import step_called
from lora_sam.core.errors import AdapterError, TrainingError
from lora_sam.core.files import atomic_directory, digest_of, read_json, recover, sha256_of, write_text
from lora_sam.core.version import __version__

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Step:
    """Content of `manifest.json`.

    Attributes:
        step: Name of the step, as in `python -m lora_sam.<step>`.
        made_from: SHA-256 of every input by its name, e.g. `{"adapter": ..., "base": ...}`.
        settings: Options that change the result, ready for JSON.
        files: SHA-256 of every file written, by its path relative to the directory, with `/`.
        checks: What the step measured of its own result, ready for JSON.
        schema_version: Version of this layout.
        lora_sam: Version of the package that wrote it.
    """

    step: str
    made_from: Mapping[str, str]
    settings: Mapping[str, Any]
    files: Mapping[str, str]
    checks: Mapping[str, Any]
    schema_version: int = SCHEMA_VERSION
    lora_sam: str = __version__


def command(verb: str, run: Path | str, **options: Any) -> str:
    """The command of a step, to be typed as it is: `python -m lora_sam.export run=latest precision=fp32`."""
    words = [f"run={run}", *(f"{key}={value}" for key, value in options.items())]
    return " ".join([step_called(verb), *(shlex.quote(word) for word in words)])


def write_step(
    directory: Path, step: str, *, made_from: Mapping[str, str], settings: Mapping[str, Any], checks: Mapping[str, Any]
) -> Step:
    """Write the manifest of the files that are in `directory`; the last thing to do inside `atomic_directory`."""
    files = {
        path.relative_to(directory).as_posix(): sha256_of(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    written = Step(step=step, made_from=made_from, settings=settings, files=files, checks=checks)
    write_text(directory / MANIFEST, json.dumps(asdict(written), indent=2, sort_keys=True) + "\n")
    return written


def read_step(directory: Path, step: str, remedy: str) -> Step:
    """The manifest of a step that wrote `directory`.

    Args:
        directory: What the step wrote.
        step: Name of the step that has to have written it.
        remedy: Command that writes it.

    Raises:
        AdapterError: it is missing or damaged, of another step or schema version.
    """
    path = directory / MANIFEST
    recover(directory)
    if not path.is_file():
        raise AdapterError(f"{directory}: not there yet; make it with: {remedy}")
    values = read_json(path, f"make it again with: {remedy}")
    if values.get("schema_version") != SCHEMA_VERSION:
        raise AdapterError(
            f"{path}: schema version {values.get('schema_version')!r:.40}, this lora_sam reads {SCHEMA_VERSION}; "
            f"make it again with: {remedy}"
        )
    mappings = {name: values.get(name) for name in ("made_from", "settings", "files", "checks")}
    wrong = [name for name, value in mappings.items() if not isinstance(value, dict)]
    wrong += [
        name
        for name in ("made_from", "files")
        if name not in wrong and not all(isinstance(value, str) for value in mappings[name].values())  # type: ignore[union-attr]
    ]
    if wrong or values.get("step") != step:
        raise AdapterError(
            f"{path} is damaged ({', '.join(wrong) or 'step'} of the wrong type); make it again with: {remedy}"
        )
    return Step(step=step, lora_sam=str(values.get("lora_sam")), **mappings)  # type: ignore[arg-type]


def require_step(directory: Path, step: str, made_from: Mapping[str, str], remedy: str) -> Step:
    """The manifest of a step that is whole and was made from just these inputs.

    Raises:
        AdapterError: it is missing, an input has changed since, or a file is missing or was changed by hand; names the
            input or file, and the command that mends it.
    """
    found = read_step(directory, step, remedy)
    for name in sorted(made_from.keys() | found.made_from.keys()):
        then, now = found.made_from.get(name), made_from.get(name)
        if then != now:
            raise AdapterError(
                f"{directory} is stale: it was made from another {name} (SHA-256 {_short(then)}, now {_short(now)}); "
                f"make it again with: {remedy}"
            )
    for name, digest in sorted(found.files.items()):
        path = directory / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise AdapterError(
                f"{directory / MANIFEST} names a file outside ({name!r:.99}); make it again with: {remedy}"
            )
        if not path.is_file():
            raise AdapterError(f"{path} is missing; make it again with: {remedy}")
        if sha256_of(path) != digest:
            raise AdapterError(f"{path} was changed after it was made; make it again with: {remedy}")
    return found


def is_done(directory: Path, step: str, made_from: Mapping[str, str], settings: Mapping[str, Any]) -> bool:
    """Whether the step was done before with these inputs and settings, and nothing has changed since."""
    try:
        found = require_step(directory, step, made_from, "")
    except AdapterError:
        return False
    # as JSON, in which tuples are lists
    return bool(found.settings == json.loads(json.dumps(dict(settings))))


@contextmanager
def step_directory(directory: Path, remedy: str) -> Iterator[Path]:
    """`atomic_directory` with errors in the words of a step.

    Args:
        directory: What the step writes; appears whole or not at all.
        remedy: The command that makes it.

    Raises:
        AdapterError: the disk is full or the directory cannot be written.
    """
    try:
        with atomic_directory(directory) as temporary:
            try:
                yield temporary
            except SafetensorError as error:  # its word for a full disk
                raise OSError(str(error)) from error
    except TrainingError as error:
        raise AdapterError(
            f"{directory} cannot be written: {error.__cause__ or error}; make room or the directory writable, or "
            f"write elsewhere with output=<directory>, then: {remedy}"
        ) from error


def adapter_digest(adapter: Path) -> str:
    """SHA-256 that stands for an adapter directory: its weights and its PEFT configuration.

    Raises:
        AdapterError: a file is missing.
    """
    names = ("adapter_model.safetensors", "adapter_config.json")
    for name in names:
        if not (adapter / name).is_file():
            raise AdapterError(f"{adapter}: {name} is missing; give a finished run's directory")
    return digest_of({name: sha256_of(adapter / name) for name in names})


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]
