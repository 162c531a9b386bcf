"""The run directory: what is in it, and how each file is written and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from lora_sam.core.errors import AdapterError
from lora_sam.core.files import atomic_directory, read_json, recover, sha256_of, write_text
from lora_sam.core.run_directory import SWEEP, find_run
from lora_sam.core.scores import scores_of
from lora_sam.data.reading.pixel_scale import PixelScale
from lora_sam.methods.peft_config import CLASS_HEAD, DIGESTS, FACTS, FILE, WEIGHTS

if TYPE_CHECKING:
    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.models.base_model import BaseModel
    from lora_sam.predictors.class_head import ClassHead

SCHEMA_VERSION = 1
_FACTS = {"architecture": dict, "base": dict, "method": dict, "image_size": int, "trains_encoder": bool}

_SIDES = ("training_side", "training_tile")
"""Facts that may be missing, in pixels."""
METHOD_NAMES = ("name", "option")
"""Facts of a method that are no setting of it: what its class is called, and the file of `conf/` it was chosen by."""


def method_typed(facts: Mapping[str, Any]) -> str:
    """The method of an adapter as it was typed; adapters that are older say what its class is called."""
    method = facts["method"]
    return str(method.get("option", method.get("name", "?")))


def save_adapter(
    adapted: AdaptedSam, directory: Path, facts: dict[str, Any], card: str, *, class_head: ClassHead | None = None
) -> None:
    """Write `adapter_model.safetensors`, `adapter_config.json` (stock PEFT), `lora_sam.json` and a model card.

    The directory appears whole or not at all; an earlier one is replaced.

    Args:
        adapted: The model with its adapter.
        directory: Where to.
        facts: Content of `lora_sam.json`.
        card: Content of `README.md`.
        class_head: What tells classes apart, for a file of its own; None where there are not several.

    Raises:
        TrainingError: the disk is full or read-only.
    """
    with atomic_directory(directory) as temporary:
        try:
            adapted.save(temporary)
            if class_head is not None:
                class_head.save(temporary / CLASS_HEAD)
        except SafetensorError as error:  # its word for a full disk
            raise OSError(str(error)) from error
        write_facts(temporary, facts, card)


def write_facts(directory: Path, facts: dict[str, Any], card: str) -> None:
    """Write `lora_sam.json`, with the SHA-256 of the adapter's files in it, and the model card of an adapter.

    Facts that are written again keep the SHA-256 of the first time.

    Raises:
        TrainingError: the disk is full.
    """
    try:
        digests = read_json(directory / FACTS, "").get(DIGESTS)
    except AdapterError:  # the first time
        digests = None
    if digests is None:
        digests = {
            name: sha256_of(directory / name) for name in (FILE, WEIGHTS, CLASS_HEAD) if (directory / name).is_file()
        }
    whole = {**facts, DIGESTS: digests} if digests else facts
    write_text(directory / FACTS, json.dumps(whole, indent=2, sort_keys=True) + "\n")
    write_text(directory / "README.md", card)


def adapter_bytes(directory: Path) -> int:
    """Size of the adapter's weights in bytes."""
    return (directory / "adapter_model.safetensors").stat().st_size


def read_facts(directory: Path) -> dict[str, Any]:
    """`lora_sam.json` of an adapter.

    Where an earlier version wrote it, `training_tile` comes from the configuration of the run that the adapter lies in.

    Raises:
        AdapterError: it is missing, damaged, or of another schema version.
    """
    path = directory / "lora_sam.json"
    if not path.is_file():
        raise AdapterError(f"{directory}: lora_sam.json is missing; give the adapter/ directory of a finished run")
    remedy = "train again or restore the file"
    facts = read_json(path, remedy)
    if "training_tile" not in facts and (tile := _tile_of_run(directory)) is not None:
        facts["training_tile"] = tile
    version = facts.get("schema_version")
    if version != SCHEMA_VERSION:
        raise AdapterError(
            f"{path}: schema version {version!r:.40}, this lora_sam reads {SCHEMA_VERSION}; "
            "use the version of lora_sam that wrote it"
        )
    missing = sorted(_FACTS.keys() - facts.keys())
    if missing:
        raise AdapterError(f"{path}: {', '.join(missing)} missing; {remedy}")
    wrong = [name for name, kind in _FACTS.items() if type(facts[name]) is not kind]
    if "base" not in wrong:
        texts = ("source", "sha256", *(("tensors",) if "tensors" in facts["base"] else ()))
        wrong += [f"base.{name}" for name in texts if not isinstance(facts["base"].get(name), str)]
    wrong += [name for name in _SIDES if type(facts.get(name, 1)) is not int or facts.get(name, 1) < 1]
    classes = facts.get("classes")
    if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        wrong.append("classes")
    if wrong:
        raise AdapterError(f"{path}: {', '.join(wrong)} of the wrong type; {remedy}")
    side = facts["architecture"].get("image_size")
    # a side that cannot be is refused with the rest of the architecture
    if side in range(32, 4097, 16) and side != facts["image_size"]:
        raise AdapterError(f"{path}: image_size is {facts['image_size']}, in architecture {side}; {remedy}")
    try:
        scores_of(facts.get("scores"))
        scores_of(facts["base"].get("scores"))
        if "scale" in facts:
            PixelScale.from_json(facts["scale"])
    except ValueError as error:
        raise AdapterError(f"{path}: {error}; {remedy}") from error
    return facts


def _tile_of_run(directory: Path) -> int | None:
    """`data.tile` of the run that an adapter lies in; None where there is none, or nobody knows."""
    try:
        data = read_json(directory.parent / "config.json", "").get("data")
    except AdapterError:  # an adapter by itself, or what is damaged, which is told where it is needed
        return None
    tile = data.get("tile") if isinstance(data, dict) else None
    return tile if type(tile) is int and tile > 0 else None


def check_base(facts: dict[str, Any], base: BaseModel, directory: Path) -> None:
    """Raise `AdapterError` in one line if the adapter was not trained on these base weights.

    The weights themselves are compared, so that it does not matter which file they are in; of adapters made by earlier
    versions only the SHA-256 of the file is known.
    """
    variant, wanted = facts["architecture"].get("variant"), facts["base"]
    known, tensors = wanted["sha256"], wanted.get("tensors")
    same = known == base.sha256 or (tensors is not None and tensors == base.tensors)
    if variant != base.variant or not same:
        alike = tensors is not None and base.tensors is not None
        told, found = (str(tensors), str(base.tensors)) if alike else (known, base.sha256)
        from lora_sam.models.checkpoints import FORMER

        former = FORMER.get(known)
        if former is not None:
            raise AdapterError(f"{directory} was trained on {former}, or give the old file as base=...")
        hint = "" if tensors is not None else ", the very file: this adapter is older than the comparison of weights"
        # quoted: what a file says about itself may hold line breaks
        raise AdapterError(
            f"{directory} was trained on {variant!r:.99} {wanted['source']!r:.99} (SHA-256 {told[:12]!r}), "
            f"this base is {base.variant!r} {base.source!r} ({found[:12]!r}): give the base it was trained on{hint}"
        )


def same_base(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two adapters were trained on the same weights of the same architecture; takes their `lora_sam.json`."""
    same = any(key in one["base"] and one["base"][key] == other["base"].get(key) for key in ("sha256", "tensors"))
    return same and bool(one["architecture"] == other["architecture"])


def find_adapter(path: Path) -> Path:
    """The adapter directory at `path`, or inside the run at `path`."""
    recover(path / "adapter")
    directory = path / "adapter" if (path / "adapter" / "adapter_config.json").is_file() else path
    if not (directory / "adapter_config.json").is_file():
        raise AdapterError(f"{path}: no adapter there; give a finished run's directory or its adapter/")
    return directory


def adapter_directory(path: str | PathLike[str]) -> Path:
    """The adapter at `latest`, a run directory or an adapter directory. Raises `AdapterError` where there is none."""
    named = str(path) in ("latest", "best") or (Path(path) / SWEEP).is_file()
    return find_adapter(find_run(str(path)).root if named else Path(path))
