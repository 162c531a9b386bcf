"""The registry of Meta's SAM weights: what each file is, how it gets here unharmed, and how it is read."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lora_sam.core.conf_files import conf_directory
from lora_sam.core.console import note
from lora_sam.core.errors import CheckpointError
from lora_sam.core.files import sha256_of, user_cache
from lora_sam.core.scores import META, METADATA_KEY, Scores, from_metadata

if TYPE_CHECKING:
    import torch

    from lora_sam.models.family import SamModel


PICKLED = (".pth", ".pt", ".bin", ".ckpt")
"""How files end that `torch.save` wrote."""


WRAPPERS = ("model", "state_dict", "model_state", "model_state_dict")
"""Keys under which a training script keeps the state dict beside other things."""


PACKAGED = Path(__file__).resolve().parent / "weights"


@dataclass(frozen=True)
class Checkpoint:
    """One published weight file.

    Attributes:
        variant: Name of the architecture it fits, e.g. `vit_b`.
        filename: Its published name. The hexadecimal part is Meta's label, not a digest of the file.
        url: Where it is published; https.
        size: In bytes.
        sha256: Of the whole file, 64 hexadecimal digits.
    """

    variant: str
    filename: str
    url: str
    size: int
    sha256: str


class _Published(Mapping[str, Checkpoint]):
    """The published weights of every file in `conf/model` that names some, read when they are first asked for."""

    def __getitem__(self, variant: str) -> Checkpoint:
        return _published(conf_directory())[variant]

    def __iter__(self) -> Iterator[str]:
        return iter(_published(conf_directory()))

    def __len__(self) -> int:
        return len(_published(conf_directory()))


OFFICIAL: Mapping[str, Checkpoint] = _Published()
"""Published weights by variant: of Meta's three (Kirillov et al., Segment Anything, 2023; Apache-2.0), and yours."""


def published(variant: str, url: str, size: int, sha256: str) -> Checkpoint:
    """The weights at `url`, kept under the name that they have there."""
    return Checkpoint(variant, url.rpartition("/")[2], url, size, sha256)


@cache
def _published(conf: Path) -> dict[str, Checkpoint]:
    import yaml

    found = {}
    for file in sorted((conf / "model").glob("*.yaml")):
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        if values.get("url") is not None:
            where = (values[name] for name in ("url", "size", "sha256"))
            found[values["variant"]] = published(values["variant"], *where)
    return found


PACKAGED_SHA256: Mapping[str, str] = MappingProxyType(
    {"nano": "2a534e89f6260e9a74de226822a7cd2a6c2732e22124888478a3f7ada848ff79"}
)
"""SHA-256 of the files that come with this package, by variant."""

FORMER: Mapping[str, str] = MappingProxyType(
    {
        "ea3e656627a353f96b0dd4e322d1006902b541acac054e55f32c14e491ce72f3": (
            "the first nano, which followed no clicks; nano has other weights now: train again"
        ),
        "ec6f17017dbb1c1be6d3e3910027f59ec6bb25a70ca2fd41387a9aafc58d0996": (
            "an early nano, which found few objects by itself; nano has other weights now: train again"
        ),
    }
)
"""What is to be said of files that came with this package once, by their SHA-256."""


def packaged_checkpoint(variant: str) -> Path | None:
    """The weights of `variant` that come with this package, or None: safetensors, fp16, keys of `segment_anything`."""
    path = PACKAGED / f"{variant}.safetensors"
    return path if path.is_file() else None


def sha256_now(model: SamModel) -> str | None:
    """The SHA-256 that `BaseModel` will have, without building it; None for drawn weights and missing files."""
    if model.weights == "random":
        return None
    if model.checkpoint is not None:
        path = Path(model.checkpoint)
        return sha256_of(path) if path.is_file() else None
    return PACKAGED_SHA256.get(model.variant) if packaged_checkpoint(model.variant) is not None else model.sha256


def default_directory() -> Path:
    """Where checkpoints are kept: `$LORA_SAM_CACHE`, else `lora_sam/checkpoints` under the user's cache directory."""
    if own := os.environ.get("LORA_SAM_CACHE"):
        return Path(own).expanduser()
    return user_cache() / "checkpoints"


def load_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a `.safetensors`, `.pth`, `.pt`, `.bin` or `.ckpt` file on the CPU, by name, as they are stored.

    Nothing in the file is executed: pickles are read with `weights_only=True`. A file that wraps its tensors as
    `{"model": {...}}` (MedSAM), `{"state_dict": {...}}` (Lightning), `{"model_state": {...}}` (micro-sam) or
    `{"model_state_dict": {...}}`, beside anything else, gives the inner ones.

    Raises:
        CheckpointError: the file is missing, cut short, of another kind, or holds something else than tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file. Give the path of a .safetensors, {_listed(PICKLED)} file.")
    if path.suffix.lower() == ".safetensors":
        return _load_safetensors(path)
    if path.suffix.lower() in PICKLED:
        return _unwrap(_load_pickle(path), path)
    raise CheckpointError(
        f"{path} ends in '{path.suffix}'; weights are read from .safetensors, {_listed(PICKLED)}. "
        "Convert it with safetensors.torch.save_file."
    )


def load_scores(path: Path) -> Scores:
    """What a weights file says of its scores in its metadata; `META` where it says nothing, as Meta's own files do.

    Raises:
        CheckpointError: the file is damaged, or says what cannot be.
    """
    metadata = _metadata(path)
    if metadata is None:
        return META
    try:
        return from_metadata(metadata)
    except ValueError as error:
        raise CheckpointError(f"{path}: metadata {METADATA_KEY!r}: {error}; write the file again") from error


def load_layers(path: Path) -> Any:
    """What a weights file says in its metadata of layers that it has beside SAM's; None where it says nothing.

    Raises:
        CheckpointError: the file is damaged.
    """
    return load_about(path).get("layers")


def load_about(path: Path) -> dict[str, Any]:
    """What a weights file says of itself in its metadata, as merging writes it; raises as `load_layers` does."""
    metadata = _metadata(path) or {}
    try:
        about = json.loads(metadata.get(METADATA_KEY, "{}"))
    except ValueError:
        return {}  # whoever reads its scores says so
    return about if isinstance(about, dict) else {}


def _metadata(path: Path) -> dict[str, str] | None:
    """Of a safetensors file."""
    if path.suffix.lower() != ".safetensors":
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] | None = file.metadata()
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    return metadata


def _listed(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path, device="cpu")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error
    return _unwrap(tensors, path)


def _load_pickle(path: Path) -> object:
    import torch

    zipped = zipfile.is_zipfile(path)
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                # torch stores without compression; a file that unpacks to more than itself is not one of torch's
                if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                    raise CheckpointError(f"{path} is compressed, which weights never are. Save it with torch.save.")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path} holds Python objects besides tensors, and loading those could run code. "
                "Save only the state dict, best as .safetensors."
            ) from error
        raise _damaged(path, error) from error
    except CheckpointError:
        raise
    except Exception as error:  # torch raises what its reader happens to trip over: RuntimeError, EOFError, KeyError...
        raise _damaged(path, error) from error


def _unwrap(content: object, path: Path) -> dict[str, torch.Tensor]:
    if (tensors := _tensors_of(content)) is not None:
        return tensors
    if isinstance(content, Mapping):
        inner = {key: found for key in WRAPPERS if (found := _tensors_of(content.get(key))) is not None}
        if len(inner) == 1:
            ((chosen, tensors),) = inner.items()
            others = [str(key) for key, value in content.items() if key != chosen and _are_as_named(value, tensors)]
            if others:
                note(
                    f"note: {path} has weights of the same names under {' and '.join([chosen, *others])}; those under "
                    f"{chosen} are read. If the others are meant, as a running mean (EMA) often is, save them alone"
                )
            return tensors
        keys = ", ".join(sorted(str(key) for key in content)[:5]) or "nothing"
        shape = f"a mapping with {keys}"
    else:
        shape = f"a {type(content).__name__}"
    raise CheckpointError(
        f"{path} holds {shape}, where one mapping of names to tensors is needed, bare or under one of "
        f"{', '.join(WRAPPERS)}. Save model.state_dict() alone."
    )


def _tensors_of(content: object) -> dict[str, torch.Tensor] | None:
    """`content` if it is a state dict, else None."""
    import torch

    if not isinstance(content, Mapping) or not content:
        return None
    if not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()):
        return None
    return dict(content)


def _are_as_named(content: object, tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether this is another state dict of the same model, `module.` before its names or not."""
    other = _tensors_of(content)
    return other is not None and {name.removeprefix("module.") for name in other} >= {
        name.removeprefix("module.") for name in tensors
    }


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return CheckpointError(f"{path} cannot be read as weights, it is cut short or damaged ({reason}). Fetch it again.")
