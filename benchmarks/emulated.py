"""bf16 on a processor without instructions for it: products made in fp32 of small pieces, with the tensors of bf16.

Without, torch takes up to a hundred times as long. What is kept has the same types and sizes, so that memory can be
measured anywhere; of the time nothing can be said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lora_sam.models.precision_choice import PROBES

ROWS = 512
"""Of a product at once: pieces in fp32 are a few MB."""

_OPS = torch.ops.aten
_CONVOLUTIONS = (_OPS.convolution.default, _OPS.convolution_overrideable.default, _OPS.convolution_backward.default)


def has_bf16() -> bool:
    """Whether this processor has instructions for bf16."""
    return any(bool(getattr(torch.cpu, probe, bool)()) for probe in PROBES)


def where_needed(device: str, precision: str) -> AbstractContextManager[Any]:
    """A context that emulates bf16, where it is computed on a processor that cannot."""
    return cast("Any", Emulated)() if device == "cpu" and precision == "bf16" and not has_bf16() else nullcontext()


class Emulated(TorchDispatchMode):
    """See the module."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Products and convolutions of bf16 by way of fp32, all else as it is."""
        of_bf16 = any(isinstance(one, Tensor) and one.dtype == torch.bfloat16 for one in args)
        if of_bf16 and func in _PRODUCTS:
            return _PRODUCTS[func](*args, **(kwargs or {}))
        if of_bf16 and func in _CONVOLUTIONS:
            found = func(*(_wide(one) for one in args), **(kwargs or {}))
            return tuple(map(_narrow, found)) if isinstance(found, tuple) else _narrow(found)
        return func(*args, **(kwargs or {}))


def _mm(a: Tensor, b: Tensor) -> Tensor:
    out, wide = a.new_empty(a.shape[0], b.shape[1]), b.float()
    for start in range(0, len(a), ROWS):
        out[start : start + ROWS] = a[start : start + ROWS].float() @ wide
    return out


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    out, wide = a.new_empty(a.shape[0], b.shape[1]), b.float()
    for start in range(0, len(a), ROWS):
        part = bias if bias.ndim < 2 or len(bias) == 1 else bias[start : start + ROWS]
        rows = a[start : start + ROWS].float()
        out[start : start + ROWS] = torch.addmm(part.float(), rows, wide, beta=beta, alpha=alpha)
    return out


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    out = a.new_empty(a.shape[0], a.shape[1], b.shape[2])
    for place, (one, other) in enumerate(zip(a, b, strict=True)):
        out[place] = _mm(one, other)
    return out


_PRODUCTS: dict[Any, Callable[..., Tensor]] = {
    _OPS.mm.default: _mm,
    _OPS.addmm.default: _addmm,
    _OPS.bmm.default: _bmm,
}


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


def _narrow(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, Tensor) else value
