"""What NNCF is asked to do to the IR of an encoder or a decoder."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from numpy.typing import NDArray

from lora_sam.deployment.quantizing.ladder import CLASS_HEAD, Rung
from lora_sam.predictors.openvino_parts import openvino_core, quiet_openvino

if TYPE_CHECKING:
    import openvino

Preset = Literal["mixed", "performance"]
WeightMode = Literal["int8_weights", "int4_weights"]
Inputs = Mapping[str, NDArray[Any]]
"""The inputs of a model by their names."""

_MLP = re.compile(r"\b((?:layers\.\d+\.)?blocks\.\d+|layers\.\d+)\.mlp\b")  # of a block that an operation names

GROUP = 64  # weights that share a 4-bit scale
CONTROLLED, RANKED = 10, 4  # quantisers that accuracy control may give back, and images it ranks them with


class Examples(Protocol):
    """Inputs that are made when they are asked for; a list of them will do."""

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def __getitem__(self, index: int, /) -> Inputs:
        """One of them."""
        ...


@dataclass(frozen=True)
class Recipe:
    """How activations and weights are quantised, whatever the rung.

    Attributes:
        preset: `mixed` lets activations have a zero point, `performance` does not.
        fast: Correct biases from statistics of the whole, instead of layer by layer.
    """

    preset: Preset
    fast: bool


def read(path: Path) -> openvino.Model:
    """The IR at `path`, an `.xml` with a `.bin`, which is read from as long as the model is used."""
    return openvino_core().read_model(path)


def save(model: openvino.Model, path: Path) -> None:
    """Write `path` (.xml) and its .bin, weights in fp16 unless some are quantised; equal models give equal files.

    Raises:
        OSError: the disk is full.
    """
    from lora_sam.deployment.ir_parts import save_ir

    for place, op in enumerate(model.get_ordered_ops()):
        if re.fullmatch(rf"{op.get_type_name()}_\d+", op.get_friendly_name()):
            # OpenVINO numbers what has no name by how many operations the process has made so far
            op.set_friendly_name(f"{op.get_type_name()}_{place}")
    save_ir(model, path, half=True)


def compiled(path: Path) -> openvino.CompiledModel:
    """An IR ready to compute, in fp32."""
    return openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def ends_of(encoder: openvino.Model) -> tuple[str, str]:
    """Names of the first and the last transformer block that the names of the operations tell, stage by stage."""
    names = (_MLP.search(op.get_friendly_name()) for op in encoder.get_ops())
    blocks = {name[1] for name in names if name} or {"blocks.0"}
    in_order = sorted(blocks, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    return in_order[0], in_order[-1]


def quantized(model: openvino.Model, examples: Examples, rung: Rung, recipe: Recipe) -> openvino.Model:
    """INT8 weights and activations, with 8-bit weights also where `rung` computes in floating point.

    Args:
        model: Encoder or decoder; it is not changed.
        examples: Inputs to calibrate with; taken one at a time, several times over.
        rung: What stays in floating point, and SmoothQuant's exponent.
        recipe: See there.
    """
    with _nncf() as nncf:
        quantised = nncf.quantize(
            model,
            _dataset(nncf, examples),
            subset_size=len(examples),
            advanced_parameters=_smoothing(nncf, rung),
            **_arguments(nncf, model, rung, recipe),
        )
        return nncf.compress_weights(
            quantised, mode=nncf.CompressWeightsMode.INT8_SYM, **_classes_in_float(nncf, quantised)
        )


def controlled(
    model: openvino.Model,
    examples: Examples,
    rung: Rung,
    recipe: Recipe,
    *,
    images: Examples,
    score: Callable[[openvino.CompiledModel, Iterable[int]], float],
    limit: float,
) -> openvino.Model:
    """`quantized`, after which quantisers are given back until the score falls by at most `limit`.

    Args:
        model: The encoder; it is not changed.
        examples: Inputs to calibrate with.
        rung: See `quantized`.
        recipe: See there.
        images: Inputs to validate with.
        score: Score of a compiled encoder on the images at some places; higher is better.
        limit: Largest fall of the score.
    """

    def validate(compiled: openvino.CompiledModel, places: Iterable[int]) -> tuple[float, list[list[NDArray[Any]]]]:
        places = list(places)
        # with outputs beside the score, quantisers are ranked by their effect on these, which needs no decoder
        return score(compiled, places), [[compiled(images[place])[0].copy()] for place in places]

    with _nncf() as nncf:
        quantised = nncf.quantize_with_accuracy_control(
            model,
            _dataset(nncf, examples),
            _dataset(nncf, images),
            validate,
            max_drop=limit,
            subset_size=len(examples),
            advanced_quantization_parameters=_smoothing(nncf, rung),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                max_num_iterations=CONTROLLED, ranking_subset_size=RANKED, num_ranking_workers=1
            ),
            **_arguments(nncf, model, rung, recipe),
        )
        return nncf.compress_weights(
            quantised, mode=nncf.CompressWeightsMode.INT8_SYM, **_classes_in_float(nncf, quantised)
        )


def compressed(model: openvino.Model, mode: WeightMode) -> openvino.Model:
    """Weights in 8 or 4 bits, everything computed in floating point; nothing to calibrate."""
    with _nncf() as nncf:
        if mode == "int8_weights":
            return nncf.compress_weights(
                model, mode=nncf.CompressWeightsMode.INT8_ASYM, **_classes_in_float(nncf, model)
            )
        parameters = nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST)
        return nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT4_SYM,
            group_size=GROUP,
            ratio=1.0,
            all_layers=True,
            advanced_parameters=parameters,
            **_classes_in_float(nncf, model),
        )


@contextmanager
def _nncf() -> Iterator[Any]:
    """The package, which neither reports home, nor logs, nor draws progress bars."""
    quiet_openvino()
    # it loads torch's builder of extensions, which warns where it finds a compiler but no GPU
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import nncf

    nncf.set_log_level(logging.ERROR)
    with redirect_stdout(io.StringIO()):
        yield nncf


def _dataset(nncf: Any, examples: Examples) -> Any:
    return nncf.Dataset(range(len(examples)), examples.__getitem__)


def _arguments(nncf: Any, model: openvino.Model, rung: Rung, recipe: Recipe) -> dict[str, Any]:
    return {
        "preset": nncf.QuantizationPreset(recipe.preset),
        "fast_bias_correction": recipe.fast,
        "model_type": nncf.ModelType.TRANSFORMER,
        "ignored_scope": nncf.IgnoredScope(patterns=[*rung.in_float, *_class_head(model)]),
    }


def _classes_in_float(nncf: Any, model: openvino.Model) -> dict[str, Any]:
    return {"ignored_scope": nncf.IgnoredScope(patterns=patterns)} if (patterns := _class_head(model)) else {}


def _class_head(model: openvino.Model) -> list[str]:
    """A pattern of the operations that tell classes; NNCF refuses one that finds none."""
    return [CLASS_HEAD] if any(re.fullmatch(CLASS_HEAD, op.get_friendly_name()) for op in model.get_ops()) else []


def _smoothing(nncf: Any, rung: Rung) -> Any:
    alphas = nncf.AdvancedSmoothQuantParameters(matmul=rung.alpha)
    return nncf.AdvancedQuantizationParameters(smooth_quant_alphas=alphas)
