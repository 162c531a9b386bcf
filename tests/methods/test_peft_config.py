"""A configuration of PEFT from elsewhere is refused at once where it could take time, memory or another path."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

from lora_sam.core.errors import AdapterError
from lora_sam.methods import adapted as adapted_module
from lora_sam.methods.peft_config import check_config


@pytest.fixture(scope="module")
def saved(option: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter as this package writes it."""
    directory = tmp_path_factory.mktemp("adapter")
    sam = option("model/tiny_random").build().sam
    option("method/lora", decoder="lora").apply(sam).peft.save_pretrained(directory, save_embedding_layers=False)
    return directory


def changed(saved: Path, directory: Path, **changes: Any) -> Path:
    """A copy of an adapter with other values in its configuration."""
    for path in saved.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return directory


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("target_modules", "(a+)+$", "could take for ever"),
        ("target_modules", r"(\w|\w\w)*x", "could take for ever"),
        ("target_modules", "(a|a)" * 30 + "b", "could take for ever"),
        ("target_modules", "a?" * 40 + "a" * 40, "could take for ever"),
        ("target_modules", "(.*)(.*)(.*)(.*)x", "could take for ever"),
        ("target_modules", "(", "is no regular expression"),
        ("target_modules", "a" * 30_000, "must be at most 20000 characters"),
        ("target_modules", ["q"] * 5000, "must be a list of at most 4096 names"),
        ("target_modules", {"q": 1}, "must be a list of at most 4096 names"),
        ("exclude_modules", "(a+)+$", "could take for ever"),
        ("layers_pattern", "(a+)+$", "must be names of modules"),
        ("modules_to_save", ["(a+)+$"], "must be names of modules"),
        ("rank_pattern", {"(a+)+$": 4}, "could take for ever"),
        ("alpha_pattern", {"(a+)+$": 4}, "could take for ever"),
        ("rank_pattern", {"q": 10**9}, "must be a whole number from 1 to 4096"),
        ("rank_pattern", {"q": 4000}, "have rank 8"),
        ("rank_pattern", [1], "must be a mapping"),
        ("r", 1e9, "must be a whole number from 1 to 4096"),
        ("r", 10**9, "must be a whole number from 1 to 4096"),
        ("r", 0, "must be a whole number from 1 to 4096"),
        ("r", True, "must be a whole number from 1 to 4096"),
        ("r", 4096, "the tensors in adapter_model.safetensors have rank 8"),
        ("lora_alpha", float("nan"), "must be a number from 1e-06 to 1e+06"),
        ("lora_alpha", 10**400, "must be a number from 1e-06 to 1e+06"),
        ("lora_dropout", -1, "must be a number from 0 to 1"),
        ("bias", "some", "must be one of none, all, lora_only"),
        ("use_dora", 1, "must be one of True, False"),
        ("init_lora_weights", "pissa", "must be one of True, False, gaussian, orthogonal"),
        ("layers_to_transform", [-1], "must be indices of blocks"),
        ("eva_config", {"rho": 2}, "must be left at its default"),
        ("target_parameters", ["a"], "must be left at its default"),
        ("no_such_tuner\x1b[31m", {"x": 1}, "must be left at its default"),
        ("peft_type", "ADALORA", "only adapters of LORA, LOHA, "),
        ("peft_type", ["LOHA"], "only adapters of LORA, LOHA, "),
        ("peft_type", None, "only adapters of LORA, LOHA, "),
        ("peft_type", "LOHA", "must be left at its default"),
    ],
)
def test_a_hostile_configuration_is_refused_before_peft_sees_it(
    option: Callable[..., Any],
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    value: Any,
    message: str,
) -> None:
    directory = changed(saved, tmp_path, **{field: value})
    monkeypatch.setattr("peft.PeftModel.from_pretrained", lambda *_, **__: pytest.fail("PEFT was called"))
    sam = option("model/tiny_random").build().sam
    memory, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(AdapterError) as caught:
        adapted_module.load(sam, directory, trains_encoder=True)
    assert time.process_time() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 512 * 1024  # KiB
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{directory / 'adapter_config.json'}: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("method", ["lora", "decoder", "full"])
def test_what_this_package_writes_passes(
    option: Callable[..., Any], tiny_sam: Callable[[], Any], tmp_path: Path, method: str
) -> None:
    option(f"method/{method}").apply(tiny_sam()).peft.save_pretrained(tmp_path, save_embedding_layers=False)
    assert check_config(tmp_path)["peft_type"] == "LORA"
    adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q", "v"]},
        {"target_modules": ["q"], "rank_pattern": {"attn.q": 2}, "alpha_pattern": {"attn.q": 3}},
        {"target_modules": r"image_encoder.*\.attn\.(q|v)", "use_dora": True, "use_rslora": True},
        {"target_modules": ["q"], "modules_to_save": ["mask_decoder"], "bias": "lora_only"},
        {"target_modules": ["q"], "layers_to_transform": [1], "layers_pattern": "blocks", "lora_bias": True},
        {"target_modules": "all-linear", "exclude_modules": ["lin1"], "init_lora_weights": "gaussian"},
    ],
)
def test_what_others_write_with_peft_passes(
    tiny_sam: Callable[[], Any], tmp_path: Path, options: dict[str, Any]
) -> None:
    if options["target_modules"] == "all-linear":
        options = {**options, "target_modules": ["q", "k", "lin1", "lin2"]}
    get_peft_model(tiny_sam(), LoraConfig(r=4, **options)).save_pretrained(tmp_path, save_embedding_layers=False)
    adapted_module.load(tiny_sam(), tmp_path, trains_encoder=True)


def test_fields_of_a_newer_peft_pass_where_they_say_nothing(saved: Path, tmp_path: Path) -> None:
    assert check_config(changed(saved, tmp_path, of_the_future=None, another={}, third=False))["r"] == 8


def test_a_rank_that_the_file_lacks_is_told_without_tensors(saved: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    directory = changed(saved, tmp_path, r=4096)
    save_file({}, directory / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="'r' = '4096': the tensors in adapter_model.safetensors have rank none"):
        check_config(directory)
