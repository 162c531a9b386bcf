"""The version of this package, in the one place that every room may read."""

__version__ = "0.2.0"  # as in pyproject.toml
