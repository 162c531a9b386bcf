"""What is to be known before weights are used that are not free."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

TERMS: Mapping[str, str] = MappingProxyType(
    {
        "sam3": (
            "the weights of SAM 3 are Meta's, under the SAM License: not an open-source licence; no military use or "
            "weapons, what is derived from them stays under it and ships its text. They are gated: accept it first at "
            "https://huggingface.co/facebook/sam3"
        )
    }
)
"""By the name of the family; said before published weights are downloaded, and in the model card of what was tuned."""


def terms_of(architecture: Mapping[str, Any]) -> str | None:
    """Those of a model with this architecture, as saved beside an adapter; None where its weights are free."""
    return TERMS.get(str(architecture.get("family")))
