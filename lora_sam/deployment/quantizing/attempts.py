"""Quantised parts are made, measured, and kept if they are the best so far."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_sam.data.sources import SampleSource
from lora_sam.data.splits import Subset
from lora_sam.deployment.quantizing.calibration import EncoderExamples, decoder_examples
from lora_sam.deployment.quantizing.compression import (
    Examples,
    Recipe,
    compiled,
    compressed,
    controlled,
    ends_of,
    quantized,
    read,
    save,
)
from lora_sam.deployment.quantizing.drop import Validation, embedding_of, masks_of
from lora_sam.deployment.quantizing.ladder import (
    DECODER_RUNGS,
    Attempt,
    Rung,
    Rungs,
    best,
    climb,
    encoder_rungs,
    is_enough,
)
from lora_sam.evaluation.backends.names import Mode
from lora_sam.predictors.openvino_parts import DECODER, ENCODER, frame_in
from lora_sam.predictors.openvino_predictor import OpenVINOPredictor

if TYPE_CHECKING:
    import openvino

CONTROL_IMAGES = 64
"""Images at most that accuracy control validates with: it holds two embeddings of each."""

DECODER_IMAGES = 16
"""Images at most that calibrate the decoder, each with all kinds of prompts."""


@dataclass(frozen=True)
class Scale:
    """Tells what a pair of parts loses against the exported pair.

    Attributes:
        validation: Images and prompts.
        reference: IoU of the exported parts on these.
    """

    validation: Validation
    reference: float

    @classmethod
    def of(cls, validation: Validation, exported: Path) -> Scale:
        """With the parts in the directory `exported` as the reference."""
        return cls(validation, _iou(validation, exported / ENCODER, exported / DECODER))

    def drop(self, encoder: Path, decoder: Path) -> float:
        """Points of IoU that two IR parts lose, computed in fp32; negative where they gain."""
        return 100 * (self.reference - _iou(self.validation, encoder, decoder))


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Quantises the two parts of a model.

    Attributes:
        mode: Weights and activations, or weights only.
        recipe: How they are quantised, whatever the rung.
        exported: Directory of the two parts with fp32 weights.
        place: Empty directory for the result.
        scratch: Another one, for what is not kept.
        images: Labelled images to calibrate with; None where only weights are compressed.
        seed: Draws objects and points on them.
        scale: Measures what is lost; None measures nothing and takes the first rung.
        limit: Points of IoU that may be lost.
    """

    mode: Mode
    recipe: Recipe
    exported: Path
    place: Path
    scratch: Path
    images: SampleSource | None
    seed: int
    scale: Scale | None
    limit: float

    def quantize_encoder(self) -> list[Attempt]:
        """Write the best encoder, beside the decoder in floating point; returns what was tried."""
        save(read(self.exported / DECODER), self.place / DECODER)
        half = self._half(ENCODER)
        if self.mode != "int8":
            return self._best_of(Rungs((_weights_only(self.mode),)), self._compress(half), ENCODER)
        assert self.images is not None
        examples = EncoderExamples(self.images, frame_in(half, self.exported / ENCODER))

        def make(rung: Rung) -> openvino.Model:
            if rung.controlled:
                return self._controlled(half, examples, rung)
            return quantized(half, examples, rung, self.recipe)

        return self._best_of(encoder_rungs(ends_of(half)), make, ENCODER)

    def quantize_decoder(self) -> list[Attempt]:
        """Write the best decoder, unless it loses too much; returns what was tried."""
        half = self._half(DECODER)
        if self.mode != "int8":
            return self._best_of(Rungs((_weights_only(self.mode),)), self._compress(half), DECODER)
        assert self.images is not None
        encoder = compiled(self.place / ENCODER)
        predictor = OpenVINOPredictor(self.place / ENCODER, self.place / DECODER, compile_cache=False, verify=False)
        some = Subset(self.images, tuple(range(min(len(self.images), DECODER_IMAGES))))
        examples = list(
            decoder_examples(some, lambda image: embedding_of(encoder, image, predictor.frame), predictor, self.seed)
        )
        return self._best_of(DECODER_RUNGS, lambda rung: quantized(half, examples, rung, self.recipe), DECODER)

    def _best_of(self, rungs: Rungs, make: Callable[[Rung], openvino.Model], name: str) -> list[Attempt]:
        """Climb `rungs`; the best model replaces the part called `name`, if that is there only if it is good enough."""
        tried: list[Attempt] = []
        candidate, kept = self.scratch / f"candidate_{name}", self.scratch / f"kept_{name}"

        def measure(rung: Rung) -> float | None:
            save(make(rung), candidate)
            attempt = Attempt(rung, self._drop(name, candidate))
            say(f"{name.removesuffix('.xml')}, {attempt}")
            tried.append(attempt)
            if best(tried) is attempt:
                _move(candidate, kept)
            return attempt.drop

        climb(rungs, measure, None if self.scale is None else self.limit)
        if name == ENCODER or self.is_enough(tried):
            _move(kept, self.place / name)
        return tried

    def is_enough(self, tried: list[Attempt]) -> bool:
        """Whether the best attempt loses at most what it may."""
        return self.scale is None or is_enough(best(tried), self.limit)

    def _drop(self, name: str, candidate: Path) -> float | None:
        if self.scale is None:
            return None
        parts = {ENCODER: self.place / ENCODER, DECODER: self.place / DECODER, name: candidate}
        return self.scale.drop(parts[ENCODER], parts[DECODER])

    def _half(self, name: str) -> openvino.Model:
        """A part with its weights in fp16, so that what is not quantised is stored in it."""
        save(read(self.exported / name), self.scratch / name)
        return read(self.scratch / name)

    def _compress(self, model: openvino.Model) -> Callable[[Rung], openvino.Model]:
        assert self.mode != "int8"
        mode = self.mode
        return lambda rung: compressed(model, mode)

    def _controlled(self, model: openvino.Model, examples: Examples, rung: Rung) -> openvino.Model:
        assert self.scale is not None, "without a scale, the first rung is the last"
        validation = self.scale.validation
        source = Subset(validation.source, tuple(range(min(len(validation.source), CONTROL_IMAGES))))
        decoder, frame = compiled(self.place / DECODER), frame_in(model, self.exported / ENCODER)

        def score(encoder: openvino.CompiledModel, places: Iterable[int]) -> float:
            return Validation(source, validation.prompts_for).iou(masks_of(encoder, decoder, frame), places)

        images = EncoderExamples(source, frame)
        return controlled(model, examples, rung, self.recipe, images=images, score=score, limit=self.limit / 100)


def say(line: str) -> None:
    """One line about what goes on, beside the result."""
    print(line, file=sys.stderr, flush=True)


def _weights_only(mode: str) -> Rung:
    return Rung(f"weights in {mode[3]} bits, computed in floating point")


def _move(source: Path, target: Path) -> None:
    for suffix in (".xml", ".bin"):
        os.replace(source.with_suffix(suffix), target.with_suffix(suffix))


def _iou(validation: Validation, encoder: Path, decoder: Path) -> float:
    predictor = OpenVINOPredictor(encoder, decoder, execution="f32", compile_cache=False, verify=False)
    return validation.iou(lambda image, prompts: predictor.predict(image, prompts).masks)
