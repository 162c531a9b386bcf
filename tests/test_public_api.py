"""What `import lora_sam` offers, and what it does not import."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lora_sam
from lora_sam.core.structures import Masks, Prompts, Sample
from lora_sam.data.reading.images import read_image
from lora_sam.runs.loading import load, load_base

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = [
    "AutomaticMasks",
    "LoraSamError",
    "Masks",
    "Prompts",
    "Run",
    "Sample",
    "load",
    "load_base",
    "read_image",
    "train",
]
HEAVY = ("torch", "torchvision", "numpy", "pydantic", "peft", "monai", "accelerate", "PIL", "scipy", "hydra", "rich")


def loaded_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after `code`."""
    program = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not loaded_after("import lora_sam; lora_sam.__version__; dir(lora_sam)") & set(HEAVY)


def test_the_nouns_need_numpy_alone() -> None:
    loaded = loaded_after("from lora_sam import Masks, Prompts, Sample")
    assert loaded & set(HEAVY) == {"numpy"}


def test_names_are_those_of_the_submodules() -> None:
    assert lora_sam.__all__ == PUBLIC
    assert (lora_sam.load, lora_sam.load_base, lora_sam.read_image) == (load, load_base, read_image)
    assert (lora_sam.Masks, lora_sam.Prompts, lora_sam.Sample) == (Masks, Prompts, Sample)


def test_dir_lists_every_name_once() -> None:
    names = dir(lora_sam)
    assert set(PUBLIC) <= set(names)
    assert {"__version__", "__doc__"} <= set(names)
    assert len(names) == len(set(names))


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError) as caught:
        _ = lora_sam.laod  # type: ignore[attr-defined]
    assert str(caught.value) == (
        "module 'lora_sam' has no attribute 'laod'; it has AutomaticMasks, LoraSamError, Masks, Prompts, "
        "Run, Sample, load, load_base, read_image, train"
    )
    assert not hasattr(lora_sam, "__wrapped__")


def test_the_version_is_the_one_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert lora_sam.__version__ == project["version"]


def test_every_error_is_a_user_error() -> None:
    from lora_sam.core import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) == 6
    assert all(issubclass(kind, errors.LoraSamError) and issubclass(kind, ValueError) for kind in kinds)
