"""See labels and prompts before training: a contact sheet of what a configuration would train on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lora_sam.core.errors import ConfigError, LoraSamError
from lora_sam.report.contact_sheet import contact_sheet, prompted_picture

if TYPE_CHECKING:
    from lora_sam.core.structures import Prompts, Sample
    from lora_sam.training.settings import Settings


PREFIX = "preview."


_HELP = {"--help", "-h"}


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Draw images with their masks and prompts, as a configuration would train or evaluate on them.

    An object has one colour for its mask and its prompts. Foreground points are filled circles, background points are
    crosses, boxes are frames, rough masks are white outlines.

    Attributes:
        split: train, with augmentation and training prompts; or val or test, with evaluation prompts.
        images: Rows of the sheet: the first images of the split.
        epochs: Columns of the sheet for train: the same images as the first epochs see them.
        output: File to write, .png.
    """

    split: Literal["train", "val", "test"]
    images: Annotated[int, Field(ge=1, le=100)]
    epochs: Annotated[int, Field(ge=1, le=16)]
    output: Annotated[str, Field(min_length=1)]

    def check(self) -> None:
        """Raise `ConfigError` if the output is no PNG."""
        if Path(self.output).suffix.lower() != ".png":
            raise ConfigError(f"preview.output = {self.output}: must end with .png")

    def draw(self, settings: Settings) -> Path:
        """Write the sheet for a configuration; its path.

        Raises:
            DataError: the images cannot be read.
            TrainingError: the file cannot be written.
        """
        from lora_sam.core.files import atomic_path

        rows = [
            [(f"{sample.id}{suffix}", prompted_picture(sample, prompts)) for suffix, sample, prompts in row]
            for row in self._rows(settings)
        ]
        path = Path(self.output)
        with atomic_path(path) as temporary:
            contact_sheet(rows).save(temporary, format="PNG")
        return path

    def _rows(self, settings: Settings) -> Iterator[list[tuple[str, Sample, Prompts]]]:
        """For each image what its cells show: what follows its name, sample and prompts."""
        from lora_sam.training.examples import TrainingExamples

        source = getattr(settings.open_data(), self.split)
        examples = TrainingExamples(
            source,
            settings.prompt,
            settings.augmentation,
            frame=settings.model.frame,
            seed=settings.seed,
            max_objects=settings.data.max_objects_per_image,
        )
        for index in range(min(self.images, len(source))):
            if self.split == "train":
                yield [(f", epoch {epoch}", *examples.prompted((epoch, index))) for epoch in range(self.epochs)]
            else:
                sample = source[index]
                yield [("", sample, settings.prompt.evaluation_prompts(sample, settings.seed))]


def preview(arguments: Sequence[str], program: str = "python -m lora_sam.preview") -> int:
    """Run the command; returns its exit code: 0, 1 after a bug, 2 after a user's mistake, 130 or 143 after a
    signal.

    Args:
        arguments: `preview.<option>=...`, and what training takes; without any of the latter, the demo.
        program: How it was called.
    """
    from lora_sam.cli import until_stopped

    return until_stopped(lambda: _preview(arguments, program))


def _preview(arguments: Sequence[str], program: str) -> int:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from lora_sam.cli import full_errors, report
    from lora_sam.cli.jobs import plain
    from lora_sam.cli.overrides import explain, with_quotes
    from lora_sam.cli.train import with_job
    from lora_sam.core.conf_files import conf_directory

    arguments = with_quotes(arguments)
    own = [argument.removeprefix(PREFIX) for argument in arguments if argument.startswith(PREFIX)]
    others = [argument for argument in arguments if not argument.startswith(PREFIX)]
    name, given = "train", with_job(others)
    try:
        conf = conf_directory()
        if _HELP.intersection(arguments):
            print(usage(conf, program))
            return 0
        try:
            with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
                config = plain(compose(name, overrides=given))
                name, given = "preview", own
                options = plain(compose(name, overrides=given))
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            return report(explain(error, given, conf, name))
        from lora_sam.core.config import step_from
        from lora_sam.training.settings import settings_from

        chosen: Preview = step_from(options)
        print(chosen.draw(settings_from(config)))
    except LoraSamError as error:
        if full_errors():
            raise
        return report(str(error).splitlines())
    return 0


def usage(conf: Path, program: str) -> str:
    """The help of the command: what it does, and its own options with their defaults and meanings."""
    from lora_sam.cli.step import usage as usage_of

    text, _, _ = usage_of("preview", program, conf).rpartition("\n")
    return f"{text}\nThese are given as {PREFIX}<name>=...; all else as to train, e.g. data.root=... prompt=points"
