"""Make the scores of SAM weights mean something: python scripts/fit_scores.py <file> <new file> [overrides].

On drawn images that are held out of training (the test split of `data=synthetic`, or of what the overrides choose), a
line brings the predicted IoU nearest to the actual one, and is folded into the weights: one for the single mask, one
for the three of ambiguous prompts. Then the settings for masks without a prompt (which masks of a point, ranking,
thresholds, overlap) are those with the best TP / (TP + FP + FN), and are written to the metadata of the new file.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_sam.core.errors import LoraSamError

_POINTS_PER_SIDE = 16  # as `AutomaticMasks`


def main() -> int:
    """Exit code: 0, or 2 where the weights cannot be read or written."""
    parser = argparse.ArgumentParser(description="Fit predicted IoU and thresholds of SAM weights on held-out images.")
    parser.add_argument("weights", type=Path, help="safetensors file with the keys of segment_anything")
    parser.add_argument("file", type=Path, help="safetensors file to write, fp16")
    parser.add_argument("--images", type=int, default=48, help="images to fit on")
    parser.add_argument("overrides", nargs="*", help="as for train.py; model=nano data=synthetic where left out")
    parser.add_argument("--also", action="append", default=[], help="a drawn data set more to choose the settings on")
    given = parser.parse_intermixed_args()
    try:
        fit(given.weights, given.file, given.images, given.overrides or ["model=nano", "data=synthetic"], given.also)
    except LoraSamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def fit(weights: Path, file: Path, images: int, overrides: list[str], also: Sequence[str] = ()) -> None:
    """Write `weights` with fitted scores to `file`.

    Args:
        weights: SAM weights to begin with.
        file: The new file.
        images: Images of the chosen data set for the lines, and of all data sets together for the settings.
        overrides: As for train.py.
        also: Data sets beside the chosen one for the settings, as `data=` takes them.

    Raises:
        CheckpointError: the weights cannot be read.
        ConfigError: the overrides cannot be used.
    """
    from typing import Any

    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    from safetensors.torch import save_file

    from lora_sam.core.conf_files import conf_directory
    from lora_sam.core.files import atomic_path
    from lora_sam.core.structures import Prompts
    from lora_sam.models.iou_head import correct_predicted_iou
    from lora_sam.models.projections import fuse_projections
    from lora_sam.predictors.torch_predictor import TorchPredictor
    from lora_sam.prompts import PointPrompt
    from lora_sam.training.fitted_lines import fit_lines, predicted_and_actual
    from lora_sam.training.fitted_scores import all_candidates, fit_scores
    from lora_sam.training.settings import settings_from

    with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        configs: list[Any] = [
            OmegaConf.to_container(compose("train", overrides=[*overrides, *more]), resolve=True)
            for more in ([], *([f"data={name}"] for name in also))
        ]
    settings, *others = (settings_from(config) for config in configs)
    base = dataclasses.replace(settings.model, weights="pretrained", checkpoint=str(weights)).build()
    predictor = TorchPredictor(base.sam, base.image_size)
    first, *rest = (one.data.open(one.seed).test for one in (settings, *others))
    samples = [first[index] for index in range(min(images, len(first)))]
    point = PointPrompt(farthest_share=0.0)
    pairs = [
        predicted_and_actual(
            predictor, sample, [Prompts(boxes=sample.boxes.copy()), point.training_prompts(sample, settings.seed, 0)]
        )
        for sample in samples
    ]
    lines = fit_lines(pairs)
    correct_predicted_iou(base.sam, lines)
    each = -(-images // len(configs))
    samples = samples[:each] + [source[index] for source in rest for index in range(min(each, len(source)))]
    scores, figure = fit_scores(
        [all_candidates(predictor, sample, _POINTS_PER_SIDE, ("three", "single")) for sample in samples]
    )
    state = {key: value.half().contiguous() for key, value in fuse_projections(base.sam).state_dict().items()}
    with atomic_path(file) as temporary:
        save_file(state, str(temporary), scores.to_metadata())
    for mask, (slope, offset) in enumerate(lines):
        print(f"mask {mask}: predicted IoU * {slope:.3f} {offset:+.3f}")
    print(f"{scores}: {figure:.3f} of TP / (TP + FP + FN) on {len(samples)} images")


if __name__ == "__main__":
    sys.exit(main())
