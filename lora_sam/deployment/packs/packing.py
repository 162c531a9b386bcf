"""Write a pack beside what was there, have its host open it, and hold its masks against ours."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lora_sam.core.config import from_conf
from lora_sam.core.errors import AdapterError, ConfigError, TrainingError
from lora_sam.core.files import atomic_directory, sha256_of
from lora_sam.core.run_directory import RunDirectory
from lora_sam.core.version import __version__
from lora_sam.runs.adapter_files import find_adapter, read_facts
from lora_sam.runs.merged import load_merged, require_merged

if TYPE_CHECKING:
    from torch import Tensor

    from lora_sam.models.base_model import BaseModel

FILE = "pack.json"
LEAST_IOU = 0.999
"""Least mean IoU of the host's masks with ours; below it nothing is written."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What came of having a host open its pack.

    Attributes:
        host: The package that opens it, with its version where it is installed.
        by: What of the host opened it, or what was checked in its place.
        mask_iou: Mean IoU with ours of the masks that came from the pack's files; None where nothing computed any.
        masks: How many were compared.
        why_not_run: Why the host was not run, in one line; None where it was.
    """

    host: str
    by: str
    mask_iou: float | None = None
    masks: int = 0
    why_not_run: str | None = None


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What a pack is made of.

    Attributes:
        run: The run.
        base: Its merged model; projections are split as everywhere here.
        state: Its weights with the keys of the upstream package, fp32.
        architecture: As `lora_sam.json` describes it.
    """

    run: RunDirectory
    base: BaseModel
    state: Mapping[str, Tensor]
    architecture: Mapping[str, Any]

    @property
    def variant(self) -> str:
        """Name of the architecture."""
        return str(self.architecture["variant"])


class Target(Protocol):
    """What the class that a file of `conf/pack` names offers."""

    def write(self, packed: Packed, directory: Path) -> Opened:
        """Write the pack into an empty directory and have its host open it.

        Raises:
            AdapterError: the host cannot take this variant.
            ConfigError: a package that writes its format is not installed.
        """
        ...


def write_pack(run: RunDirectory, target: str, output: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write the pack of a target; what was at `output` stays until the new one is whole and checked.

    Args:
        run: A run with merged weights.
        target: One of `lora_sam.deployment.packs.targets`.
        output: Directory of the pack.
        overwrite: Replace an earlier pack there.

    Returns:
        The content of `pack.json`.

    Raises:
        AdapterError: the weights are not merged, the host cannot take the variant, or its masks are not ours.
        ConfigError: something is at `output` and may not be replaced, or it cannot be written.
    """
    _check_output(output, overwrite)
    packed, writer = _packed(run), target_of(target)
    try:
        with atomic_directory(output) as directory:
            opened = writer.write(packed, directory)
            iou = opened.mask_iou
            if iou is not None and not iou >= LEAST_IOU:
                raise AdapterError(
                    f"target = {target}: {opened.host} computes other masks than we do (mean IoU {iou:.5f}, least "
                    f"{LEAST_IOU}); nothing was written, use lora_sam.load, or report it"
                )
            told = {
                "schema_version": 1,
                "target": target,
                "variant": packed.variant,
                "host": opened.host,
                "opened_by": opened.by,
                "checked": "run" if opened.why_not_run is None else "not run",
                "why_not_run": opened.why_not_run,
                "mask_iou": iou,
                "masks": opened.masks,
                "notes": list(_notes(run)),
                "made_from": {"merged": sha256_of(require_merged(run))},
                "files": {
                    path.relative_to(directory).as_posix(): sha256_of(path)
                    for path in sorted(directory.rglob("*"))
                    if path.is_file()
                },
                "lora_sam": __version__,
            }
            (directory / FILE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    except TrainingError as error:
        raise ConfigError(
            f"output = {output}: cannot be written: {error.__cause__ or error}; give another directory"
        ) from error
    return told


def _notes(run: RunDirectory) -> Iterator[str]:
    """What another tool does not do to images, and the training did."""
    facts = read_facts(find_adapter(run.root))
    tile = facts.get("training_tile")
    if tile is not None:
        yield (
            f"it was trained on tiles of {tile} pixels: give it images of that size, on larger ones objects are "
            "smaller than in training; lora-sam predict cuts them"
        )
    if "scale" in facts:
        yield (
            "its training scaled images of more than 8 bits (scale in lora_sam.json), which this tool does not: give "
            "it images of 8 bits that were scaled so"
        )


def target_of(name: str) -> Target:
    """The target of this name, as `conf/pack` has it."""
    found: Target = from_conf(f"pack/{name}")
    return found


def refuse(packed: Packed, target: str, reason: str, remedy: str) -> AdapterError:
    """The error for a variant that a host cannot take."""
    return AdapterError(f"target = {target}: variant {packed.variant}: {reason}; {remedy}")


def _check_output(output: Path, overwrite: bool) -> None:
    """Raise `ConfigError` where something is there that may not be replaced: only packs ever are."""
    if not os.path.lexists(output):
        return
    if output.is_dir() and not any(output.iterdir()):
        return
    if not (output / FILE).is_file():
        raise ConfigError(f"output = {output}: is there and is no pack, so it stays; give a directory that is new")
    if not overwrite:
        raise ConfigError(f"output = {output}: is there; replace it with overwrite=true, or give another directory")


def _packed(run: RunDirectory) -> Packed:
    from lora_sam.models.family import family_of
    from lora_sam.models.projections import check_plain, fuse_state_dict

    base = load_merged(run)
    check_plain(base.sam)
    state = family_of(base.sam.image_encoder).published(fuse_state_dict(base.sam.state_dict()))
    state = {key: value.float().contiguous() for key, value in state.items()}
    return Packed(run=run, base=base, state=state, architecture=read_facts(find_adapter(run.root))["architecture"])
