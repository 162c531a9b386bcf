"""Errors that a user can mend; every message names the value, what is allowed and the remedy."""

from __future__ import annotations

from typing import Literal

from lora_sam.core.wording import printable


class LoraSamError(ValueError):
    """Base of all errors caused by user input. Entry points print it as one line, without a traceback.

    Names of files and tensors in it may come from anywhere: what a terminal would act on is shown as escapes.
    """

    def __str__(self) -> str:
        """The message, printable."""
        return printable(super().__str__())


class ConfigError(LoraSamError):
    """A configuration key is unknown, or its value has the wrong type or range."""


DataDefect = Literal[
    "ambiguous_mask",
    "bad_annotation",
    "bad_box",
    "bad_polygon",
    "bad_rle",
    "duplicate_id",
    "empty_mask",
    "image_without_label",
    "label_without_image",
    "missing_file",
    "path_escape",
    "size_mismatch",
    "too_large",
    "unlabelled_image",
    "unreadable_file",
]
"""What can be wrong with one image, mask or annotation, as the data check names it."""


class DataError(LoraSamError):
    """An image, mask or annotation cannot be used; names the file or the annotation id.

    Attributes:
        kind: The defect of that one thing; None for what has no name, and for what is wrong with the data as a whole.
    """

    def __init__(self, message: str, kind: DataDefect | None = None) -> None:
        super().__init__(message)
        self.kind = kind


class CheckpointError(LoraSamError):
    """Base weights are missing, damaged, or belong to another variant."""


class AdapterError(LoraSamError):
    """An adapter or run directory is incomplete, damaged, or was made for another base."""


class TrainingError(LoraSamError):
    """Training cannot go on: repeated non-finite losses, no space left to save, nothing to train."""
