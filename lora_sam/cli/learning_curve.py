"""How many labelled images are enough: the same training on few, more and all of them."""

from __future__ import annotations

import math
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lora_sam.cli.training_keys import TrainingKeys
from lora_sam.core.calling import step_called
from lora_sam.core.chosen import without_options
from lora_sam.core.console import print_table
from lora_sam.core.errors import ConfigError, LoraSamError
from lora_sam.core.files import read_json, write_text
from lora_sam.core.run_directory import RunDirectory, latest_stays
from lora_sam.core.wording import plural

if TYPE_CHECKING:
    from lora_sam.data.splits import Splits
    from lora_sam.runs.learning_curve import LearningCurve as Curve
    from lora_sam.training.settings import Settings

_VALIDATIONS = 8
LOG = "train.log"
_OTHER = {
    "config": "other settings",
    "steps": "other settings (steps)",
    "images": "other images",
    "contents": "images or labels that were edited since",
    "weights": "other base weights",
}


@dataclass(frozen=True, kw_only=True)
class LearningCurve(TrainingKeys):
    """Train on few, more and all labelled images, and say what more of them would bring.

    Takes every option of training. Each size is trained several times, each time on other images that are drawn at
    random; those of a smaller size are among those of a larger one of the same draw. The test split and its prompts are
    the same for all. What is done is not done again, so the same command goes on after Ctrl-C. The figures go to
    learning_curve.json, the page to learning_curve.html. Ends with 1 if a training failed.

    Attributes:
        shots: Numbers of training images; all is what there is. Larger ones than that are left out.
        draws: Trainings of each size; all has one.
        steps: Optimiser steps of each training, the same for every size, so that sizes and not times are compared; null
            leaves trainer.max_epochs and trainer.max_steps as they are.
        out: Directory of the curve; null for outputs/learning_curve.
    """

    shots: tuple[Annotated[int, Field(ge=1)] | Literal["all"], ...]
    draws: Annotated[int, Field(ge=1, le=100)]
    steps: Annotated[int, Field(ge=1)] | None
    out: Annotated[str, Field(min_length=1)] | None

    def check(self) -> None:
        """Raise `ConfigError` where options of training would change what is compared."""
        if not self.shots:
            raise ConfigError("shots = []: give numbers of images, such as shots=[1,5,20,all]")
        if self.resume is not None:
            raise ConfigError("resume: a curve is made of new trainings; leave it out")
        if self.trainer.get("shots") is not None or self.trainer.get("plan"):
            raise ConfigError(
                "trainer.shots, trainer.plan: are for one training; the sizes of the curve are shots=[...]"
            )

    def perform(self) -> int:
        """Train what is missing, write the curve and say what it tells; returns 1 if a training failed, else 0.

        Raises:
            ConfigError: an option is wrong, or `out` holds a curve of other settings.
            DataError: the data cannot be read.
        """
        from lora_sam.models.checkpoints import sha256_now

        settings = self._settings(self.training())
        splits = settings.open_data()
        _check_measured(splits, settings.evaluate_split)
        jobs = list(self._jobs(len(splits.train)))
        out = Path("outputs/learning_curve") if self.out is None else Path(self.out).expanduser()
        self._claim(out, splits, sha256_now(settings.model))
        failed: dict[str, str] = {}
        spent: list[float] = []
        for number, (shots, draw) in enumerate(jobs, 1):
            name = _name(shots, draw)
            directory = out / f"shots_{shots:04d}" / f"draw_{draw}"
            left = f", about {_minutes(sum(spent) / len(spent) * (len(jobs) - number + 1))} left" if spent else ""
            print(f"[{number}/{len(jobs)}] {name}{left}", file=sys.stderr, flush=True)
            began = time.monotonic()
            try:
                if self._train(directory, shots, draw, settings):
                    spent.append(time.monotonic() - began)
            except LoraSamError as error:
                failed[name] = " ".join(str(error).split())
                print(f"  failed: {failed[name]}", file=sys.stderr, flush=True)
        curve = _collected(out, jobs, failed, len(splits.train))
        self._tell(out, curve)
        return 1 if failed else 0

    @staticmethod
    def _settings(values: Mapping[str, Any]) -> Settings:
        from lora_sam.training.settings import settings_from

        return settings_from(values)

    def _jobs(self, count: int) -> Iterator[tuple[int, int]]:
        sizes = sorted({count if shots == "all" else shots for shots in self.shots if shots == "all" or shots <= count})
        if not sizes:
            raise ConfigError(
                f"shots = {list(self.shots)}: the training split has {plural(count, 'image')}; give fewer"
            )
        for shots in sizes:
            for draw in range(self.draws if shots < count else 1):
                yield shots, draw

    def _claim(self, out: Path, splits: Splits, weights: str | None) -> None:
        """Note what the curve is made of, or raise `ConfigError` where `out` has one of something else.

        Args:
            out: Directory of the curve.
            splits: The data: images and labels as they are now.
            weights: SHA-256 of the base; None where nobody knows.
        """
        import hashlib
        import json

        from lora_sam.core.files import digest_of
        from lora_sam.runs.places import contents

        ids = [list(splits.train.ids), list(splits.val.ids), list(splits.test.ids)]
        made_of = {
            "config": without_options(self.training()),  # older curves do not say what it was chosen by
            "steps": self.steps,
            "images": hashlib.sha256(repr(ids).encode()).hexdigest(),
            "contents": digest_of(contents(splits)),
            "weights": weights,
        }
        text = json.dumps(made_of, indent=1, sort_keys=True, default=list) + "\n"
        place = out / "made_of.json"
        if place.is_file():
            then = read_json(place, f"choose another place with out=..., or remove {out}")
            now = json.loads(text)
            other = [name for name in now if name in then and now[name] != then[name]]  # older ones say less
            if other:
                raise ConfigError(
                    f"out = {out}: holds a curve of {_OTHER[other[0]]}; put that back, or choose another with out=..."
                )
            return
        if out.exists() and any(out.iterdir()):
            raise ConfigError(f"out = {out}: holds something else; choose another place with out=...")
        out.mkdir(parents=True, exist_ok=True)
        write_text(place, text)

    def _train(self, directory: Path, shots: int, draw: int, settings: Settings) -> bool:
        """One training, unless it was done before; returns whether it was not."""
        from lora_sam.cli.train import fine_tune
        from lora_sam.runs.status import Status, read_status

        before = read_status(directory)
        if before is not None and before.status == "completed" and RunDirectory(directory).evaluation.is_file():
            return False
        config = self.training()
        trainer = config["trainer"]
        trainer.update(shots=shots, draw=draw, overlays=0)
        if self.steps is not None:
            trainer.update(max_steps=self.steps, max_epochs=None)
            epochs = self.steps * settings.trainer.batch_size * settings.trainer.accumulate / shots
            trainer["validate_every_epochs"] = max(1, math.floor(epochs / _VALIDATIONS))
        directory.mkdir(parents=True, exist_ok=True)
        words = [f"trainer.shots={shots}", f"trainer.draw={draw}"]
        status = Status(status="running", job=None, overrides=words, started=time.time())
        status.write(directory)
        try:
            with (
                (directory / LOG).open("a", encoding="utf-8") as log,
                redirect_stdout(log),
                redirect_stderr(log),
                latest_stays(),  # what the user trained, not one of many small runs
            ):
                objective = fine_tune(config, directory, words)
        except SystemExit:
            status.ended("interrupted").write(directory)
            print("stopped; the same command goes on", file=sys.stderr)
            raise
        except BaseException as error:
            kind = "failed" if isinstance(error, Exception) else "interrupted"
            status.ended(kind, error=str(error) or type(error).__name__).write(directory)
            raise
        status.ended("completed", objective=objective if math.isfinite(objective) else None).write(directory)
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)  # nobody goes on with one of so many
        return True

    def _tell(self, out: Path, curve: Curve) -> None:
        from lora_sam.report.learning_curve import PAGE, page, table
        from lora_sam.runs.learning_curve import FILE, write_curve

        write_curve(out, curve)
        largest = curve.sizes[-1].shots if curve.sizes else 0
        best = out / f"shots_{largest:04d}" / "draw_0"
        commands = [
            ("Masks for a folder with the model of the most images",
             f"{step_called('predict')} {shlex.quote(f'run={best}')} source=my_images"),
        ] if curve.sizes else []  # fmt: skip
        write_text(out / PAGE, page(curve, commands))
        if curve.sizes:
            print_table(table(curve))
        print(curve.verdict)
        print(f"figures  {out / FILE}")
        print(f"page     {out / PAGE}")


def _check_measured(splits: Splits, role: str) -> None:
    """Raise `ConfigError` where the images that measure are those that train: of each draw they would be others."""
    measured = splits.test if role == "test" else splits.val
    if list(measured.ids) == list(splits.train.ids):
        remedy = "leave data.test out, and some are set aside" if role == "test" else "take evaluate_split=test"
        raise ConfigError(
            f"evaluate_split = {role}: the {role} images are the training images themselves, so that every training "
            f"would be measured on the few that it saw; give a {role} split, or {remedy}"
        )


def _collected(out: Path, jobs: list[tuple[int, int]], failed: Mapping[str, str], images: int) -> Curve:
    from lora_sam.runs.learning_curve import curve_of, size_of

    reports: dict[int, list[dict[str, Any]]] = {}
    for shots, draw in jobs:
        file = RunDirectory(out / f"shots_{shots:04d}" / f"draw_{draw}").evaluation
        if file.is_file() and _name(shots, draw) not in failed:  # it may have failed after its evaluation
            reports.setdefault(shots, []).append(read_json(file, "remove its directory and give the command again"))
    return curve_of([size_of(shots, found) for shots, found in reports.items()], failed, images)


def _name(shots: int, draw: int) -> str:
    return f"{plural(shots, 'image')}, draw {draw}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
