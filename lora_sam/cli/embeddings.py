"""What training keeps on disk of the frozen image encoder: list it, verify it, prune it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lora_sam.core.config import from_conf
from lora_sam.core.console import print_table, progress, text_table
from lora_sam.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from lora_sam.predictors.embeddings.eviction import Group
    from lora_sam.predictors.embeddings.options import CacheOptions


STEP = "embeddings"


DAMAGED = 3
"""Exit code where rows are damaged."""


_DAY = 86400.0


_HEADINGS = ("model", "stage", "image", "numbers", "rows", "GB", "last used", "")


_RIGHT = {"image", "rows", "GB"}


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """List, verify or prune what training keeps on disk of the frozen image encoder; the first word says which:
    list (or nothing), verify, prune. Verifying ends with 3 if anything is damaged.

    Attributes:
        action: list shows every group of embeddings; verify reads each of them, and removes what is damaged, so that
            training makes it again; prune removes groups, those used least recently first.
        directory: The cache directory; null takes that of training: cache.directory of conf/cache, else
            $LORA_SAM_EMBEDDINGS, else lora_sam/embeddings in the user's cache directory.
        max_gb: For prune, remove groups until no more than so many GB (10^9 bytes) are left; null takes cache.max_gb
            of conf/cache, unless older_than_days is given.
        older_than_days: For prune, remove groups of which no run has wanted a row for so many days.
        json: Print JSON for programs instead of a table.
    """

    action: Literal["list", "verify", "prune"]
    directory: Annotated[str, Field(min_length=1)] | None
    max_gb: Annotated[float, Field(ge=0)] | None
    older_than_days: Annotated[float, Field(ge=0)] | None
    json: bool

    def check(self) -> None:
        """Raise `ConfigError` for options of prune given to another action."""
        if self.action != "prune":
            for name in ("max_gb", "older_than_days"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"{name} = {getattr(self, name):g}: {self.action} does not take it, prune does")

    def perform(self) -> int:
        """Do it and print the result; 3 if embeddings are damaged, else 0.

        Raises:
            CacheUnavailable: the directory cannot be used.
        """
        options: CacheOptions = from_conf("cache/default", **self._place())
        return {"list": self._list, "verify": self._verify, "prune": self._prune}[self.action](options)

    def _place(self) -> dict[str, str]:
        return {} if self.directory is None else {"directory": self.directory}

    def _list(self, options: CacheOptions) -> int:
        from lora_sam.predictors.embeddings.eviction import groups

        found = groups(options.place())
        held = sum(group.bytes for group in found)
        if self.json:
            _print_json(
                {
                    "directory": str(options.place()),
                    "bytes": held,
                    "max_bytes": int(options.max_gb * 1e9),
                    "groups": [_plain(group) for group in found],
                }
            )
            return 0
        total = f"{_gb(held)} GB of at most {options.max_gb:g} GB (cache.max_gb) in {options.place()}"
        if not found:
            print(f"no embeddings: {total}")
            return 0
        print_table(table(found, "embeddings on this machine", total))
        for group in found:
            if group.problem is not None:
                print(f"{group.path.name}: {group.problem}")
        return 0

    def _verify(self, options: CacheOptions) -> int:
        from lora_sam.predictors.embeddings.eviction import groups

        checked: list[dict[str, Any]] = []
        for group in groups(options.place()):
            what = group.path.name if group.spec is None else f"{group.spec.variant} {group.spec.stage}"
            with self._progress(f"verifying {what}") as on_rows:
                checked.append(_verified(options.place(), group, on_rows))
        rows, damaged = (sum(entry[name] for entry in checked) for name in ("checked", "damaged"))
        sound = damaged == 0
        if self.json:
            _print_json({"rows": rows, "damaged": damaged, "groups": checked})
            return 0 if sound else DAMAGED
        for entry in checked:
            for note in entry["notes"]:
                print(note)
            if entry["damaged"]:
                print(f"{entry['path']}: {entry['damaged']:,} of {entry['checked']:,} rows were damaged")
        print(f"{rows:,} rows verified, {damaged:,} damaged" + ("" if sound else "; training makes them again"))
        return 0 if sound else DAMAGED

    def _progress(self, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        return nullcontext(lambda done, total: None) if self.json else progress(what, "rows")

    def _prune(self, options: CacheOptions) -> int:
        from lora_sam.predictors.embeddings.eviction import Pruned, prune, remove_old
        from lora_sam.predictors.embeddings.layout import unavailable

        directory = options.place()
        limit = self.max_gb if self.max_gb is not None or self.older_than_days is not None else options.max_gb
        pruned, old = Pruned(removed=(), in_use=()), None
        if directory.is_dir():
            with unavailable(directory):
                old = remove_old(directory)
                pruned = prune(
                    directory,
                    max_bytes=None if limit is None else int(limit * 1e9),
                    before=None if self.older_than_days is None else time.time() - self.older_than_days * _DAY,
                )
        freed = sum(group.bytes for group in pruned.removed)
        if self.json:
            groups = {"removed": pruned.removed, "in_use": pruned.in_use}
            _print_json({"freed_bytes": freed, **{key: [_plain(group) for group in groups[key]] for key in groups}})
            return 0
        if pruned.removed:
            print_table(table(pruned.removed, "removed", f"{_gb(freed)} GB freed in {directory}"))
        else:
            print(f"nothing removed in {directory}")
        if old is not None:
            print(old)
        for group in pruned.in_use:
            print(f"{group.path} ({_gb(group.bytes)} GB) is in use by another process and stays")
        return 0


def _verified(directory: Path, group: Group, on_rows: Callable[[int, int], None]) -> dict[str, Any]:
    """Verify one group: what was found, for JSON and for people."""
    from lora_sam.predictors.embeddings.store import CacheUnavailable, EmbeddingCache

    entry = {**_plain(group), "checked": 0, "damaged": 0, "notes": []}
    if group.spec is None:
        return {**entry, "notes": [f"not checked: {group.problem}"]}
    try:
        with EmbeddingCache(directory, group.spec, max_bytes=0) as cache:
            entry["checked"] = cache.verify(on_rows)
            entry["damaged"], entry["notes"] = cache.damaged, cache.notes
    except CacheUnavailable as error:
        entry["notes"] = [f"not checked: {error}"]
    return entry


def table(groups: Sequence[Group], title: str, caption: str) -> Table:
    """A row per group: what made it, how much it is, when it was used."""
    left = [place for place, heading in enumerate(_HEADINGS) if heading not in _RIGHT]
    return text_table(_HEADINGS, map(_cells, groups), title=title, caption=caption, left=left)


def _cells(group: Group) -> tuple[str, ...]:
    spec = group.spec
    if spec is None:
        what = (group.path.name[:8], "?", "", "")
    else:
        stored = spec.dtype if spec.precision == spec.dtype else f"{spec.precision}, kept as {spec.dtype}"
        what = (f"{spec.variant} {spec.weights[:8]}", spec.stage, f"{spec.image_size} px", stored)
    rows = f"{group.rows:,}"
    state = "in use" if group.in_use else "" if group.problem is None else "cannot be used"
    return (*what, rows, _gb(group.bytes), _when(group.used), state)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _gb(count: int) -> str:
    return f"{count / 1e9:.3f}" if count < 1e9 else f"{count / 1e9:.1f}"


def _plain(group: Group) -> dict[str, Any]:
    return {**asdict(group), "path": str(group.path)}


def _print_json(values: Mapping[str, Any]) -> None:
    import json

    print(json.dumps(values, indent=2))
