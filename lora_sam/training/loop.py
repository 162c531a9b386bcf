"""The training loop: batches → gradients → step → validate → save, and on again exactly after an interruption."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.utils.data import DataLoader

from lora_sam.models.stages import blocks_of
from lora_sam.training.averaging import RunningMean
from lora_sam.training.chance import least_rise
from lora_sam.training.examples import collate
from lora_sam.training.fitting import Fitting
from lora_sam.training.gradients import added, average_gradients, count_skipped, gradients_of_batch, stopped_anywhere
from lora_sam.training.out_of_memory import Room
from lora_sam.training.state import Progress, load_state, read_progress, save_state
from lora_sam.training.stopping import Interruption, Pruned, StopRequest, should_stop_early, take_base, update_best

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn
    from torch.optim import Optimizer


@dataclass(frozen=True, kw_only=True)
class Fit(Fitting):
    """One fitting of one model: what it needs, and the loop that runs it."""

    def fit(self, resume_from: Path | None = None, stop: StopRequest | None = None) -> Progress:
        """Train until the limits, early stopping, or a signal; `Progress.finished` tells a signal from the rest.

        Args:
            resume_from: State file of an interrupted run with the same configuration; training ends with the same
                weights as if it had never stopped (bit for bit on a CPU).
            stop: Remembers the signal that ended it.

        Raises:
            Pruned: `should_stop` has ended it.
            KeyboardInterrupt: a signal before the first step, or after all is trained and saved.
            TrainingError: too many steps were not finite, or a checkpoint cannot be written.
        """
        parameters = self.adapted.trainable()
        optimizer = self.optim.build(parameters, blocks_of(self.adapted.sam.image_encoder, parameters))
        decay = self.options.ema_decay
        mean = None if decay is None else RunningMean.of(decay, parameters)
        self._keep_base(Progress() if resume_from is None else read_progress(resume_from), parameters)
        progress = Progress() if resume_from is None else load_state(resume_from, parameters, optimizer, mean)
        if self.base is not None:
            take_base(progress, self.base)
        if resume_from is None and self.base_sums is not None:
            progress.base_sums = [list(part) for part in self.base_sums]
        total = self.options.total_steps(self.batches_per_epoch)
        room = Room(self.at_once or self.options.batch_size, self.prompts or self.options.decoder_chunk)
        progress.arithmetic = dict(self.arithmetic)
        self.display.begin(total)
        if progress.step < total and not should_stop_early(progress, self.options.early_stopping):
            progress.finished = False  # resumed with a higher limit
        if self.base_stays:  # nothing that is trained would be kept
            progress.finished = True
            self._save_last(progress, parameters, optimizer, mean)
            self.display.message(
                f"the weights of step {progress.best_step} are kept and training ends here, because cross-validation "
                "found no gain; a new run with trainer.cross_validate=0 trains all the same"
            )
        with stop or StopRequest() as stop:
            while not progress.finished:
                try:
                    self._epoch(progress, parameters, optimizer, mean, total, stop, room)
                    if stop.signal is None:
                        with nullcontext() if mean is None else mean.in_place(parameters):
                            self._end_epoch(progress, parameters, total, stop)
                except Interruption:  # while encoding or validating, neither of which has changed the state
                    if progress.step == 0:  # nor is there anything to save
                        raise stop.error() from None
                self._save_last(progress, parameters, optimizer, mean)
                if stop.signal is not None:
                    break
        if stop.signal is not None and progress.finished:  # whoever calls would take it for a usual end
            raise stop.error()
        return progress

    def _keep_base(self, progress: Progress, parameters: Mapping[str, nn.Parameter]) -> None:
        """Write the weights as the best, where they are still those of the base and nothing has beaten it so far."""
        if self.base is not None and take_base(progress, self.base):
            self._save("best", Progress(best=self.base, base=self.base), parameters)

    def _interruptible(self, stop: StopRequest) -> AbstractContextManager[None]:
        """A signal ends what is inside at once; of several processes none may leave the others waiting."""
        return stop.at_once() if self.accelerator.num_processes == 1 else nullcontext()

    def _epoch(
        self,
        progress: Progress,
        parameters: Mapping[str, nn.Parameter],
        optimizer: Optimizer,
        mean: RunningMean | None,
        total: int,
        stop: StopRequest,
        room: Room,
    ) -> None:
        """Train to the end of the epoch, to the last step, or to the first step after a signal."""
        if progress.step >= total:  # stopped by a signal after the last step, before its validation
            return
        with self._interruptible(stop):
            self.before_epoch(progress.epoch)
        batches = self.batches(progress.epoch, progress.batch)
        loader = DataLoader(
            self.examples,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=self.options.workers,
            # its own generator: a loader draws a seed when it starts, and a resumed epoch starts one more
            generator=torch.Generator().manual_seed(self.seed),
        )
        self.adapted.train_mode()
        earlier: list[Sequence[tuple[int, int]]] = []  # keys of the batches of this step
        ids: list[str] = []
        sums: dict[str, float] = {}
        clock = time.perf_counter()
        for keys, examples in zip(batches, loader, strict=True):
            sums = added(sums, gradients_of_batch(self, examples, earlier, progress, room))
            earlier.append(keys)
            ids.extend(example.id for example in examples)
            progress.batch += 1
            if progress.batch % self.options.accumulate and progress.batch < self.batches_per_epoch:
                continue
            self._optimizer_step(progress, parameters, optimizer, total, sums, ids)
            earlier, ids, sums = [], [], {}
            if mean is not None:
                mean.update(parameters, progress.step)
            progress.seconds += time.perf_counter() - clock
            self._report(progress, optimizer)
            if stopped_anywhere(stop, self.accelerator) or progress.step >= total:
                break
            if self.options.save_every_steps and progress.step % self.options.save_every_steps == 0:
                self._save_last(progress, parameters, optimizer, mean)
            clock = time.perf_counter()

    def _optimizer_step(
        self,
        progress: Progress,
        parameters: Mapping[str, nn.Parameter],
        optimizer: Optimizer,
        total: int,
        losses: Mapping[str, float],
        ids: Sequence[str],
    ) -> None:
        """One step; skipped, and counted, where loss or gradient is not finite."""
        average_gradients(self.accelerator, parameters)
        limit = math.inf if self.options.clip_norm is None else self.options.clip_norm
        norm = float(torch.nn.utils.clip_grad_norm_(list(parameters.values()), limit))
        if math.isfinite(norm) and math.isfinite(losses["loss"]):
            self.optim.set_rate(optimizer, progress.step, total)
            optimizer.step()
            for name, value in {**losses, "gradient_norm": norm, "count": 1.0}.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value
        else:
            count_skipped(self, progress, losses["loss"], norm, ids)
        optimizer.zero_grad(set_to_none=True)
        progress.step += 1

    def _report(self, progress: Progress, optimizer: Optimizer) -> None:
        self.display.step(progress.step)
        if progress.step % self.options.log_every_steps or not progress.sums.get("count"):
            return
        count = progress.sums.pop("count")
        values = {name: value / count for name, value in progress.sums.items()}
        progress.sums.clear()
        values["learning_rate"] = float(optimizer.param_groups[0]["lr"])
        self.log(progress.step, {"epoch": progress.epoch, "seconds": progress.seconds, **values})
        self.display.values(progress.step, values)

    def _end_epoch(
        self, progress: Progress, parameters: Mapping[str, nn.Parameter], total: int, stop: StopRequest
    ) -> None:
        """Validate where it is due, keep the best weights, decide whether to go on."""
        done = progress.step >= total
        clock = time.perf_counter()
        value = None
        if done or (progress.epoch + 1) % self.options.validate_every_epochs == 0:
            with self._interruptible(stop):
                value = self.validate(progress.step)
        progress.epoch += 1
        progress.batch = 0
        if value is not None:
            if update_best(progress, value, self.options.early_stopping, self._least_rise(progress)):
                self._save("best", progress, parameters)
            self.log(progress.step, {"epoch": progress.epoch, "validation_iou": value})
            self.display.validated(value)
            self.display.message(
                f"epoch {progress.epoch}, step {progress.step}: validation IoU {value:.4f} "
                f"(best {progress.best:.4f} at step {progress.best_step}; {time.perf_counter() - clock:.0f} s)"
                + (": too little above the base to tell" if _kept_back(progress, value) else "")
            )
            if not done and self.should_stop is not None and (reason := self.should_stop(progress.epoch, value)):
                assert progress.best is not None
                raise Pruned(reason, progress.best)
        progress.finished = done or should_stop_early(progress, self.options.early_stopping)
        if progress.finished and not done:
            self.display.message(
                f"stopped early: no gain of {self.options.early_stopping.min_delta} in "
                f"{progress.validations_without_gain} validations"
            )

    def _least_rise(self, progress: Progress) -> float:
        """What the weights just validated have to be above the base."""
        before = tuple((int(count), total) for count, total in progress.base_sums)
        return least_rise(self.options.least_rise, before, self.sums() or ())

    def _save_last(
        self,
        progress: Progress,
        parameters: Mapping[str, nn.Parameter],
        optimizer: Optimizer,
        mean: RunningMean | None,
    ) -> None:
        self._save("last", progress, parameters, optimizer, mean)
        if self.run is not None and self.accelerator.is_main_process:
            self.run.point_latest_here()

    def _save(
        self,
        which: Literal["best", "last"],
        progress: Progress,
        parameters: Mapping[str, nn.Parameter],
        optimizer: Optimizer | None = None,
        mean: RunningMean | None = None,
    ) -> None:
        if self.run is None:
            return
        if self.accelerator.is_main_process:
            path = self.run.best if which == "best" else self.run.last
            save_state(path, progress, parameters, optimizer, mean)
        self.accelerator.wait_for_everyone()


def _kept_back(progress: Progress, value: float) -> bool:
    """Whether a validation above the base leaves the base as the best."""
    return progress.best_step == 0 and progress.base is not None and value > progress.base
