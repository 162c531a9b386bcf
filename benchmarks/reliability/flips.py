"""One flipped bit in what was written: is it named, or without effect, and never used in silence?"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.forked import REFUSED, forked
from benchmarks.reliability.jobs import TINY, Clock, Tally, digest_of_state, state_of, step, trainer


@dataclass(frozen=True)
class Artefact:
    """A file, and what reads it.

    Attributes:
        path: Where it is in the run.
        use: Uses it, and returns what came of it.
    """

    path: str
    use: Callable[[Path], Callable[[], Any]]


def measure(root: Path, tries: int, seconds: float, seed: int) -> Tally:
    """Flip one bit at a time, in each artefact in turn."""
    tally, draws = Tally(), random.Random(seed)
    finished = root / "finished"
    made = [forked(trainer([*TINY, "trainer.max_steps=2"], finished))]
    made += [forked(step("merge", finished)), forked(step("export", finished, precision="fp32", min_iou=0.0))]
    made.append(forked(step("quantize", finished, mode="int8_weights", max_drop=None)))
    made.append(forked(step("evaluate", finished, backends=["fp32"], repeats=1)))
    _weights(root)
    for one in made:
        if one.code:
            tally.wrong("broken", str(one.answer or one.said[-300:]))
            return tally
    artefacts = _artefacts(root)
    expected = {}
    for artefact in list(artefacts):
        ended = forked(artefact.use(finished))
        if ended.code or ended.answer is None:
            tally.wrong("broken", f"{artefact.path}: {ended.answer or ended.said[-300:]}")
            artefacts.remove(artefact)
        expected[artefact.path] = ended.answer
    tally.add("kinds of artefacts", len(artefacts))
    clock = Clock(seconds)
    for number in range(tries):
        if clock.left <= 0 or not artefacts:
            break
        artefact = artefacts[number % len(artefacts)]
        _flip(artefact, finished, expected[artefact.path], draws, tally)
    return tally


def _flip(artefact: Artefact, run: Path, expected: Any, draws: random.Random, tally: Tally) -> None:
    path = run / artefact.path
    before = path.read_bytes()
    place, bit = draws.randrange(len(before)), draws.randrange(8)
    content = bytearray(before)
    content[place] ^= 1 << bit
    path.write_bytes(bytes(content))
    try:
        ended = forked(artefact.use(run))
    finally:
        path.write_bytes(before)
    tally.add("flips")
    what = f"{artefact.path}, bit {bit} of byte {place} of {len(before)}"
    if ended.code == REFUSED:
        tally.add("named")
    elif ended.code != 0:
        tally.wrong("crashed", f"{what}: {ended.said.strip().splitlines()[-1:]}")
    elif ended.answer == expected:
        tally.add("without effect")
    else:
        tally.wrong("silent", what)


def _weights(root: Path) -> None:
    from lora_sam.models.checkpoints import packaged_checkpoint

    nano = packaged_checkpoint("nano")
    assert nano is not None
    (root / "package").mkdir()
    for path in nano.parent.iterdir():
        if path.is_file():
            shutil.copyfile(path, root / "package" / path.name)


def _image() -> Any:
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def _masks_of(predictor: Any) -> str:
    import hashlib

    found = predictor.segment(_image(), boxes=[[3, 4, 40, 30], [10, 2, 30, 44]])
    return hashlib.sha256(found.low_res_logits.tobytes() + found.masks.tobytes()).hexdigest()


def _loaded(run: Path) -> Callable[[], str]:
    import lora_sam

    return lambda: _masks_of(lora_sam.load(run))


def _merged(run: Path) -> Callable[[], str]:
    def use() -> str:
        from lora_sam.core.run_directory import RunDirectory
        from lora_sam.predictors.torch_predictor import TorchPredictor
        from lora_sam.runs.merged import load_merged

        model = load_merged(RunDirectory(run))
        return _masks_of(TorchPredictor(model.sam, model.image_size))

    return use


def _exported(name: str) -> Callable[[Path], Callable[[], str]]:
    def using(run: Path) -> Callable[[], str]:
        def use() -> str:
            from lora_sam.predictors.openvino_parts import openvino_directory
            from lora_sam.predictors.openvino_predictor import OpenVINOPredictor

            return _masks_of(OpenVINOPredictor(*openvino_directory(run / "openvino" / name), compile_cache=False))

        return use

    return using


def _resumed(root: Path) -> Callable[[Path], Callable[[], str]]:
    """Goes on for a step; what was read is part of what comes of it."""

    def using(run: Path) -> Callable[[], str]:
        output = root / "resumed"
        shutil.rmtree(output, ignore_errors=True)

        def use() -> str:
            from benchmarks.reliability.jobs import composed
            from lora_sam.cli.run import run as train
            from lora_sam.runs.resuming import resumed_config
            from lora_sam.training.settings import settings_from

            typed = [f"resume={run}", "trainer.max_steps=3"]
            config = resumed_config(composed(*typed), typed)
            train(settings_from(config), config=config, output_dir=output)
            return digest_of_state(output)

        return use

    return using


def _evaluated(root: Path) -> Callable[[Path], Callable[[], Any]]:
    def using(run: Path) -> Callable[[], Any]:
        def use() -> Any:
            output = root / "figures.json"
            step("evaluate", run, backends=["fp32"], repeats=1, output=str(output))()
            return json.loads(output.read_text())["backends"]["fp32"]["iou"]

        return use

    return using


def _figures(run: Path) -> Callable[[], Any]:
    def use() -> Any:
        import dataclasses

        from lora_sam.core.run_directory import RunDirectory
        from lora_sam.evaluation.backends.result import read_backends

        return json.loads(json.dumps(dataclasses.asdict(read_backends(RunDirectory(run).backends, "")), default=str))

    return use


def _nano(root: Path) -> Callable[[Path], Callable[[], str]]:
    def using(run: Path) -> Callable[[], str]:
        del run

        def use() -> str:
            from lora_sam.core.config import from_conf
            from lora_sam.models import checkpoints

            checkpoints.PACKAGED = root / "package"
            return str(from_conf("model/nano").build().sha256)

        return use

    return using


def _artefacts(root: Path) -> list[Artefact]:
    resumed = _resumed(root)
    return [
        Artefact("adapter/adapter_model.safetensors", _loaded),
        Artefact("adapter/adapter_config.json", _loaded),
        Artefact("adapter/lora_sam.json", _loaded),
        Artefact(str(state_of(Path()).as_posix()), resumed),
        Artefact("config.json", resumed),
        Artefact("splits.json", resumed),
        Artefact("merged/sam.safetensors", _merged),
        Artefact("merged/manifest.json", _merged),
        Artefact("openvino/fp32/image_encoder.bin", _exported("fp32")),
        Artefact("openvino/fp32/mask_decoder.xml", _exported("fp32")),
        Artefact("openvino/int8_weights/image_encoder.bin", _exported("int8_weights")),
        Artefact("openvino/fp32/manifest.json", _evaluated(root)),
        Artefact("backends.json", _figures),
        Artefact("../package/nano.safetensors", _nano(root)),
    ]
