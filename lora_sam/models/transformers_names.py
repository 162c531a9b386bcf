"""How `transformers` names what all SAMs share, prompt encoder and mask decoder, beside the names of Meta."""

from __future__ import annotations

PROMPTED = (
    ("mask_downscaling.0.", "mask_embed.conv1."),
    ("mask_downscaling.1.", "mask_embed.layer_norm1."),
    ("mask_downscaling.3.", "mask_embed.conv2."),
    ("mask_downscaling.4.", "mask_embed.layer_norm2."),
    ("mask_downscaling.6.", "mask_embed.conv3."),
    ("output_upscaling.0.", "upscale_conv1."),
    ("output_upscaling.1.", "upscale_layer_norm."),
    ("output_upscaling.3.", "upscale_conv2."),
    ("output_hypernetworks_mlps.#.layers.0.", "output_hypernetworks_mlps.#.proj_in."),
    ("output_hypernetworks_mlps.#.layers.1.", "output_hypernetworks_mlps.#.layers.0."),
    ("output_hypernetworks_mlps.#.layers.2.", "output_hypernetworks_mlps.#.proj_out."),
    ("iou_prediction_head.layers.0.", "iou_prediction_head.proj_in."),
    ("iou_prediction_head.layers.1.", "iou_prediction_head.layers.0."),
    ("iou_prediction_head.layers.2.", "iou_prediction_head.proj_out."),
)
"""Rules that work one after the other on what the ones before have left; `#` is a number."""

POSITIONS = (
    "shared_image_embedding.positional_embedding",
    "prompt_encoder.shared_embedding.positional_embedding",
)
"""One tensor of Meta's packages, which `transformers` names twice."""
