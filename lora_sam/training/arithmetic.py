"""What the last bits of a run depend on beside its settings: kept in each state, and taken up when it is resumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from lora_sam.models.device import Precision
from lora_sam.models.kernels import InferenceKernel, TrainingKernel

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """How a run computes.

    Attributes:
        device: Type of device, as torch calls it.
        machine: What kind of device, as far as its arithmetic depends on it.
        torch: Version of torch.
        threads: Threads that torch computes with.
        processes: Processes that share a batch.
        precision: Arithmetic of the forward pass.
        training: Attention where gradients are needed.
        inference: Attention where they are not.
        checkpointed: Blocks whose activations are made again.
        images: Images that go through the model together.
        prompts: Prompts that are decoded together.
        compared: Where the loss compares masks; None where the run is older than that choice.
    """

    device: str
    machine: str
    torch: str
    threads: int
    processes: int
    precision: Precision
    training: TrainingKernel
    inference: InferenceKernel
    checkpointed: tuple[int, ...]
    images: Count
    prompts: Count
    compared: Literal["low", "input", "points"] | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Arithmetic | None:
        """What a state says; None where it is older than this, or says something else."""
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError:
            return None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def fits(self, device: str) -> bool:
        """Whether its choices can be taken up on a device of this type."""
        return self.device == device


_WHY = {
    "torch": "another is installed",
    "threads": "set OMP_NUM_THREADS to have as many again",
    "processes": "so many were started",
}
_WORDS = {
    "machine": "device",
    "torch": "version of torch",
    "training": "attention in training",
    "inference": "attention in validation",
    "checkpointed": "checkpointed blocks",
    "images": "images at once",
    "prompts": "prompts at once",
    "compared": "size at which masks are compared",
}


def differences(then: Arithmetic | None, now: Arithmetic) -> Iterator[str]:
    """What differs from the run that is resumed, and why, in lines for people; nothing where bits will be the same."""
    if then is None:
        yield (
            "the resumed run does not say how it computed: attention, precision and plan are chosen anew, and the "
            "last bits may be others"
        )
        return
    moved = (then.device, then.machine) != (now.device, now.machine)
    chosen = "the device is another" if moved else "the memory that may be used is another"
    for field in fields(Arithmetic):
        name, before, after = field.name, getattr(then, field.name), getattr(now, field.name)
        if name == "compared" and before is None:  # not said yet, then
            continue
        if before != after and not (name == "device" and then.machine != now.machine):  # which says more
            was, is_ = _told(before), _told(after)
            why = _WHY.get(name, chosen)
            yield f"{_WORDS.get(name, name)}: {was} in the resumed run, {is_} now: {why}; the last bits may be others"


def _told(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
