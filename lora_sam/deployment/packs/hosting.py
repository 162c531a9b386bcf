"""Packs that are a program with the model beside it: their files, and running them here as their host would."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lora_sam.deployment.packs.parts import write_parts

if TYPE_CHECKING:
    from lora_sam.deployment.packs.packing import Packed

SEGMENTER = "segmenter.py"
REQUIREMENTS = ("numpy", "openvino>=2024.4", "pillow")


def write_program(packed: Packed, directory: Path, target: str, programs: Mapping[str, str]) -> None:
    """Write the model's two parts, `segmenter.py`, and programs.

    Args:
        packed: What is packed.
        directory: Where to.
        target: Whose files they are, for messages.
        programs: Files of `lora_sam.deployment.packs.hosts` by the name that they get.

    Raises:
        ConfigError: OpenVINO is not installed.
    """
    write_parts(packed, directory, target, multimask=False)
    ours = files("lora_sam.deployment.packs.hosts")
    for name, source in {SEGMENTER: SEGMENTER, **programs}.items():
        (directory / name).write_text(ours.joinpath(source).read_text(encoding="utf-8"), encoding="utf-8")


@contextmanager
def program(directory: Path, name: str) -> Iterator[Any]:
    """A program of a pack as a module, while the context lasts; it finds what lies beside it."""
    from lora_sam.predictors.openvino_parts import openvino_core

    before, path = sys.modules.get("segmenter"), list(sys.path)
    sys.path.insert(0, str(directory))
    sys.modules.pop("segmenter", None)
    try:
        segmenter: Any = _module(directory / SEGMENTER, "segmenter").Segmenter
        segmenter.core = openvino_core()
        yield _module(directory / name, f"lora_sam_pack_{Path(name).stem}")
    finally:
        sys.path[:] = path
        sys.modules.pop("segmenter", None)
        sys.modules.pop(f"lora_sam_pack_{Path(name).stem}", None)
        if before is not None:
            sys.modules["segmenter"] = before


def _module(file: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
