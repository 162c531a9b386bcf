"""Where back ends come from, a run or a pair of IR parts, and how they are opened; all compute on the CPU."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lora_sam.core.errors import AdapterError
from lora_sam.core.files import sha256_of
from lora_sam.core.run_directory import RunDirectory
from lora_sam.core.scores import META, Scores, scores_of
from lora_sam.evaluation.backends.names import BACK_ENDS, BackEnd, in_order
from lora_sam.predictors.openvino_parts import DECODER, ENCODER, openvino_directory
from lora_sam.predictors.openvino_predictor import OpenVINOPredictor
from lora_sam.runs.adapter_files import find_adapter, read_facts
from lora_sam.runs.exported import require_exported
from lora_sam.runs.ir_weights import stored_weights
from lora_sam.runs.manifest import MANIFEST
from lora_sam.runs.merged import load_merged, require_merged
from lora_sam.runs.merged import made_from as origin_of_merge
from lora_sam.runs.quantized import require_quantized
from lora_sam.runs.resuming import settings_of

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.training.settings import Settings

CHUNK = 16
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json", "lora_sam.json")
_IR_FILES = (ENCODER, DECODER)


class Origin(Protocol):
    """Back ends that belong together: made from one adapter, or files that were handed over."""

    @property
    def offered(self) -> tuple[str, ...]:
        """Names of the back ends that are there, in order."""
        ...

    def require(self, names: Iterable[str]) -> None:
        """Raise `AdapterError` with the command to run for what is not there, not whole, or not of this run."""
        ...

    def open(self, names: Iterable[str], *, threads: int | None) -> dict[str, Predictor]:
        """Predictors by name, in order."""
        ...

    def place(self, name: str) -> Path:
        """What `open_alone` needs to open a back end."""
        ...

    def files(self, name: str) -> tuple[Path, ...]:
        """All files that a back end needs."""
        ...

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """SHA-256 of what the back ends are, by what it is of."""
        ...


@dataclass(frozen=True)
class RunBackEnds:
    """The back ends of a run; see `Origin`.

    Attributes:
        run: Its directory.
        base: Checkpoint of the base weights; None takes the file that the run used.
    """

    run: RunDirectory
    base: Path | None = None

    @property
    def offered(self) -> tuple[str, ...]:
        """See `Origin`."""
        return in_order(
            name
            for name, back_end in BACK_ENDS.items()
            if not back_end.deployed or (self.run.merged if name == "merged" else self._directory(back_end)).is_dir()
        )

    @property
    def current(self) -> tuple[str, ...]:
        """Those of `offered` that are whole, and made from the run's adapter as it is."""
        sound: dict[Path, bool] = {}
        for name in self.offered:
            place = self.run.merged if name == "merged" else self.place(name)
            if place not in sound:  # several back ends compute with the same files
                try:
                    self.require([name])
                    sound[place] = True
                except AdapterError:
                    sound[place] = False
        return tuple(name for name in self.offered if sound[self.run.merged if name == "merged" else self.place(name)])

    def require(self, names: Iterable[str]) -> None:
        """See `Origin`."""
        find_adapter(self.run.root)
        for weights in dict.fromkeys(BACK_ENDS[name].weights for name in names if _is_ir(name)):
            if weights == "fp32" or weights == "fp16":
                require_exported(self.run, weights)
            else:
                require_quantized(self.run, weights)
        if "merged" in names:
            require_merged(self.run)

    def open(self, names: Iterable[str], *, threads: int | None) -> dict[str, Predictor]:
        """See `Origin`."""
        wanted = in_order(names)
        opened: dict[str, Predictor] = {**self._base_and_tuned(wanted)}
        for name in wanted:
            if name not in opened:
                opened[name] = open_alone(
                    BACK_ENDS[name],
                    self.place(name),
                    base=self.base,
                    threads=threads,
                    cache=True,
                    scores=self._scores_of_base if name == "base" else self.scores,
                )
        _limit_torch(threads)
        return {name: opened[name] for name in wanted}

    @property
    def scores(self) -> Scores:
        """From which score on masks of the run's weights are good."""
        return scores_of(read_facts(find_adapter(self.run.root)).get("scores"))

    @property
    def _scores_of_base(self) -> Scores:
        facts = read_facts(find_adapter(self.run.root))
        return scores_of(facts["base"].get("scores", facts.get("scores")))

    def place(self, name: str) -> Path:
        """See `Origin`."""
        return self._directory(BACK_ENDS[name]) if _is_ir(name) else self.run.root

    def files(self, name: str) -> tuple[Path, ...]:
        """See `Origin`. Weights that are drawn from a seed are in no file."""
        if name == "merged":
            return (require_merged(self.run),)
        if _is_ir(name):
            return _ir_files(self.place(name))
        base = base_file(settings_of(self.run), self.base)
        adapter = find_adapter(self.run.root)
        return (*([] if base is None else [base]), *(adapter / file for file in _ADAPTER_FILES if name == "tuned"))

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """See `Origin`."""
        steps = {"merged": self.run.merged, **{name: self.place(name) for name in names if _is_ir(name)}}
        manifests = {name: sha256_of(steps[name] / MANIFEST) for name in names if name in steps}
        return {**origin_of_merge(self.run), **manifests}

    def _directory(self, back_end: BackEnd) -> Path:
        return self.run.openvino(back_end.weights)

    def _base_and_tuned(self, wanted: tuple[str, ...]) -> dict[str, Predictor]:
        from lora_sam.runs.loading import load_adapted, predictors_for

        if not {"base", "tuned"} <= set(wanted):
            return {}
        adapted = load_adapted(self.run.root, base=self.base)
        if not adapted.reversible:  # base and tuned cannot share a model
            return {}
        facts = read_facts(find_adapter(self.run.root))
        scores, of_base = facts.get("scores"), facts["base"].get("scores")
        side = facts["image_size"]
        return {**predictors_for(adapted, side, chunk=CHUNK, scores=scores, base_scores=of_base)}


@dataclass(frozen=True)
class PartsBackEnds:
    """A pair of IR parts without a run; see `Origin`.

    Attributes:
        directory: Where both lie.
    """

    directory: Path

    @property
    def offered(self) -> tuple[str, ...]:
        """See `Origin`."""
        weights = stored_weights(self.directory / ENCODER)
        return in_order(name for name in BACK_ENDS if _is_ir(name) and BACK_ENDS[name].weights == weights)

    def require(self, names: Iterable[str]) -> None:
        """See `Origin`."""
        openvino_directory(self.directory)

    def open(self, names: Iterable[str], *, threads: int | None) -> dict[str, Predictor]:
        """See `Origin`."""
        return {
            name: open_alone(BACK_ENDS[name], self.directory, threads=threads, cache=True) for name in in_order(names)
        }

    def place(self, name: str) -> Path:
        """See `Origin`."""
        del name
        return self.directory

    def files(self, name: str) -> tuple[Path, ...]:
        """See `Origin`."""
        return _ir_files(self.place(name))

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """See `Origin`."""
        del names
        return {path.name: sha256_of(path) for path in _ir_files(self.directory)}


def open_alone(
    back_end: BackEnd,
    place: Path,
    *,
    base: Path | None = None,
    threads: int | None = None,
    cache: bool = False,
    scores: Scores = META,
) -> Predictor:
    """A predictor that shares nothing with others.

    Args:
        back_end: Which one.
        place: Run directory for torch, directory of the IR parts for OpenVINO.
        base: Checkpoint of the base weights for torch; None takes the file that the run used.
        threads: Threads to compute with; None leaves it to torch and OpenVINO.
        cache: Keep what OpenVINO compiles for the next start.
        scores: From which score on masks of these weights are good.

    Raises:
        AdapterError: files are missing or damaged.
        CheckpointError: the base weights are not found.
    """
    if back_end.runtime == "openvino":
        return OpenVINOPredictor(
            place / ENCODER,
            place / DECODER,
            execution=back_end.execution,
            threads=threads,
            chunk=CHUNK,
            compile_cache=cache,
            scores=scores,
        )
    from lora_sam.predictors.torch_predictor import TorchPredictor
    from lora_sam.runs.loading import load_adapted, load_base

    _limit_torch(threads)
    if back_end.name == "tuned":
        size = read_facts(find_adapter(place))["image_size"]
        return TorchPredictor(load_adapted(place, base=base).sam, size, chunk=CHUNK, scores=scores)
    model = load_merged(RunDirectory(place)) if back_end.name == "merged" else load_base(place, base=base)
    return TorchPredictor(model.sam, model.image_size, chunk=CHUNK, scores=scores)


def base_file(settings: Settings, base: Path | None) -> Path | None:
    """The file of the base weights; None where they are drawn from a seed."""
    from lora_sam.models.checkpoints import OFFICIAL, default_directory, packaged_checkpoint

    model = settings.model
    if base is not None:
        return base
    if model.weights == "random":
        return None
    if model.checkpoint is not None and Path(model.checkpoint).is_file():
        return Path(model.checkpoint)
    packaged = packaged_checkpoint(model.variant)
    official = OFFICIAL.get(model.variant)
    return packaged or (None if official is None else default_directory() / official.filename)


def _ir_files(directory: Path) -> tuple[Path, ...]:
    return tuple(file for name in _IR_FILES for file in (directory / name, (directory / name).with_suffix(".bin")))


def _is_ir(name: str) -> bool:
    return BACK_ENDS[name].runtime == "openvino"


def _limit_torch(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
