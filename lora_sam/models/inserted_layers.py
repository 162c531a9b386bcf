"""Small layers that a method puts around a module of the image encoder; each starts as the identity.

A layer is called with the module and with what the module gets. Those with `fold` can become part of the module's
weights, those with `settled` are other layers once trained. Written from the papers; no code of theirs is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lora_sam.models.prompt_layers import BridgedPrompts, BridgedPromptsOptions, PromptTokens, PromptTokensOptions

Width = Annotated[int, Field(ge=1, le=4096)]


class Layer(Protocol):
    """What is put around a module."""

    def __call__(self, base: nn.Module, x: Tensor) -> Tensor:
        """What comes out of `base` for `x`, changed."""
        ...


def widths(base: nn.Module) -> tuple[int, int]:
    """Channels that come into a module and that come out of it."""
    if isinstance(base, nn.LayerNorm):
        return base.normalized_shape[-1], base.normalized_shape[-1]
    linears = [module for module in base.modules() if isinstance(module, nn.Linear)]
    return linears[0].in_features, linears[-1].out_features


class Bottleneck(nn.Module):
    """Down to a few channels, an activation, up again; zero at the start."""

    def __init__(self, inside: int, width: int, outside: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(inside, width), nn.Linear(width, outside)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, activation: Any) -> Tensor:
        """[..., C] to [..., C']."""
        y: Tensor = self.up(activation(self.down(x)))
        return y


@dataclass(frozen=True, kw_only=True)
class ParallelOptions:
    """See `Parallel`."""

    width: Width
    scale: Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)]


class Parallel(Bottleneck):
    """base(x) + s up(ReLU(down(x))): AdaptFormer (Chen et al., 2022, equation 2).

    `x` is what the module gets. In a plain ViT and in SAM 2 that is normalised; in TinyViT the MLP normalises itself.
    """

    def __init__(self, base: nn.Module, options: ParallelOptions) -> None:
        inside, outside = widths(base)
        super().__init__(inside, options.width, outside)
        self.scale = options.scale

    def forward(self, base: nn.Module, x: Tensor) -> Tensor:  # type: ignore[override]
        """See the class."""
        y: Tensor = base(x)
        return y + self.scale * super().forward(x, F.relu).to(y.dtype)


@dataclass(frozen=True, kw_only=True)
class SerialOptions:
    """See `Serial`."""

    width: Width


class Serial(Bottleneck):
    """y + up(GELU(down(y))) with y = base(x): a bottleneck adapter (Houlsby et al., 2019, figure 2)."""

    def __init__(self, base: nn.Module, options: SerialOptions) -> None:
        _, outside = widths(base)
        super().__init__(outside, options.width, outside)

    def forward(self, base: nn.Module, x: Tensor) -> Tensor:  # type: ignore[override]
        """See the class."""
        y: Tensor = base(x)
        return y + super().forward(y, F.gelu).to(y.dtype)


@dataclass(frozen=True, kw_only=True)
class ScaleShiftOptions:
    """See `ScaleShift`."""


class ScaleShift(nn.Module):
    """g base(x) + b, channel by channel: SSF (Lian et al., 2022, equation 2). Folds into Linear and LayerNorm."""

    def __init__(self, base: nn.Module, options: ScaleShiftOptions) -> None:
        super().__init__()
        _, outside = widths(base)
        self.scale, self.shift = nn.Parameter(torch.ones(outside)), nn.Parameter(torch.zeros(outside))

    def forward(self, base: nn.Module, x: Tensor) -> Tensor:
        """See the class."""
        y: Tensor = base(x)
        return y * self.scale.to(y.dtype) + self.shift.to(y.dtype)

    def fold(self, base: Any) -> None:
        """Change the weights of `base` to what both compute, in place."""
        scale = self.scale.to(base.weight)
        base.weight.mul_(scale[:, None] if base.weight.ndim == 2 else scale)
        if base.bias is None:
            raise ValueError("a layer without a bias takes no shift")
        base.bias.mul_(scale).add_(self.shift.to(base.bias))


@dataclass(frozen=True, kw_only=True)
class ConvExpertsOptions:
    """See `ConvExperts`."""

    width: Width
    alpha: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
    scales: Annotated[tuple[Annotated[int, Field(ge=1, le=8)], ...], Field(min_length=1, max_length=8)]


class ConvExperts(nn.Module):
    """base(x) + (alpha / r) B (A x + sum over i of g_i E_i(A x)): Conv-LoRA (Zhong et al., 2024, equation 3).

    An expert E enlarges the map by its factor, convolves it 3 x 3 and makes it small again. The gate g is a softmax of
    the mean of A x over the map. The paper takes the best expert alone, with noise and a loss that balances them; here
    all take part, so that a step depends on nothing that is drawn.
    """

    def __init__(self, base: nn.Module, options: ConvExpertsOptions) -> None:
        super().__init__()
        inside, outside = widths(base)
        self.scales, self.factor = options.scales, options.alpha / options.width
        self.down, self.up = nn.Linear(inside, options.width, bias=False), nn.Linear(options.width, outside, bias=False)
        self.gate = nn.Linear(options.width, len(options.scales))
        self.experts = nn.ModuleList(nn.Conv2d(options.width, options.width, 3, padding=1) for _ in options.scales)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, base: nn.Module, x: Tensor) -> Tensor:
        """See the class; `x` is [B, H, W, C], or [B, N, C] of a square window."""
        y: Tensor = base(x)
        narrow = self.down(x)
        square = narrow if narrow.ndim == 4 else narrow.unflatten(1, (math.isqrt(narrow.shape[1]), -1))
        planes = square.permute(0, 3, 1, 2)
        gates = self.gate(planes.mean((2, 3))).softmax(-1).to(planes.dtype)
        mixed = planes
        for index, (scale, expert) in enumerate(zip(self.scales, self.experts, strict=True)):
            mixed = mixed + gates[:, index, None, None, None] * _at_scale(expert, planes, scale)
        update: Tensor = self.up(mixed.permute(0, 2, 3, 1).reshape(narrow.shape))
        return y + self.factor * update.to(y.dtype)


def _at_scale(expert: nn.Module, planes: Tensor, scale: int) -> Tensor:
    if scale == 1:
        same: Tensor = expert(planes)
        return same
    size = planes.shape[2:]
    large = F.interpolate(planes, scale_factor=float(scale), mode="bilinear", align_corners=False)
    convolved: Tensor = expert(large)
    return F.interpolate(convolved, size=size, mode="bilinear", align_corners=False)


@dataclass(frozen=True, kw_only=True)
class SingularValuesOptions:
    """See `SingularValues`."""

    top: Width
    width: Width


class SingularValues(nn.Module):
    """The largest singular values scaled and shifted, a low rank beside them: SALT (Elsayed et al., 2025, equation 4).

    W' = W + U1 diag((g - 1) s + b) V1' + (1 - U1 U1') B A (1 - V1 V1'): what is added to the rest of the spectrum stays
    out of the space of the largest values, as it does in the paper. As B A of a rank it is LoRA, and is saved as that:
    nobody has to find the same singular vectors again.
    """

    left: Tensor
    right: Tensor
    values: Tensor

    def __init__(self, base: Any, options: SingularValuesOptions) -> None:
        super().__init__()
        top = min(options.top, *base.weight.shape)
        left, values, right = torch.linalg.svd(base.weight.detach().double(), full_matrices=False)
        for name, value in (("left", left[:, :top]), ("values", values[:top]), ("right", right[:top])):
            self.register_buffer(name, value.to(base.weight.dtype).contiguous(), persistent=False)
        self.scale, self.shift = nn.Parameter(torch.ones(top)), nn.Parameter(torch.zeros(top))
        self.a = nn.Parameter(torch.empty(options.width, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, options.width))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def factors(self) -> tuple[Tensor, Tensor]:
        """A [r, in] and B [out, r] of what is added to the weight."""
        a = torch.cat([self.right, self.a - (self.a @ self.right.T) @ self.right])
        spectrum = (self.scale - 1) * self.values + self.shift
        return a, torch.cat([self.left * spectrum, self.b - self.left @ (self.left.T @ self.b)], dim=1)

    def forward(self, base: nn.Module, x: Tensor) -> Tensor:
        """See the class."""
        y: Tensor = base(x)
        a, b = self.factors()
        return y + F.linear(F.linear(x.to(a.dtype), a), b).to(y.dtype)

    def fold(self, base: Any) -> None:
        """Change the weights of `base` to what both compute, in place."""
        a, b = self.factors()
        base.weight.add_((b @ a).to(base.weight))


@dataclass(frozen=True)
class Kind:
    """A layer by its name in files.

    Attributes:
        make: The layer, for the module that it is put around and its options.
        options: Class of the options.
        around: What it is put around: any of `linear`, `norm`, `mlp`, `attention`.
        sizes: Options that say how large tensors are, each with a parameter of the layer and its axis of that size.
    """

    make: Any
    options: type[Any]
    around: tuple[str, ...]
    sizes: Mapping[str, tuple[str, int]]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "adaptformer": Kind(Parallel, ParallelOptions, ("mlp",), {"width": ("down.weight", 0)}),
        "serial_adapter": Kind(Serial, SerialOptions, ("linear",), {"width": ("down.weight", 0)}),
        "ssf": Kind(ScaleShift, ScaleShiftOptions, ("linear", "norm"), {}),
        "conv_lora": Kind(ConvExperts, ConvExpertsOptions, ("linear",), {"width": ("down.weight", 0)}),
        "vpt": Kind(PromptTokens, PromptTokensOptions, ("attention",), {"tokens": ("prompts", 0)}),
        "cat_sam": Kind(PromptTokens, PromptTokensOptions, ("attention",), {"tokens": ("prompts", 0)}),
        "cat_sam_bridge": Kind(BridgedPrompts, BridgedPromptsOptions, ("attention",), {}),
        "salt": Kind(SingularValues, SingularValuesOptions, ("linear",), {"width": ("a", 0), "top": ("scale", 0)}),
    }
)
