"""See labels and prompts before training: a contact sheet of what a configuration would train on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lora_sam.core.errors import ConfigError, LoraSamError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from lora_sam.core.config import Settings
    from lora_sam.core.structures import Prompts, Sample

PREFIX = "preview."
PANEL_WIDTH = 512
_GAP, _LABEL = 8, 20
_PAPER, _INK = (255, 255, 255), (20, 20, 20)
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
            image_size=settings.model.image_size,
            seed=settings.seed,
            max_objects=settings.data.max_objects_per_image,
        )
        for index in range(min(self.images, len(source))):
            if self.split == "train":
                yield [(f", epoch {epoch}", *examples.prompted((epoch, index))) for epoch in range(self.epochs)]
            else:
                sample = source[index]
                yield [("", sample, settings.prompt.evaluation_prompts(sample, settings.seed))]


def prompted_picture(sample: Sample, prompts: Prompts) -> Image.Image:
    """An image with its masks and the prompts of its objects, at most 512 pixels wide and high.

    Args:
        sample: The image and its N masks.
        prompts: N prompts on it.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    from lora_sam.report.overlays import PALETTE, paint, panel_size

    height, width = panel_size(*sample.size)
    photograph = np.asarray(Image.fromarray(sample.image).resize((width, height), Image.Resampling.BILINEAR))
    order = np.argsort(-sample.masks.sum(axis=(1, 2)), kind="stable")
    painted = paint(photograph, sample.masks, order)
    for _, part in prompts.kinds():
        for logits in () if part.mask_inputs is None else part.mask_inputs:
            painted[_outline(logits, (height, width))] = 255
    picture = Image.fromarray(painted)
    draw = ImageDraw.Draw(picture)
    scale = np.array([width / sample.size[1], height / sample.size[0]])
    for rows, part in prompts.kinds():
        for number, row in enumerate(rows.tolist()):
            colour = PALETTE[row % len(PALETTE)]
            if part.boxes is not None:
                corners = (part.boxes[number].reshape(2, 2) * scale).ravel().tolist()
                draw.rectangle(corners, outline=colour, width=2)
            if part.points is not None and part.labels is not None:
                for (x, y), label in zip((part.points[number] * scale).tolist(), part.labels[number], strict=True):
                    _draw_point(draw, x, y, int(label), colour)
    return picture


def contact_sheet(rows: Sequence[Sequence[tuple[str, Image.Image]]]) -> Image.Image:
    """Pictures in rows, each with its label below, as one picture."""
    from PIL import Image, ImageDraw, ImageFont

    widths = [max(row[column][1].width for row in rows) for column in range(len(rows[0]))]
    heights = [max(picture.height for _, picture in row) + _LABEL for row in rows]
    sheet = Image.new("RGB", (sum(widths) + _GAP * (len(widths) + 1), sum(heights) + _GAP * (len(heights) + 1)), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        left = _GAP
        for (label, picture), width in zip(row, widths, strict=True):
            sheet.paste(picture, (left, top))
            text = label.encode("ascii", "replace").decode()
            while len(text) > 4 and font.getlength(text) > width:
                text = f"...{text[4:]}" if text.startswith("...") else f"...{text[1:]}"
            draw.text((left, top + picture.height + 3), text, _INK, font)
            left += width + _GAP
        top += height + _GAP
    return sheet


def _draw_point(draw: Any, x: float, y: float, label: int, colour: tuple[int, int, int]) -> None:
    if label == 1:
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour, outline=_PAPER, width=2)
    elif label == 0:
        for line, width in ((_PAPER, 5), (colour, 2)):
            draw.line((x - 4, y - 4, x + 4, y + 4), fill=line, width=width)
            draw.line((x - 4, y + 4, x + 4, y - 4), fill=line, width=width)


def _outline(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The rim of a rough mask [M, M] of the padded frame in a picture of `size` = (height, width), bool."""
    import numpy as np
    from PIL import Image
    from scipy.ndimage import binary_erosion

    side = max(size)
    frame = Image.fromarray(logits).resize((side, side), Image.Resampling.BILINEAR)
    mask: NDArray[np.bool_] = np.asarray(frame)[: size[0], : size[1]] > 0
    rim: NDArray[np.bool_] = mask & ~binary_erosion(mask, iterations=2)
    return rim


def preview(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code: 0, 1 after a bug, 2 after a user's mistake.

    Args:
        arguments: `preview.<option>=...`, and what `train.py` takes; without any of the latter, the demo.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from lora_sam.cli import full_errors, report
    from lora_sam.cli.jobs import plain
    from lora_sam.cli.overrides import explain
    from lora_sam.cli.train import with_job
    from lora_sam.core.conf_files import conf_directory

    own = [argument.removeprefix(PREFIX) for argument in arguments if argument.startswith(PREFIX)]
    others = [argument for argument in arguments if not argument.startswith(PREFIX)]
    name, given = "train", with_job(others)
    try:
        conf = conf_directory()
        if _HELP.intersection(arguments):
            print(usage(conf))
            return 0
        try:
            with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
                config = plain(compose(name, overrides=given))
                name, given = "preview", own
                options = plain(compose(name, overrides=given))
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            return report(explain(error, given, conf, name))
        from lora_sam.core.config import settings_from, step_from

        chosen: Preview = step_from(options)
        print(chosen.draw(settings_from(config)))
    except LoraSamError as error:
        if full_errors():
            raise
        return report(str(error).splitlines())
    return 0


def usage(conf: Path) -> str:
    """The help of the command: what it does, and its own options with their defaults and meanings."""
    from lora_sam.cli.step import usage as usage_of

    text, _, _ = usage_of("preview", "python -m lora_sam.preview", conf).rpartition("\n")
    return f"{text}\nThese are given as {PREFIX}<name>=...; all else as to train.py, e.g. data.root=... prompt=points"


if __name__ == "__main__":
    sys.exit(preview(sys.argv[1:]))
