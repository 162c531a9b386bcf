"""Shared pieces: a tiny SAM, option files of conf/, and a generated data set."""

from __future__ import annotations

import atexit
import dataclasses
import errno
import functools
import gc
import json
import logging
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.once import compile_once, convert_once, load_once, parse_once

ROOT = Path(__file__).resolve().parents[1]
TINY_RUN = [
    "model=tiny_random",
    "trainer.max_epochs=2",
    "trainer.log_every_steps=1",
    "trainer.device=cpu",
    "trainer.precision=fp32",
    "trainer.overlays=0",
    "tracker=none",
]
"""Words of a run of seconds whose every step is told."""
os.environ.setdefault("LORA_SAM_OFFLINE", "1")
# nothing reports home, whichever way the tests are started
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
# embeddings are shared by all runs on a machine; those of tests are not the user's
_EMBEDDINGS = tempfile.mkdtemp(prefix="lora_sam.")
os.environ["LORA_SAM_EMBEDDINGS"] = _EMBEDDINGS
atexit.register(shutil.rmtree, _EMBEDDINGS, ignore_errors=True)
# what Python compiles is kept: images of it ask for the opposite, and every process would compile all it imports anew
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


LONGEST = (
    "integration/test_families.py",
    "test_documentation.py",
    "models/test_families.py",
    "training/test_loop.py",
    "integration/test_run.py",
    "cli/test_evaluate.py",
    "integration/test_embedding_cache.py",
    "cli/test_train.py",
    "cli/test_quantize.py",
    "cli/test_sweeps.py",
)
"""Files whose tests take longest, most of a minute each."""


WHOLE_RUNS = ("cli", "integration", "methods", "runs", "training", "test_documentation.py")
"""Where they train from beginning to end, below this directory."""


def pytest_configure(config: pytest.Config) -> None:
    """OpenVINO imports absl, whose log handler closes what was sys.stderr then when logging is configured anew."""
    with suppress(ImportError):
        from absl import logging

        logging.get_absl_handler().python_handler.close = lambda: None
    parse_once()
    load_once()
    # a disk that ends with the machine would be as it should; tests look at what is synced, in which order, not at that
    os.fsync = lambda descriptor: None
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        # what warnings of workers name: two threads of xdist would import it at once, which ends all of the tests
        import peft  # noqa: F401


def pytest_runtest_setup() -> None:
    """See `compile_once` and `convert_once`: not every test needs OpenVINO, whose import takes a second."""
    if "openvino" in sys.modules:
        compile_once()
    if "lora_sam.deployment.ir_parts" in sys.modules:
        convert_once()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: a worker that comes to one of them last goes on alone."""
    first = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Before a test file imports OpenVINO: with its telemetry every export starts a process that reports home.

    What test files import stays: the garbage collector looks at it neither then, which takes a quarter of the time, nor
    while tests run.
    """
    from lora_sam.predictors.openvino_parts import quiet_openvino

    quiet_openvino()
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Libraries in C++ look for what is left when Python ends."""
    gc.unfreeze()


@dataclasses.dataclass(frozen=True)
class Done:
    """What one call of a command line did."""

    code: int
    out: str
    err: str


CommandLine = Callable[..., Done]


@pytest.fixture(scope="module", autouse=True)
def small_pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """What whole runs draw has panels of 128 px for 512, a fifth of their time; other tests look at pictures."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.relative_to(ROOT / "tests").parts[0] in WHOLE_RUNS and request.path.stem != "test_preview":
            patch.setattr("lora_sam.core.painting.PANEL", 128)
        yield


@pytest.fixture
def quiet_logging() -> Iterator[None]:
    """Hydra configures the root logger anew, with a stream that ends with the test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.fixture
def active_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of this environment are those of the shell, as after `source .venv/bin/activate`."""
    monkeypatch.setenv("PATH", sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"])


@pytest.fixture
def cannot_be_listed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the system refuse to list a folder: for want of a permission, as if not root, or for another error."""

    def close(folder: Path, number: int = errno.EACCES) -> None:
        def refusing(look: Callable[..., Any]) -> Callable[..., Any]:
            def refuse(place: Any = ".") -> Any:
                if not isinstance(place, int) and Path(place) == folder:
                    raise OSError(number, os.strerror(number), str(place))
                return look(place)

            return refuse

        for name in ("scandir", "listdir"):
            monkeypatch.setattr(os, name, refusing(getattr(os, name)))

    return close


@pytest.fixture
def command_line(
    quiet_logging: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> CommandLine:
    """Calls the training command in this process, in `tmp_path`; names and values: what else is in its environment."""
    from lora_sam.cli.train import run_train

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def call(*words: str, **said: str) -> Done:
        for key, value in {"FAILING": "", "KILLS": "", **said}.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        try:
            code = run_train("train.py", words)
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call


@pytest.fixture
def memory_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What measures the memory of a back end runs here, where torch is imported; `test_opening.py` has the process."""
    from contextlib import redirect_stdout
    from io import StringIO
    from types import SimpleNamespace

    from lora_sam.deployment import peak_memory

    def run(command: list[str], **how: Any) -> SimpleNamespace:
        assert command[1:3] == ["-m", peak_memory.__name__]
        with redirect_stdout(StringIO()) as said:
            assert peak_memory.main(command[3:]) == 0
        return SimpleNamespace(stdout=said.getvalue())

    monkeypatch.setattr(peak_memory, "subprocess", SimpleNamespace(run=run))


@pytest.fixture(scope="session")
def option() -> Callable[..., Any]:
    """Builds the object of one option file, e.g. `option("method/lora", rank=2)`."""
    import yaml
    from pydantic import TypeAdapter

    @functools.cache
    def read(name: str) -> tuple[TypeAdapter[Any], str]:
        values = yaml.safe_load((ROOT / "conf" / f"{name}.yaml").read_text())
        module, _, attribute = values.pop("_target_").rpartition(".")
        return TypeAdapter(getattr(__import__(module, fromlist=[attribute]), attribute)), json.dumps(values)

    def build(name: str, **changes: Any) -> Any:
        adapter, values = read(name)
        return adapter.validate_json(json.dumps({**json.loads(values), **changes}), strict=True)

    return build


@pytest.fixture
def tiny_sam(option: Callable[..., Any]) -> Callable[[], Any]:
    """Makes equal copies of a split tiny SAM with random weights."""
    return lambda: option("model/tiny_random").build().sam


@pytest.fixture(scope="session")
def finished_run(option: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the directory of a finished run, with an adapter of weights that have moved; returns the model saved.

    `settings` change those of the method, `seed` how its weights move, anything else the base.
    """

    def make(
        root: Path,
        method: str = "lora",
        checkpoint: Path | None = None,
        *,
        settings: dict[str, Any] | None = None,
        seed: int = 1,
        **changes: Any,
    ) -> Any:
        import torch

        from lora_sam.core.run_directory import RunDirectory
        from lora_sam.report.model_card import model_card
        from lora_sam.runs.adapter_files import save_adapter

        weights = "random" if checkpoint is None else "pretrained"
        model = option(
            "model/tiny_random", weights=weights, checkpoint=None if checkpoint is None else str(checkpoint), **changes
        )
        chosen = option(f"method/{method}", **(settings or {}))
        base = model.build()
        torch.manual_seed(seed)
        adapted = chosen.apply(base.sam)
        for parameter in adapted.trainable().values():
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
        facts = {
            "schema_version": 1,
            "architecture": model.architecture(),
            "image_size": base.image_size,
            "base": {
                "source": base.source,
                "sha256": base.sha256,
                "tensors": base.tensors,
                "weights_seed": model.weights_seed,
            },
            "method": {"name": chosen.name, **dataclasses.asdict(chosen)},
            "trains_encoder": adapted.trains_encoder,
            "metrics": None,
            "versions": {"lora_sam": "0.1.0"},
        }
        root.mkdir(parents=True)
        (root / "config.json").write_text(json.dumps({"model": dataclasses.asdict(model)}))
        save_adapter(adapted, RunDirectory(root).adapter, facts, model_card(facts, None))
        # torch's matrix product takes another path, and rounds otherwise, for weights that train
        adapted.peft.requires_grad_(False)
        return adapted

    return make


@pytest.fixture(scope="session")
def exported_run(
    finished_run: Callable[..., Any], blobs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], Path]:
    """Copies a finished run on the images of `blobs`, with merged weights and IR parts in fp32 and fp16."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from lora_sam.core.config import step_from

    root = tmp_path_factory.mktemp("exported") / "run"
    finished_run(root)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", ["model=tiny_random", f"data.root={blobs}"]), resolve=True)
    (root / "config.json").write_text(json.dumps(config))
    (root / "report.html").write_text("<!DOCTYPE html><html><body><main><p>a page</p></main></body></html>")
    for verb, changes in (("merge", {}), ("export", {"precision": "fp32"}), ("export", {"precision": "fp16"})):
        values = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / f"{verb}.yaml"))
        del values["defaults"]
        assert step_from({**values, "run": str(root), **changes}).perform() == 0

    def make(path: Path) -> Path:
        shutil.copytree(root, path)
        return path

    return make


@pytest.fixture
def rising_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every validation beats the one before: the last weights are kept, however little a short run learns."""
    let_validation_rise(monkeypatch)


def let_validation_rise(monkeypatch: pytest.MonkeyPatch) -> None:
    """See `rising_validation`; for fixtures that live longer than a test."""
    from lora_sam.report.shown_validation import ShownValidation

    measure, values = ShownValidation.__call__, iter(range(1, 1000))
    monkeypatch.setattr(ShownValidation, "__call__", lambda self, step: measure(self, step) * 1e-6 + next(values) / 100)


@pytest.fixture(scope="session")
def trained_weights() -> Callable[[Path], Any]:
    """The weights that a run ended with, whether or not they were its best: by name."""

    def read(run: Path) -> Any:
        from safetensors.torch import load_file

        state = load_file(run / "checkpoints" / "last" / "state.safetensors")
        return {name: value for name, value in state.items() if name.startswith("model.")}

    return read


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO data set of bright ellipses on noise: 6/2/3 images of 48 x 64 px with 3 objects each."""
    root = tmp_path_factory.mktemp("blobs")
    make_blobs(root, {"train": 6, "val": 2, "test": 3})
    return root


def make_blobs(root: Path, counts: dict[str, int], *, objects: int = 3, size: tuple[int, int] = (48, 64)) -> None:
    """Write a COCO data set of ellipses with uncompressed RLE masks under `root`."""
    from pycocotools import mask as coco_mask

    height, width = size
    rows, columns = np.mgrid[:height, :width]
    for split, count in counts.items():
        rng = np.random.default_rng([count, len(split)])
        folder = root / "images" / split
        folder.mkdir(parents=True)
        images, annotations = [], []
        for image_id in range(1, count + 1):
            pixels = rng.integers(0, 90, (height, width, 3))
            for _ in range(objects):
                cy, cx = rng.uniform(8, height - 8), rng.uniform(8, width - 8)
                ry, rx = rng.uniform(4, 8, 2)
                mask = ((rows - cy) / ry) ** 2 + ((columns - cx) / rx) ** 2 < 1
                pixels[mask] += np.array([120, 80, 40])
                runs = _uncompressed_rle(mask)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": 1,
                        "iscrowd": 0,
                        "segmentation": {"size": [height, width], "counts": runs},
                        "bbox": list(coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))),
                        "area": int(mask.sum()),
                    }
                )
            name = f"{image_id}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
            images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "blob"}]})
        )


def _uncompressed_rle(mask: np.ndarray) -> list[int]:
    flat = mask.ravel(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    counts = np.diff(bounds).tolist()
    return counts if flat[0] == 0 else [0, *counts]
