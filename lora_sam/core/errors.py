"""Errors that a user can mend; every message names the value, what is allowed and the remedy."""

from __future__ import annotations


class LoraSamError(ValueError):
    """Base of all errors caused by user input. Entry points print it as one line, without a traceback."""


class ConfigError(LoraSamError):
    """A configuration key is unknown, or its value has the wrong type or range."""


class DataError(LoraSamError):
    """An image, mask or annotation cannot be used; names the file or the annotation id."""


class CheckpointError(LoraSamError):
    """Base weights are missing, damaged, or belong to another variant."""


class AdapterError(LoraSamError):
    """An adapter or run directory is incomplete, damaged, or was made for another base."""


class TrainingError(LoraSamError):
    """Training cannot go on: repeated non-finite losses, no space left to save, nothing to train."""
