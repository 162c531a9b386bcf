"""Steps whose run may only be read: what they need of it is copied to where they write."""

from __future__ import annotations

import shutil
from pathlib import Path

from lora_sam.core.errors import AdapterError, TrainingError
from lora_sam.core.files import atomic_directory, atomic_path, sha256_of
from lora_sam.core.run_directory import RunDirectory
from lora_sam.runs.adapter_files import find_adapter


def working_copy(run: RunDirectory, output: str | None) -> RunDirectory:
    """Where a step works: the run itself, or a copy of its adapter, configuration, splits and report in `output`.

    What is there already has to be of the same run. The copy is a run as any other for all steps, but cannot be
    resumed: checkpoints are not copied.

    Args:
        run: The run.
        output: Directory of the copy; None for the run itself.

    Raises:
        AdapterError: `output` holds files of another run or of something else, or cannot be written; the run has no
            adapter.
    """
    if output is None:
        return run
    copy = RunDirectory(Path(output).expanduser().absolute())
    if copy.root.exists() and copy.root.samefile(run.root):
        return run
    adapter = find_adapter(run.root)
    files = [(path, copy.adapter / path.name) for path in sorted(adapter.iterdir()) if path.is_file()]
    files += [(path, copy.root / path.name) for path in (run.saved_config, run.splits) if path.is_file()]
    for source, target in files:
        if target.exists() and not (target.is_file() and sha256_of(target) == sha256_of(source)):
            raise AdapterError(
                f"output = {output}: {target} is there and is not that of {run.root}; give a directory that is new, or "
                "that an earlier step made for this run"
            )
    try:
        for source, target in files:
            if target.parent == copy.root and not target.exists():
                _copy(source, target)
        if not copy.adapter.exists():
            with atomic_directory(copy.adapter) as temporary:
                for source, target in files:
                    if target.parent == copy.adapter:
                        shutil.copyfile(source, temporary / source.name)
        if run.report.is_file() and not copy.report.exists():
            _copy(run.report, copy.report)
    except TrainingError as error:
        raise AdapterError(
            f"output = {output}: cannot be written: {error.__cause__ or error}; give another directory"
        ) from error
    return copy


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
