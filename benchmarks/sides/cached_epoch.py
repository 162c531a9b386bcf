"""One side of training the mask decoder alone: from cached embeddings, or encoding every image at every step."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.settings import settings_for

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lora_sam.data.sources import SampleSource
    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.models.base_model import BaseModel
    from lora_sam.models.device import Precision
    from lora_sam.predictors.embeddings.images import EncodedSplit
    from lora_sam.training.encoding import Encodings
    from lora_sam.training.examples import TrainingExamples
    from lora_sam.training.settings import Settings

READS = 20  # of every row, to time how long one takes
OTHER_NUMBERS = 2**24  # float32 between two reads


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the answer of the side that was asked for."""
    sides: dict[str, Callable[[Settings], dict[str, Any]]] = {
        "compare": compare,
        "ours": re_encoding,
        "predictor": predictor,
        "reopen": reopen,
    }
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("cached", *sides))
    parser.add_argument("--data", type=Path, required=True, help="a COCO set")
    parser.add_argument("--cache", type=Path, required=True, help="directory of the embedding cache")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args(arguments)
    torch.set_num_threads(given.threads)
    settings = decoder_settings(given.data, given.cache, given.overrides)
    print(json.dumps(cached(settings, given.epochs) if given.side == "cached" else sides[given.side](settings)))
    return 0


def decoder_settings(data: Path, cache: Path, overrides: Sequence[str]) -> Settings:
    """Settings that train the mask decoder on a COCO set with an embedding cache of its own."""
    return settings_for(
        "method=decoder", "loss=sam", "loss.resolution=low", "data=coco", f"data.root={data}", "data.few_images=0",
        f"cache.directory={cache}", *overrides,
    )  # fmt: skip


@dataclass(frozen=True)
class Training:
    """A model, its data and its optimiser.

    Attributes:
        settings: What was set.
        base: Which base it is.
        adapted: The model that trains.
        source: The training images.
        optimizer: Over what trains.
        precision: Arithmetic of the forward pass.
    """

    settings: Settings
    base: BaseModel
    adapted: AdaptedSam
    source: SampleSource
    optimizer: Optimizer
    precision: Precision

    @classmethod
    def of(cls, settings: Settings) -> Training:
        """A fresh one; the same weights every time."""
        from lora_sam.models.device import pick_precision

        torch.manual_seed(settings.seed)
        base = settings.model.build()
        adapted: AdaptedSam = settings.method.apply(base.sam)
        adapted.train_mode()
        precision = pick_precision(settings.trainer.precision, torch.device("cpu"))
        source = settings.data.open(settings.seed).train
        return cls(settings, base, adapted, source, settings.optim.build(adapted.trainable()), precision)

    def examples(self, encoded: EncodedSplit | None) -> TrainingExamples:
        """The training examples; of images, or of what was made of them."""
        from lora_sam.training.examples import TrainingExamples

        settings = self.settings
        return TrainingExamples(
            self.source,
            settings.prompt,
            settings.augmentation,
            frame=self.settings.model.frame,
            seed=settings.seed,
            max_objects=settings.data.max_objects_per_image,
            encoded=encoded,
        )

    def encodings(self) -> Encodings:
        """What a run encodes once."""
        from lora_sam.training.encoding import Encodings

        stage = self.adapted.frozen_stage
        assert stage is not None
        return Encodings(self.adapted, self.base, stage, self.settings.cache, lambda text: print(text, file=sys.stderr))

    def epoch(self, examples: TrainingExamples, number: int, epochs: int) -> dict[str, list[float]]:
        """An epoch as the training loop goes through it.

        Returns:
            For every step its `losses`, its `seconds` from loading to the new weights, and in `hits` the share of its
            images that came from the cache.
        """
        from lora_sam.models.device import autocast
        from lora_sam.training.examples import EpochBatches
        from lora_sam.training.step import accumulate_gradients

        options = self.settings.trainer
        found: dict[str, list[float]] = {"losses": [], "seconds": [], "hits": []}
        batches = EpochBatches(len(examples), batch_size=options.batch_size, seed=self.settings.seed, epoch=number)
        for step, keys in enumerate(batches, number * len(batches)):
            start = time.perf_counter()
            batch = [examples[key] for key in keys]
            parts = accumulate_gradients(
                self.adapted,
                self.settings.loss,
                batch,
                chunk=options.decoder_chunk,
                multimask_points=options.multimask_points,
                scale=1.0,
                autocast=autocast(torch.device("cpu"), self.precision),
            )
            parameters = self.adapted.trainable().values()
            torch.nn.utils.clip_grad_norm_(parameters, options.clip_norm or float("inf"))
            self.settings.optim.set_rate(self.optimizer, step, epochs * len(batches))
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            found["seconds"].append(time.perf_counter() - start)
            found["losses"].append(parts["loss"])
            found["hits"].append(sum(example.encoded is not None for example in batch) / len(batch))
        return found


def cached(settings: Settings, epochs: int) -> dict[str, Any]:
    """Epochs with the embedding cache, which is empty at first, as a run goes through them.

    Returns:
        `build_seconds`, what it took to encode before each epoch, the first with the digests of all images;
        `step_seconds` and `hits` by epoch; `fetch_seconds` of single rows; `row_bytes`; `images`; `precision`.
    """
    training = Training.of(settings)
    encodings = training.encodings()
    start = time.perf_counter()
    split = encodings.training(training.source, settings.augmentation, settings.seed)
    examples = training.examples(split)
    build, measured = [], []
    for epoch in range(epochs):
        encodings.before_epoch(epoch)
        build.append(time.perf_counter() - start)
        measured.append(training.epoch(examples, epoch, epochs))
        start = time.perf_counter()
    fetches = []
    others = torch.zeros(OTHER_NUMBERS)
    for _ in range(READS):
        for index in range(len(training.source)):
            others.add_(1)  # as a step does, it leaves nothing of the row in the processor's caches
            start = time.perf_counter()
            split.read(epochs - 1, index)
            fetches.append(time.perf_counter() - start)
    row_bytes = 0 if split.store is None else split.store.spec.row_bytes
    encodings.close()
    return {
        "build_seconds": build,
        "step_seconds": [epoch["seconds"] for epoch in measured],
        "hits": [epoch["hits"] for epoch in measured],
        "losses": measured[-1]["losses"],
        "fetch_seconds": fetches,
        "row_bytes": row_bytes,
        "images": len(training.source),
        "precision": training.precision,
    }


def re_encoding(settings: Settings) -> dict[str, Any]:
    """An epoch of `trainer.cache=off`; `step_seconds` and `precision`."""
    training = Training.of(settings)
    found = training.epoch(training.examples(None), 0, 1)
    return {"step_seconds": found["seconds"], "losses": found["losses"], "precision": training.precision}


def predictor(settings: Settings) -> dict[str, Any]:
    """An epoch of the loop around `SamPredictor`, on the same images and prompts; `step_seconds`."""
    losses, seconds = _predictor_epoch(settings, None)
    return {"step_seconds": seconds, "losses": losses, "precision": "fp32"}


def compare(settings: Settings) -> dict[str, Any]:
    """The losses in fp32 of one epoch from the cache, of the same without it, and of `SamPredictor`'s first step."""
    settings = _in_fp32(settings)
    first = Training.of(settings)
    encodings = first.encodings()
    split = encodings.training(first.source, settings.augmentation, settings.seed)
    encodings.before_epoch(0)
    from_cache = first.epoch(first.examples(split), 0, 1)
    encodings.close()
    second = Training.of(settings)
    without = second.epoch(second.examples(_without_store(split)), 0, 1)
    others, _ = _predictor_epoch(settings, 1)
    return {
        "cached": from_cache["losses"],
        "hits": from_cache["hits"],
        "re_encoding": without["losses"],
        "predictor": others,
    }


def reopen(settings: Settings) -> dict[str, Any]:
    """How often the image encoder runs when images are opened in a predictor for the second time.

    Returns:
        `encoded`, its runs for the first opening of every training image; `remembered`, its runs at a second opening
        while the predictor remembers them; `forgotten`, its runs once it has forgotten them and the cache has rows;
        `difference`, the largest difference between an embedding from the cache and one that was made anew.
    """
    from lora_sam.predictors.torch_predictor import ImageEmbedder, TorchPredictor

    training = Training.of(settings)
    sam, side = training.base.sam.eval(), training.base.image_size
    runs = 0

    def count(*_: object) -> None:
        nonlocal runs
        runs += 1

    first, second = (training.source[index].image for index in range(2))
    sam.image_encoder.register_forward_hook(count)
    plain = TorchPredictor(sam, side)
    plain.set_image(first)
    plain.set_image(second)
    opened = runs
    plain.set_image(first)
    remembered = runs - opened
    encodings = training.encodings()
    frozen = encodings.frozen(training.source, "training", exact=True)
    assert frozen is not None
    served = TorchPredictor(sam, side, embedder=ImageEmbedder(sam, frozen=frozen))
    before = runs
    for image in (first, second, first):
        served.set_image(image)
    served.forget()
    served.set_image(first)
    forgotten = runs - before
    difference = float((served.embedder.embed(first) - plain.embedder.embed(first)).abs().max())
    encodings.close()
    return {"encoded": opened, "remembered": remembered, "forgotten": forgotten, "difference": difference}


def _predictor_epoch(settings: Settings, most: int | None) -> tuple[list[float], list[float]]:
    """Losses and seconds of the first steps of an epoch with `SamPredictor`; of all for None."""
    from benchmarks.sides import tutorial
    from lora_sam.data.transforms import masks_to_input_frame
    from lora_sam.predictors.embeddings.images import EncodedSplit
    from lora_sam.training.examples import EpochBatches

    training = Training.of(settings)
    # without rows it still says how our sides look at an image
    views = EncodedSplit(
        None, (), tuple(training.source.ids), settings.augmentation, settings.cache.views, settings.seed
    )
    examples = training.examples(views)
    step = tutorial.decoder_step(tutorial.fused_sam(settings.model), settings.loss)
    losses, seconds = [], []
    for [key] in list(EpochBatches(len(examples), batch_size=1, seed=settings.seed, epoch=0))[:most]:
        start = time.perf_counter()
        sample, prompts = examples.prompted(key)
        assert prompts.boxes is not None
        losses.append(step(sample.image, prompts.boxes, masks_to_input_frame(sample.masks, settings.model.frame)))
        seconds.append(time.perf_counter() - start)
    return losses, seconds


def _without_store(split: EncodedSplit) -> EncodedSplit:
    return replace(split, store=None)


def _in_fp32(settings: Settings) -> Settings:
    return replace(settings, trainer=replace(settings.trainer, precision="fp32"))


if __name__ == "__main__":
    sys.exit(main())
