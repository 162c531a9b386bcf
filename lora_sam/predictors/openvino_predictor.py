"""Prediction with the two exported IR parts on OpenVINO."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_sam.core.console import note
from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.extras import require_extra
from lora_sam.core.files import check_sha256, recorded_sha256, user_cache
from lora_sam.core.frame import Frame
from lora_sam.core.predictor import AllMasks, best_of_three
from lora_sam.core.scores import META, Scores
from lora_sam.core.structures import Masks, Prompts
from lora_sam.predictors.interface import Embeddings, by_kind, no_masks
from lora_sam.predictors.prompting import checked, prompts_from, size_of

if TYPE_CHECKING:
    import openvino

ENCODER, DECODER = "image_encoder.xml", "mask_decoder.xml"
PATCH_SIZE = 16
SQUEEZED = "standard"
"""How an encoder's file says that images are squeezed into its input, in the words of OpenVINO Model API."""

_RESIZE = ["model_info", "resize_type"]

META_NAMES = {"orig_size": "orig_im_size", "upscaled_masks": "masks"}
"""Where `segment_anything`'s ONNX export has other names than our IR."""

CLASSES, CLASS_NAMES = "class_probabilities", "class_names"
"""The decoder's output that tells classes, and the key of their names in `model_info`; where it has a class head."""

Execution = Literal["f32", "bf16", "auto"]
"""The arithmetic: `auto` lets OpenVINO choose, which is bf16 on a CPU that multiplies in it."""

Hint = Literal["latency", "throughput"]

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
        _check_device(device, threads)
        settings = _settings(execution, hint, threads, compile_cache)
        encoder_model, decoder_model = _read(encoder), _read(decoder)
        self.frame = frame_in(encoder_model, encoder)
        self.image_size = self.frame.side
        self.offers_all_masks = _offers_all_masks(decoder_model, decoder)
        self.class_names = _class_names(decoder_model, decoder)
        self._ranks = {name: len(port.partial_shape) for port in decoder_model.inputs for name in port.names}
        core = openvino_core()
        with ThreadPoolExecutor(1) as aside:
            verified = aside.submit(_verify, (encoder, decoder)) if verify else None
            self._encoder = _Requests(core.compile_model(encoder_model, device, settings))
            self._decoder = _Requests(core.compile_model(_with_one_enlarged(decoder_model), device, settings))
            if verified is not None:
                verified.result()
        # the other decoder enlarges four masks, which costs time and memory: made when it is asked for
        self._compile: Callable[[], _Requests] = lambda: _Requests(
            core.compile_model(_without_classes(decoder_model), device, settings)
        )
        self._decoder_of_all: _Requests | None = None
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

    def set_image(self, image: NDArray[np.uint8]) -> None:
        """See `Predictor`."""
        self.embedding(image)

    def embedding(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Image embedding [1, C, S/16, S/16] of an RGB image [H, W, 3]. Raises `DataError` unless it is uint8 RGB."""
        size_of(image)
        return self._embeddings.embed(image)

    def forget(self) -> None:
        """See `Predictor`."""
        self._embeddings.forget()

    def remember(self, most_bytes: int) -> None:
        """See `Predictor`."""
        self._embeddings.most_bytes = most_bytes

    def predict(
        self, image: NDArray[np.uint8], prompts: Prompts, *, multimask: bool = False, threshold: float = 0.0
    ) -> Masks:
        """See `Predictor`.

        Raises:
            ConfigError: `multimask` with a decoder that was exported for single masks only.
        """
        if multimask and not self.offers_all_masks:
            raise ConfigError(
                "multimask = true: this decoder gives single masks only; export it again with multimask=true"
            )
        if not len(prompts):
            return no_masks(size_of(image), self.image_size)
        return by_kind(checked(prompts, size_of(image)), lambda part: self._predict(image, part, multimask, threshold))

    def _predict(self, image: NDArray[np.uint8], prompts: Prompts, multimask: bool, threshold: float) -> Masks:
        """`predict` for prompts of one kind."""

        def chosen(part: AllMasks, classes: NDArray[np.float32] | None) -> tuple[NDArray[Any], ...]:
            best = best_of_three(part.scores) if multimask else np.zeros(len(part.scores), np.intp)
            rows = np.arange(len(best))
            taken = part.logits[rows, best] > threshold, part.scores[rows, best], part.low_res_logits[rows, best]
            # those of the decoder belong to the single mask at 0
            told = None if multimask or threshold else classes
            return taken if told is None else (*taken, told[:, 0].copy())

        columns = zip(*self._decoded(image, prompts, chosen, multimask), strict=True)
        return Masks(*(np.concatenate(column) for column in columns))

    def predict_all(self, image: NDArray[np.uint8], prompts: Prompts) -> AllMasks:
        """See `Predictor`."""
        return by_kind(checked(prompts, size_of(image)), lambda part: self._predict_all(image, part))

    def _predict_all(self, image: NDArray[np.uint8], prompts: Prompts) -> AllMasks:
        """`predict_all` for prompts of one kind."""

        def copied(part: AllMasks, _: object) -> tuple[NDArray[Any], ...]:
            return part.logits.copy(), part.scores.copy(), part.low_res_logits.copy()

        logits, scores, low_res = zip(*self._decoded(image, prompts, copied, True), strict=True)
        return AllMasks(np.concatenate(logits), np.concatenate(scores), np.concatenate(low_res))

    def segment(
        self,
        image: NDArray[np.uint8],
        *,
        boxes: ArrayLike | None = None,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        multimask: bool = False,
    ) -> Masks:
        """See `Predictor`."""
        return self.predict(image, prompts_from(boxes, points, labels, size_of(image)), multimask=multimask)

    def _encode(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        # the array, because importing torch would take more memory than all else here
        from lora_sam.data.transforms import preprocess_array

        pixels = preprocess_array(image, self.frame)[np.newaxis]
        with self._encoder.one() as request:
            embedding: NDArray[np.float32] = request.infer({"images": pixels})["image_embeddings"].copy()
        return embedding

    def _requests(self, all_masks: bool) -> _Requests:
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


class _Requests:
    """The infer requests of one compiled model: each is used by one thread at a time, and made when first needed.

    Args:
        compiled: The model; as many requests run at once as it says is best, further threads wait.
    """

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self.compiled = compiled
        self.tells_classes = any(CLASSES in output.names for output in compiled.outputs)
        # one more computes while the masks of another are read
        most = 1 + int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._room = threading.BoundedSemaphore(most)
        self._free: list[openvino.InferRequest] = [compiled.create_infer_request()]

    @contextmanager
    def one(self) -> Iterator[openvino.InferRequest]:
        """A request that no other thread has; what it gave is another's once the context ends."""
        with self._room:
            try:
                request = self._free.pop()
            except IndexError:
                request = self.compiled.create_infer_request()
            try:
                yield request
            finally:
                self._free.append(request)


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
    side = frame.side // 4
    return {
        "point_coords": np.concatenate(coords, axis=1).astype(np.float32),
        "point_labels": np.concatenate(labels, axis=1),
        "mask_input": np.zeros((1, 1, side, side), np.float32) if masks is None else masks[:, None].astype(np.float32),
        "has_mask_input": np.full((1, 1), masks is not None, np.float32),
        "orig_size": np.array([size], np.int64),
    }


def openvino_directory(path: Path) -> tuple[Path, Path]:
    """Both IR parts, given either of them or their directory.

    Raises:
        AdapterError: one of the four files is missing.
    """
    directory = path if path.is_dir() else path.parent
    for name in (ENCODER, DECODER):
        for file in (directory / name, (directory / name).with_suffix(".bin")):
            if not file.is_file():
                raise AdapterError(f"{file} is missing; a model is {ENCODER} and {DECODER} with a .bin beside each")
    return directory / ENCODER, directory / DECODER


def quiet_openvino() -> None:
    """Keep OpenVINO's and NNCF's Python packages from reporting home and from logging; before either is imported."""
    os.environ.setdefault("NNCF_CI", "1")
    if "openvino_telemetry" not in sys.modules:
        # what Python takes for a package that is not there: both go on without
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    for name in ("nncf", "openvino"):
        logging.getLogger(name).setLevel(logging.ERROR)


@cache
def openvino_core() -> openvino.Core:
    """OpenVINO's runtime, one for the process and as long as it lives.

    The CPU plugin of every runtime gives the thread that makes it a stack for signal handlers, and frees that with the
    runtime; where several end in another order than they began, the thread is left with a stack that is gone, and the
    next signal, even Ctrl-C, is a segmentation fault.
    """
    require_extra("deploy", "OpenVINO")
    quiet_openvino()
    import openvino

    return openvino.Core()


def _files_of(part: Path) -> tuple[Path, ...]:
    return (part, part.with_suffix(".bin")) if part.suffix == ".xml" else (part,)


def _verify(parts: tuple[Path, ...]) -> None:
    """Raise `AdapterError` if a file is not what was exported; without a digest a note says so."""
    for path in (file for part in parts for file in _files_of(part)):
        recorded = recorded_sha256(path)
        if recorded is None:
            note(f"{path.parent}: made without digests, so that nobody can tell whether it is what was exported")
        else:
            check_sha256(path, recorded, "export the model again")


def _read(path: Path) -> openvino.Model:
    for file in _files_of(path):
        if not file.is_file():
            raise AdapterError(f"{file} is missing; export the model again, or give the path of both parts")
    try:
        model = openvino_core().read_model(path)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise AdapterError(f"{path} cannot be read as OpenVINO IR ({reason[:200]}); export the model again") from error

    for port in (*model.inputs, *model.outputs):
        for ours, theirs in META_NAMES.items():
            if theirs in port.names:
                port.get_tensor().add_names({ours})
    return model


def frame_in(model: openvino.Model, path: Path) -> Frame:
    """How images come to lie in the input of an image encoder, which its file says.

    Raises:
        AdapterError: it is no image encoder.
    """
    shape = list(model.inputs[0].partial_shape) if len(model.inputs) == 1 else []
    if "images" not in {name for found in model.inputs for name in found.names} or len(shape) != 4:
        raise AdapterError(f"{path} is not an image encoder: it has no input 'images' [1, 3, S, S]")
    side = shape[3]
    if not side.is_static or side.get_length() % PATCH_SIZE:
        raise AdapterError(f"{path}: input 'images' is {shape}, must be [1, 3, S, S] with S a multiple of {PATCH_SIZE}")
    squeezed = model.has_rt_info(_RESIZE) and model.get_rt_info(_RESIZE).astype(str) == SQUEEZED
    return Frame(int(side.get_length()), squeezed)


def _offers_all_masks(model: openvino.Model, path: Path) -> bool:
    wanted = {"image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_size"}
    missing = wanted - {name for found in model.inputs for name in found.names}
    outputs = {name: output for output in model.outputs for name in output.names}
    missing |= {"upscaled_masks", "iou_predictions", "low_res_masks"} - outputs.keys()
    if missing:
        raise AdapterError(f"{path} is not a mask decoder of ours: it lacks {', '.join(sorted(missing))}")
    masks = outputs["iou_predictions"].partial_shape[1]
    return bool(masks.is_static and masks.get_length() > 1)


def _class_names(model: openvino.Model, path: Path) -> tuple[str, ...] | None:
    """Names of the classes that a decoder tells; None where it tells none."""
    output = next((output for output in model.outputs if CLASSES in output.names), None)
    if output is None:
        return None
    try:
        names = json.loads(model.get_rt_info(["model_info", CLASS_NAMES]).astype(str))
    except (RuntimeError, ValueError):
        names = None
    count = output.partial_shape[2]
    told = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not told or (count.is_static and count.get_length() != len(names)):
        raise AdapterError(f"{path} tells classes ({CLASSES}), but not their names; export the model again")
    return tuple(names)


def _without_classes(model: openvino.Model) -> openvino.Model:
    """The decoder without its output of classes: most masks of a grid of points are left out, whatever they are of."""
    from openvino import Model

    kept = [result for result in model.get_results() if CLASSES not in result.input_value(0).names]
    if len(kept) == len(model.get_results()):
        return model
    copy = model.clone()
    return Model(
        [result for result in copy.get_results() if CLASSES not in result.input_value(0).names], copy.get_parameters()
    )


def _check_device(device: str, threads: int | None) -> None:
    """Raise `ConfigError` where the device is not there, or has no threads to set."""
    there = list(openvino_core().available_devices)
    known = {"AUTO", *there, *(name.split(".")[0] for name in there)}
    first, _, others = device.partition(":")
    wanted = others.split(",") if first in ("AUTO", "HETERO", "MULTI") and others else [device]
    if not set(wanted) <= known:
        raise ConfigError(f"device = {device:.80}: not available here; available: AUTO, {', '.join(there)}")
    if threads is not None and device != "CPU":
        raise ConfigError(f"threads = {threads} with device = {device}: only the CPU has threads; leave threads out")


def _with_one_enlarged(model: openvino.Model) -> openvino.Model:
    """The decoder with the single mask alone enlarged to the original image; scores and small logits stay all there."""
    from openvino import opset13

    single = model.clone()
    outputs = {name: output for output in single.outputs for name in output.names}
    logits = outputs["low_res_masks"].get_node().input_value(0)
    enlarging = [target for target in logits.get_target_inputs() if target.get_node().get_type_name() != "Result"]
    first = opset13.slice(logits, [0], [1], [1], [1])
    for target in enlarging:
        target.replace_source_output(first.output(0))
    single.validate_nodes_and_infer_types()
    return single


def _settings(execution: Execution, hint: Hint, threads: int | None, compile_cache: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {"PERFORMANCE_HINT": hint.upper()}
    if execution != "auto":
        settings["INFERENCE_PRECISION_HINT"] = execution
    if threads is not None:
        # OpenVINO counts the threads of all requests together
        at_once = max(1, (os.cpu_count() or 1) // threads)
        settings["NUM_STREAMS"] = at_once
        settings["INFERENCE_NUM_THREADS"] = threads * at_once
    if compile_cache:
        settings["CACHE_DIR"] = str(user_cache() / "openvino")
    return settings
