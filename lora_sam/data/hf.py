"""Labels in data sets of Hugging Face: tables with a column of images and one of masks or objects."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from lora_sam.core.errors import DataError
from lora_sam.data.noticed import LeftOut, Notes
from lora_sam.data.options import FormatOptions, MaskOptions
from lora_sam.data.reading.hf_masks import Stored, find_columns, read_row
from lora_sam.data.reading.hf_tables import Cell, fetched, find_tables, open_table, schema_of
from lora_sam.data.reading.images import check_pixels, image_size
from lora_sam.data.reading.labelled import LabelledImage, LabelledImages, check_mask_memory
from lora_sam.data.reading.mask_files import settled
from lora_sam.data.reading.pairs import gathered
from lora_sam.data.reading.paths import data_root
from lora_sam.data.reading.skipping import Ledger, attempt_all
from lora_sam.data.reading.split_reading import read_splits
from lora_sam.data.splits import Splits

NEEDS = ("*.parquet|dataset_dict.json",)
"""What lies in such a directory, for the error where nothing is known; see `lora_sam.data.reading.unknown_layout`."""


@dataclass(frozen=True, kw_only=True)
class HuggingFace(MaskOptions, FormatOptions):
    """A directory of parquet files, or one that `save_to_disk` of the package datasets wrote.

    Masks are a picture per row (binary, or one value per object, as in `data=folder`), a list of pictures (one object
    each), or a column of COCO-like objects with polygons or RLE. Pictures are decoded by this package, from bytes in
    the table or files under the root; nothing is unpickled, no code of a data set runs, and nothing is fetched unless
    `download` says so. Parquet is converted into the cache of the package datasets once.

    Attributes:
        root: Directory of the data set; nothing outside it is read. With `download`, `owner/name` of one on the hub.
        download: Whether a data set that is no directory is fetched from the Hugging Face hub (parquet files only).
        image_column: Column of the images; null finds it: `image`, or else the only one with pictures.
        mask_column: Column of the masks; null finds it: `mask`, `label`, `annotation`, `segmentation`, `objects`, ...
    """

    download: bool
    image_column: str | None
    mask_column: str | None

    def open(self, seed: int) -> Splits:
        """Read and check all masks and image headers (and pixels, with `check=full`).

        Args:
            seed: Decides which training images become an absent split.

        Raises:
            DataError: the package datasets is not installed, or anything is missing, damaged or inconsistent; names the
                table, the row and the remedy.
        """
        root, folder = self._places()
        tables = find_tables(root, folder)
        ledger = Ledger(self.on_error, self.max_skipped)
        only = next(iter(tables)) if len(tables) == 1 and self.train not in tables else None
        training = self.train if only is None else only
        used: set[str] = set()

        def read(split: str, notes: Notes) -> LabelledImages | None:
            name = training if split == self.train else split
            if name not in tables:
                return None
            if name != split:
                notes.append(f"{split}: taken from the split {name}")
            used.add(name)
            return _read_split(self, root, folder, name, tables[name], ledger, notes)

        # what trains is not held out as well
        val, test = (None if name == only else name for name in (self.val, self.test))
        splits = read_splits(
            read,
            ledger,
            replace(self, val=val, test=test),
            seed=seed,
            place=lambda split: f"{folder}: the split {split!r} (there are {', '.join(tables)})",
        )
        more = Notes()
        for name in tables:
            if name not in used:
                more.found("unused_split", f"the split {name} is not used")
        return splits.with_more(more)

    def _places(self) -> tuple[Path, Path]:
        """What nothing is read outside of, and the directory of the data set in it."""
        if self.download and not Path(self.root).expanduser().exists():
            folder = fetched(self.root).resolve()
            return folder.parents[1], folder  # the files are links into a folder beside that of the snapshots
        try:
            root = data_root(self.root, follow_links=self.follow_links)
        except DataError as error:
            raise DataError(
                f"{error} A data set of the Hugging Face hub is fetched with data.download=true only.", error.kind
            ) from error
        return root, root


def _read_split(
    config: HuggingFace,
    root: Path,
    folder: Path,
    split: str,
    files: tuple[Path, ...],
    ledger: Ledger,
    notes: Notes,
) -> LabelledImages:
    place = str(files[0]) if len(files) == 1 else f"{folder}: split {split}"
    columns = find_columns(schema_of(files), config.image_column, config.mask_column, place)
    table = open_table(root, place, files, [columns.image, columns.mask])
    cells = [Cell(table, row, columns.mask) for row in range(len(table))] if columns.kind == "picture" else []
    rules = settled(config, config.min_area, cells, notes)
    left_out: LeftOut = Counter()

    def read(row: int) -> tuple[LabelledImage, Stored, str | None]:
        image = Cell(table, row, columns.image)
        size = image_size(image)
        stored = read_row(table, row, columns, size, rules)
        check_mask_memory(str(image), len(stored.names), size)
        if config.check == "full":
            check_pixels(image)
        labelled = LabelledImage(f"{split}/{row}", image, size, stored.names, stored.masks, stored.classes)
        return labelled, stored, image.file_name()

    outcomes: list[tuple[LabelledImage, int] | DataError] = []
    names: Counter[str | None] = Counter()
    results = attempt_all(read, range(len(table)))
    for result in results:
        if not isinstance(result, DataError):
            names[result[2]] += 1
            left_out["crowds_left_out", "crowd objects (iscrowd) are not objects"] += result[1].crowds
    unique = None not in names and all(count == 1 for count in names.values())
    for result in results:
        if isinstance(result, DataError):
            outcomes.append(result)
        else:
            image, stored, name = result
            outcomes.append((replace(image, id=f"{split}/{name}") if unique else image, stored.too_small))
    notes.counted(split, left_out)
    return gathered(outcomes, ledger, notes, place=split, min_area=config.min_area)
