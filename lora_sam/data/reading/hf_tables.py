"""Tables of Hugging Face's package datasets: parquet files, or what `save_to_disk` wrote; pictures stay encoded."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from lora_sam.core.calling import typed_here
from lora_sam.core.errors import DataError
from lora_sam.data.reading.annotation_files import parsed_json
from lora_sam.data.reading.paths import data_folders, inside, listing, shown

MAX_ROWS = 10**7
"""Tables with more rows are refused before they are read."""

DEFAULT_SPLIT = "train"
"""The split of a table whose name says none."""

_SHARD = re.compile(r"(?P<split>\w[\w.]*)-\d{5}-of-\d{5}.*")
_NUMBER = re.compile(r"(part-)?\d+.*")
_BATCH = 16  # rows decompressed at a time: a small parquet file can hold very large rows
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CONVERTED = "refs/convert/parquet"  # where the hub keeps a copy of other formats


@dataclass(frozen=True)
class Table:
    """One split of a data set.

    Attributes:
        root: Nothing outside this directory is read.
        place: What the split is called in messages.
        rows: A `pyarrow.Table`, mapped into memory, with the columns that are read.
    """

    root: Path
    place: str
    rows: Any

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def value(self, row: int, column: str) -> Any:
        """What is stored, as Python's own types; a picture as {"bytes", "path"} or bytes. Raises `DataError`."""
        with readable(f"{self.place}: row {row}"):
            return self.rows.column(column)[row].as_py()


@dataclass(frozen=True)
class Cell:
    """A picture in a table: an `ImageFile`.

    Attributes:
        table: The table.
        row: Number of the row, from 0.
        column: Name of the column.
        place: Which picture of a list of pictures, or None.
    """

    table: Table
    row: int
    column: str
    place: int | None = None

    def __str__(self) -> str:
        which = "" if self.place is None else f"[{self.place}]"
        return f"{self.table.place}: row {self.row}, {self.column}{which}"

    def is_file(self) -> bool:
        """Whether there is a picture to read."""
        return self._stored() is not None

    def exists(self) -> bool:
        """Whether there is a picture."""
        return self.is_file()

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """The encoded picture: the bytes in the table, or the file under the root that it names.

        Raises:
            DataError: it is neither; nothing is fetched from elsewhere.
        """
        stored = self._stored()
        content = stored.get("bytes") if isinstance(stored, dict) else stored
        if isinstance(content, bytes):
            return io.BytesIO(content)
        path = stored.get("path") if isinstance(stored, dict) else None
        if not isinstance(path, str):
            raise DataError(f"{self}: has neither the bytes nor the path of a picture; write the data set again.")
        return inside(self.table.root, path, str(self)).open(mode)

    def file_name(self) -> str | None:
        """The name of the file that the picture was, if that was kept."""
        stored = self._stored()
        path = stored.get("path") if isinstance(stored, dict) else None
        name = path.replace("\\", "/").rsplit("/", 1)[-1] if isinstance(path, str) else ""
        return name if name.isprintable() and name not in ("", ".", "..") else None

    def _stored(self) -> Any:
        value = self.table.value(self.row, self.column)
        return value if self.place is None else value[self.place]


def find_tables(root: Path, folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each split: Arrow files of `save_to_disk`, or else parquet files.

    Parquet files are named `{split}-00000-of-00001.parquet`, `{split}.parquet` or `{split}/0000.parquet`.

    Args:
        root: Nothing outside it is read.
        folder: Where to look, under `root`.

    Raises:
        DataError: there are none, or those of several data sets.
    """
    if (folder / "dataset_dict.json").exists():
        file = folder / "dataset_dict.json"
        names = parsed_json(file, ("splits",), "what DatasetDict.save_to_disk writes")["splits"]
        if not all(isinstance(name, str) for name in names):
            raise DataError(
                f"{file}: has the splits {shown(names)}; it takes names: write the data set again.", "bad_annotation"
            )
        return {name: _arrow_files(root, inside(root, name, str(file), base=folder)) for name in names}
    if (folder / "state.json").exists():
        split = parsed_json(folder / "state.json", (), "what Dataset.save_to_disk writes").get("_split")
        return {split if isinstance(split, str) and split else DEFAULT_SPLIT: _arrow_files(root, folder)}
    found: dict[str, list[Path]] = {}
    sets: dict[str, set[str]] = {}
    with listing(folder):
        files = sorted(place / name for place, names in data_folders(folder) for name in names)
    for path in files:
        if path.suffix != ".parquet":
            continue
        relative = path.relative_to(folder)
        parent = relative.parent
        shard = _SHARD.fullmatch(path.stem)
        if shard:
            split = shard["split"]
        elif _NUMBER.fullmatch(path.stem):
            split, parent = parent.name or DEFAULT_SPLIT, parent.parent
        else:
            split = path.stem
        found.setdefault(split, []).append(inside(root, relative.as_posix(), str(folder), base=folder))
        sets.setdefault(split, set()).add(parent.as_posix())
    for split, folders in sets.items():
        if len(folders) > 1:
            names = ", ".join(sorted(folders))
            raise DataError(f"{folder}: has {split} in several folders ({names}); set data.root to one of them.")
    if not found:
        raise DataError(
            f"{folder}: has no parquet file, and was not written by save_to_disk; set data.root to such a directory."
        )
    return {split: tuple(files) for split, files in found.items()}


def schema_of(files: tuple[Path, ...]) -> Any:
    """The `datasets.Features` of a split, by column, without reading its rows. Raises `DataError`."""
    with readable(str(files[0])), _offline() as datasets:
        if files[0].suffix == ".arrow":
            return datasets.Features.from_arrow_schema(_mapped(files[0]).schema)
        import pyarrow.parquet as pq

        for file in files:
            rows = pq.read_metadata(file).num_rows
            if rows > MAX_ROWS:
                raise DataError(f"{file}: has {rows} rows; at most {MAX_ROWS} are read: split the data set.")
        return datasets.Features.from_arrow_schema(pq.read_schema(files[0]))


def open_table(root: Path, place: str, files: tuple[Path, ...], columns: list[str]) -> Table:
    """One split with some of its columns; parquet is converted into the cache of the package datasets once.

    Raises:
        DataError: a file is damaged.
    """
    with readable(place), _offline() as datasets:
        if files[0].suffix == ".arrow":
            import pyarrow as pa

            rows = pa.concat_tables([_mapped(file) for file in files]).select(columns)
            rows.validate(full=True)  # wild offsets would be followed as they are
        else:
            converted = datasets.Dataset.from_parquet([str(file) for file in files], columns=columns, batch_size=_BATCH)
            rows = converted.data.table.select(columns)
        return Table(root, place, rows)


def fetched(name: str) -> Path:
    """A directory with the parquet files of a data set of the Hugging Face hub; fetched unless it is in the cache.

    Nothing but parquet files is fetched, so that no code comes along.

    Raises:
        DataError: `name` is not `owner/name`, or the hub cannot be reached, does not have it, or has no parquet files.
    """
    if not _HUB_NAME.fullmatch(name):
        raise DataError(f"data.root: {shown(name)} is neither a directory nor the name of a data set, owner/name.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise _missing(error) from error
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for revision in (None, _CONVERTED):
        try:
            folder = Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=["*.parquet"]))
        except Exception as error:  # from the network, the hub or the disk
            if revision is None:
                reason = " ".join(str(error).split())
                raise DataError(
                    f"data.root: the data set {name} cannot be fetched ({shown(reason)}); check the name, the network "
                    "and your login, or download it yourself and set data.root to the directory."
                ) from error
            break
        if any(folder.rglob("*.parquet")):
            return folder
    raise DataError(f"data.root: the data set {name} has no parquet files; write it with to_parquet or save_to_disk.")


@contextmanager
def readable(place: str) -> Iterator[None]:
    """Whatever fails while a table is read, as a `DataError` about `place`."""
    try:
        yield
    except DataError:
        raise
    except ImportError as error:
        raise _missing(error) from error
    except Exception as error:  # pyarrow and datasets raise nearly anything on damaged files
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise DataError(
            f"{place}: truncated or damaged ({shown(reason)}); copy it again from its source.", "unreadable_file"
        ) from error


def _missing(error: ImportError) -> DataError:
    command = typed_here("pip install datasets")
    return DataError(f"data=hf needs the package datasets ({error}): {command}, or poetry install --extras hf.")


@contextmanager
def _offline() -> Iterator[Any]:
    """The package datasets, which then connects to nothing and shows no progress bars."""
    wanted = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        import datasets

        shows = datasets.is_progress_bar_enabled()
        datasets.disable_progress_bars()
        try:
            yield datasets
        finally:
            if shows:
                datasets.enable_progress_bars()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _mapped(file: Path) -> Any:
    """The `pyarrow.Table` in a file that `save_to_disk` wrote."""
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        table = pa.ipc.open_stream(source).read_all()
    if table.num_rows > MAX_ROWS:
        raise DataError(f"{file}: has {table.num_rows} rows; at most {MAX_ROWS} are read: split the data set.")
    return table


def _arrow_files(root: Path, folder: Path) -> tuple[Path, ...]:
    file = folder / "state.json"
    state = parsed_json(file, ("_data_files",), "what Dataset.save_to_disk writes")
    names: list[str] = []
    for entry in state["_data_files"]:
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.endswith(".arrow"):
            raise DataError(
                f"{file}: has the file {shown(entry)}; it takes names of .arrow files: write it again.",
                "bad_annotation",
            )
        names.append(name)
    if not names:
        raise DataError(f"{file}: names no files; write it again.")
    if state.get("_indices_data_files"):
        raise DataError(f"{file}: was written by an old version of datasets, with an index; load and save it again.")
    return tuple(inside(root, name, str(file), base=folder) for name in names)
