"""Fold a run's adapter into its base: plain SAM weights that any SAM tool loads."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.runs.adapter_files import RunDirectory, find_adapter, find_run, read_facts
from lora_sam.runs.manifest import (
    Step,
    adapter_digest,
    command,
    is_done,
    read_step,
    require_step,
    step_directory,
    write_step,
)

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.deployment.proof import Agreement, Answers, Probe
    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.models.vit import BaseModel

STEP = "merge"
FILE = "sam.safetensors"
TRANSFORMERS = "transformers"
PROBE_SEED = 0


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
        run = find_run(self.run)
        path = run.merged / FILE
        if is_merged(run, self):
            print(f"{path}: already there, made from the same adapter and base with the same options; nothing to do")
            return 0
        step = merge_run(run, self)
        print(f"{path}: plain SAM weights, {path.stat().st_size / 1e6:.1f} MB")
        print(f"  as base and adapter compute: {_told(step.checks['merged'])}")
        if self.format == TRANSFORMERS:
            print(f"{run.merged / TRANSFORMERS}: the same for Hugging Face's SamModel and SamProcessor")
            print(f"  as base and adapter compute: {_told(step.checks[TRANSFORMERS])}")
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


@dataclass(frozen=True)
class _Source:
    """An adapter that is merged: its directory and its facts."""

    adapter: Path
    facts: Mapping[str, Any]

    @property
    def base(self) -> str:
        """SHA-256 of its base."""
        return str(self.facts["base"]["sha256"])

    def described(self) -> str:
        """In words, on one line, whatever the facts hold."""
        method, variant = self.facts["method"].get("name"), self.facts["architecture"].get("variant")
        source = self.facts["base"]["source"]
        # quoted: what a file says about itself may hold line breaks
        return f"{self.adapter} (method {method!r:.99} on {variant!r:.99} {source!r:.99}, SHA-256 {self.base[:12]!r})"


def merge_run(run: RunDirectory, options: Merge) -> Step:
    """Fold the adapter of `run`, and of further runs, into the base and write `merged/`, whatever was there before.

    The weights are read back from the file that was written, and have to give the logits of base and adapter on one
    seeded image with boxes, points and masks as prompts. All of it is computed in fp32 on the CPU.

    Args:
        run: The run; gets the result.
        options: All but its `run`.

    Returns:
        What the manifest says.

    Raises:
        AdapterError: a run has no adapter or one of another base; the adapter cannot be folded or scaled; a merged
            weight is not finite; the merged model computes something else; the run's directory cannot be written.
            Nothing is left behind.
        CheckpointError: the base weights are not found.
    """
    options.check()
    sources, settings = _sources(run, options), options.settings()
    made = _made_from(sources)
    with step_directory(run.merged, _command(run, settings)) as directory:
        checks = _write(directory, sources, options)
        _give_usual_modes(directory)
        return write_step(directory, STEP, made_from=made, settings=settings, checks=checks)


def is_merged(run: RunDirectory, options: Merge) -> bool:
    """Whether `merged/` is whole and what `merge_run` would write, or that with the transformers format beside it.

    Raises:
        AdapterError: a run has no adapter.
    """
    made, settings = _made_from(_sources(run, options)), options.settings()
    return any(is_done(run.merged, STEP, made, {**settings, "format": kind}) for kind in (options.format, TRANSFORMERS))


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
    require_step(run.merged, STEP, made_from(run), _command(run, settings))
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


def plain_sam(run: RunDirectory) -> Sam:
    """The merged model made of nothing but modules of `segment_anything`, for `SamPredictor` and all that uses it.

    Raises:
        AdapterError: as `require_merged`.
    """
    from lora_sam.models.projections import fuse_projections

    return fuse_projections(load_merged(run).sam).eval().requires_grad_(False)


def _sources(run: RunDirectory, options: Merge) -> tuple[_Source, ...]:
    """The adapters that are merged, that of the run first. Raises `AdapterError` unless all are of one base."""
    roots = [run.root, *(find_run(name).root for name in options.runs)]
    first, *others = (_Source(adapter, read_facts(adapter)) for adapter in map(find_adapter, roots))
    for other in others:
        if (first.base, first.facts["architecture"]) != (other.base, other.facts["architecture"]):
            raise AdapterError(
                f"{first.described()} and {other.described()} have different bases: only adapters of one base can be "
                "combined; leave one out"
            )
    return first, *others


def _made_from(sources: Sequence[_Source]) -> dict[str, str]:
    names = ["adapter", *(f"adapter_{index}" for index in range(2, len(sources) + 1))]
    digests = {name: adapter_digest(source.adapter) for name, source in zip(names, sources, strict=True)}
    return {**digests, "base": sources[0].base}


def _further(settings: Mapping[str, Any]) -> list[str]:
    """Paths of further runs as a manifest names them, which may come from elsewhere."""
    runs = settings.get("runs")
    return [root for root in runs if isinstance(root, str)] if isinstance(runs, list) else []


def _command(run: RunDirectory, settings: Mapping[str, Any]) -> str:
    """The command that merges with these settings, which may come from elsewhere; defaults are left out."""
    usual = {"alpha": 1.0, "format": "segment_anything", "runs": []}
    names = {field.name for field in fields(Merge)}
    options = {
        key: json.dumps(value) if isinstance(value, list) else value
        for key, value in settings.items()
        if key in names and value != usual.get(key) and str(value).isprintable()
    }
    return command(STEP, run.root, **options)


def _give_usual_modes(directory: Path) -> None:
    """Let everybody read the files whom the umask allows to: safetensors makes them for their owner only."""
    example = directory / ".mode"
    example.touch()
    mode = example.stat().st_mode & 0o777
    example.unlink()
    for path in directory.rglob("*.safetensors"):
        path.chmod(mode)


def _write(directory: Path, sources: Sequence[_Source], options: Merge) -> dict[str, Any]:
    """Write the merged weights into `directory`; returns what was measured of them."""
    from lora_sam.deployment.proof import FOLDED, OTHER_KERNELS, answers, compare, probe
    from lora_sam.models.projections import fuse_state_dict
    from lora_sam.runs.loading import build_with

    first = sources[0]
    questions = probe(first.facts["architecture"]["image_size"], PROBE_SEED)
    expected = _fold(directory / FILE, sources, options, questions)
    model = build_with(first.adapter, dict(first.facts), directory / FILE)
    agreement = compare(expected, answers(model.sam, questions))
    checks = {"merged": _proven(agreement, FOLDED, first, "the merged model")}
    if options.format == TRANSFORMERS:
        from lora_sam.deployment.transformers_layout import read_transformers, transformers_answers, write_transformers

        place = directory / TRANSFORMERS
        write_transformers(place, fuse_state_dict(model.sam.state_dict()), first.facts["architecture"])
        del model
        agreement = compare(expected, transformers_answers(read_transformers(place), questions))
        checks[TRANSFORMERS] = _proven(agreement, OTHER_KERNELS, first, "the model in the layout of transformers")
    return checks


def _fold(path: Path, sources: Sequence[_Source], options: Merge, questions: Probe) -> Answers:
    """Write the merged weights to `path`; returns what base and adapter answered before they were merged."""
    from safetensors.torch import save_file

    from lora_sam.deployment.proof import answers

    first = sources[0]
    tuned = _adapted(sources, options)
    # torch's matrix product takes another path, and rounds otherwise, for weights that train
    tuned.peft.requires_grad_(False)
    expected = answers(tuned.sam, questions)
    try:
        merged = tuned.merge()
    except NotImplementedError as error:
        raise AdapterError(f"{first.described()} cannot be folded into the weights: {error}") from error
    state = {key: value.float().contiguous() for key, value in merged.state_dict().items()}
    about = {"architecture": first.facts["architecture"], "base": first.base, "step": STEP}
    # one key, since safetensors writes several in any order
    save_file(state, str(path), {"lora_sam": json.dumps(about, sort_keys=True)})
    return expected


def _adapted(sources: Sequence[_Source], options: Merge) -> AdaptedSam:
    """The base with what is to be folded into it."""
    from lora_sam.methods import adapted
    from lora_sam.runs.loading import build_base

    first = sources[0]
    if len(sources) == 1:
        sam = build_base(first.adapter, dict(first.facts), options.base).sam
        tuned = adapted.load(sam, first.adapter, trains_encoder=first.facts["trains_encoder"])
    else:
        from lora_sam.deployment.combining import check_ranks, combine

        adapters = [source.adapter for source in sources]
        check_ranks(adapters, options.combination)
        tuned = combine(
            build_base(first.adapter, dict(first.facts), options.base).sam,
            adapters,
            options.shares(),
            combination=options.combination,
            density=options.density,
            seed=options.seed,
        )
    if options.alpha != 1:
        try:
            tuned.strength().set(options.alpha)
        except AdapterError as error:
            raise AdapterError(f"alpha = {options.alpha:g}: {first.described()}: {error}") from error
    return tuned


def _proven(agreement: Agreement, tolerance: float, source: _Source, model: str) -> dict[str, Any]:
    """The agreement, ready for JSON. Raises `AdapterError` if it is not within `tolerance`."""
    checks = {**asdict(agreement), "tolerance": tolerance, "probe_seed": PROBE_SEED}
    if not agreement.within(tolerance):
        raise AdapterError(
            f"{source.described()}: {model} computes something else than base and adapter ({_told(checks)}); nothing "
            "was written, use the adapter as it is, with lora_sam.load"
        )
    return checks


def _told(checks: Mapping[str, Any]) -> str:
    return (
        f"logits differ by at most {checks['largest_logit_difference']:.1e} (allowed {checks['tolerance']:.0e}), "
        f"mask IoU {checks['mean_mask_iou']:.4f} on {checks['masks']} masks"
    )


if __name__ == "__main__":
    from lora_sam.cli.step import run_step

    sys.exit(run_step(STEP, f"python -m lora_sam.{STEP}", sys.argv[1:]))
