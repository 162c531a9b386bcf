"""Write the tuned model as files that another tool opens unchanged."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from lora_sam.core.run_directory import find_run
from lora_sam.deployment.packs import known_target
from lora_sam.deployment.packs.packing import write_pack


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Write the tuned model as files that another tool opens unchanged, and have it open them.

    The masks of the tool have to be ours: a mean IoU of at least 0.999, written into pack.json beside the files. Where
    the tool cannot be run here, its format is checked, and pack.json says so.

    Attributes:
        run: Run directory, or latest; its adapter has to be merged.
        target: Who opens it. sampredictor is a .pth for segment_anything's sam_model_registry, transformers a
            directory for Hugging Face's SamModel.from_pretrained, peft an adapter for such a model, micro_sam a .pt for
            micro-sam, model_api two IR parts for OpenVINO Model API, x_anylabeling a YAML file and two ONNX files, cvat
            a function of nuclio, label_studio an ML backend.
        output: Directory to write; null for packs/<target> in the run.
        overwrite: Replace an earlier pack there. Anything else that is there stays.
    """

    run: Annotated[str, Field(min_length=1)]
    target: Annotated[str, AfterValidator(known_target)]
    output: Annotated[str, Field(min_length=1)] | None
    overwrite: bool

    def perform(self) -> int:
        """Write the pack and say what came of opening it; returns 0. Raises as `write_pack` does."""
        run = find_run(self.run)
        output = run.root / "packs" / self.target if self.output is None else Path(self.output).expanduser().absolute()
        told = write_pack(run, self.target, output, overwrite=self.overwrite)
        print(f"{output}: {', '.join(told['files'])}")
        for note in told["notes"]:
            print(f"note: {note}", file=sys.stderr)
        iou = told["mask_iou"]
        measured = "" if iou is None else f": mask IoU {iou:.5f} on {told['masks']} masks"
        if told["why_not_run"] is None:
            print(f"  {told['host']}, {told['opened_by']}{measured}")
        else:
            print(f"  {told['host']}: not run ({told['why_not_run']}); checked: {told['opened_by']}{measured}")
        return 0
