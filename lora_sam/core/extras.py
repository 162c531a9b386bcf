"""Packages that only a part of the product needs, as in pyproject.toml, and what to type where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from lora_sam.core.errors import ConfigError

EXTRAS: dict[str, tuple[str, ...]] = {
    "app": ("gradio",),
    "deploy": ("openvino", "nncf"),
    "onnx": ("onnx",),
}
"""Packages of each extra, by the name under which they are both installed and imported."""


def require_extra(extra: str, purpose: str) -> None:
    """Raise `ConfigError` where a package of the extra is not installed; nothing is imported.

    Args:
        extra: Key of `EXTRAS`.
        purpose: What needs it, the beginning of the message.
    """
    missing = [name for name in EXTRAS[extra] if find_spec(name) is None]
    if missing:
        packages, verb = ("package", "is") if len(missing) == 1 else ("packages", "are")
        raise ConfigError(
            f"{purpose}: needs the {packages} {' and '.join(missing)}, which {verb} not installed: "
            f"pip install {' '.join(missing)}"
        )
