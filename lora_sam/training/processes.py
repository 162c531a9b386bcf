"""The processes of a run: where they compute, how, and which of them talks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator
    from rich.console import Console

    from lora_sam.models.attention.choice import AttentionChoice
    from lora_sam.models.device import Precision
    from lora_sam.training.arithmetic import Arithmetic
    from lora_sam.training.losses import Loss
    from lora_sam.training.options import TrainerOptions
    from lora_sam.training.planning.plan import Plan


@dataclass(frozen=True)
class Processes:
    """Where a run computes, and its voice.

    Attributes:
        accelerator: Device, and the other processes of the run.
        precision: Arithmetic of the forward pass.
        console: Where people are told, beside standard output.
    """

    accelerator: Accelerator
    precision: Precision
    console: Console

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks."""
        return bool(self.accelerator.is_main_process)

    def say(self, text: str) -> None:
        """One line for people, from the main process only."""
        if self.main:
            self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def arithmetic(self, attention: AttentionChoice, plan: Plan, loss: Loss) -> Arithmetic:
        """How a run that is ready will compute."""
        import torch

        from lora_sam.models.attention.choice import device_name
        from lora_sam.training.arithmetic import Arithmetic

        device = self.accelerator.device
        return Arithmetic(
            device=device.type,
            machine=device_name(device),
            torch=torch.__version__,
            threads=torch.get_num_threads(),
            processes=self.accelerator.num_processes,
            precision=plan.precision,
            training=attention["training"],
            inference=attention["inference"],
            checkpointed=tuple(sorted(plan.checkpointed)),
            images=plan.at_once,
            prompts=plan.prompts,
            compared=None if loss.resolution == "auto" else loss.resolution,
        )


def join_processes(options: TrainerOptions, then: Arithmetic | None = None) -> Processes:
    """Device and precision as the options say, and the other processes where there are some.

    Args:
        options: Those of the trainer.
        then: How the run that is resumed computed.
    """
    from rich.console import Console

    from lora_sam.models.device import pick_device, pick_precision

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import broadcast_object_list

    device = pick_device(options.device)
    precision = pick_precision(options.precision, device)
    if then is not None and then.fits(device.type) and options.precision == "auto":
        precision = then.precision
    AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(cpu=device.type == "cpu")
    if accelerator.num_processes > 1:  # each has measured for itself
        (precision,) = broadcast_object_list([precision])
    return Processes(accelerator, precision, Console(stderr=True))
