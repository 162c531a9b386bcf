"""Prompts and targets of a micro-batch, brought together so that they can be decoded at once, and corrected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lora_sam.core.structures import Prompts
from lora_sam.prompts.clicks import random_click
from lora_sam.training.losses.terms import enlarged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_sam.training.examples import Example


@dataclass(frozen=True)
class PromptBatch:
    """N prompts of one kind on the images of a micro-batch, with their targets; tensors as in `Example`.

    Attributes:
        images: Index of the image of each prompt, int64 [N].
        extents: (height, width) that this image takes in the input frame, int64 [N, 2].
        boxes: [N, 4], or None.
        points: [N, K, 2], or None.
        labels: [N, K], or None.
        mask_inputs: [N, S/4, S/4], or None; NaN for prompts without.
        targets: bool [N, S, S].
        places: [N, R], or None.
        corrected_masks: [N, R], or None.
    """

    images: Tensor
    extents: Tensor
    boxes: Tensor | None
    points: Tensor | None
    labels: Tensor | None
    mask_inputs: Tensor | None
    targets: Tensor
    places: Tensor | None
    corrected_masks: Tensor | None

    @property
    def single_points(self) -> bool:
        """Whether each prompt is one point and nothing else."""
        return self.boxes is None and self.mask_inputs is None and self.points is not None and self.points.shape[1] == 1

    @property
    def rounds(self) -> int:
        """How often each prompt is decoded."""
        return 1 if self.places is None else 1 + self.places.shape[1]

    def chunks(self, size: int) -> Iterator[PromptBatch]:
        """The prompts in order, at most `size` at once."""
        for rows in torch.arange(len(self.images)).split(size):
            yield self.at(rows)

    def at(self, rows: Tensor) -> PromptBatch:
        """The prompts at `rows`, indices or bool [N]."""
        return self._mapped(lambda values: values[rows])

    def to(self, device: torch.device) -> PromptBatch:
        """All tensors on `device`, but for `places`: not every device has numbers of 64 bits."""
        return replace(replace(self, places=None)._mapped(lambda values: values.to(device)), places=self.places)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> PromptBatch:
        changed: dict[str, Any] = {
            name: None if values is None else change(values) for name, values in vars(self).items()
        }
        return PromptBatch(**changed)

    def decoded(self, decode: Callable[[PromptBatch], Tensor]) -> Tensor:
        """What `decode` makes of the prompts, which gets those with a mask and those without apart; first axis N."""
        if self.mask_inputs is None:
            return decode(self)
        absent = self.mask_inputs[:, 0, 0].isnan()
        if not absent.any():
            return decode(self)
        without = decode(replace(self.at(absent), mask_inputs=None))
        whole = without.new_empty(len(absent), *without.shape[1:])
        whole[absent] = without
        if not absent.all():
            whole[~absent] = decode(self.at(~absent))
        return whole

    def corrected(self, low_res_logits: Tensor, round_: int) -> PromptBatch:
        """The prompts of the next round: a click where the prediction is wrong, and for some prompts its logits.

        Args:
            low_res_logits: The prediction, [N, S/4, S/4], without a graph.
            round_: Column of `places` and `corrected_masks`.
        """
        assert self.places is not None
        assert self.corrected_masks is not None
        points, labels = self.points, self.labels
        places = self.places[:, round_].numpy()
        if not np.isnan(places).any():
            added, their_labels = self._clicks(low_res_logits, places)
            points = added if points is None else torch.cat([points, added], dim=1)
            labels = their_labels if labels is None else torch.cat([labels, their_labels], dim=1)
        wanted = self.corrected_masks[:, round_]
        masks = torch.where(wanted[:, None, None], low_res_logits, torch.nan) if wanted.any() else None
        return replace(self, points=points, labels=labels, mask_inputs=masks)

    def _clicks(self, low_res_logits: Tensor, places: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """One click per prompt, inside its image: points [N, 1, 2] and labels [N, 1]."""
        side = self.targets.shape[-1]
        logits = enlarged(low_res_logits, (side, side))
        axis = torch.arange(side, device=logits.device)
        rows, columns = (axis < self.extents[:, number, None] for number in (0, 1))
        predicted = ((logits > 0) & rows[:, :, None] & columns[:, None, :]).cpu().numpy()
        clicks = [
            random_click(mask, target, float(place))
            for mask, target, place in zip(predicted, self.targets.cpu().numpy(), places, strict=True)
        ]
        points = torch.tensor([[[click.x, click.y]] for click in clicks], device=logits.device)
        return points, torch.tensor([[click.label] for click in clicks], device=logits.device)


def alike(examples: Sequence[Example]) -> list[PromptBatch]:
    """The prompts of all examples, those with the same parts, number of points and rounds together."""
    groups: dict[tuple[int | bool, ...], list[PromptBatch]] = {}
    for index, example in enumerate(examples):
        extent = torch.tensor(example.extent)
        for rows, prompts in _prompts(example).kinds():
            points = 0 if prompts.points is None else prompts.points.shape[1]
            batch = PromptBatch(
                images=torch.full((len(rows),), index),
                extents=extent.expand(len(rows), 2),
                boxes=_tensor(prompts.boxes),
                points=_tensor(prompts.points),
                labels=_tensor(prompts.labels),
                mask_inputs=_tensor(prompts.mask_inputs),
                targets=example.targets[rows],
                places=None if example.places is None else example.places[rows],
                corrected_masks=None if example.corrected_masks is None else example.corrected_masks[rows],
            )
            # a click is added for all prompts of a group or for none
            clicks = () if batch.places is None else tuple((~batch.places.isnan()).any(dim=0).tolist())
            kind = prompts.boxes is not None, points, prompts.mask_inputs is not None, batch.rounds, *clicks
            groups.setdefault(kind, []).append(batch)
    return [_joined(batches) for batches in groups.values()]


def on_background(examples: Sequence[Example]) -> PromptBatch | None:
    """The points beside the objects of all examples, with empty targets; None where there are none."""
    batches = []
    for index, example in enumerate(examples):
        if example.background is None or not len(example.background):
            continue
        count, side = len(example.background), example.targets.shape[-1]
        batches.append(
            PromptBatch(
                images=torch.full((count,), index),
                extents=torch.tensor(example.extent).expand(count, 2),
                boxes=None,
                points=example.background.unsqueeze(1),
                labels=torch.ones(count, 1, dtype=torch.int64),
                mask_inputs=None,
                targets=torch.zeros(count, side, side, dtype=torch.bool),
                places=None,
                corrected_masks=None,
            )
        )
    return _joined(batches) if batches else None


def _joined(batches: list[PromptBatch]) -> PromptBatch:
    if len(batches) == 1:
        return batches[0]
    joined: dict[str, Any] = {
        name: None if values is None else torch.cat([getattr(batch, name) for batch in batches])
        for name, values in vars(batches[0]).items()
    }
    return PromptBatch(**joined)


def _prompts(example: Example) -> Prompts:
    return Prompts(
        boxes=_array(example.boxes),
        points=_array(example.points),
        labels=_array(example.labels),
        mask_inputs=_array(example.mask_inputs),
    )


def _array(values: Tensor | None) -> Any:
    return None if values is None else values.numpy()


def _tensor(values: NDArray[np.generic] | None) -> Tensor | None:
    return None if values is None else torch.from_numpy(values)
