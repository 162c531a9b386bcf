"""The merged weights of a run: whether they are there and current, and reading them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.core.errors import AdapterError
from lora_sam.core.run_directory import RunDirectory
from lora_sam.runs.adapter_files import find_adapter, method_typed, read_facts
from lora_sam.runs.manifest import (
    adapter_digest,
    command,
    read_step,
    require_step,
)

if TYPE_CHECKING:
    from lora_sam.models.base_model import BaseModel


STEP = "merge"


FILE = "sam.safetensors"
# the options that a command to merge again may name
OPTIONS = ("alpha", "format", "runs", "weights", "combination", "density", "seed")


@dataclass(frozen=True)
class Source:
    """An adapter that is merged: its directory and its facts."""

    adapter: Path
    facts: Mapping[str, Any]

    @property
    def base(self) -> str:
        """SHA-256 of its base."""
        return str(self.facts["base"]["sha256"])

    def described(self) -> str:
        """In words, on one line, whatever the facts hold."""
        method, variant = method_typed(self.facts), self.facts["architecture"].get("variant")
        source = self.facts["base"]["source"]
        # quoted: what a file says about itself may hold line breaks
        return f"{self.adapter} (method {method!r:.99} on {variant!r:.99} {source!r:.99}, SHA-256 {self.base[:12]!r})"


def made_from(run: RunDirectory) -> dict[str, str]:
    """SHA-256 of what `merged/` has to be made from: base, the run's adapter, those of further runs it was made from.

    A further run that is gone counts as it was.

    Raises:
        AdapterError: the run has no adapter.
    """
    adapter = find_adapter(run.root)
    found = {"adapter": adapter_digest(adapter), "base": read_facts(adapter)["base"]["sha256"]}
    try:
        merged = read_step(run.merged, STEP, "")
    except AdapterError:  # whoever needs it will say so
        return found
    for index, root in enumerate(_further(merged.settings), 2):
        name = f"adapter_{index}"
        try:
            found[name] = adapter_digest(find_adapter(Path(root)))
        except AdapterError:
            found[name] = merged.made_from.get(name, "")
    return found


def require_merged(run: RunDirectory) -> Path:
    """Path of the run's merged weights.

    Raises:
        AdapterError: they are not there, or not those of the run's adapter; names the command that makes them.
    """
    settings: Mapping[str, Any] = {}
    with suppress(AdapterError):
        settings = read_step(run.merged, STEP, "").settings
    require_step(run.merged, STEP, made_from(run), merge_command(run, settings))
    return run.merged / FILE


def load_merged(run: RunDirectory) -> BaseModel:
    """The merged model: plain weights, projections split as everywhere in this package, `eval()`, on the CPU.

    Raises:
        AdapterError: as `require_merged`.
    """
    from lora_sam.runs.loading import build_with

    path = require_merged(run)
    adapter = find_adapter(run.root)
    return build_with(adapter, read_facts(adapter), path)


def made_from_sources(sources: Sequence[Source]) -> dict[str, str]:
    """SHA-256 of adapters and base, by the names that a manifest gives them."""
    names = ["adapter", *(f"adapter_{index}" for index in range(2, len(sources) + 1))]
    digests = {name: adapter_digest(source.adapter) for name, source in zip(names, sources, strict=True)}
    return {**digests, "base": sources[0].base}


def _further(settings: Mapping[str, Any]) -> list[str]:
    """Paths of further runs as a manifest names them, which may come from elsewhere."""
    runs = settings.get("runs")
    return [root for root in runs if isinstance(root, str)] if isinstance(runs, list) else []


def merge_command(run: RunDirectory, settings: Mapping[str, Any]) -> str:
    """The command that merges with these settings, which may come from elsewhere; defaults are left out."""
    usual = {"alpha": 1.0, "format": "segment_anything", "runs": []}
    options = {
        key: json.dumps(value) if isinstance(value, list) else value
        for key, value in settings.items()
        if key in OPTIONS and value != usual.get(key) and str(value).isprintable()
    }
    return command(STEP, run.root, **options)
