"""The two exported IR parts on OpenVINO: reading, checking and compiling their files, and requests to them."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lora_sam.core.console import note
from lora_sam.core.errors import AdapterError, ConfigError
from lora_sam.core.extras import require_extra
from lora_sam.core.files import check_sha256, recorded_sha256, user_cache
from lora_sam.core.frame import CELL, PIXEL_MEAN, PIXEL_STD, Colour, Frame

if TYPE_CHECKING:
    import openvino

ENCODER, DECODER = "image_encoder.xml", "mask_decoder.xml"
SQUEEZED = "standard"
"""How an encoder's file says that images are squeezed into its input, in the words of OpenVINO Model API."""

_FACTS = "model_info", "framework"
"""Where a file says how images come to lie in the input: an IR, and an ONNX file in OpenVINO's words."""

META_NAMES = {"orig_size": "orig_im_size", "upscaled_masks": "masks"}
"""Where `segment_anything`'s ONNX export has other names than our IR."""

CLASSES, CLASS_NAMES = "class_probabilities", "class_names"
"""The decoder's output that tells classes, and the key of their names in `model_info`; where it has a class head."""

Execution = Literal["f32", "bf16", "auto"]
"""The arithmetic: `auto` lets OpenVINO choose, which is bf16 on a CPU that multiplies in it."""

Hint = Literal["latency", "throughput"]


class Requests:
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


def verify_files(parts: tuple[Path, ...]) -> None:
    """Raise `AdapterError` if a file is not what was exported; without a digest a note says so."""
    for path in (file for part in parts for file in _files_of(part)):
        recorded = recorded_sha256(path)
        if recorded is None:
            note(f"{path.parent}: made without digests, so that nobody can tell whether it is what was exported")
        else:
            check_sha256(path, recorded, "export the model again")


def read_part(path: Path) -> openvino.Model:
    """A part as its file holds it, with our names. Raises `AdapterError` where it is missing or damaged."""
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
    side, grid = shape[3], list(model.outputs[0].partial_shape)[-1]
    cell = side.get_length() // grid.get_length() if side.is_static and grid.is_static else 0
    if not cell or side.get_length() % cell:
        raise AdapterError(
            f"{path}: input 'images' is {shape}, must be [1, 3, S, S] with S a multiple of {cell or CELL}"
        )
    squeezed = _fact(model, "resize_type") == SQUEEZED
    mean, std = _colour(model, "mean_values", PIXEL_MEAN, path), _colour(model, "scale_values", PIXEL_STD, path)
    return Frame(int(side.get_length()), squeezed, int(cell), mean, std)


def _fact(model: openvino.Model, name: str) -> str | None:
    """What the file of an image encoder says; None where it says nothing."""
    for place in _FACTS:
        if model.has_rt_info([place, name]):
            return str(model.get_rt_info([place, name]).astype(str))
    return None


def _colour(model: openvino.Model, name: str, usual: Colour, path: Path) -> Colour:
    """A colour that the file of an image encoder names, in the words of OpenVINO Model API; `usual` where it does not.

    Raises:
        AdapterError: it is no colour.
    """
    text = _fact(model, name)
    if text is None:
        return usual
    try:
        red, green, blue = map(float, text.split())
    except ValueError as error:
        raise AdapterError(f"{path}: {name} is {text!r:.60}, must be three numbers; export the model again") from error
    return red, green, blue


def offers_all_masks(model: openvino.Model, path: Path) -> bool:
    """Whether a decoder gives four masks of a prompt. Raises `AdapterError` where it is no mask decoder of ours."""
    wanted = {"image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_size"}
    missing = wanted - {name for found in model.inputs for name in found.names}
    outputs = {name: output for output in model.outputs for name in output.names}
    missing |= {"upscaled_masks", "iou_predictions", "low_res_masks"} - outputs.keys()
    if missing:
        raise AdapterError(f"{path} is not a mask decoder of ours: it lacks {', '.join(sorted(missing))}")
    masks = outputs["iou_predictions"].partial_shape[1]
    return bool(masks.is_static and masks.get_length() > 1)


def class_names_in(model: openvino.Model, path: Path) -> tuple[str, ...] | None:
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


def without_classes(model: openvino.Model) -> openvino.Model:
    """The decoder without its output of classes: most masks of a grid of points are left out, whatever they are of."""
    from openvino import Model

    kept = [result for result in model.get_results() if CLASSES not in result.input_value(0).names]
    if len(kept) == len(model.get_results()):
        return model
    copy = model.clone()
    return Model(
        [result for result in copy.get_results() if CLASSES not in result.input_value(0).names], copy.get_parameters()
    )


def check_device(device: str, threads: int | None) -> None:
    """Raise `ConfigError` where the device is not there, or has no threads to set."""
    there = list(openvino_core().available_devices)
    known = {"AUTO", *there, *(name.split(".")[0] for name in there)}
    first, _, others = device.partition(":")
    wanted = others.split(",") if first in ("AUTO", "HETERO", "MULTI") and others else [device]
    if not set(wanted) <= known:
        raise ConfigError(f"device = {device:.80}: not available here; available: AUTO, {', '.join(there)}")
    if threads is not None and device != "CPU":
        raise ConfigError(f"threads = {threads} with device = {device}: only the CPU has threads; leave threads out")


def with_one_enlarged(model: openvino.Model) -> openvino.Model:
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


def compile_settings(execution: Execution, hint: Hint, threads: int | None, compile_cache: bool) -> dict[str, Any]:
    """What OpenVINO is told when it compiles a part; see `OpenVINOPredictor`."""
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
