"""From a finished run to deployable files and the table that compares them: the other steps, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from lora_sam.core.config import from_conf
from lora_sam.core.extras import require_extra
from lora_sam.core.run_directory import RunDirectory, find_run
from lora_sam.evaluation.backends.names import BACK_ENDS
from lora_sam.runs.adapter_files import find_adapter
from lora_sam.runs.elsewhere import working_copy
from lora_sam.runs.manifest import command

STEP = "deploy"


PRECISIONS = ("fp32", "fp16")


Act = Callable[[], int]


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """Merge, export with fp32 and with fp16 weights, quantize, and evaluate: each with its own defaults.

    What was done before and has not changed since is not done again. The first step that fails ends it.

    Attributes:
        run: Run directory, or latest.
        int8: Whether to quantize.
        max_drop: Points of IoU that INT8 may lose; null takes the default of quantize.
        fail_under: Least mean IoU of every back end but base; if one is below, the exit code is 3.
        base: Checkpoint of the base weights; null takes the file that the run used.
        data_root: Where the run's images lie now, if they have moved.
        output: Directory to work in instead of the run, which may be one that can only be read: adapter, settings and
            report are copied there. Later steps take it as their run.
    """

    run: Annotated[str, Field(min_length=1)]
    int8: bool
    max_drop: Annotated[float, Field(ge=0, le=100)] | None
    fail_under: Annotated[float, Field(ge=0, le=1)] | None
    base: Annotated[str, Field(min_length=1)] | None
    data_root: Annotated[str, Field(min_length=1)] | None
    output: Annotated[str, Field(min_length=1)] | None

    def perform(self) -> int:
        """Do all of it; returns 0, or the exit code of the first step that is not content.

        Raises:
            LoraSamError: what the step that failed raises.
        """
        require_extra("deploy", "deploy")
        run = find_run(self.run)
        find_adapter(run.root)
        run = working_copy(run, self.output)
        steps = list(self._steps(run))
        for number, (typed, act) in enumerate(steps, 1):
            print(f"[{number}/{len(steps)}] {typed}", file=sys.stderr, flush=True)
            if code := act():
                return code
        for directory in self._written(run):
            print(f"files     {directory}")
        return 0

    def _steps(self, run: RunDirectory) -> Iterator[tuple[str, Act]]:
        """What to do, as the command that does the same and as a function."""
        root = str(run.root)
        base = {} if self.base is None else {"base": self.base}
        data = {} if self.data_root is None else {"data_root": self.data_root}
        yield command("merge", root, **base), from_conf("merge", run=root, **base).perform
        for precision in PRECISIONS:
            step = from_conf("export", run=root, precision=precision, **data)
            yield command("export", root, precision=precision, **data), step.perform
        if self.int8:
            changed = {**data, **({} if self.max_drop is None else {"max_drop": self.max_drop})}
            yield command("quantize", root, **changed), from_conf("quantize", run=root, **changed).perform
            wanted = None
        else:  # even if there is one of an earlier call
            wanted = [name for name, back_end in BACK_ENDS.items() if not back_end.quantised]
        step = from_conf("evaluate", run=root, backends=wanted, fail_under=self.fail_under, **base, **data)
        typed: dict[str, str] = {} if wanted is None else {"backends": f"[{','.join(wanted)}]"}
        typed |= {} if self.fail_under is None else {"fail_under": f"{self.fail_under:g}"}
        yield command("evaluate", root, **typed, **base, **data), step.perform_once

    def _written(self, run: RunDirectory) -> tuple[str, ...]:
        precisions = (*PRECISIONS, "int8") if self.int8 else PRECISIONS
        return (str(run.merged), *(str(run.openvino(precision)) for precision in precisions))
