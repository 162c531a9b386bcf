"""Prompt tokens in attention: learned, or made of the mask decoder's tokens while they train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class PromptTokensOptions:
    """See `PromptTokens`."""

    tokens: Annotated[int, Field(ge=1, le=1024)]


class PromptTokens(nn.Module):
    """Learned tokens that every token of a block attends to, in each of its windows: deep visual prompt tuning.

    In VPT-Deep (Jia et al., 2022, equation 5) a block's prompts are dropped behind it, so that all they do is be keys
    and values. See `attended` for what becomes of them here.
    """

    def __init__(self, base: Any, options: PromptTokensOptions) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.randn(options.tokens, base.k.in_features))
        self.gate = nn.Parameter(torch.zeros(base.num_heads))

    def forward(self, base: Any, x: Tensor) -> Tensor:
        """See `attended`."""
        return attended(base, x, self.prompts, self.gate)


@dataclass(frozen=True, kw_only=True)
class BridgedPromptsOptions:
    """See `BridgedPrompts`; `channels` are those of the decoder's tokens."""

    width: Annotated[int, Field(ge=1, le=4096)]
    channels: Annotated[int, Field(ge=1, le=4096)]


class BridgedPrompts(nn.Module):
    """Prompt tokens up(GELU(down(t))) made of the decoder's tokens t: the prompt bridge of CAT-SAM-T.

    In CAT-SAM (Xiao et al., 2024) a token of the decoder is trained, and each block's prompts are made of it: encoder
    and decoder get their gradients through one another. Tokens are normalised first, as their scale is the model's.

    Attributes:
        tokens: The decoder's tokens that train, a module of the model that is none of this layer's; none before it is
            given.
    """

    def __init__(self, base: Any, options: BridgedPromptsOptions) -> None:
        super().__init__()
        self.down = nn.Linear(options.channels, options.width)
        self.up = nn.Linear(options.width, base.k.in_features)
        for layer in (self.down, self.up):  # prompts of the scale of what attention gets, which is normalised
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if layer is self.down else "relu")
            nn.init.zeros_(layer.bias)
        self.gate = nn.Parameter(torch.zeros(base.num_heads))
        self.tokens: tuple[nn.Embedding, ...] = ()

    def prompts(self) -> Tensor:
        """As many prompts [N, C] as the decoder has tokens."""
        (tokens,) = self.tokens
        even = F.layer_norm(tokens.weight, tokens.weight.shape[-1:])
        made: Tensor = self.up(F.gelu(self.down(even)))
        return made

    def forward(self, base: Any, x: Tensor) -> Tensor:
        """See `attended`."""
        return attended(base, x, self.prompts(), self.gate)

    @torch.no_grad()
    def settled(self, base: Any) -> tuple[nn.Module, str, dict[str, Any]]:
        """What it is once trained: prompts that stand for themselves; a layer, its kind and its options."""
        prompts = self.prompts()
        with torch.random.fork_rng(devices=[]):  # to write a model must not change what a run draws next
            made = PromptTokens(base, PromptTokensOptions(tokens=len(prompts)))
        made.prompts.data, made.gate.data = prompts, self.gate.detach().clone()
        return made, "cat_sam", {"tokens": len(prompts)}


def attended(base: Any, x: Tensor, prompts: Tensor, gate: Tensor) -> Tensor:
    """base(x), and the result of attending to prompts [N, C], times tanh of a gate for each head.

    The gate is zero at the start (Zhang et al., LLaMA-Adapter, 2023, equation 6): keys in one softmax with the image's
    would change the base. Prompts have no place, so no relative position counts for them.

    Args:
        base: An attention with `q`, `k`, `v`, `proj` and as many queries as tokens.
        x: What it gets, [B, ..., C].
        prompts: Keys and values.
        gate: [heads].
    """
    y: Tensor = base(x)
    heads = base.num_heads
    q = base.q(base.norm(x) if hasattr(base, "norm") else x).flatten(1, -2)
    k, v = (
        layer(prompts.to(x.dtype)).to(q.dtype).unflatten(-1, (heads, -1)).transpose(0, 1).unsqueeze(0)
        for layer in (base.k, base.v)
    )
    queries = q.unflatten(-1, (heads, -1)).transpose(1, 2)
    weights = (queries @ k.transpose(-2, -1) * queries.shape[-1] ** -0.5).softmax(-1)
    seen = (weights.to(v.dtype) @ v) * gate.tanh().to(v.dtype)[:, None, None]
    return y + F.linear(seen.transpose(1, 2).reshape(y.shape), base.proj.weight.to(seen.dtype)).to(y.dtype)
