"""The back ends: what each one runs, and which one it is compared with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator

from lora_sam.core.unknown import known_name

Runtime = Literal["torch", "openvino"]

TORCH = "torch"
"""What people call the run's own model: tuned, or base without the adapter."""


@dataclass(frozen=True)
class BackEnd:
    """One way to compute masks.

    Attributes:
        name: As users write it.
        runtime: What computes.
        weights: How weights are stored: fp32 for torch; for OpenVINO the directory below `openvino/`.
        execution: Arithmetic, f32 or bf16; pinned, because OpenVINO would choose by the CPU.
        meaning: In a few words.
        references: Back ends that its verdict compares it with; the first that was measured counts.
    """

    name: str
    runtime: Runtime
    weights: Literal["fp32", "fp16", "int8", "int8_weights", "int4_weights"]
    execution: Literal["f32", "bf16"]
    meaning: str
    references: tuple[str, ...] = ()

    @property
    def deployed(self) -> bool:
        """Whether it is something that `base` and `tuned` of the training are turned into."""
        return self.name not in ("base", "tuned")

    @property
    def quantised(self) -> bool:
        """Whether its weights have fewer than 16 bits."""
        return self.weights.startswith("int")


_IR_REFERENCES: tuple[str, ...] = ("fp32", "fp16", "merged", "tuned")

BACK_ENDS: dict[str, BackEnd] = {
    found.name: found
    for found in (
        BackEnd("base", "torch", "fp32", "f32", "torch, before training"),
        BackEnd("tuned", "torch", "fp32", "f32", "torch, base with the adapter"),
        BackEnd("merged", "torch", "fp32", "f32", "torch, adapter folded into the weights", ("tuned",)),
        BackEnd("fp32", "openvino", "fp32", "f32", "OpenVINO, fp32 weights", ("tuned", "merged")),
        BackEnd("fp16", "openvino", "fp16", "f32", "OpenVINO, fp16 weights", ("fp32", "tuned", "merged")),
        BackEnd("bf16", "openvino", "fp16", "bf16", "OpenVINO, fp16 weights, computed in bf16", _IR_REFERENCES),
        BackEnd("int8", "openvino", "int8", "f32", "OpenVINO, int8", _IR_REFERENCES),
        BackEnd("int8_bf16", "openvino", "int8", "bf16", "OpenVINO, int8, the rest computed in bf16", _IR_REFERENCES),
        BackEnd("int8_weights", "openvino", "int8_weights", "f32", "OpenVINO, int8 weights only", _IR_REFERENCES),
        BackEnd("int4_weights", "openvino", "int4_weights", "f32", "OpenVINO, int4 weights only", _IR_REFERENCES),
    )
}
"""All back ends by name, in the order in which they are shown. A row more is a back end more, in commands and app."""


Name = Annotated[str, AfterValidator(known_name(BACK_ENDS))]
"""The name of a back end, as an option."""


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """`names` without repetitions, in the order of `BACK_ENDS`."""
    wanted = set(names)
    return tuple(name for name in BACK_ENDS if name in wanted)


def reference_of(name: str, measured: Iterable[str]) -> str | None:
    """The one of the `measured` back ends that `name` is compared with; None where there is none."""
    there = set(measured)
    return next((other for other in BACK_ENDS[name].references if other in there), None)


Mode = Literal["int8", "int8_weights", "int4_weights"]
