"""Segment what is in a box with the two exported parts; needs openvino, numpy and pillow, and nothing else.

python segment_openvino.py <directory with the parts> <image> <x1> <y1> <x2> <y2> <mask to write.png>
"""

import sys

import numpy as np
import openvino as ov
from PIL import Image, ImageOps

directory, image_file, *box, mask_file = sys.argv[1:]
core = ov.Core()
parts = [core.read_model(f"{directory}/{part}.xml") for part in ("image_encoder", "mask_decoder")]
encoder, decoder = (core.compile_model(part, "CPU") for part in parts)
side, grid = encoder.input("images").shape[3], encoder.output("image_embeddings").shape[3]


def fact(name: str) -> str:
    """What the file of the encoder says of its input."""
    return parts[0].get_rt_info(["model_info", name]).astype(str)


picture = Image.open(image_file)
# Pillow would cut bits off; of colour that shows in the parts that it has not read yet
if picture.mode[0] in "IF" or any(";16" in str(part[3]) for part in picture.tile):
    sys.exit(f"{image_file} has more than 8 bits: save it with 8, scaled as the images of the training were")
image = ImageOps.exif_transpose(picture).convert("RGB")  # as a viewer shows it
if fact("resize_type") == "standard":  # SAM 2 and SAM 3: squeezed into the square
    width = height = side
    bands = [band.convert("F").resize((side, side), Image.Resampling.BILINEAR) for band in image.split()]
    pixels = np.stack([np.asarray(band) for band in bands], axis=2)
else:  # SAM: the longer side fills the square
    longest = max(image.size)
    width, height = (max(1, (2 * length * side + longest) // (2 * longest)) for length in image.size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
mean, std = (np.array(fact(name).split(), float) for name in ("mean_values", "scale_values"))
pixels = (pixels - mean) / std  # normalised first, then padded with zeros
images = np.zeros((1, 3, side, side), np.float32)
images[0, :, :height, :width] = pixels.transpose(2, 0, 1)
embedding = encoder({"images": images})["image_embeddings"]  # once for an image, however many prompts follow

corners = np.array(box, np.float32).reshape(1, 2, 2) * [width / image.width, height / image.height]
result = decoder(
    {
        "image_embeddings": embedding,
        "point_coords": corners.astype(np.float32),
        "point_labels": np.array([[2, 3]], np.float32),  # a box is two points
        "mask_input": np.zeros((1, 1, 4 * grid, 4 * grid), np.float32),
        "has_mask_input": np.zeros((1, 1), np.float32),
        "orig_size": np.array([[image.height, image.width]], np.int64),
    }
)
mask = result["upscaled_masks"][0, 0] > 0
Image.fromarray(mask).save(mask_file)
print(f"{mask_file}: {mask.sum()} pixels, predicted IoU {result['iou_predictions'][0, 0]:.3f}")
