"""Masks for a folder of images, written as COCO, label images, YOLO, GeoJSON and more."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from lora_sam.cli.step import run_step

    sys.exit(run_step("predict", "python -m lora_sam.predict", sys.argv[1:]))
