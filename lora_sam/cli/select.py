"""Which images to label next: the options of the command, and its order."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from lora_sam.core.console import note, progress
from lora_sam.core.errors import ConfigError, DataError, LoraSamError

if TYPE_CHECKING:
    from lora_sam.cli.selected import Seen
    from lora_sam.core.predictor import Predictor
    from lora_sam.data.reading.pixel_scale import PixelScale
    from lora_sam.deployment.predicting.sources import Source, SourceImage
    from lora_sam.deployment.predicting.tiling import Tiling
    from lora_sam.evaluation.choosing import Rule

FILES = ("selection.json", "selection.csv", "selection.png", "selection.html")
PRE_ANNOTATIONS = "pre_annotations"
SOME_FAILED = 3
RULES: Mapping[str, Rule] = {"coverage": "coverage", "farthest": "farthest", "disagreement": "none", "both": "coverage"}


@dataclass(frozen=True, kw_only=True)
class Select:
    """Choose the unlabelled images that are worth labelling next, and make masks of them to begin from.

    Images are ranked by how far their embeddings are from those of the training images and of what was chosen before
    them, by where the masks of adapter and base differ, or by both. Nothing is drawn: the same images give the same
    list. An image that looks like a labelled one of the run's data, in whichever split, or like one that was chosen, is
    left out: hashes that differ in at most 3 of 64 bits, and brightness by at most 8 of 255. Ends with 3 where images
    could not be read.

    Attributes:
        run: Run directory, or latest; of a sweep its best job.
        source: A folder with all below it, a pattern in quotes ('scans/**/*.tif'), an image, or a COCO file that lists
            images.
        n: How many images to choose.
        by: coverage of all images, which prefers those that stand for many; farthest from what is labelled, which
            prefers odd ones; disagreement of adapter and base at a grid of points; or both: coverage times that.
        out: Directory to write to; null for selections/<name of the source>.
        overwrite: Replace an earlier selection there.
        pre_annotate: Also write the masks that the run finds on the chosen images, as COCO.
        data_root: Where the images of the run lie now; null for where they were.
        max_megapixels: Larger images are left out and listed.
        device: auto, cpu, cuda, cuda:1 or mps.
        threads: Threads to compute with; null leaves it to torch.
        base: Checkpoint of the base weights; null takes the file that the run used.
    """

    run: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]
    n: Annotated[int, Field(ge=1, le=100_000)]
    by: Literal["coverage", "farthest", "disagreement", "both"]
    out: Annotated[str, Field(min_length=1)] | None
    overwrite: bool
    pre_annotate: bool
    data_root: Annotated[str, Field(min_length=1)] | None
    max_megapixels: Annotated[float, Field(gt=0, le=64)]
    device: Annotated[str, Field(min_length=1)]
    threads: Annotated[int, Field(ge=1, le=4096)] | None
    base: str | None

    def perform(self) -> int:
        """Rank, write and print; returns 0, or 3 where images could not be read.

        Raises:
            AdapterError: the run has no adapter.
            CheckpointError: the base weights are not found.
            ConfigError: the device is not there, or `out` is in use.
            DataError: no image is there, none can be read, or those of the run are gone.
            TrainingError: nothing can be written.
        """
        from lora_sam.cli.predict import subject_of
        from lora_sam.cli.selected import Seen, labelled_images
        from lora_sam.core.run_directory import find_run
        from lora_sam.data.reading.duplicates import alike, likeness
        from lora_sam.data.reading.pixel_scale import PixelScale
        from lora_sam.deployment.predicting.sources import open_source, readable
        from lora_sam.deployment.predicting.tiling import tiling_of
        from lora_sam.evaluation.choosing import ranked
        from lora_sam.runs.adapter_files import find_adapter, read_facts
        from lora_sam.runs.opening import check_device, open_model
        from lora_sam.runs.resuming import settings_of

        run = find_run(self.run)
        adapter = find_adapter(run.root)
        source = open_source(self.source, None if self.out is None else Path(self.out))
        readable(source.images, self.source)
        out = Path("selections") / subject_of(source) if self.out is None else Path(self.out).expanduser()
        self._check_free(out)
        check_device("tuned", self.device)
        training, others = labelled_images(run, settings_of(run, self.data_root), self.data_root)

        base = None if self.base is None else Path(self.base)
        tuned = open_model(run, "tuned", base=base, device=self.device, threads=self.threads)
        other = None
        if self.by in ("disagreement", "both"):
            other = open_model(run, "base", base=base, device=self.device, threads=self.threads)
        scale, tiling = PixelScale.of_run(adapter), tiling_of(read_facts(adapter))
        with progress("looking at labelled images", "images") as on_image:
            known = []
            for place in range(len(training)):
                known.append(Seen.of(training[place].image, tuned, None, tiling))
                on_image(place + 1, len(training))
            # these have not trained, so they cover nothing; but nobody has to label them
            not_trained = [likeness(part[place].image) for part in others for place in range(len(part))]
        seen, places, failures = self._looked_at(source, scale, tuned, other, tiling)
        if not seen:
            raise DataError(
                f"source = {self.source}: no image could be used; the first: {next(iter(failures.values()))}"
            )

        likenesses = [one.likeness for one in seen]
        labelled = [*(one.likeness for one in known), *not_trained]
        copies = {one.pixels for one in labelled}  # of flat images the hash says nothing
        done = {place for place, one in enumerate(likenesses) if one.pixels in copies}
        done |= {place for _, place in alike(labelled, likenesses)}
        fresh = [place for place in range(len(seen)) if place not in done]
        if not fresh:
            raise DataError(f"source = {self.source}: every image looks like a labelled one of the run's data")

        differs = None if other is None else np.array([seen[place].differs for place in fresh])
        if differs is not None and not differs.any():
            raise ConfigError(
                f"by = {self.by}: adapter and base find the same masks on all {len(fresh)} images, so that they rank "
                "nothing (did training beat the base?); by=coverage ranks by the images alone"
            )

        def same(one: int, two: int) -> bool:
            first, second = likenesses[fresh[one]], likenesses[fresh[two]]
            return first.pixels == second.pixels or any(True for _ in alike([first], [second]))

        chosen = ranked(
            np.stack([one.features for one in known]),
            np.stack([seen[place].features for place in fresh]),
            differs,
            self.n,
            same,
            rule=RULES[self.by],
        )
        picked = [(places[fresh[place]], seen[fresh[place]], score) for place, score in chosen]
        self._write(out, source, picked, failures, len(known) + len(not_trained), len(seen), len(done))
        self._tell(out, picked, failures, len(done))
        return SOME_FAILED if failures else 0

    def _check_free(self, out: Path) -> None:
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return
        if not (out / FILES[0]).is_file():
            raise ConfigError(f"out = {out}: holds something else and is left as it is; choose another with out=...")
        if not self.overwrite:
            raise ConfigError(
                f"out = {out}: holds an earlier selection; choose another out=..., or replace it with overwrite=true"
            )

    def _looked_at(
        self, source: Source, scale: PixelScale | None, tuned: Predictor, other: Predictor | None, tiling: Tiling
    ) -> tuple[list[Seen], list[SourceImage], dict[str, str]]:
        from lora_sam.cli.selected import Seen
        from lora_sam.data.reading.images import image_size, read_image

        seen, places, failures = [], [], {}
        with progress("looking at unlabelled images", "images") as on_image:
            for number, image in enumerate(source.images, 1):
                try:
                    if image.path is None:
                        raise DataError(str(image.problem))
                    height, width = image_size(image.path)
                    if height * width > self.max_megapixels * 1e6:
                        raise DataError(f"{image.path}: has more than max_megapixels = {self.max_megapixels:g}")
                    pixels = read_image(image.path, scale)
                except DataError as error:
                    failures[image.name] = str(error)
                else:
                    seen.append(Seen.of(pixels, tuned, other, tiling))
                    places.append(image)
                on_image(number, len(source.images))
        return seen, places, failures

    def _write(
        self,
        out: Path,
        source: Source,
        picked: list[tuple[SourceImage, Seen, float]],
        failures: dict[str, str],
        labelled: int,
        usable: int,
        left_out: int,
    ) -> None:
        from lora_sam.core.files import atomic_directory
        from lora_sam.report.selection import Picked, selection_html, sheet

        rows = [
            Picked(number, image.name, round(score, 6), seen.differs, seen.picture)
            for number, (image, seen, score) in enumerate(picked, 1)
        ]
        images = [
            {"rank": row.rank, "image": row.name, "score": row.score, "disagreement": row.differs} for row in rows
        ]
        content = {
            "schema_version": 1,
            "run": self.run,
            "source": str(source.root),
            "by": self.by,
            "labelled": labelled,
            "usable": usable,
            "like_labelled": left_out,
            "images": images,
            "failures": failures,
        }
        table = io.StringIO()
        writer = csv.DictWriter(table, ["rank", "image", "score", "disagreement"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(images)
        with atomic_directory(out) as directory:
            (directory / FILES[0]).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            (directory / FILES[1]).write_text(table.getvalue(), encoding="utf-8", errors="replace")
            picture = sheet(rows)
            picture.save(directory / FILES[2], format="PNG")
            page = selection_html(rows, content, picture)
            (directory / FILES[3]).write_text(page, encoding="utf-8", errors="replace")

    def _tell(
        self,
        out: Path,
        picked: list[tuple[SourceImage, Seen, float]],
        failures: dict[str, str],
        left_out: int,
    ) -> None:
        for name, reason in list(failures.items())[:10]:
            print(f"left out: {reason if name in reason else f'{name}: {reason}'}", file=sys.stderr)
        if len(failures) > 10:
            print(f"and {len(failures) - 10:,} more, all in {out / FILES[0]}", file=sys.stderr)
        if picked:
            print(f"{'':>4}  {'score':>8}  image, the one worth most first")
        for number, (image, _, score) in enumerate(picked, 1):
            print(f"{number:>4}  {score:8.4f}  {image.name}")
        if left_out:
            print(f"{left_out:,} look like labelled images and are left out")
        if len(picked) < self.n:
            print(f"only {len(picked)} of n = {self.n}: there are no more that are not near duplicates")
        if self.pre_annotate:
            self._annotate(out, [image.name for image, _, _ in picked])
        print(f"list   {out / FILES[1]}")
        print(f"page   {out / FILES[3]}", flush=True)

    def _annotate(self, out: Path, names: list[str]) -> None:
        """Masks on the chosen images, by predict."""
        from lora_sam.cli.predict import Predict
        from lora_sam.core.config import from_conf

        wanted = set(names)

        class OfChosen(Predict):
            def _prepared(self) -> Any:
                run, images, work = super()._prepared()
                chosen = tuple(image for image in images if image.name in wanted)
                return run, chosen, replace(work, images=chosen)

        usual = from_conf(
            "predict",
            run=self.run,
            source=self.source,
            output=str(out / PRE_ANNOTATIONS),
            device=self.device,
            threads=self.threads,
            base=self.base,
            max_megapixels=self.max_megapixels,
        )
        try:
            OfChosen(**vars(usual)).done()
        except LoraSamError as error:
            note(f"no masks to begin from: {error}")
