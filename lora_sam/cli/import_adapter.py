"""Take over an adapter that another program made, and give one back in the layout of Sam_LoRA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lora_sam.deployment.importing import export_adapter, import_adapter
from lora_sam.report.model_card import model_card
from lora_sam.runs.adapter_files import find_adapter, read_facts


@dataclass(frozen=True, kw_only=True)
class ImportAdapter:
    """Take over LoRA that another program trained: Sam_LoRA, SAMed, CellSeg1, micro-sam or finetune-SAM.

    The adapter gives the masks that it gave there, on the same base. Nothing in the file is executed. What the file
    does not say is worked out from its sizes, or asked for.

    Attributes:
        file: The file: .safetensors, .pt or .pth.
        output: Directory that gets adapter/; must not be there yet.
        variant: Model that it belongs to, as vit_b; null works it out from the sizes in the file.
        base: Checkpoint of the base weights; null takes the published ones.
        image_size: Side of the input that it was trained with; null takes that of the model.
        blocks: Blocks that have LoRA, where they are numbered and not all; null for all.
        positions: How tables of positions are scaled to image_size: usual is as everywhere here (bicubic), samed and
            cellseg1 as those programs do it; the base is written beside the adapter then.
    """

    file: Annotated[str, Field(min_length=1)]
    output: Annotated[str, Field(min_length=1)]
    variant: str | None
    base: str | None
    image_size: Annotated[int, Field(ge=32, le=4096)] | None
    blocks: tuple[Annotated[int, Field(ge=0, lt=1000)], ...] | None
    positions: Literal["usual", "samed", "cellseg1"]

    def perform(self) -> int:
        """Write the adapter and say how to use it; returns 0."""
        place = import_adapter(
            Path(self.file),
            Path(self.output),
            card=model_card,
            variant=self.variant,
            base=self.base,
            image_size=self.image_size,
            blocks=self.blocks,
            positions=self.positions,
        )
        print(f"{place}: in Python lora_sam.load({str(place)!r})")
        return 0


@dataclass(frozen=True, kw_only=True)
class ExportAdapter:
    """Write the LoRA of a run in the layout of Sam_LoRA: w_a_000, w_b_000, ..., scale 1.

    That layout knows q and v of the image encoder alone: train with method=lora method.decoder=frozen.

    Attributes:
        run: Run directory, or its adapter/.
        file: The .safetensors file to write; must not be there yet.
    """

    run: Annotated[str, Field(min_length=1)]
    file: Annotated[str, Field(min_length=1)]

    def perform(self) -> int:
        """Write the file and say how many layers are in it; returns 0."""
        from lora_sam.core.run_directory import find_run

        adapter = find_adapter(find_run(self.run).root)
        print(f"{self.file}: {export_adapter(adapter, Path(self.file))} layers of {adapter}")
        facts = read_facts(adapter)
        blocks = facts["method"].get("blocks", "all")
        print(
            f"  what such a file does not say: weights of {facts['base']['source']!r:.99}, images of "
            f"{facts['image_size']} pixels, blocks {blocks if isinstance(blocks, str) else list(blocks)}"
        )
        return 0
