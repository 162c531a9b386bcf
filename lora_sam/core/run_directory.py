"""Where everything of a run lies, and how a run is found by its name."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_sam.core.errors import AdapterError

if TYPE_CHECKING:
    pass


LATEST = Path("outputs") / "latest"
STARTED = Path("outputs") / ".started"


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside one run's directory."""

    root: Path

    @property
    def saved_config(self) -> Path:
        """The composed configuration with nothing left to resolve: data, checked again whenever it is read."""
        return self.root / "config.json"

    @property
    def splits(self) -> Path:
        """Ids of the images of each split."""
        return self.root / "splits.json"

    def prompts(self, split: str) -> Path:
        """What prompted the objects of a split when it was evaluated."""
        return self.root / "prompts" / f"{split}.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per line: the source of truth for curves."""
        return self.root / "metrics.jsonl"

    @property
    def last(self) -> Path:
        """State to resume from."""
        return self.root / "checkpoints" / "last" / "state.safetensors"

    @property
    def best(self) -> Path:
        """Weights with the highest validation IoU."""
        return self.root / "checkpoints" / "best" / "state.safetensors"

    @property
    def adapter(self) -> Path:
        """The result, in stock PEFT layout."""
        return self.root / "adapter"

    @property
    def evaluation(self) -> Path:
        """Base and tuned on the test split."""
        return self.root / "evaluation.json"

    @property
    def report(self) -> Path:
        """The page that explains the run."""
        return self.root / "report.html"

    @property
    def overlays(self) -> Path:
        """Best, median and worst cases as pictures."""
        return self.root / "overlays"

    @property
    def merged(self) -> Path:
        """Plain SAM weights with the adapter folded in."""
        return self.root / "merged"

    def openvino(self, precision: str) -> Path:
        """The two IR parts at `precision` (fp32, fp16, int8, ...)."""
        return self.root / "openvino" / precision

    @property
    def backends(self) -> Path:
        """All back ends on the same prompts."""
        return self.root / "backends.json"

    def point_latest_here(self) -> None:
        """Make `outputs/latest` a link to this run; a file system without links is left alone."""
        _point(LATEST, self.root)

    def note_start(self) -> None:
        """Note that this run has started, which `outputs/latest` does not say before it has saved something."""
        _point(STARTED, self.root)


def last_started() -> RunDirectory | None:
    """The run that was started last here, whatever became of it."""
    return RunDirectory(STARTED.resolve()) if STARTED.is_dir() else None


def _point(link: Path, root: Path) -> None:
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        target = os.path.relpath(root.resolve(), link.parent.resolve())
        temporary.symlink_to(target, target_is_directory=True)
        os.replace(temporary, link)
    except OSError:
        with suppress(OSError):
            temporary.unlink()


def find_run(name: str) -> RunDirectory:
    """The run called `latest`, or at the path `name`.

    Raises:
        AdapterError: there is no such run.
    """
    path = LATEST if name == "latest" else Path(name)
    if not path.is_dir():
        hint = "no run has been made here yet" if name == "latest" else "give the path of a run, or latest"
        started = last_started()
        if name == "latest" and started is not None:
            hint = f"{started.root}, the run that was started last, has saved nothing"
        if path.is_symlink():
            hint = f"{os.readlink(path)}, which it points to, is gone: give the path of another run"
        raise AdapterError(f"{name}: no such run directory ({path}); {hint}")
    return RunDirectory(path.resolve())
