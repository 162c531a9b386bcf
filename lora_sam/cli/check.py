"""What `python -m lora_sam.data.check` does."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from lora_sam.cli.training_keys import TrainingKeys
from lora_sam.core.console import progress
from lora_sam.core.errors import ConfigError, DataError, TrainingError

if TYPE_CHECKING:
    from lora_sam.data.check.examination import Examination
    from lora_sam.data.source import DataSource
    from lora_sam.training.settings import Settings

FILES = ("check.json", "check.html")


@dataclass(frozen=True, kw_only=True)
class Check(TrainingKeys):
    """Look for everything that is wrong with labelled images, and show them with masks and prompts. Takes every option
    of training, so the same words can follow either command: data= and prompt= with their keys, experiment=, seed=.
    Ends with 0 if there is no error, and with 1 if there is one.

    Attributes:
        out: Directory for check.json and check.html; null for outputs/check/<name of the data root>.
        strict: Whether warnings count as errors.
        images: Look at so many images of each split, evenly spaced; null for all.
        pictures: Number of images on the contact sheet.
    """

    out: Annotated[str, Field(min_length=1)] | None
    strict: bool
    images: Annotated[int, Field(ge=1)] | None
    pictures: Annotated[int, Field(ge=0, le=500)]

    def perform(self) -> int:
        """Examine the data, write the files and print a table; returns 1 if there are errors, else 0.

        Raises:
            ConfigError: an option is wrong, the data is not read from files, or `out` holds something else.
            DataError: the data root is not there.
            TrainingError: the directory cannot be written.
        """
        settings = self._settings()
        root = _root(settings.data)
        out = Path("outputs/check") / root.name if self.out is None else Path(self.out).expanduser()
        _check_free(out)

        from lora_sam.data.check.examination import examine
        from lora_sam.data.check.results import passed

        with progress("looking at images", "images", said=False) as on_image:
            examination = examine(settings.data, root, settings.seed, self.images, on_image)
        self._write(out, examination, settings, root)
        self._print(out, examination)
        return 0 if passed(examination, self.strict) else 1

    def _settings(self) -> Settings:
        from lora_sam.training.settings import settings_from

        values = self.training()
        if "checkpoint" in self.model:  # the weights need not be there to look at the data
            values["model"] = {**self.model, "checkpoint": None}
        return settings_from(values)

    def _write(self, out: Path, examination: Examination, settings: Settings, root: Path) -> None:
        from lora_sam.core.files import atomic_directory
        from lora_sam.data.check.results import content
        from lora_sam.report.check.page import check_html
        from lora_sam.report.check.pictures import examples, overview

        found = content(examination, root=str(root), strict=self.strict)
        page = check_html(
            examination,
            name=root.name,
            root=str(root),
            prompt=_in_words(settings.prompt),
            strict=self.strict,
            sheet=overview(examination, settings.prompt, settings.seed, self.pictures),
            examples=examples(examination, settings.prompt, settings.seed),
        )
        try:
            with atomic_directory(out) as directory:
                for name, text in zip(FILES, (json.dumps(found, indent=2) + "\n", page), strict=True):
                    (directory / name).write_text(text, encoding="utf-8", errors="replace")
        except TrainingError as error:
            reason = error.__cause__ or error
            raise DataError(f"out = {out}: cannot be written ({reason}); choose another place with out=...") from error

    def _print(self, out: Path, examination: Examination) -> None:
        from rich.console import Console

        from lora_sam.core.console import print_table
        from lora_sam.core.wording import printable
        from lora_sam.data.check.results import messages, table, verdict

        console = Console()
        if examination.groups:
            print_table(table(examination))
        for message in messages(examination):
            console.print(printable(message), soft_wrap=True, markup=False, highlight=False)
        console.print(f"{verdict(examination, self.strict)}: {out / FILES[1]}", soft_wrap=True, markup=False)


def _root(data: DataSource) -> Path:
    """Where the data is.

    Raises:
        ConfigError: nowhere, it is drawn.
        DataError: it is not there.
    """
    from lora_sam.data.reading.paths import data_root

    given = getattr(data, "root", None)
    if given is None:
        raise ConfigError("data: is drawn on the fly, so there are no files to check; choose another data=")
    to_be_fetched = getattr(data, "download", False) and not Path(given).expanduser().exists()
    return Path(given) if to_be_fetched else data_root(given)


def _check_free(out: Path) -> None:
    """Raise `ConfigError` if writing `out` would replace what is not ours."""
    if not out.exists():
        return
    if not out.is_dir() or not {path.name for path in out.iterdir()} <= set(FILES):
        raise ConfigError(f"out = {out}: holds something else and is left as it is; choose another with out=...")


def _in_words(prompt: Any) -> str:
    values = ", ".join(f"{key} {json.dumps(value)}" for key, value in asdict(prompt).items())
    return f"{type(prompt).__name__}, {values}" if values else type(prompt).__name__
