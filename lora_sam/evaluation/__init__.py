"""Measuring predictors side by side on the same images with the same prompts, and reporting it."""

from lora_sam.evaluation.checking import SCHEMA_VERSION, validate_report
from lora_sam.evaluation.content import FEW_IMAGES, evaluation_report, verdict
from lora_sam.evaluation.scoring import Case, Evaluation, evaluate, score_sample, some_objects
from lora_sam.evaluation.table import markdown_table, render_table

__all__ = [
    "FEW_IMAGES",
    "SCHEMA_VERSION",
    "Case",
    "Evaluation",
    "evaluate",
    "evaluation_report",
    "markdown_table",
    "render_table",
    "score_sample",
    "some_objects",
    "validate_report",
    "verdict",
]
