"""One sweep in this process: what of its time goes into training, into evaluation, and into anything else."""

from __future__ import annotations

import cProfile
import io
import json
import pstats
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Meter:
    """Seconds of wall and processor, by what they went into, job by job.

    Attributes:
        jobs: One for each job that is over.
        profiler: Sees what is neither training nor evaluation, from the second job on.
    """

    jobs: list[dict[str, float]] = field(default_factory=list)
    profiler: cProfile.Profile | None = None
    _since: tuple[float, float] = (0.0, 0.0)
    _inside: dict[str, float] = field(default_factory=dict)

    def begin(self) -> None:
        """The first job begins now."""
        self._since = time.perf_counter(), time.process_time()

    def within(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, whose time counts as `name`."""

        def timed(*arguments: Any, **options: Any) -> Any:
            self._watch(on=False)
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return call(*arguments, **options)
            finally:
                for key, spent in (("", time.perf_counter() - wall), ("_cpu", time.process_time() - cpu)):
                    self._inside[name + key] = self._inside.get(name + key, 0.0) + spent
                self._watch(on=True)

        return timed

    def job_is_over(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, which is the last that is done for a job."""

        def marking(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            now = time.perf_counter(), time.process_time()
            self.jobs.append({"wall": now[0] - self._since[0], "cpu": now[1] - self._since[1], **self._inside})
            self._since, self._inside = now, {}
            self._watch(on=True)
            return result

        return marking

    def _watch(self, *, on: bool) -> None:
        if self.profiler is not None and self.jobs:
            self.profiler.enable() if on else self.profiler.disable()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep and print the seconds of its jobs; with `--profile` where the rest goes, on standard error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    meter = Meter(profiler=cProfile.Profile() if "--profile" in words else None)

    from lora_sam.cli import jobs
    from lora_sam.cli.train import run_train
    from lora_sam.evaluation import scoring
    from lora_sam.training import fit

    fit.fit = meter.within("training", fit.fit)
    scoring.evaluate = meter.within("evaluation", scoring.evaluate)
    vars(jobs)["note_job"] = meter.job_is_over(vars(jobs)["note_job"])
    meter.begin()
    said = io.StringIO()
    with redirect_stdout(said):
        code = run_train("train.py", [word for word in words if word != "--profile"])
    if code:
        sys.stderr.write(said.getvalue()[-2000:])
        return 1
    if meter.profiler is not None:
        meter.profiler.disable()
        pstats.Stats(meter.profiler, stream=sys.stderr).sort_stats("cumulative").print_stats(70)
    print(json.dumps({"jobs": meter.jobs}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
