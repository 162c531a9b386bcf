"""A plain SAM in the layout of Hugging Face: its model in `transformers`, and the processor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from lora_sam.deployment.proof import Answers, Probe, ProbePrompts
from lora_sam.models.family import transformers_module

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def write_transformers(directory: Path, state: Mapping[str, Tensor], architecture: Mapping[str, Any]) -> None:
    """Write a SAM so that `from_pretrained` of its model and of its processor read it.

    Args:
        directory: Where to; made if missing. Gets `config.json`, `model.safetensors` and the processor's settings.
        state: Weights with the keys of the upstream package.
        architecture: As the variant describes it (`lora_sam.models.family.SamModel.architecture`).
    """
    import transformers

    layout: Any = transformers_module(architecture)
    with _quiet():
        with torch.device("meta"):
            model: Any = getattr(transformers, layout.MODEL)(layout.config(architecture))
        model.load_state_dict(layout.state_of(state), strict=True, assign=True)
        model.tie_weights()
        model.save_pretrained(directory)
        layout.processor(architecture["image_size"]).save_pretrained(directory)


def read_transformers(directory: Path) -> Any:
    """The model of `transformers` in a directory, `eval()`, without gradients; nothing is fetched."""
    from transformers import AutoModel

    with _quiet():
        model: Any = AutoModel.from_pretrained(directory, local_files_only=True)
    return model.eval().requires_grad_(False)


def transformers_answers(model: Any, probe: Probe) -> Answers:
    """What a model of `transformers` says to a probe, in the order of `lora_sam.deployment.proof.answers`."""
    with torch.no_grad():
        embeddings = model.get_image_embeddings(probe.images)
        found = [_decoded(model, embeddings, prompts) for kind in probe.prompts for prompts in _as_taken(kind)]
    return Answers(torch.cat([logits for logits, _ in found]), torch.cat([scores for _, scores in found]))


def _decoded(model: Any, embeddings: Tensor, prompts: ProbePrompts) -> tuple[Tensor, Tensor]:
    """All four masks [N, 4, h, w] and predicted IoU [N, 4]; the model offers one of them, or the three others."""
    outputs = [
        model(
            image_embeddings=embeddings,
            input_points=None if prompts.points is None else prompts.points.unsqueeze(0),
            input_labels=None if prompts.labels is None else prompts.labels.unsqueeze(0),
            input_boxes=None if prompts.boxes is None else prompts.boxes.unsqueeze(0),
            input_masks=None if prompts.mask_inputs is None else prompts.mask_inputs.unsqueeze(1),
            multimask_output=multimask,
        )
        for multimask in (False, True)
    ]
    logits = torch.cat([output.pred_masks[0] for output in outputs], dim=1)
    return logits, torch.cat([output.iou_scores[0] for output in outputs], dim=1)


def _as_taken(prompts: ProbePrompts) -> Iterator[ProbePrompts]:
    """The model takes one mask prompt for an image, whatever the number of its boxes."""
    if prompts.mask_inputs is None:
        yield prompts
        return
    assert prompts.boxes is not None
    assert prompts.points is None
    for box, mask in zip(prompts.boxes.split(1), prompts.mask_inputs.split(1), strict=True):
        yield ProbePrompts(boxes=box, mask_inputs=mask)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers in here."""
    from transformers import utils

    logging: Any = utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
