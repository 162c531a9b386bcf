from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import Field

from lora_sam.cli.jobs import plain
from lora_sam.core.errors import CheckpointError, ConfigError
from lora_sam.core.unknown import unknown_key
from lora_sam.training.settings import GROUPS, RUN_KEYS, Settings, settings_from

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
OPTIONS = sorted(path for group in GROUPS for path in (CONF / group).glob("*.yaml"))
EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))

# --- the files of conf/ -----------------------------------------------------------------------------------------------


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return plain(compose("train", overrides=list(overrides)))


def filled_in(values: Any) -> Any:
    """`values` with a text in place of every `???`, and without files that may not be there."""
    if isinstance(values, dict):
        return {key: None if key == "checkpoint" else filled_in(value) for key, value in values.items()}
    return "somewhere" if values == "???" else values


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    config: dict[str, Any] = filled_in(composed())
    return config


def test_settings_are_the_groups_and_the_keys_of_train_yaml(base: dict[str, Any]) -> None:
    assert set(base) == {*GROUPS, *RUN_KEYS}
    assert {path.name for path in CONF.iterdir() if path.is_dir()} == {*GROUPS, "experiment", "hydra", "pack"}
    settings = settings_from(base)
    assert settings.seed == 0
    assert settings.resume is None
    assert settings.evaluate_split == "test"
    for group in GROUPS:
        assert (
            f"{type(getattr(settings, group)).__module__}.{type(getattr(settings, group)).__name__}"
            == (base[group]["_target_"])
        )


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("model", {"nano", "tiny_random", "tiny_vit", "tiny_vit_random", "vit_b", "vit_l", "vit_h"}),
        ("method", {"lora", "decoder", "full"}),
        ("data", {"coco", "folder"}),
        ("prompt", {"box"}),
        ("loss", {"sam", "dice_ce"}),
        ("optim", {"adam", "adamw"}),
        ("tracker", {"tensorboard", "none"}),
        ("experiment", {"nuclei_lora", "nuclei_decoder", "rings_lora", "smoke"}),
        *((group, set()) for group in ("augmentation", "trainer")),
    ],
)
def test_groups_have_the_options_that_the_documentation_names(group: str, names: set[str]) -> None:
    found = {path.stem for path in (CONF / group).glob("*.yaml")}
    assert found
    assert names <= found


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_option_lists_every_field_and_builds(path: Path, base: dict[str, Any]) -> None:
    group = path.parent.name
    option = filled_in(plain(OmegaConf.load(path)))  # type: ignore[arg-type]
    built = getattr(settings_from({**base, group: option}), group)
    module = sys.modules[type(built).__module__]
    assert module.__name__.startswith("lora_sam.")
    assert_same_keys(option, built, path.stem)


def assert_same_keys(option: dict[str, Any], built: Any, where: str) -> None:
    fields = {field.name for field in dataclasses.fields(built)}
    assert option.keys() - {"_target_"} == fields, where
    for name in fields:
        if dataclasses.is_dataclass(getattr(built, name)):
            assert_same_keys(option[name], getattr(built, name), f"{where}.{name}")


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_classes_have_no_defaults_and_document_every_field(path: Path) -> None:
    target = plain(OmegaConf.load(path))["_target_"]  # type: ignore[arg-type]
    module, _, name = target.rpartition(".")
    cls = getattr(__import__(module, fromlist=[name]), name)
    fields = dataclasses.fields(cls)
    assert all(field.kw_only for field in fields)
    assert [field.name for field in fields if field.default is not dataclasses.MISSING] == []
    documented = "\n".join(base.__doc__ or "" for base in cls.__mro__)
    undocumented = [field.name for field in fields if not re.search(rf"^ +{field.name}: ", documented, re.MULTILINE)]
    assert undocumented == []


def test_an_option_that_a_class_shares_with_others_is_explained_too(base: dict[str, Any]) -> None:
    folder = {**filled_in(plain(OmegaConf.load(CONF / "data/folder.yaml"))), "root": "???"}  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"data.root is not set \(Directory of the data set\); give it"):
        settings_from({**base, "data": folder})


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiment_composes_and_builds(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# @package _global_")
    assert isinstance(settings_from(filled_in(composed(f"experiment={path.stem}"))), Settings)


def test_checking_every_option_imports_no_heavy_package(base: dict[str, Any]) -> None:
    configs = [{**base, path.parent.name: filled_in(plain(OmegaConf.load(path)))} for path in OPTIONS]  # type: ignore[arg-type]
    program = (
        "import json, sys; from lora_sam.training.settings import settings_from\n"
        "configs = json.load(sys.stdin)\n"
        "for config in configs: settings_from(config)\n"
        "heavy = {'torch', 'torchvision', 'peft', 'monai', 'accelerate', 'transformers', 'segment_anything', 'scipy'}\n"
        "print(len(configs), sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(configs), capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.split(maxsplit=1) == [str(len(OPTIONS)), "[]\n"]


# --- checking, with classes made for it -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Inner:
    patience: Annotated[int, Field(ge=1)] | None
    min_delta: float


@dataclass(frozen=True, kw_only=True)
class Fake:
    """A class with a field of every kind.

    Attributes:
        root: Where the images are; nothing else is read.
    """

    root: str
    rank: Annotated[int, Field(ge=1)]
    alpha: Annotated[float, Field(gt=0)]
    rate: Annotated[float, Field(gt=0)] | None
    decoder: Literal["frozen", "train", "lora"]
    flag: bool
    betas: tuple[float, float]
    blocks: str | tuple[Annotated[int, Field(ge=0)], ...]
    inner: Inner
    maybe: Inner | None


@dataclass(frozen=True, kw_only=True)
class Checked:
    a: int
    b: int

    def check(self) -> None:
        if self.a > self.b:
            raise CheckpointError(f"a = {self.a}: must not be greater than b = {self.b}")

    def __post_init__(self) -> None:
        if self.a == 13:
            raise ValueError("a is unlucky")


@dataclass(kw_only=True)
class Mutable:
    a: int


@dataclass(frozen=True)
class Strange:
    a: complex
    b: ModuleType


CALLS: list[str] = []


def function() -> None:
    CALLS.append("called")


VALID = {
    "root": "images",
    "rank": 8,
    "alpha": 4,
    "rate": None,
    "decoder": "train",
    "flag": True,
    "betas": [0.9, 1],
    "blocks": [1, 2],
    "inner": {"patience": None, "min_delta": 1e-3},
    "maybe": None,
}


@pytest.fixture(autouse=True)
def fake_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = ModuleType("lora_sam.fake")
    for thing in (Fake, Checked, Mutable, Strange):
        monkeypatch.setattr(thing, "__module__", "lora_sam.fake")
        setattr(module, thing.__name__, thing)
    module.function = function  # type: ignore[attr-defined]
    module._Private = Fake  # type: ignore[attr-defined]
    module.Path = Path  # type: ignore[attr-defined]
    module.Inner = Inner  # type: ignore[attr-defined]
    module.__dict__.update(Annotated=Annotated, Field=Field, Literal=Literal, ModuleType=ModuleType)
    monkeypatch.setitem(sys.modules, "lora_sam.fake", module)
    CALLS.clear()
    yield
    assert CALLS == []


def problems(base: dict[str, Any], **groups: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        settings_from({**base, **groups})
    return str(caught.value).splitlines()


def fake(**changes: Any) -> dict[str, Any]:
    return {"_target_": "lora_sam.fake.Fake", **VALID, **changes}


def test_values_become_the_types_of_the_annotations(base: dict[str, Any]) -> None:
    built: Any = settings_from({**base, "method": fake()}).method
    assert built == Fake(
        root="images",
        rank=8,
        alpha=4.0,
        rate=None,
        decoder="train",
        flag=True,
        betas=(0.9, 1.0),
        blocks=(1, 2),
        inner=Inner(patience=None, min_delta=1e-3),
        maybe=None,
    )
    assert type(built.alpha) is float
    assert type(built.betas[1]) is float


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"rank": 0}, "method.rank = 0: must be greater than or equal to 1"),
        ({"rank": True}, "method.rank = true: must be an integer"),
        ({"rank": "8"}, 'method.rank = "8": must be an integer'),
        ({"rank": 1.5}, "method.rank = 1.5: must be an integer"),
        ({"alpha": 0}, "method.alpha = 0: must be greater than 0"),
        ({"alpha": "high"}, "method.alpha = high: must be a number"),
        ({"alpha": float("inf")}, "method.alpha = Infinity: must be a finite number"),
        ({"alpha": float("nan")}, "method.alpha = NaN: must be a finite number"),
        ({"rate": -0.5}, "method.rate = -0.5: must be greater than 0"),
        ({"flag": 1}, "method.flag = 1: must be true or false"),
        ({"flag": "yes"}, "method.flag = yes: must be true or false"),
        ({"root": 3}, "method.root = 3: must be text"),
        ({"root": None}, "method.root = null: must be text"),
        ({"betas": 0.9}, "method.betas = 0.9: must be a list"),
        ({"betas": []}, "method.betas = []: must have at least 2 items"),
        ({"betas": [0.9]}, "method.betas = [0.9]: must have at least 2 items"),
        ({"betas": [1, 2, 3]}, "method.betas = [1, 2, 3]: must have at most 2 items, not 3"),
        ({"betas": [0.9, "a"]}, "method.betas.1 = a: must be a number"),
        ({"blocks": 3}, "method.blocks = 3: must be text, or must be a list"),
        ({"blocks": [0, -1]}, "method.blocks.1 = -1: must be greater than or equal to 0"),
        ({"inner": 3}, "method.inner = 3: must be a group of keys: patience, min_delta"),
        ({"maybe": []}, "method.maybe = []: must be a group of keys: patience, min_delta"),
        ({"inner": {"patience": 0, "min_delta": 1}}, "method.inner.patience = 0: must be greater than or equal to 1"),
        ({"decoder": "trian"}, "method.decoder = trian: must be one of frozen, train, lora; did you mean train?"),
        ({"decoder": 7}, "method.decoder = 7: must be one of frozen, train, lora"),
        (
            {"inner": {"patiense": 1, "patience": 1, "min_delta": 1}},
            "unknown key method.inner.patiense; did you mean method.inner.patience? "
            "Valid keys: method.inner.min_delta, method.inner.patience",
        ),
        (
            {"root": "???"},
            "method.root is not set (Where the images are); give it on the command line, "
            "e.g. method.root=path/to/folder",
        ),
        (
            {"inner": {"patience": 1, "min_delta": "???"}},
            "method.inner.min_delta is not set; give it on the command line, e.g. method.inner.min_delta=...",
        ),
        ({"root": "a\nb", "rank": 0}, "method.rank = 0: must be greater than or equal to 1"),
        ({"rank": "x" * 200}, f"method.rank = {'x' * 77}...: must be an integer"),
        ({"rank": "a\nb"}, r'method.rank = "a\nb": must be an integer'),
        ({"rank": ""}, 'method.rank = "": must be an integer'),
        ({"root": {1, 2}}, "method cannot be read: Object of type set is not JSON serializable"),
    ],
)
def test_wrong_value(base: dict[str, Any], change: dict[str, Any], line: str) -> None:
    assert problems(base, method=fake(**change)) == [line]


def test_unknown_and_missing_keys_are_named_together_sorted(base: dict[str, Any]) -> None:
    option = fake(rnk=4, decoder="???")
    del option["rank"]
    assert problems(base, method=option, seed=-1, evaluate_split="train", colour=1) == [
        "unknown key colour. Valid keys: augmentation, cache, data, evaluate_automatic, evaluate_clicks, "
        "evaluate_images, evaluate_split, init_from, loss, method, model, optim, prompt, resume, seed, semantic, "
        "tracker, trainer",
        "evaluate_split = train: must be one of val, test",
        "method.decoder is not set; give it on the command line, e.g. method.decoder=...",
        "method.rank is missing; add it to the file in conf/, or give +method.rank=...",
        "unknown key method.rnk; did you mean method.rank? Valid keys: method.alpha, method.betas, method.blocks, "
        "method.decoder, method.flag, method.inner, method.maybe, method.rank, method.rate, method.root",
        "seed = -1: must be greater than or equal to 0",
    ]


def test_keys_of_train_yaml_are_checked(base: dict[str, Any]) -> None:
    assert problems(base, seed=True) == ["seed = true: must be an integer"]
    assert problems(base, seed=2**32) == ["seed = 4294967296: must be less than 4294967296"]
    assert problems(base, resume="") == ['resume = "": must have at least 1 character']
    assert settings_from({**base, "resume": "latest"}).resume == "latest"


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "lora_sam.core.files.os.system",
        "lora_sam.core.files.os",
        "lora_sam.fake.function",
        "lora_sam.fake.Mutable",
        "lora_sam.fake.Path",  # imported there, defined elsewhere
        "lora_sam.fake.Inner",
        "lora_sam.fake._Private",
        "lora_sam.fake.__builtins__.eval",
        "lora_sam.fake",
        "lora_sam.nothing.There",
        "lora_sam.fake.Fake.__init__",
        "lora_sam..fake.Fake",
        " lora_sam.fake.Fake",
        "lora_sam.fake.Fake\n",
        "lora_sam_evil.fake.Fake",
        "",
        None,
        7,
        ["lora_sam.fake.Fake"],
        {"_target_": "lora_sam.fake.Fake"},
    ],
)
def test_only_settings_classes_of_this_package_are_built(base: dict[str, Any], target: Any) -> None:
    (line,) = problems(base, method={**VALID, "_target_": target})
    assert line.startswith("method._target_ = ")
    assert line.endswith(": must name a settings class of this package, as the files of conf/method/ do")


def test_missing_dependency_of_a_settings_module_is_not_the_users_mistake(
    base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named 'numpy' ({name})", name="numpy")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="numpy"):
        settings_from(base)


def test_class_that_is_no_configuration_is_refused(base: dict[str, Any]) -> None:
    (line,) = problems(base, method={"_target_": "lora_sam.fake.Strange", "a": 1, "b": 2})
    assert line.startswith("method cannot be read: Unable to generate pydantic-core schema for ")


@pytest.mark.parametrize(
    ("value", "given"), [("lora", "method = lora"), (None, "method is missing"), ([], "method = []")]
)
def test_group_that_is_no_group(base: dict[str, Any], value: Any, given: str) -> None:
    assert problems(base, method=value) == [
        f"{given}: must be a group of keys; choose a file of conf/method/ by its name, with method=name on the command "
        "line or `override /method: name` in the defaults of an experiment"
    ]


def test_check_is_called_and_its_error_kept(base: dict[str, Any]) -> None:
    option = {"_target_": "lora_sam.fake.Checked", "a": 3, "b": 2}
    with pytest.raises(CheckpointError, match="a = 3: must not be greater than b = 2"):
        settings_from({**base, "method": option})
    assert problems(base, method=option, seed=-1) == [
        "a = 3: must not be greater than b = 2",
        "seed = -1: must be greater than or equal to 0",
    ]
    assert problems(base, method={**option, "a": 13, "b": 20}) == ['method = {"a": 13, "b": 20}: a is unlucky']


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("method.rnk", "method.rank"),
        ("metod", "method"),
        ("metod.rank", "method.rank"),
        ("rank", "method.rank"),
        ("lr", "optim.lr"),
        ("epochs", "trainer.max_epochs"),
        ("optim.rank", "method.rank"),
        ("xyzzy", None),
    ],
)
def test_nearest_key(key: str, nearest: str | None) -> None:
    valid = ["method", "method.rank", "method.alpha", "optim", "optim.lr", "trainer", "trainer.max_epochs"]
    line = unknown_key(key, valid)
    assert line.startswith(f"unknown key {key}" + (f"; did you mean {nearest}?" if nearest else "."))


def test_tracker_directory_stays_inside_the_run(base: dict[str, Any]) -> None:
    for directory in ("/tmp/elsewhere", "../elsewhere", "a/../../b"):
        tracker = {"_target_": "lora_sam.training.tracking.TensorBoard", "directory": directory}
        (line,) = problems(base, tracker=tracker)
        assert line.startswith(f"tracker.directory = {directory}: must be a directory inside the run directory")
