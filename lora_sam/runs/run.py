"""A finished run as an object: its predictor, its figures, and every step after training."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.core.config import from_conf
from lora_sam.core.errors import TrainingError
from lora_sam.core.files import read_json
from lora_sam.core.run_directory import RunDirectory, find_run
from lora_sam.evaluation.backends.names import TORCH
from lora_sam.runs.adapter_files import find_adapter, read_facts
from lora_sam.runs.opening import back_end_of, check_device, identity, open_model
from lora_sam.runs.predicted import Predicted

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor


class Run:
    """What a training has left, and what can be done with it.

    Every step has the options of its command (`python -m lora_sam.<step> --help`), does the same, and raises where the
    command says what is wrong. What was done before is not done again.

    Args:
        path: `latest`, or the directory of a run.

    Raises:
        AdapterError: there is no run, or none that is finished.
    """

    def __init__(self, path: str | PathLike[str] = "latest") -> None:
        self._directory = find_run(fspath(path))
        self.facts: Mapping[str, Any] = read_facts(find_adapter(self._directory.root))

    def __repr__(self) -> str:
        """`Run('outputs/...')`."""
        return f"Run({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """Its directory."""
        return self._directory.root

    @property
    def adapter(self) -> Path:
        """The adapter in stock PEFT layout."""
        return find_adapter(self.path)

    @property
    def report(self) -> Path:
        """`report.html`."""
        return self._directory.report

    @property
    def evaluation(self) -> dict[str, Any]:
        """`evaluation.json`: `base`, `tuned`, `delta` and more (docs/metrics.md). Raises `AdapterError`."""
        return read_json(self._directory.evaluation, "evaluate it with python -m lora_sam.evaluate")

    def predictor(
        self,
        backend: str = TORCH,
        *,
        adapter: bool = True,
        device: str = "auto",
        threads: int | None = None,
        base: str | PathLike[str] | None = None,
    ) -> Predictor:
        """A predictor: image and prompts in, masks out.

        Args:
            backend: `torch`, or one that was made: `merged`, `fp32`, `fp16`, `int8`, `int8_bf16` and so on.
            adapter: False is the base, as it was before training; torch only.
            device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`, for torch.
            threads: Threads to compute with; None leaves it to torch and OpenVINO.
            base: Checkpoint of the base weights; None takes the file that the run used.

        Raises:
            AdapterError: the back end is missing, stale or damaged; names the command that makes it.
            CheckpointError: the base weights are not found.
            ConfigError: no such back end or device.
        """
        name = back_end_of(backend, adapter=adapter)
        check_device(name, device)
        checkpoint = None if base is None else Path(base)
        identity(self._directory, name, checkpoint)
        return open_model(self._directory, name, base=checkpoint, device=device, threads=threads)

    def predict(self, source: str | PathLike[str], **options: Any) -> Predicted:
        """Masks for all images of a folder, a pattern, a file or a COCO file; see docs/predict.md.

        Args:
            source: As `source=` of the command.
            options: Those of the command: `prompts`, `formats`, `output`, `backend`, ...

        Raises:
            LoraSamError: what the command says.
        """
        done: Predicted = self._step("predict", source=fspath(source), **options).done()
        return done

    def merge(self, **options: Any) -> Path:
        """Fold the adapter into plain SAM weights; the directory that holds them."""
        self._perform("merge", options)
        return self._place(options).merged

    def export(self, **options: Any) -> Path:
        """Write the two OpenVINO parts of what is merged; their directory."""
        step = self._perform("export", options)
        return self._place(options).openvino(str(step.precision))

    def quantize(self, **options: Any) -> Path:
        """Make the exported encoder INT8; the directory of the parts."""
        step = self._perform("quantize", options)
        return self._place(options).openvino(str(step.mode))

    def deploy(self, **options: Any) -> None:
        """Merge, export, quantize and compare all back ends."""
        self._perform("deploy", options)

    def _place(self, options: Mapping[str, Any]) -> RunDirectory:
        """Where a step has worked."""
        output = options.get("output")
        return self._directory if output is None else RunDirectory(Path(output))

    def _step(self, verb: str, **options: Any) -> Any:
        plain = {name: fspath(value) if isinstance(value, PathLike) else value for name, value in options.items()}
        return from_conf(verb, run=str(self.path), **plain)

    def _perform(self, verb: str, options: Mapping[str, Any]) -> Any:
        step = self._step(verb, **options)
        code = step.perform()
        if code:
            raise TrainingError(f"{verb} ended with {code}: a check that was asked for did not hold, as was printed")
        return step
