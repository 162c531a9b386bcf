"""All formats by name; a row more is a format more."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from lora_sam.core.unknown import known_name
from lora_sam.deployment.predicting.writers import coco, geojson, labels, masks, overlays, semantic, yolo
from lora_sam.deployment.predicting.writers.format import Format

FORMATS: dict[str, Format] = {
    found.name: found
    for found in (
        Format(
            "coco", coco.FILE, "COCO instances with scores and RLE, for CVAT and any COCO tool", whole=coco.write_rle
        ),
        Format(
            "coco_polygons", coco.POLYGONS_FILE, "the same with polygons, for Label Studio", whole=coco.write_polygons
        ),
        Format("labels", "labels/", "16-bit label images: n is object n, the higher score on top", labels.write),
        Format(
            "semantic",
            "semantic/",
            "class images: the number of the class, 0 elsewhere",
            semantic.write,
            semantic.finish,
            semantic.ALSO,
            numbers_classes=True,
        ),
        Format("masks", "masks/", "a PNG for each object", masks.write),
        Format(
            "yolo",
            "yolo/",
            "YOLO segmentation, a text file for each image",
            yolo.write,
            yolo.finish,
            yolo.ALSO,
            numbers_classes=True,
        ),
        Format("geojson", "geojson/", "polygons with holes in pixels, as QuPath reads them", geojson.write),
        Format("overlays", "overlays/", "the images with the masks on them", overlays.write),
    )
}


Name = Annotated[str, AfterValidator(known_name(FORMATS))]
"""The name of a format, as an option."""
