"""A Linear whose frozen weight is held in bf16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class HeldLinear(nn.Linear):
    """A Linear whose weight is bf16 and frozen; the bias is what it was, and may train.

    Autocast uses the weight as it is. Without, it is made as exact as the input for the product, and again for the
    backward pass: nothing of it is kept.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out], of the type that the Linear gave."""
        if torch.is_autocast_enabled(x.device.type):
            return F.linear(x, self.weight, self.bias)
        out: Tensor = _Product.apply(x, self.weight)
        return out if self.bias is None else out + self.bias


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(x, weight.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return gradients[0] @ weight.to(gradients[0].dtype), None
