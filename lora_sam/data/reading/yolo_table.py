"""`data.yaml`, as Ultralytics has it: where the images of each split lie, and the names of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_sam.core.errors import DataError
from lora_sam.data.reading.paths import shown

TABLES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_MOST_BYTES = 2**20
_MAX_DEPTH = 32


def table_in(root: Path) -> Path | None:
    """The table of a directory; None where there is none."""
    return next((root / name for name in TABLES if (root / name).is_file()), None)


def read_table(root: Path) -> dict[str, Any]:
    """The content of the table, and under "" its path; empty where there is none. Nothing in it is run.

    Raises:
        DataError: it is too large, too deep, no YAML, no mapping, or cannot be read.
    """
    import yaml

    file = table_in(root)
    if file is None:
        return {}
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise DataError(f"{file}: is larger than 1 MiB; is it the right file?", "bad_annotation")
        text = file.read_text(encoding="utf-8")
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a hundred times as fast, where libyaml is there
        depth = 0
        for event in yaml.parse(text, Loader=loader):  # without recursion, and so before anything is built
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise DataError(
                    f"{file}: is nested deeper than {_MAX_DEPTH} levels; is it the right file?", "bad_annotation"
                )
        content = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{file}: is not valid YAML ({shown(str(error))}); export it again.", "bad_annotation"
        ) from error
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror}); check its permissions.", "unreadable_file"
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: holds {shown(content)}; it takes keys such as train, val and names.", "bad_annotation"
        )
    return {**content, "": file}
