"""Load a fine-tuned SAM for prediction, from a run or from an adapter alone."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.artifacts import check_base, find_adapter, find_run, read_facts
from lora_sam.errors import AdapterError

if TYPE_CHECKING:
    from lora_sam.models.vit import BaseModel
    from lora_sam.predictors import TorchPredictor


def load(
    path: str | PathLike[str] = "latest", *, base: str | PathLike[str] | None = None, device: str = "auto"
) -> TorchPredictor:
    """A predictor with base and adapter loaded.

    Args:
        path: `latest`, a run directory, or an adapter directory.
        base: Checkpoint of the base weights; by default the file the run used, or the official file of the variant.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        AdapterError: nothing usable is at `path`, or `base` is not what the adapter was trained on.
        CheckpointError: the base weights are not found.
    """
    from lora_sam.methods import adapted
    from lora_sam.models.device import pick_device
    from lora_sam.predictors import TorchPredictor

    directory = _adapter_directory(path)
    facts = read_facts(directory)
    model = _base_model(directory, facts, base)
    model.sam.to(pick_device(device))
    tuned = adapted.load(model.sam, directory, trains_encoder=bool(facts["trains_encoder"]))
    return TorchPredictor(tuned.sam, model.image_size)


def load_base(path: str | PathLike[str] = "latest", *, base: str | PathLike[str] | None = None) -> BaseModel:
    """The base that an adapter was trained on, with split projections, as stock PEFT needs it.

    `PeftModel.from_pretrained(load_base(directory).sam, directory)` is the adapted model. Arguments and errors are
    those of `load`.
    """
    directory = _adapter_directory(path)
    return _base_model(directory, read_facts(directory), base)


def _adapter_directory(path: str | PathLike[str]) -> Path:
    return find_adapter(find_run("latest").root if str(path) == "latest" else Path(path))


def _base_model(directory: Path, facts: dict[str, Any], base: str | PathLike[str] | None) -> BaseModel:
    from pydantic import TypeAdapter, ValidationError

    from lora_sam.models.vit import ViTSam

    checkpoint = str(base) if base is not None else _checkpoint_of_run(directory, facts)
    settings = {
        **facts["architecture"],
        "weights": "random" if facts["base"].get("source") == "random" else "pretrained",
        "weights_seed": facts["base"].get("weights_seed", 0),
        "checkpoint": checkpoint,
        "offline": False,
    }
    try:
        model = TypeAdapter(ViTSam).validate_json(json.dumps(settings), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise AdapterError(f"{directory}/lora_sam.json: architecture.{where}: {first['msg']}") from error
    model.check()
    built = model.build()
    check_base(facts, built, directory)
    return built


def _checkpoint_of_run(directory: Path, facts: dict[str, Any]) -> str | None:
    """The checkpoint named in the configuration of the run that the adapter lies in, if it is still there."""
    config = directory.parent / "config.json"
    if not config.is_file():
        return None
    try:
        checkpoint = json.loads(config.read_text(encoding="utf-8"))["model"]["checkpoint"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise AdapterError(f"{config} is damaged ({error!r}); give the base weights with base=...") from error
    return None if checkpoint is None else str(checkpoint)
