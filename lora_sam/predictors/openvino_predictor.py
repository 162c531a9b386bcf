"""Prediction with the two exported IR parts on OpenVINO."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_sam.core.errors import ConfigError
from lora_sam.core.frame import Frame
from lora_sam.core.predictor import AllMasks, Worth, best_of_three
from lora_sam.core.scores import META, Scores
from lora_sam.core.structures import Masks, Prompts
from lora_sam.predictors.interface import Embeddings, by_kind, no_masks, with_candidates
from lora_sam.predictors.openvino_parts import (
    CLASSES,
    Execution,
    Hint,
    Requests,
    check_device,
    class_names_in,
    compile_settings,
    frame_in,
    offers_all_masks,
    openvino_core,
    read_part,
    verify_files,
    with_one_enlarged,
    without_classes,
)
from lora_sam.predictors.pictures import checked_pixels
from lora_sam.predictors.prompting import checked, prompts_from, size_of

if TYPE_CHECKING:
    from lora_sam.core.predictor import Picture

R = TypeVar("R")


class OpenVINOPredictor:
    """Predicts with two IR parts; see `lora_sam.predictors.Predictor`.

    Threads may share one: each request has memory of its own while it runs. `threads` of the machine's cores go to
    every request, so that as many run at once as there are cores for; more wait.

    Args:
        encoder: `image_encoder.xml`, with its `.bin` beside it, or `image_encoder.onnx`.
        decoder: `mask_decoder.xml`, with its `.bin` beside it, or `mask_decoder.onnx`.
        execution: Arithmetic. The precision of the files is only how weights are stored.
        hint: Answer one request soon, or many in a given time.
        device: Where it computes, in OpenVINO's words: CPU, GPU, GPU.1, NPU, or AUTO.
        threads: Threads of a request on the CPU; None leaves it to OpenVINO, which with `latency` gives all to one.
        chunk: Prompts decoded at once.
        compile_cache: Keep compiled models in the user's cache directory, so that the next start is faster.
        scores: From which score on masks of these weights are good; the files do not say it, `lora_sam.json` does.
        verify: Compare the files with the `manifest.json` beside them, while they are compiled.

    Raises:
        AdapterError: a file is missing or damaged, is not such a part, or not what was exported.
        ConfigError: the device is not there, or `threads` is given for another than the CPU.
    """

    def __init__(
        self,
        encoder: Path,
        decoder: Path,
        *,
        execution: Execution = "f32",
        hint: Hint = "latency",
        device: str = "CPU",
        threads: int | None = None,
        chunk: int = 16,
        compile_cache: bool = True,
        scores: Scores = META,
        verify: bool = True,
    ) -> None:
        self.scores = scores
        check_device(device, threads)
        settings = compile_settings(execution, hint, threads, compile_cache)
        encoder_model, decoder_model = read_part(encoder), read_part(decoder)
        self.frame = frame_in(encoder_model, encoder)
        self.image_size = self.frame.side
        self.offers_all_masks = offers_all_masks(decoder_model, decoder)
        self._offered = 4 if self.offers_all_masks else 1
        self.class_names = class_names_in(decoder_model, decoder)
        self._ranks = {name: len(port.partial_shape) for port in decoder_model.inputs for name in port.names}
        core = openvino_core()
        with ThreadPoolExecutor(1) as aside:
            verified = aside.submit(verify_files, (encoder, decoder)) if verify else None
            self._encoder = Requests(core.compile_model(encoder_model, device, settings))
            self._decoder = Requests(core.compile_model(with_one_enlarged(decoder_model), device, settings))
            if verified is not None:
                verified.result()
        # the other decoder enlarges four masks, which costs time and memory: made when it is asked for
        self._compile: Callable[[], Requests] = lambda: Requests(
            core.compile_model(without_classes(decoder_model), device, settings)
        )
        self._decoder_of_all: Requests | None = None
        self._compiling = threading.Lock()
        self._embeddings: Embeddings[NDArray[np.float32]] = Embeddings(self._encode)
        self._chunk = chunk

    @property
    def encoded(self) -> int:
        """See `Predictor`."""
        return self._embeddings.encoded

    @property
    def execution(self) -> str:
        """The encoder's arithmetic as OpenVINO reports it (f32, bf16, ...): a CPU without bf16 computes in f32."""
        hint = self._encoder.compiled.get_property("INFERENCE_PRECISION_HINT")
        return str(hint.get_type_name())

    def set_image(self, image: Picture) -> None:
        """See `Predictor`."""
        self.embedding(image)

    def embedding(self, image: Picture) -> NDArray[np.float32]:
        """Image embedding [1, C, S/16, S/16] of an RGB image [H, W, 3]. Raises `DataError` unless it is uint8 RGB."""
        return self._embeddings.embed(checked_pixels(image))

    def forget(self) -> None:
        """See `Predictor`."""
        self._embeddings.forget()

    def remember(self, most_bytes: int) -> None:
        """See `Predictor`."""
        self._embeddings.most_bytes = most_bytes

    def predict(self, image: Picture, prompts: Prompts, *, multimask: bool = False, threshold: float = 0.0) -> Masks:
        """See `Predictor`.

        Raises:
            ConfigError: `multimask` with a decoder that was exported for single masks only.
        """
        if multimask:
            self._check_offers_all()
        pixels = checked_pixels(image)
        if not len(prompts):
            return no_masks(size_of(pixels), self.frame)
        return by_kind(
            checked(prompts, size_of(pixels)), lambda part: self._predict(pixels, part, multimask, threshold)
        )

    def _predict(self, image: NDArray[np.uint8], prompts: Prompts, multimask: bool, threshold: float) -> Masks:
        """`predict` for prompts of one kind."""

        def chosen(part: AllMasks, classes: NDArray[np.float32] | None) -> tuple[NDArray[Any], ...]:
            best = best_of_three(part.scores) if multimask else np.zeros(len(part.scores), np.intp)
            rows = np.arange(len(best))
            taken = part.logits[rows, best] > threshold, part.scores[rows, best], part.low_res_logits[rows, best]
            # those of the decoder belong to the single mask at 0
            told = None if multimask or threshold else classes
            return taken if told is None else (*taken, told[:, 0].copy())

        columns = [
            np.concatenate(column) for column in zip(*self._decoded(image, prompts, chosen, multimask), strict=True)
        ]
        return Masks(columns[0], columns[1], columns[2], *columns[3:])

    def predict_all(self, image: Picture, prompts: Prompts, *, worth: Worth | None = None) -> AllMasks:
        """See `Predictor`."""
        pixels = checked_pixels(image)
        return by_kind(checked(prompts, size_of(pixels)), lambda part: self._predict_all(pixels, part, worth))

    def _predict_all(self, image: NDArray[np.uint8], prompts: Prompts, worth: Worth | None) -> AllMasks:
        """`predict_all` for prompts of one kind."""
        enlarged = np.zeros((len(prompts), self._offered, *size_of(image)), np.float32)
        start = 0

        def copied(part: AllMasks, _: object) -> tuple[NDArray[Any], ...]:
            nonlocal start
            wanted = np.ones(part.scores.shape, np.bool_) if worth is None else worth(part.scores)
            for row, column in np.argwhere(wanted).tolist():
                enlarged[start + row, column] = part.logits[row, column]
            start += len(part.scores)
            return part.scores.copy(), part.low_res_logits.copy()

        scores, low_res = zip(*self._decoded(image, prompts, copied, True), strict=True)
        return AllMasks(enlarged, np.concatenate(scores), np.concatenate(low_res))

    def segment(
        self,
        image: Picture,
        *,
        boxes: ArrayLike | None = None,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        mask_inputs: ArrayLike | None = None,
        multimask: bool = False,
    ) -> Masks:
        """See `Predictor`."""
        pixels = checked_pixels(image)
        prompts = prompts_from(boxes, points, labels, size_of(pixels), mask_inputs, self.frame.mask_side)
        if not multimask:
            return self.predict(pixels, prompts)
        self._check_offers_all()
        return with_candidates(self, pixels, prompts)

    def add(self, name: str, path: object) -> None:
        """Raise `ConfigError`: exported parts are one merged model."""
        raise ConfigError(
            f"name = {name!r:.99}: exported parts hold one merged model and take no adapter; lora_sam.load(run) does"
        )

    def use(self, name: str, *, alpha: float = 1.0) -> None:
        """Raise `ConfigError`, as `add` does."""
        self.add(name, alpha)

    def _check_offers_all(self) -> None:
        if not self.offers_all_masks:
            raise ConfigError(
                "multimask = true: this decoder gives single masks only; export it again with multimask=true"
            )

    def _encode(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        # the array, because importing torch would take more memory than all else here
        from lora_sam.data.transforms import preprocess_array

        pixels = preprocess_array(image, self.frame)[np.newaxis]
        with self._encoder.one() as request:
            embedding: NDArray[np.float32] = request.infer({"images": pixels})["image_embeddings"].copy()
        return embedding

    def _requests(self, all_masks: bool) -> Requests:
        """Those of the decoder that enlarges all masks, or the first."""
        if not (all_masks and self.offers_all_masks):
            return self._decoder
        with self._compiling:
            if self._decoder_of_all is None:
                self._decoder_of_all = self._compile()
            return self._decoder_of_all

    def _decoded(
        self,
        image: NDArray[np.uint8],
        prompts: Prompts,
        take: Callable[[AllMasks, NDArray[np.float32] | None], R],
        all_masks: bool,
    ) -> list[R]:
        """What `take` keeps of the masks of some prompts at once, and of their classes where the decoder tells them.

        The arrays are overwritten afterwards.
        """
        embedding, size, decoder = self._embeddings.embed(image), size_of(image), self._requests(all_masks)
        taken = []
        for start in range(0, len(prompts), self._chunk):
            inputs = decoder_inputs(prompts[slice(start, start + self._chunk)], size, self.frame)
            for name in ("has_mask_input", "orig_size"):
                if self._ranks[name] == 1:  # as in Meta's ONNX
                    inputs[name] = inputs[name].reshape(-1).astype(np.float32)
            with decoder.one() as request:
                result = request.infer({"image_embeddings": embedding, **inputs}, share_outputs=True)
                part = AllMasks(result["upscaled_masks"], result["iou_predictions"], result["low_res_masks"])
                taken.append(take(part, result[CLASSES] if decoder.tells_classes else None))
        return taken


def decoder_inputs(prompts: Prompts, size: tuple[int, int], frame: Frame) -> dict[str, NDArray[Any]]:
    """The decoder's inputs, but for the embedding, for N prompts of one kind on an image of `size` = (height, width).

    A box is two points with the labels 2 and 3. Points without a box get one point of padding, label -1, as SAM's
    prompt encoder adds it.
    """
    from lora_sam.data.transforms import boxes_to_input_frame, mask_inputs_to_input_frame, points_to_input_frame

    count = len(prompts)
    assert prompts.boxes is None or not np.isnan(prompts.boxes).any(), "prompts of several kinds"
    coords, labels = [], []
    if prompts.points is not None:
        assert prompts.labels is not None
        coords.append(points_to_input_frame(prompts.points, size, frame))
        labels.append(prompts.labels.astype(np.float32))
    if prompts.boxes is not None:
        coords.append(boxes_to_input_frame(prompts.boxes, size, frame).reshape(count, 2, 2))
        labels.append(np.tile(np.array([2, 3], np.float32), (count, 1)))
    else:
        coords.append(np.zeros((count, 1, 2), np.float32))
        labels.append(np.full((count, 1), -1, np.float32))
    masks = mask_inputs_to_input_frame(prompts, size, frame)
    side = frame.mask_side
    return {
        "point_coords": np.concatenate(coords, axis=1).astype(np.float32),
        "point_labels": np.concatenate(labels, axis=1),
        "mask_input": np.zeros((1, 1, side, side), np.float32) if masks is None else masks[:, None].astype(np.float32),
        "has_mask_input": np.full((1, 1), masks is not None, np.float32),
        "orig_size": np.array([size], np.int64),
    }
