"""Fold a run's adapter into its base: plain SAM weights that any SAM tool loads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lora_sam.core.console import note
from lora_sam.core.errors import ConfigError
from lora_sam.core.run_directory import find_run
from lora_sam.deployment.merging import TRANSFORMERS, is_merged, merge_run, told
from lora_sam.runs.elsewhere import working_copy
from lora_sam.runs.merged import FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Fold a run's adapter into its base: plain SAM weights that any SAM tool loads.

    Writes merged/sam.safetensors into the run, in fp32 with the keys of segment_anything, and proves that it computes
    what base and adapter compute.

    Attributes:
        run: Run directory, or latest.
        base: Checkpoint of the base weights; null takes the file that the run used.
        alpha: Strength of the adapter: 0 is the base, 1 is as trained, up to 1.5 exaggerates.
        format: segment_anything, or transformers to write merged/transformers/ as well, for Hugging Face's
            SamModel.from_pretrained and SamProcessor.from_pretrained.
        runs: Further runs of the same base, whose adapters are combined with that of run, e.g. '[outputs/a,outputs/b]'.
        weights: Weight of every adapter, that of run first; null gives each the same share (with ties and dare_ties,
            which average already, 1).
        combination: How several adapters are combined. svd is their weighted sum, for any ranks; linear adds LoRA's
            factors instead, a rough approximation; ties keeps the largest values that agree in sign; dare_linear and
            dare_ties keep a random share. All but svd need equal ranks.
        density: Share of the values that ties, dare_linear and dare_ties keep.
        seed: Seed of what dare_linear and dare_ties keep.
        output: Directory to work in instead of the run, which may be one that can only be read: adapter, settings and
            report are copied there. Later steps take it as their run.
    """

    run: Annotated[str, Field(min_length=1)]
    base: Annotated[str, Field(min_length=1)] | None
    alpha: Annotated[float, Field(ge=0, le=1.5)]
    format: Literal["segment_anything", "transformers"]
    runs: tuple[Annotated[str, Field(min_length=1)], ...]
    weights: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] | None
    combination: Literal["svd", "linear", "ties", "dare_linear", "dare_ties"]
    density: Annotated[float, Field(gt=0, le=1)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    output: Annotated[str, Field(min_length=1)] | None

    def check(self) -> None:
        """Raise `ConfigError` if there is not one weight for each of several adapters."""
        if self.weights is None:
            return
        if not self.runs:
            raise ConfigError(
                f"weights = {list(self.weights)}: only for several runs, name the others with runs=[...]; one adapter "
                "is scaled with alpha"
            )
        count = 1 + len(self.runs)
        if len(self.weights) != count:
            raise ConfigError(
                f"weights = {list(self.weights)}: must be {count} numbers, for run and the {len(self.runs)} of runs"
            )

    def perform(self) -> int:
        """Do it unless it was done before, and say so; returns 0. Raises as `merge_run` does."""
        from lora_sam.models.checkpoints import load_layers

        run = working_copy(find_run(self.run), self.output)
        path = run.merged / FILE
        if is_merged(run, self):
            print(f"{path}: already there, made from the same adapter and base with the same options; nothing to do")
            return 0
        step = merge_run(run, self)
        layers, size = load_layers(path), f"{path.stat().st_size / 1e6:.1f} MB"
        if layers is None:
            print(f"{path}: plain SAM weights, {size}")
        else:
            print(f"{path}: weights of SAM and, beside them, the layers of the adapter, {size}")
            print(
                f"  method {layers['kind']} does not fold: lora_sam and the exported parts have its layers, and other "
                "programs refuse the file"
            )
        print(f"  as base and adapter compute: {told(step.checks['merged'])}")
        for line in _not_merged([run.root, *(find_run(name).root for name in self.runs)], self.alpha):
            note(line)
        if self.format == TRANSFORMERS:
            print(f"{run.merged / TRANSFORMERS}: the same for Hugging Face's SamModel and SamProcessor")
            print(f"  as base and adapter compute: {told(step.checks[TRANSFORMERS])}")
        return 0

    def shares(self) -> tuple[float, ...]:
        """The weight of every adapter, that of `run` first."""
        if self.weights is not None:
            return self.weights
        count = 1 + len(self.runs)
        return (1.0 if self.combination in ("ties", "dare_ties") else 1 / count,) * count

    def settings(self) -> dict[str, Any]:
        """The options that change the result, for the manifest; runs as paths that hold from everywhere."""
        settings: dict[str, Any] = {"alpha": self.alpha, "format": self.format, "runs": []}
        if self.runs:
            settings |= {
                "runs": [str(find_run(name).root) for name in self.runs],
                "weights": list(self.shares()),
                "combination": self.combination,
            }
            if self.combination.startswith(("ties", "dare")):
                settings["density"] = self.density
            if self.combination.startswith("dare"):
                settings["seed"] = self.seed
        return settings


def _not_merged(roots: Sequence[Path], alpha: float) -> Iterator[str]:
    """What of the first run goes on as it is, though the model is another than it was trained for."""
    from lora_sam.methods.peft_config import CLASS_HEAD
    from lora_sam.runs.adapter_files import find_adapter, read_facts

    adapters = [find_adapter(root) for root in roots]
    if (len(roots) > 1 or alpha != 1) and (adapters[0] / CLASS_HEAD).is_file():
        yield (
            f"note: classes are told by the head of {roots[0]}, which was fitted on that run at alpha=1: of this model "
            "it tells them less well"
        )
    scales = [read_facts(adapter).get("scale") for adapter in adapters]
    if any(scale != scales[0] for scale in scales):
        yield (
            f"note: the runs were trained with other scales of pixels; images are read with that of {roots[0]}, so "
            "that the others see them darker or brighter than in training"
        )
