"""The run directory: what is in it, and how each file is written and read back."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from lora_sam.core.errors import AdapterError
from lora_sam.core.files import atomic_directory, read_json, write_text

if TYPE_CHECKING:
    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.models.vit import BaseModel

SCHEMA_VERSION = 1
LATEST = Path("outputs") / "latest"
_FACTS = {"architecture": dict, "base": dict, "method": dict, "image_size": int, "trains_encoder": bool}


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside one run's directory."""

    root: Path

    @property
    def saved_config(self) -> Path:
        """The composed configuration with nothing left to resolve: data, checked again whenever it is read."""
        return self.root / "config.json"

    @property
    def splits(self) -> Path:
        """Ids of the images of each split."""
        return self.root / "splits.json"

    def prompts(self, split: str) -> Path:
        """What prompted the objects of a split when it was evaluated."""
        return self.root / "prompts" / f"{split}.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per line: the source of truth for curves."""
        return self.root / "metrics.jsonl"

    @property
    def last(self) -> Path:
        """State to resume from."""
        return self.root / "checkpoints" / "last" / "state.safetensors"

    @property
    def best(self) -> Path:
        """Weights with the highest validation IoU."""
        return self.root / "checkpoints" / "best" / "state.safetensors"

    @property
    def adapter(self) -> Path:
        """The result, in stock PEFT layout."""
        return self.root / "adapter"

    @property
    def evaluation(self) -> Path:
        """Base and tuned on the test split."""
        return self.root / "evaluation.json"

    @property
    def report(self) -> Path:
        """The page that explains the run."""
        return self.root / "report.html"

    @property
    def overlays(self) -> Path:
        """Best, median and worst cases as pictures."""
        return self.root / "overlays"

    @property
    def merged(self) -> Path:
        """Plain SAM weights with the adapter folded in."""
        return self.root / "merged"

    def openvino(self, precision: str) -> Path:
        """The two IR parts at `precision` (fp32, fp16, int8, ...)."""
        return self.root / "openvino" / precision

    @property
    def backends(self) -> Path:
        """All back ends on the same prompts."""
        return self.root / "backends.json"

    def point_latest_here(self) -> None:
        """Make `outputs/latest` a link to this run; a file system without links is left alone."""
        temporary = LATEST.with_name(f".latest.{os.getpid()}.tmp")
        try:
            LATEST.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            target = os.path.relpath(self.root.resolve(), LATEST.parent.resolve())
            temporary.symlink_to(target, target_is_directory=True)
            os.replace(temporary, LATEST)
        except OSError:
            with suppress(OSError):
                temporary.unlink()


def find_run(name: str) -> RunDirectory:
    """The run called `latest`, or at the path `name`.

    Raises:
        AdapterError: there is no such run.
    """
    path = LATEST if name == "latest" else Path(name)
    if not path.is_dir():
        hint = "no run has been made here yet" if name == "latest" else "give the path of a run, or latest"
        if path.is_symlink():
            hint = f"{os.readlink(path)}, which it points to, is gone: give the path of another run"
        raise AdapterError(f"{name}: no such run directory ({path}); {hint}")
    return RunDirectory(path.resolve())


def save_adapter(adapted: AdaptedSam, directory: Path, facts: dict[str, Any], card: str) -> None:
    """Write `adapter_model.safetensors`, `adapter_config.json` (stock PEFT), `lora_sam.json` and a model card.

    The directory appears whole or not at all; an earlier one is replaced.

    Args:
        adapted: The model with its adapter.
        directory: Where to.
        facts: Content of `lora_sam.json`.
        card: Content of `README.md`.

    Raises:
        TrainingError: the disk is full or read-only.
    """
    with atomic_directory(directory) as temporary:
        # PEFT would ask a hub about embedding layers, which SAM does not have
        try:
            adapted.peft.save_pretrained(str(temporary), safe_serialization=True, save_embedding_layers=False)
        except SafetensorError as error:  # its word for a full disk
            raise OSError(str(error)) from error
        write_facts(temporary, facts, card)


def write_facts(directory: Path, facts: dict[str, Any], card: str) -> None:
    """Write `lora_sam.json` and the model card of an adapter. Raises `TrainingError` if the disk is full."""
    write_text(directory / "lora_sam.json", json.dumps(facts, indent=2, sort_keys=True) + "\n")
    write_text(directory / "README.md", card)


def adapter_bytes(directory: Path) -> int:
    """Size of the adapter's weights in bytes."""
    return (directory / "adapter_model.safetensors").stat().st_size


def read_facts(directory: Path) -> dict[str, Any]:
    """`lora_sam.json` of an adapter.

    Raises:
        AdapterError: it is missing, damaged, or of another schema version.
    """
    path = directory / "lora_sam.json"
    if not path.is_file():
        raise AdapterError(f"{directory}: lora_sam.json is missing; give the adapter/ directory of a finished run")
    remedy = "train again or restore the file"
    facts = read_json(path, remedy)
    version = facts.get("schema_version")
    if version != SCHEMA_VERSION:
        raise AdapterError(
            f"{path}: schema version {version!r:.40}, this lora_sam reads {SCHEMA_VERSION}; "
            "use the version of lora_sam that wrote it"
        )
    missing = sorted(_FACTS.keys() - facts.keys())
    if missing:
        raise AdapterError(f"{path}: {', '.join(missing)} missing; {remedy}")
    wrong = [name for name, kind in _FACTS.items() if not isinstance(facts[name], kind)]
    if "base" not in wrong:
        wrong += [f"base.{name}" for name in ("source", "sha256") if not isinstance(facts["base"].get(name), str)]
    if wrong:
        raise AdapterError(f"{path}: {', '.join(wrong)} of the wrong type; {remedy}")
    return facts


def check_base(facts: dict[str, Any], base: BaseModel, directory: Path) -> None:
    """Raise `AdapterError` in one line if the adapter was not trained on these base weights."""
    variant, wanted = facts["architecture"].get("variant"), facts["base"]
    if variant != base.variant or wanted["sha256"] != base.sha256:
        # quoted: what a file says about itself may hold line breaks
        raise AdapterError(
            f"{directory} was trained on {variant!r:.99} {wanted['source']!r:.99} (SHA-256 {wanted['sha256'][:12]!r}), "
            f"this base is {base.variant!r} {base.source!r} ({base.sha256[:12]!r}): give the base it was trained on"
        )


def find_adapter(path: Path) -> Path:
    """The adapter directory at `path`, or inside the run at `path`."""
    directory = path / "adapter" if (path / "adapter" / "adapter_config.json").is_file() else path
    if not (directory / "adapter_config.json").is_file():
        raise AdapterError(f"{path}: no adapter there; give a finished run's directory or its adapter/")
    return directory
