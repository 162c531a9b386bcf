"""What was saved is what is read: one flipped bit of any file that is opened is named, and never computed with."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lora_sam import load
from lora_sam.core.console import note
from lora_sam.core.errors import LoraSamError
from lora_sam.models import checkpoints
from lora_sam.models.checkpoints import PACKAGED, PACKAGED_SHA256
from lora_sam.training.state import Progress, load_state, save_state

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def flip(path: Path, place: float) -> None:
    """Change one bit of a file; `place` is from 0, its first byte, to 1."""
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1 << random.Random(place).randrange(8)
    path.write_bytes(data)


def assert_named_or_without_effect(read: Callable[[], Any], expected: Any) -> bool:
    """Whether it was named; otherwise what is read has to be what was saved."""
    try:
        found = read()
    except LoraSamError:
        return True
    assert found == expected
    return False


@pytest.fixture(scope="module")
def saved(finished_run: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("saved") / "run"
    finished_run(root)
    return root


def answer(root: Path) -> bytes:
    return load(root, device="cpu").segment(IMAGE, boxes=[[3, 4, 40, 30]]).low_res_logits.tobytes()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_bit_of_the_adapter(saved: Path, tmp_path: Path, name: str) -> None:
    expected, places = answer(saved), [0.3, 0.5, 0.7, 0.999]
    named = []
    for place in places:
        root = Path(shutil.copytree(saved, tmp_path / str(place)))
        flip(root / "adapter" / name, place)
        named.append(assert_named_or_without_effect(lambda root=root: answer(root), expected))
    assert all(named)


def test_an_adapter_without_digests_loads_with_one_note(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(saved, tmp_path / "run"))
    path = root / "adapter" / "lora_sam.json"
    facts = json.loads(path.read_text())
    assert sorted(facts.pop("files")) == ["adapter_config.json", "adapter_model.safetensors"]
    path.write_text(json.dumps(facts))
    note.cache_clear()
    capsys.readouterr()
    for _ in range(2):
        assert answer(root) == answer(saved)
    assert capsys.readouterr().err == (
        f"{root / 'adapter'}: made without digests, so that nobody can tell whether it is what was saved\n"
    )


def test_facts_written_again_keep_the_digests(saved: Path, tmp_path: Path) -> None:
    from lora_sam.runs.adapter_files import read_facts, write_facts

    directory = Path(shutil.copytree(saved / "adapter", tmp_path / "adapter"))
    facts = read_facts(directory)
    flip(directory / "adapter_model.safetensors", 0.7)
    write_facts(directory, {**{key: value for key, value in facts.items() if key != "files"}, "metrics": 1}, "card")
    assert read_facts(directory)["files"] == facts["files"]
    assert read_facts(directory)["metrics"] == 1


def state(path: Path | None = None) -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
    """Weights and an optimiser that has done a step; those of the file, if there is one."""
    torch.manual_seed(0)
    parameters = {"a": nn.Parameter(torch.randn(64, 8)), "b": nn.Parameter(torch.randn(7))}
    optimizer = torch.optim.AdamW(parameters.values())
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return parameters, optimizer


def test_a_bit_of_a_state(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    parameters, optimizer = state()
    save_state(path, Progress(step=17, best=0.91), parameters, optimizer)

    def read() -> tuple[Any, ...]:
        parameters, optimizer = state()
        progress = load_state(path, parameters, optimizer)
        values = [*parameters.values(), *(one for s in optimizer.state.values() for one in s.values())]
        return progress, [value.tolist() for value in values]

    random_state = torch.get_rng_state()
    data, expected = path.read_bytes(), read()
    for place in np.linspace(0.0, 1.0, 61):
        path.write_bytes(data)
        flip(path, float(place))
        named = assert_named_or_without_effect(read, expected)
        assert named or place < 0.2, place  # of the header only what is not meant can change nothing
    path.write_bytes(data.replace(b"17", b"18", 1))
    assert assert_named_or_without_effect(read, expected)  # progress is covered too
    torch.set_rng_state(random_state)


def test_a_state_without_a_digest_loads_with_one_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors import safe_open

    path = tmp_path / "state.safetensors"
    parameters, _ = state()
    save_state(path, Progress(step=17), parameters)
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    del metadata["sha256"]
    save_file(load_file(path), path, metadata)
    note.cache_clear()
    for _ in range(2):
        assert load_state(path, parameters).step == 17
    assert capsys.readouterr().err == (
        f"{path}: made without a digest, so that nobody can tell whether it is what was saved\n"
    )


@pytest.mark.parametrize("name", ["image_encoder.bin", "mask_decoder.bin", "image_encoder.xml", "mask_decoder.xml"])
def test_a_bit_of_the_exported_parts(exported_run: Callable[[Path], Path], tmp_path: Path, name: str) -> None:
    from lora_sam.predictors.openvino_predictor import OpenVINOPredictor

    place = exported_run(tmp_path / "run") / "openvino" / "fp32"
    parts = place / "image_encoder.xml", place / "mask_decoder.xml"
    OpenVINOPredictor(*parts, compile_cache=False)
    for where in (0.4, 0.8):
        data = (place / name).read_bytes()
        flip(place / name, where)
        with pytest.raises(LoraSamError):
            OpenVINOPredictor(*parts, compile_cache=False)
        (place / name).write_bytes(data)


def test_parts_without_digests_load_with_one_note(
    exported_run: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lora_sam.predictors.openvino_predictor import OpenVINOPredictor

    place = exported_run(tmp_path / "run") / "openvino" / "fp32"
    (place / "manifest.json").unlink()
    note.cache_clear()
    capsys.readouterr()
    for _ in range(2):
        OpenVINOPredictor(place / "image_encoder.xml", place / "mask_decoder.xml", compile_cache=False)
    assert capsys.readouterr().err == (
        f"{place}: made without digests, so that nobody can tell whether it is what was exported\n"
    )


def test_a_bit_of_merged_weights_that_are_a_base(
    exported_run: Callable[[Path], Path], option: Callable[..., Any], tmp_path: Path
) -> None:
    path = exported_run(tmp_path / "run") / "merged" / "sam.safetensors"
    settings = option("model/tiny_random", weights="pretrained", checkpoint=str(path))
    settings.build()
    flip(path, 0.7)
    with pytest.raises(LoraSamError, match="sam.safetensors is damaged: its SHA-256 is .* when it was written"):
        settings.build()


def test_a_bit_of_the_packaged_weights(
    option: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {path.stem for path in PACKAGED.glob("*.safetensors")} == set(PACKAGED_SHA256)
    shutil.copy(PACKAGED / "nano.safetensors", tmp_path)
    monkeypatch.setattr(checkpoints, "PACKAGED", tmp_path)
    assert option("model/nano").build().sha256 == PACKAGED_SHA256["nano"]
    flip(tmp_path / "nano.safetensors", 0.6)
    with pytest.raises(LoraSamError, match="nano.safetensors"):
        option("model/nano").build()
