"""Load a fine-tuned SAM for prediction, from a run or from an adapter alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.core.errors import AdapterError, CheckpointError, ConfigError
from lora_sam.core.files import read_json
from lora_sam.core.run_directory import RunDirectory
from lora_sam.core.scores import scores_of
from lora_sam.methods.peft_config import CLASS_HEAD, DIGESTS
from lora_sam.runs.adapter_files import adapter_directory, check_base, read_facts
from lora_sam.runs.places import placed

if TYPE_CHECKING:
    import torch

    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.models.base_model import BaseModel
    from lora_sam.models.family import SamModel
    from lora_sam.predictors.class_head import ClassHead
    from lora_sam.predictors.frozen import FrozenPart
    from lora_sam.predictors.torch_predictor import Context, ImageEmbedder, TorchPredictor
    from lora_sam.runs.several import AdapterPredictor


def load(
    path: str | PathLike[str] = "latest",
    *,
    base: str | PathLike[str] | None = None,
    device: str | torch.device = "auto",
) -> AdapterPredictor:
    """A predictor with base and adapter loaded; further adapters can be put beside it (`AdapterPredictor.add`).

    Args:
        path: `latest`, a run directory, or an adapter directory.
        base: Checkpoint of the base weights; by default the file the run used, if it is still there, or the official
            file of the variant.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, or a `torch.device`.

    Raises:
        AdapterError: nothing usable is at `path`, or `base` is not what the adapter was trained on.
        CheckpointError: the base weights are not found.
        ConfigError: the device is not there.
    """
    from lora_sam.models.device import pick_device
    from lora_sam.runs.several import FIRST, AdapterPredictor

    directory = adapter_directory(path)
    built = build_base(directory, read_facts(directory), base)
    predictor = AdapterPredictor(built, pick_device(device))
    predictor.add(FIRST, directory)
    predictor.use(FIRST)
    return predictor


def load_classes(path: str | PathLike[str] = "latest") -> ClassHead | None:
    """What tells the classes of objects apart for an adapter, whatever computes the masks; None where it has none.

    Args:
        path: `latest`, a run directory, or an adapter directory.

    Raises:
        AdapterError: nothing usable is at `path`, or the head is missing, damaged or not what was saved.
    """
    directory = adapter_directory(path)
    facts = read_facts(directory)
    if CLASS_HEAD not in facts.get(DIGESTS, {}):
        return None
    from lora_sam.core.files import check_sha256
    from lora_sam.predictors.class_head import load_class_head

    file = directory / CLASS_HEAD
    if not file.is_file():
        raise AdapterError(f"{file} is missing; train again or restore the file")
    check_sha256(file, str(facts[DIGESTS][CLASS_HEAD]), "restore the file or train again")
    return load_class_head(file)


def load_adapted(path: str | PathLike[str] = "latest", *, base: str | PathLike[str] | None = None) -> AdaptedSam:
    """The base with the adapter inside, on the CPU. Arguments and errors are those of `load`."""
    from lora_sam.methods import adapted

    directory = adapter_directory(path)
    facts = read_facts(directory)
    model = build_base(directory, facts, base)
    return adapted.load(model.sam, directory, trains_encoder=facts["trains_encoder"])


def load_base(path: str | PathLike[str] = "latest", *, base: str | PathLike[str] | None = None) -> BaseModel:
    """The base that an adapter was trained on, with split projections, as stock PEFT needs it.

    Where the method puts layers of its own into the model they are there, and change nothing yet.

    `PeftModel.from_pretrained(load_base(directory).sam, directory)` is the adapted model. Arguments and errors are
    those of `load`.
    """
    from lora_sam.methods.layer_files import put_in_saved

    directory = adapter_directory(path)
    model = build_base(directory, read_facts(directory), base)
    put_in_saved(model.sam, directory)
    return model


def build_base(directory: Path, facts: dict[str, Any], base: str | PathLike[str] | None = None) -> BaseModel:
    """The base that the adapter in `directory` was trained on; `facts` are those of its `lora_sam.json`.

    Arguments and errors are those of `load`.
    """
    random = base is None and facts["base"]["source"] == "random"
    model = _settings(directory, facts, None if random else _checkpoint(directory, facts, base), random=random)
    built = model.build()
    check_base(facts, built, directory)
    return built


def build_with(directory: Path, facts: dict[str, Any], weights: Path) -> BaseModel:
    """A model of the architecture that an adapter belongs to, with the weights of a file whatever they are.

    Args:
        directory: The adapter's.
        facts: Content of its `lora_sam.json`.
        weights: A `.safetensors` or `.pth` file with the keys of `segment_anything`.

    Raises:
        AdapterError: the facts do not describe an architecture.
        CheckpointError: the file is missing, damaged, or holds another architecture.
    """
    return _settings(directory, facts, str(weights), random=False).build()


def _settings(directory: Path, facts: dict[str, Any], checkpoint: str | None, *, random: bool) -> SamModel:
    from pydantic import TypeAdapter, ValidationError

    from lora_sam.models.checkpoints import OFFICIAL
    from lora_sam.models.family import options_of

    official = OFFICIAL.get(str(facts["architecture"].get("variant")))
    settings = {
        **{name: value for name, value in facts["architecture"].items() if name != "family"},
        "prompt_frequency": facts["base"].get("prompt_frequency", 1.0),
        "weights": "random" if random else "pretrained",
        "weights_seed": facts["base"].get("weights_seed", 0),
        "checkpoint": checkpoint,
        "offline": False,
        **{name: getattr(official, name, None) for name in ("url", "size", "sha256")},
    }
    try:
        adapter: TypeAdapter[SamModel] = TypeAdapter(options_of(facts["architecture"]))
        model = adapter.validate_json(json.dumps(settings), strict=True)
        model.check()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        group = "base" if where == "weights_seed" else "architecture"
        raise AdapterError(f"{directory}/lora_sam.json: {group}.{where}: {first['msg']}") from error
    except (ConfigError, AdapterError) as error:
        raise AdapterError(f"{directory}/lora_sam.json: {error}") from error
    return model


def _checkpoint(directory: Path, facts: dict[str, Any], base: str | PathLike[str] | None) -> str | None:
    """Path of the base weights, or None for the packaged or official file of the variant.

    Raises:
        CheckpointError: there is no such file.
    """
    from lora_sam.models.checkpoints import OFFICIAL, packaged_checkpoint

    wanted = f"the weights this adapter was trained on ({facts['base']['source']!r:.100})"
    if base is not None:
        if not Path(base).is_file():
            raise CheckpointError(f"base = {base}: no such file; give the path of {wanted}")
        return str(base)
    of_run = _checkpoint_of_run(directory)
    if of_run is not None and Path(of_run).is_file():
        return of_run
    variant = facts["architecture"].get("variant")
    # where the run had a file of its own, no other is fetched in its place
    if of_run is not None or (variant not in OFFICIAL and packaged_checkpoint(str(variant)) is None):
        place = "" if of_run is None else f" at {of_run}, where the run found them"
        raise CheckpointError(f"{directory}: {wanted} are not known here{place}; give their path as base=...")
    return None


def _checkpoint_of_run(directory: Path) -> str | None:
    """The checkpoint named in the configuration of the run that the adapter lies in."""
    config = directory.parent / "config.json"
    if not config.is_file():
        return None
    remedy = "give the base weights with base=..."
    try:
        checkpoint = placed(read_json(config, remedy), RunDirectory(directory.parent))["model"]["checkpoint"]
    except (KeyError, TypeError) as error:
        raise AdapterError(f"{config} is damaged (model.checkpoint is missing); {remedy}") from error
    return None if checkpoint is None else str(checkpoint)


def predictors_for(
    adapted: AdaptedSam,
    image_size: int,
    *,
    chunk: int = 16,
    context: Context = nullcontext,
    frozen: FrozenPart | None = None,
    scores: Mapping[str, Any] | None = None,
    base_scores: Mapping[str, Any] | None = None,
) -> dict[str, TorchPredictor]:
    """Predictors `base` and `tuned` that share one model, and its embeddings where the encoder is frozen.

    Threads may share them. One computes at a time, because the adapter is switched on and off for all of the model.

    Args:
        adapted: The model with its adapter.
        image_size: Side S of its input.
        chunk: Prompts decoded at once.
        context: Entered around every computation.
        frozen: The part of the encoder that is the same for both, with what it made of images before.
        scores: From which score on masks are good, as `lora_sam.json` has it; None for those of Meta's weights.
        base_scores: The same of the base; None for `scores`.
    """
    from lora_sam.predictors.torch_predictor import ImageEmbedder, TorchPredictor

    computing = threading.RLock()

    @contextmanager
    def with_adapter() -> Iterator[None]:
        with computing, context():
            yield

    @contextmanager
    def without_adapter() -> Iterator[None]:
        with computing, context(), adapted.base():
            yield

    def embedder(context: Context) -> ImageEmbedder:
        return ImageEmbedder(adapted.sam, context=context, frozen=frozen)

    own = embedder(with_adapter)
    shared = embedder(without_adapter) if adapted.trains_encoder else own
    least = scores_of(scores)
    tuned = TorchPredictor(adapted.sam, image_size, embedder=own, context=with_adapter, chunk=chunk, scores=least)
    of_base = least if base_scores is None else scores_of(base_scores)
    base = TorchPredictor(
        adapted.sam, image_size, embedder=shared, context=without_adapter, chunk=chunk, scores=of_base
    )
    return {"base": base, "tuned": tuned}
