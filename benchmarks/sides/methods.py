"""Train one method on one small set and score it: a cell of the table of methods."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.settings import settings_for
from lora_sam.core.seeds import generator_for
from lora_sam.core.structures import Prompts, Sample
from lora_sam.data.splits import Subset
from lora_sam.evaluation.clicks import iou_after_clicks
from lora_sam.evaluation.metrics import mask_iou
from lora_sam.evaluation.scoring import some_objects
from lora_sam.methods.eva import start_from_images
from lora_sam.models.decoding import decode_masks
from lora_sam.models.inserted import describe
from lora_sam.predictors.torch_predictor import TorchPredictor
from lora_sam.runs.adapter_files import adapter_bytes
from lora_sam.training.comparing import settled
from lora_sam.training.examples import Example, TrainingExamples
from lora_sam.training.step import accumulate_gradients

CLICKS = 3
NEVER = 2.0
"""An IoU that no mask reaches: every object gets all its clicks."""

Rows = list[list[float]]
"""Of each test image its objects, and their mean IoU with a tight box and after the last click."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is trained and scored in a cell.

    Attributes:
        side: Of the input frame in pixels.
        train: Training images.
        test: Test images.
        objects: Most objects of an image, in training and test.
        steps: Optimiser steps of one image each.
    """

    side: int
    train: int
    test: int
    objects: int
    steps: int


class Bench:
    """The base, and the sets as they were asked for last: each is read once for all methods.

    Args:
        model: Option of `conf/model`.
        sizes: How much is trained and scored.
    """

    def __init__(self, model: str, sizes: Sizes) -> None:
        self.settings = settings_for(f"model={model}", "augmentation=none", "prompt=box")
        self.sizes = sizes
        self.base: Any = dataclasses.replace(self.settings.model, image_size=sizes.side).build()  # type: ignore[type-var]
        self._sets: dict[tuple[Any, int], tuple[list[Example], list[Sample]]] = {}
        self._losses: dict[tuple[Any, int], Any] = {}
        self._encoded: dict[tuple[str, str], torch.Tensor] = {}

    def data(self, options: Any, seed: int) -> tuple[list[Example], list[Sample]]:
        """Training examples of a seed, and test images, which are the same for all seeds."""
        key = (options, seed)
        if key not in self._sets:
            sizes, few, tests = self.sizes, options.open(seed).train, options.open(0).test
            # where test has fewer images than are wanted, some of the training images test, whatever the seed
            lent = max(0, min(sizes.test - len(tests), len(few) - sizes.train))
            places = generator_for(0, "lent").permutation(min(len(few), 1000))
            chosen = generator_for(seed, "shots").permutation(places[lent:])[: sizes.train]
            source = Subset(few, tuple(sorted(int(index) for index in chosen)))
            made = TrainingExamples(
                source,
                self.settings.prompt,
                self.settings.augmentation,
                frame=_frame(self.base),
                seed=seed,
                max_objects=sizes.objects,
            )
            every = [tests[index] for index in range(min(len(tests), sizes.test))]
            every += [few[int(index)] for index in places[:lent]]
            samples = [some_objects(sample, sizes.objects, 0) for sample in every]
            self._losses[key], _ = settled(self.settings.loss, source, _frame(self.base), seed)
            self._sets = {key: ([made[0, index] for index in range(len(source))], samples)}
            self._encoded = {}
        return self._sets[key]

    def score(self, sam: Any, samples: Sequence[Sample]) -> Rows:
        """Boxes and clicks on the test images."""
        predictor = TorchPredictor(sam.eval(), self.base.image_size, scores=self.base.scores)
        rows = []
        for sample in samples:
            boxed = _boxed(predictor, sample)
            clicked = iou_after_clicks(predictor, sample, most=CLICKS, until=NEVER)[:, -1]
            rows.append([len(boxed), round(float(np.mean(boxed)), 6), round(float(np.mean(clicked)), 6)])
        return rows

    def cell(self, method: Any, options: Any, seed: int, optim: Any) -> dict[str, Any]:
        """Train `method` on a set, and score it: the cell of a table, ready for JSON."""
        adapted, seconds = self._trained(method, options, seed, optim)
        rows = self.score(adapted.sam, self.data(options, seed)[1])
        with tempfile.TemporaryDirectory() as place_of_files:
            adapted.save(Path(place_of_files))
            size = adapter_bytes(Path(place_of_files))
        trained = sum(parameter.numel() for parameter in adapted.trainable().values())
        adapted.peft.requires_grad_(False)
        before = self._probe(adapted.sam)
        merged = adapted.merge()
        return {
            "rows": rows,
            "trained": trained,
            "bytes": size,
            "cpu_seconds": round(seconds, 2),
            "folds": describe(merged) is None,
            "merge_difference": float((self._probe(merged) - before).abs().max()),
        }

    def boxed(self, method: Any, options: Any, seed: int, optim: Any) -> float:
        """Train `method` on a set: the mean IoU of the objects of its test images with tight boxes."""
        adapted, _ = self._trained(method, options, seed, optim)
        predictor = TorchPredictor(adapted.sam.eval(), self.base.image_size, scores=self.base.scores)
        of_images = [_boxed(predictor, sample) for sample in self.data(options, seed)[1]]
        return float(np.concatenate(of_images).mean())

    def _trained(self, method: Any, options: Any, seed: int, optim: Any) -> tuple[Any, float]:
        """The base with `method`, trained; CPU-seconds that took."""
        examples, _ = self.data(options, seed)
        torch.manual_seed(seed)
        adapted = method.apply(copy.deepcopy(self.base.sam))
        start = time.process_time()
        if adapted.eva:
            start_from_images(adapted, [example.image for example in examples if example.image is not None])
        stage = adapted.frozen_stage
        if stage is not None:
            examples = [self._with_encoded(adapted, stage, example) for example in examples]
        parameters = adapted.trainable()
        optimizer = optim.build(parameters)
        adapted.train_mode()
        for step in range(self.sizes.steps):
            epoch, place = divmod(step, len(examples))
            order = generator_for(seed, "order", epoch).permutation(len(examples))
            optim.set_rate(optimizer, step, self.sizes.steps)
            optimizer.zero_grad()
            accumulate_gradients(
                adapted,
                self._losses[options, seed],
                [examples[order[place]]],
                chunk=16,
                multimask_points=False,
                scale=1.0,
                autocast=torch.autocast("cpu", enabled=False),
            )
            torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimizer.step()
        return adapted, time.process_time() - start

    def _with_encoded(self, adapted: Any, stage: Any, example: Example) -> Example:
        """The example with what the frozen part of the encoder makes of it, which is the base's and kept."""
        key = (stage.name, example.id)
        if key not in self._encoded:
            assert example.image is not None
            with torch.no_grad():
                self._encoded[key] = stage.of(adapted.sam.image_encoder, example.image.unsqueeze(0))[0]
        return dataclasses.replace(example, image=None, encoded=self._encoded[key])

    def _probe(self, sam: Any) -> torch.Tensor:
        """Logits of a seeded image, of which a merged model has to give the same."""
        side = self.base.image_size
        with torch.no_grad():
            embedding = sam.eval().image_encoder(
                torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
            )
            box = torch.tensor([[0.2, 0.2, 0.7, 0.6]]) * side
            return decode_masks(sam, embedding, boxes=box, points=None, labels=None)[0]


def _boxed(predictor: TorchPredictor, sample: Sample) -> NDArray[np.float64]:
    """IoU of each object with its tight box, [N]."""
    return mask_iou(predictor.predict(sample.image, Prompts(boxes=sample.boxes)).masks, sample.masks)


def _frame(base: Any) -> Any:
    from lora_sam.models.family import frame_of

    return frame_of(base.sam)
