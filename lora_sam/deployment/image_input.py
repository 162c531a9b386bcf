"""Image encoders that take images as they are: pre-processing as a part of the OpenVINO model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lora_sam.core.frame import Frame
from lora_sam.predictors.openvino_parts import quiet_openvino

if TYPE_CHECKING:
    import openvino

INPUT = "image"
_ROWS_AND_COLUMNS = [1, 2]


def takes_images(encoder: openvino.Model, frame: Frame) -> openvino.Model:
    """An image encoder whose input is `image`, RGB of any size, uint8 [1, H, W, 3].

    The same pre-processing as `lora_sam.data.transforms.preprocess_array`: scaled as Pillow does, normalised, then
    padded with zeros. Its layout is in the file, as OpenVINO Model API reads it.

    Args:
        encoder: As `lora_sam.deployment.ir_parts.encoder_ir` makes it; it is used up. What `rt_info` tells of it goes
            with it.
        frame: Its input frame.
    """
    quiet_openvino()
    import openvino as ov
    from openvino import opset13 as ops

    image = ops.parameter(ov.PartialShape([1, -1, -1, 3]), ov.Type.u8, name=INPUT)
    image.output(0).get_tensor().set_names({INPUT})
    image.set_layout(ov.Layout("NHWC"))
    size: Any = ops.gather(
        ops.shape_of(image, output_type="i64"), ops.constant(_ROWS_AND_COLUMNS), ops.constant(np.int64(0))
    )
    side = ops.constant(np.int64(frame.side))
    if frame.square:
        extent = ops.broadcast(side, ops.constant([2]))
    else:
        # `Frame.extent` in whole numbers
        longest = ops.reduce_max(size, ops.constant([0]), keep_dims=True)
        twice = ops.multiply(ops.multiply(size, side), ops.constant(np.int64(2)))
        longer = ops.multiply(longest, ops.constant(np.int64(2)))
        extent = ops.maximum(ops.divide(ops.add(twice, longest), longer, "numpy"), ops.constant(np.int64(1)))
    values = ops.convert(image, "f32")
    height, width = (_one(extent, place) for place in (0, 1))
    # columns, then rows, as Pillow has it
    for sizes in ((_one(size, 0), width), (height, width)):
        values = _scaled(values, ops.concat(list(sizes), 0))
        if not frame.square:  # SAM 2 keeps fractions of grey levels, where the first SAM rounds
            values = ops.floor(ops.add(values, ops.constant(np.float32(0.5))))
    mean, std = (ops.constant(np.array(numbers, np.float32)) for numbers in (frame.mean, frame.std))
    values = ops.divide(ops.subtract(values, mean), std)
    missing = ops.subtract(side, extent)
    before = ops.constant(np.zeros(4, np.int64))
    none = ops.constant(np.zeros(1, np.int64))
    padded = ops.pad(values, before, ops.concat([none, missing, none], 0), "constant", ops.constant(np.float32(0)))
    planes = ops.transpose(padded, ops.constant([0, 3, 1, 2]))
    images = ops.reshape(planes, ops.constant([1, 3, frame.side, frame.side]), special_zero=False)
    old = encoder.get_parameters()[0]
    for target in list(old.output(0).get_target_inputs()):
        target.replace_source_output(images.output(0))
    model = ov.Model(encoder.get_results(), [image], encoder.get_friendly_name())
    told: dict[str, Any] = encoder.rt_info["model_info"]
    # Model API's word for a model that does all of it itself
    for key, value in {**told, "embedded_processing": True}.items():
        model.set_rt_info(value, ["model_info", key])
    return model


def _one(lengths: Any, place: int) -> Any:
    from openvino import opset13 as ops

    return ops.gather(lengths, ops.constant([place]), ops.constant(np.int64(0)))


def _scaled(values: Any, size: Any) -> Any:
    """`values` f32 [1, H, W, 3] scaled to a `size` [2]."""
    from openvino import opset13 as ops

    return ops.interpolate(
        values,
        size,
        mode="bilinear_pillow",
        shape_calculation_mode="sizes",
        axes=ops.constant(_ROWS_AND_COLUMNS),
        coordinate_transformation_mode="half_pixel",
    )
