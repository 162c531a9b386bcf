"""Several adapters on one base: each computes what it computes alone, the base stays exact, threads are undisturbed."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lora_sam import AutomaticMasks, load, load_base
from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.structures import Masks, Prompts
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.runs.several import AdapterPredictor

PROMPTS = Prompts(np.array([[3, 4, 40, 30], [10, 2, 30, 44]], np.float32))
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
METHODS = {"lora": 1, "other": 2, "decoder": 3, "full": 4, "bitfit": 5}


@pytest.fixture(scope="module")
def runs(finished_run: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs by a name, with adapters of every kind and one base."""
    root = tmp_path_factory.mktemp("several")
    for name, seed in METHODS.items():
        finished_run(root / name, "lora" if name == "other" else name, seed=seed)
    return {name: root / name for name in METHODS}


@pytest.fixture(scope="module")
def alone(runs: dict[str, Path]) -> dict[str, Masks]:
    """What each says when it is loaded alone, and the base."""
    found = {name: load(path, device="cpu").predict(IMAGE, PROMPTS) for name, path in runs.items()}
    found["base"] = TorchPredictor(load_base(runs["lora"]).sam, 64).predict(IMAGE, PROMPTS)
    return found


@pytest.fixture
def predictor(runs: dict[str, Path]) -> AdapterPredictor:
    made = load(runs["lora"], device="cpu")
    for name in list(METHODS)[1:]:
        made.add(name, runs[name])
    return made


def same(one: Masks, other: Masks) -> bool:
    return bool((one.low_res_logits == other.low_res_logits).all() and (one.scores == other.scores).all())


def test_each_computes_what_it_computes_alone(predictor: AdapterPredictor, alone: dict[str, Masks]) -> None:
    assert predictor.adapters == ("base", "tuned", "other", "decoder", "full", "bitfit")
    for name in ("other", "base", "bitfit", "tuned", "full", "base", "decoder", "other", "base"):
        predictor.use(name)
        wanted = alone["lora" if name == "tuned" else name]
        assert same(predictor.predict(IMAGE, PROMPTS), wanted), name
        assert (predictor.segment(IMAGE, boxes=PROMPTS.boxes).masks == wanted.masks).all()
    differ = [np.abs(one.low_res_logits - alone["base"].low_res_logits).max() for one in list(alone.values())[:5]]
    assert min(differ) > 1e-3, "passes without adapters"


@pytest.mark.parametrize("name", ["other", "decoder", "full"])
def test_alpha_goes_from_the_base_to_what_was_trained(
    predictor: AdapterPredictor, alone: dict[str, Masks], name: str
) -> None:
    predictor.use(name, alpha=0)
    assert np.abs(predictor.predict(IMAGE, PROMPTS).low_res_logits - alone["base"].low_res_logits).max() < 1e-6
    predictor.use(name, alpha=0.5)
    assert predictor.used == (name, 0.5)
    half = predictor.predict(IMAGE, PROMPTS)
    assert not same(half, alone[name])
    assert not same(half, alone["base"])
    predictor.use(name)
    assert same(predictor.predict(IMAGE, PROMPTS), alone[name])
    predictor.use("base")
    assert same(predictor.predict(IMAGE, PROMPTS), alone["base"])


def test_the_weights_of_the_base_are_there_once(predictor: AdapterPredictor) -> None:
    def weights() -> dict[str, int]:
        named = {key: value.data_ptr() for key, value in predictor.sam.named_parameters() if "to_save" not in key}
        return {key.replace(".base_layer", "").replace(".original_module", ""): place for key, place in named.items()}

    predictor.use("base")
    base = weights()
    for alpha in (1.0, 0.5):
        predictor.use("other", alpha=alpha)
        found = weights()
        assert {key: found[key] for key in base} == base


def test_a_call_computes_with_what_was_chosen_when_it_began(
    predictor: AdapterPredictor, alone: dict[str, Masks], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, switched = threading.Event(), threading.Event()
    decode = TorchPredictor._decode

    def slow(self: TorchPredictor, *arguments: Any) -> Any:
        begun.set()
        assert switched.wait(20)
        return decode(self, *arguments)

    monkeypatch.setattr(TorchPredictor, "_decode", slow)
    found: list[Masks] = []
    predictor.use("other")
    thread = threading.Thread(target=lambda: found.append(predictor.predict(IMAGE, PROMPTS)))
    thread.start()
    assert begun.wait(20)
    predictor.use("decoder", alpha=0.3)
    predictor.use("base")
    switched.set()
    thread.join()
    assert same(found[0], alone["other"])
    assert same(predictor.predict(IMAGE, PROMPTS), alone["base"])


def test_all_points_of_an_image_go_through_one_adapter(predictor: AdapterPredictor, runs: dict[str, Path]) -> None:
    """What another thread chose meanwhile found the rest of the masks."""
    automatic = AutomaticMasks(points_per_side=9, predicted_iou=0, stability=0, masks="single")
    wanted = automatic.generate(load(runs["other"], device="cpu"), IMAGE)
    predictor.use("other")
    found = automatic.generate(predictor, IMAGE, on_points=lambda done, every: predictor.use("base"))
    assert predictor.used == ("base", 1.0)
    assert (found.scores == wanted.scores).all()
    assert (found.masks == wanted.masks).all()


def test_mistakes_are_named(
    predictor: AdapterPredictor, runs: dict[str, Path], finished_run: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="did you mean other\\?; add it with predictor.add"):
        predictor.use("othr")
    for taken in ("base", "other", ""):
        with pytest.raises(ConfigError, match="must be one that is not taken"):
            predictor.add(taken, runs["other"])
    for alpha in (-0.1, 2, float("nan")):
        with pytest.raises(ConfigError, match="must be a number from 0 to 1.5"):
            predictor.use("other", alpha=alpha)
    with pytest.raises(ConfigError, match="the base has no strength"):
        predictor.use("base", alpha=0.5)
    with pytest.raises(AdapterError, match="trained biases of the base"):
        predictor.use("bitfit", alpha=0.5)
    finished_run(tmp_path / "foreign", weights_seed=7)
    with pytest.raises(AdapterError, match="give the base it was trained on"):
        predictor.add("foreign", tmp_path / "foreign")
    copied = shutil.copytree(runs["other"], tmp_path / "copied")
    facts = json.loads((copied / "adapter" / "lora_sam.json").read_text())
    facts["architecture"]["num_heads"] = 4
    (copied / "adapter" / "lora_sam.json").write_text(json.dumps(facts))
    with pytest.raises(AdapterError, match="at another size or with other parts"):
        predictor.add("larger", copied)
    assert predictor.used == ("tuned", 1.0)
    assert predictor.adapters[-1] == "bitfit"


def test_images_are_encoded_once_for_each(predictor: AdapterPredictor) -> None:
    def ask(name: str) -> NDArray[np.float32]:
        predictor.use(name)
        return predictor.predict(IMAGE, PROMPTS).scores

    for name in ("tuned", "other", "tuned", "other"):
        ask(name)
    assert predictor.encoded == 2
    predictor.forget()
    ask("tuned")
    assert predictor.encoded == 3
