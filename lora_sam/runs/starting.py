"""Begin a new run with the weights of a tuned adapter, on new data, with the settings it was made by."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_sam.core.config import plain_fields
from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.files import read_json, sha256_of
from lora_sam.core.run_directory import SWEEP, RunDirectory, find_run
from lora_sam.methods.peft_config import WEIGHTS, check_config, check_saved
from lora_sam.runs.adapter_files import check_base, find_adapter, read_facts
from lora_sam.runs.places import placed
from lora_sam.runs.resuming import completed, flat

if TYPE_CHECKING:
    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.models.base_model import BaseModel
    from lora_sam.training.settings import Settings

TAKEN = ("model", "method", "augmentation", "prompt", "loss", "optim", "semantic")
"""What comes from the run that is begun with, unless it is typed; images, limits, seed and logging are those of now."""

_LINKS = ("latest", "best")


def started_config(config: Mapping[str, Any], overrides: Sequence[str], output_dir: Path) -> dict[str, Any]:
    """The configuration composed now, with what `init_from` decides taken from that run, and its path resolved.

    Args:
        config: The configuration composed now; returned unchanged if it begins anew or resumes a run.
        overrides: What the user typed, as Hydra's task overrides (`key=value`).
        output_dir: Where the new run will be.

    Raises:
        AdapterError: there is no such run, or it has no adapter.
        ConfigError: it is resumed at the same time, or a link that every job of a sweep moves.
    """
    name = config.get("init_from")
    if name is None or config.get("resume") is not None:
        typed = {override.partition("=")[0].lstrip("+~") for override in overrides}
        if name is not None and "init_from" in typed:
            raise ConfigError(
                f"resume={config['resume']} goes on with a run as it is, init_from={name} begins a new one: "
                "leave one out"
            )
        return dict(config)
    if str(name) in _LINKS and (output_dir.parent / SWEEP).is_file():
        raise ConfigError(
            f"init_from={name}: the jobs of a sweep move that link; give the run itself, "
            f"init_from={_short(find_run(str(name)).root)}"
        )
    run = _run(str(name))
    if not run.saved_config.is_file():
        raise AdapterError(f"init_from={name}: {run.saved_config} is missing; give the directory of a finished run")
    then = placed(completed(read_json(run.saved_config, "give the directory of a finished run"))[0], run)
    keys = flat(config).keys() | flat(then).keys()
    typed = {override.partition("=")[0].lstrip("+~") for override in overrides} - {"init_from"}
    result = copy.deepcopy(dict(config))
    # an option that is no key itself, such as experiment=, may have set anything: what it composed counts
    if all(any(key == root or key.startswith(f"{root}.") for key in keys) for root in typed):
        for group in TAKEN:
            if group not in typed and group in then:
                result[group] = _with_typed(then[group], config.get(group), group, typed)
    result["init_from"] = str(run.root)
    return result


def begin_with(adapted: AdaptedSam, base: BaseModel, settings: Settings) -> dict[str, str]:
    """Put the weights of the adapter that `settings.init_from` names into a fresh one, in place.

    Returns:
        The run and the SHA-256 of its weights, for the facts of the new adapter.

    Raises:
        AdapterError: it belongs to another base, or was made by another method or rank; or it is damaged.
    """
    import torch
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from lora_sam.methods.layer_files import saved_as

    run = _run(str(settings.init_from))
    asked, directory = f"init_from={_short(run.root)}", find_adapter(run.root)
    facts = read_facts(directory)
    check_base(facts, base, directory)
    for group, theirs, ours in (
        ("model", facts["architecture"], settings.model.architecture()),
        ("method", facts["method"], {"name": settings.method.name, **plain_fields(settings.method)}),
    ):
        now = json.loads(json.dumps(ours))
        wrong = sorted(key for key in theirs.keys() & now.keys() if theirs[key] != now[key])
        if wrong:
            key, more = wrong[0], len(wrong) - 1
            raise AdapterError(
                f"{asked}: {group}.{key} is {theirs[key]!r:.80} in that adapter and {now[key]!r:.80} now"
                + (f" ({more} more differ)" if more else "")
                + f"; leave {group} out, it comes from that run, or begin anew without init_from"
            )
    if adapted.taken:
        raise AdapterError(
            f"{asked}: method.init of that adapter took a part out of the base, and it was saved as plain LoRA of "
            "twice the rank; begin anew without init_from"
        )
    if (other := saved_as(adapted.sam)) is not None:
        raise AdapterError(
            f"{asked}: layers of method={settings.method.name} were saved as {other}, and are not made of them; "
            "begin anew without init_from"
        )
    check_config(directory)
    check_saved(directory)
    try:
        saved = load_file(directory / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{directory / WEIGHTS} cannot be read: {error}; restore the file") from error
    set_peft_model_state_dict(adapted.peft, saved)
    present = get_peft_model_state_dict(adapted.peft, save_embedding_layers=False)
    for name in sorted(present.keys() | saved.keys()):
        if name not in present or name not in saved or not torch.equal(present[name].cpu(), saved[name]):
            raise AdapterError(f"{asked}: {name} of that adapter does not fit what this run trains; begin without it")
        if not bool(torch.isfinite(saved[name]).all()):
            raise AdapterError(f"{asked}: {name} holds values that are not finite; begin with another run")
    return {"run": str(run.root), "sha256": sha256_of(directory / WEIGHTS)}


def _run(name: str) -> RunDirectory:
    try:
        run = find_run(name)
        find_adapter(run.root)
    except AdapterError as error:
        raise AdapterError(f"init_from={name}: {error}") from error
    return run


def _with_typed(then: Any, now: Any, group: str, typed: set[str]) -> Any:
    """A group of that run, with the keys below it that were typed as they are now."""
    result = copy.deepcopy(then)
    for root in typed:
        if root.startswith(f"{group}.") and isinstance(now, Mapping):
            source, target = now, result
            *parents, last = root.split(".")[1:]
            for parent in parents:
                source, target = source[parent], target.setdefault(parent, {})
            target[last] = copy.deepcopy(source[last])
    return result


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
