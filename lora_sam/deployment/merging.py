"""Fold adapters into their base, and prove that the result computes the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lora_sam.core.errors import AdapterError
from lora_sam.core.run_directory import RunDirectory, find_run
from lora_sam.runs.adapter_files import find_adapter, read_facts, same_base
from lora_sam.runs.manifest import (
    Step,
    is_done,
    step_directory,
    write_step,
)
from lora_sam.runs.merged import FILE, STEP, Source, load_merged, made_from_sources, merge_command

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from lora_sam.deployment.proof import Agreement, Answers, Probe
    from lora_sam.methods.adapted import AdaptedSam


TRANSFORMERS = "transformers"


PROBE_SEED = 0


class MergeOptions(Protocol):
    """How adapters are folded: the options of `lora_sam.cli.merge.Merge`, which says what each means."""

    @property
    def base(self) -> str | None:
        """Checkpoint of the base weights; None takes the file that the run used."""
        ...

    @property
    def alpha(self) -> float:
        """Strength of the adapter."""
        ...

    @property
    def format(self) -> Literal["segment_anything", "transformers"]:
        """What is written."""
        ...

    @property
    def runs(self) -> tuple[str, ...]:
        """Further runs."""
        ...

    @property
    def combination(self) -> Literal["svd", "linear", "ties", "dare_linear", "dare_ties"]:
        """How several adapters become one."""
        ...

    @property
    def density(self) -> float:
        """Share of the values that sparse combinations keep."""
        ...

    @property
    def seed(self) -> int:
        """Of what is dropped at random."""
        ...

    def check(self) -> None:
        """Raise `ConfigError` where options contradict each other."""
        ...

    def shares(self) -> tuple[float, ...]:
        """The weight of every adapter."""
        ...

    def settings(self) -> dict[str, Any]:
        """What changes the result, for the manifest."""
        ...


def merge_run(run: RunDirectory, options: MergeOptions) -> Step:
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
    _check_format(sources[0], options)
    made = made_from_sources(sources)
    with step_directory(run.merged, merge_command(run, settings)) as directory:
        checks = _write(directory, sources, options)
        _give_usual_modes(directory)
        return write_step(directory, STEP, made_from=made, settings=settings, checks=checks)


def is_merged(run: RunDirectory, options: MergeOptions) -> bool:
    """Whether `merged/` is whole and what `merge_run` would write, or that with the transformers format beside it.

    Raises:
        AdapterError: a run has no adapter.
    """
    made, settings = made_from_sources(_sources(run, options)), options.settings()
    return any(is_done(run.merged, STEP, made, {**settings, "format": kind}) for kind in (options.format, TRANSFORMERS))


def plain_sam(run: RunDirectory | str | PathLike[str]) -> Sam:
    """The merged model made of nothing but modules of `segment_anything`, for `SamPredictor` and all that uses it.

    Args:
        run: The run, its path, or `latest`.

    Raises:
        AdapterError: as `require_merged`, or the model is none that those tools can use.
    """
    from lora_sam.models.family import why_not
    from lora_sam.models.projections import fuse_projections

    found = run if isinstance(run, RunDirectory) else find_run(fspath(run))
    adapter = find_adapter(found.root)
    reason = why_not(read_facts(adapter)["architecture"], "SamPredictor")
    if reason is not None:
        raise AdapterError(f"{adapter}: {reason}; use lora_sam.load, or the weights in merged/ with their own package")
    return fuse_projections(load_merged(found).sam).eval().requires_grad_(False)


def _sources(run: RunDirectory, options: MergeOptions) -> tuple[Source, ...]:
    """The adapters that are merged, that of the run first. Raises `AdapterError` unless all are of one base."""
    roots = [run.root, *(find_run(name).root for name in options.runs)]
    first, *others = (Source(adapter, read_facts(adapter)) for adapter in map(find_adapter, roots))
    for other in others:
        if not same_base(first.facts, other.facts):
            raise AdapterError(
                f"{first.described()} and {other.described()} have different bases: only adapters of one base can be "
                "combined; leave one out"
            )
    return first, *others


def _check_format(source: Source, options: MergeOptions) -> None:
    """Raise `AdapterError` where the model cannot be written in the format that is wanted."""
    from lora_sam.models.family import why_not

    reason = why_not(source.facts["architecture"], options.format)
    if reason is not None:
        raise AdapterError(f"format = {options.format}: {source.described()}: {reason}; leave format out")


def _give_usual_modes(directory: Path) -> None:
    """Let everybody read the files whom the umask allows to: safetensors makes them for their owner only."""
    example = directory / ".mode"
    example.touch()
    mode = example.stat().st_mode & 0o777
    example.unlink()
    for path in directory.rglob("*.safetensors"):
        path.chmod(mode)


def _write(directory: Path, sources: Sequence[Source], options: MergeOptions) -> dict[str, Any]:
    """Write the merged weights into `directory`; returns what was measured of them."""
    from lora_sam.deployment.proof import FOLDED, OTHER_KERNELS, answers, compare, probe
    from lora_sam.models.family import family_of, frame_by
    from lora_sam.models.projections import check_plain, fuse_state_dict
    from lora_sam.runs.loading import build_with

    first = sources[0]
    questions = probe(frame_by(first.facts["architecture"]), PROBE_SEED)
    expected = _fold(directory / FILE, sources, options, questions)
    model = build_with(first.adapter, dict(first.facts), directory / FILE)
    agreement = compare(expected, answers(model.sam, questions))
    checks = {"merged": _proven(agreement, FOLDED, first, "the merged model")}
    if options.format == TRANSFORMERS:
        check_plain(model.sam)
        from lora_sam.deployment.transformers_layout import read_transformers, transformers_answers, write_transformers

        place = directory / TRANSFORMERS
        state = family_of(model.sam.image_encoder).published(fuse_state_dict(model.sam.state_dict()))
        write_transformers(place, state, first.facts["architecture"])
        del model, state
        agreement = compare(expected, transformers_answers(read_transformers(place), questions))
        checks[TRANSFORMERS] = _proven(agreement, OTHER_KERNELS, first, "the model in the layout of transformers")
    return checks


def _fold(path: Path, sources: Sequence[Source], options: MergeOptions, questions: Probe) -> Answers:
    """Write the merged weights to `path`; returns what base and adapter answered before they were merged."""
    from safetensors.torch import save_file

    from lora_sam.deployment.proof import answers
    from lora_sam.models.building import LAYERS
    from lora_sam.models.family import family_of
    from lora_sam.models.inserted import describe, take_out
    from lora_sam.models.projections import fuse_projections

    first = sources[0]
    tuned = _adapted(sources, options)
    # torch's matrix product takes another path, and rounds otherwise, for weights that train
    tuned.peft.requires_grad_(False)
    expected = answers(tuned.sam, questions)
    try:
        merged = tuned.merge()
    except NotImplementedError as error:
        raise AdapterError(f"{first.described()} cannot be folded into the weights: {error}") from error
    # layers that do not fold go beside the weights, under names which no other program takes
    layers = describe(merged)
    beside = {f"{LAYERS}.{name}": value for name, value in take_out(merged).items()}
    if layers is not None:
        fuse_projections(merged)
    state = {
        key: (value.float() if value.is_floating_point() else value).contiguous()
        for key, value in (family_of(merged.image_encoder).published(merged.state_dict()) | beside).items()
    }
    about = {"architecture": first.facts["architecture"], "base": first.base, "step": STEP}
    if first.facts.get("scores") is not None:
        about["scores"] = first.facts["scores"]
    if layers is not None:
        about["layers"] = layers.to_json()
    # one key, since safetensors writes several in any order
    save_file(state, str(path), {"lora_sam": json.dumps(about, sort_keys=True)})
    return expected


def _adapted(sources: Sequence[Source], options: MergeOptions) -> AdaptedSam:
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


def _proven(agreement: Agreement, tolerance: float, source: Source, model: str) -> dict[str, Any]:
    """The agreement, ready for JSON. Raises `AdapterError` if it is not within `tolerance`."""
    checks = {**asdict(agreement), "tolerance": tolerance, "probe_seed": PROBE_SEED}
    if not agreement.within(tolerance):
        raise AdapterError(
            f"{source.described()}: {model} computes something else than base and adapter ({told(checks)}); nothing "
            "was written, use the adapter as it is, with lora_sam.load"
        )
    return checks


def told(checks: Mapping[str, Any]) -> str:
    """A proof in words."""
    return (
        f"logits differ by at most {checks['largest_logit_difference']:.1e} (allowed {checks['tolerance']:.0e}), "
        f"mask IoU {checks['mean_mask_iou']:.4f} on {checks['masks']} masks"
    )
