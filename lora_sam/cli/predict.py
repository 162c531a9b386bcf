"""Masks for a folder of images: the options of the command, its order, and what it says at its end."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lora_sam.core.calling import quoted, step_called
from lora_sam.core.errors import DataError
from lora_sam.core.run_directory import RunDirectory, find_run
from lora_sam.core.scores import MOST_PER_SIDE
from lora_sam.deployment.predicting.tiling import Tile
from lora_sam.deployment.predicting.writers.table import FORMATS
from lora_sam.deployment.predicting.writers.table import Name as FormatName
from lora_sam.evaluation.backends.names import Name as BackEndName
from lora_sam.runs.predicted import Predicted

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.core.scores import Scores
    from lora_sam.deployment.predicting.prompts_file import PromptsFile
    from lora_sam.deployment.predicting.sources import Source, SourceImage
    from lora_sam.deployment.predicting.task import Work
    from lora_sam.predictors.automatic import AutomaticMasks

STEP = "predict"

SOME_FAILED = 3


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Masks for every image of a folder, by themselves or from prompts in a file.

    Images are read as those of the training were. What is written appears whole or not at all; an image that is done is
    skipped when the same command is given again, so it goes on after Ctrl-C, a crash or a full disk. One image that
    cannot be used is named and counted, and the exit code is 3 then; all others are done.

    Attributes:
        run: Run directory, or latest.
        source: A folder with all below it, a pattern in quotes ('scans/**/*.tif'), an image, or a COCO file that lists
            images.
        prompts: A file with what shows the objects; null finds all objects without. COCO instances (their boxes), COCO
            results of a detector, the prompts.json of the app, a table image,x,y,label,object or image,x1,y1,x2,y2.
        formats: What is written, out of coco, coco_polygons, labels, semantic, masks, yolo, geojson, overlays.
        output: Directory to write to; null takes predictions/<name of the source> here, with a number behind it where
            that holds predictions with other settings.
        overwrite: Replace the predictions that are in output; other files stay.
        backend: torch, or what deploy made: merged, fp32, fp16, int8, int8_bf16 and so on.
        adapter: False predicts with the base, as it was before training; torch only.
        points_per_side: Without prompts: points along each side of an image that are tried; null takes as many as the
            run found its objects with.
        holes_per_side: Without prompts: points along each side of a second, finer grid, which are tried only where no
            mask was found; finds small objects between the first points. null for none.
        predicted_iou: Without prompts: masks whose predicted IoU is not above this are left out; null takes the
            threshold of the weights.
        stability: Without prompts: masks that are less stable are left out; null takes the threshold of the weights.
        box_overlap: Without prompts: of two masks whose boxes overlap by a higher IoU, the one with the lower score is
            left out; null takes what was fitted for the weights.
        mask_overlap: Without prompts: the same of the masks themselves, of those that are left then; 1 leaves all.
        multimask: With prompts: of SAM's three masks for ambiguous prompts, take the one with the highest predicted
            IoU, instead of the single mask.
        tile: Images larger than those of the training are cut into tiles, so that objects keep their scale: auto cuts
            as data.tile did in training, or where images were whole those more than twice as large, into tiles of the
            training's size; a number is the side of the tiles in pixels, for all larger images; off cuts none.
        halo: Pixels that neighbouring tiles share; null takes an eighth of a tile. Objects that are smaller are whole
            in one of them, what is larger is put together.
        max_images: The first so many images; null takes all.
        max_megapixels: Larger images that are not cut into tiles are counted as failures; their masks would take too
            much memory. In tiles, up to 178 megapixels are read.
        device: auto, cpu, cuda, cuda:1 or mps, for torch.
        threads: Threads to compute with; null leaves it to torch and OpenVINO.
        base: Checkpoint of the base weights; null takes the file that the run used.
    """

    run: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]
    prompts: Annotated[str, Field(min_length=1)] | None
    formats: Annotated[tuple[FormatName, ...], Field(min_length=1)]
    output: Annotated[str, Field(min_length=1)] | None
    overwrite: bool
    backend: Literal["torch"] | BackEndName
    adapter: bool
    points_per_side: Annotated[int, Field(ge=1, le=MOST_PER_SIDE)] | None
    holes_per_side: Annotated[int, Field(ge=1, le=MOST_PER_SIDE)] | None
    predicted_iou: Annotated[float, Field(ge=0, le=1)] | None
    stability: Annotated[float, Field(ge=0, le=1)] | None
    box_overlap: Annotated[float, Field(ge=0, le=1)] | None
    mask_overlap: Annotated[float, Field(ge=0, le=1)] | None
    multimask: bool
    tile: Tile
    halo: Annotated[int, Field(ge=0)] | None
    max_images: Annotated[int, Field(ge=1)] | None
    max_megapixels: Annotated[float, Field(gt=0, le=64)]
    device: Annotated[str, Field(min_length=1)]
    threads: Annotated[int, Field(ge=1, le=4096)] | None
    base: str | None

    def check(self) -> None:
        """Raise `ConfigError` where options contradict each other."""
        from lora_sam.runs.opening import back_end_of

        back_end_of(self.backend, adapter=self.adapter)

    def perform(self) -> int:
        """`done`; returns 0, or 3 where images could not be used."""
        return SOME_FAILED if self.done().failures else 0

    def done(self) -> Predicted:
        """Predict, write and print.

        Raises:
            AdapterError: the run has no adapter, or the back end is missing, stale or damaged; names the command.
            CheckpointError: the base weights are not found.
            ConfigError: the device is not there, or the output is in use.
            DataError: no image is there, or the prompts are wrong.
            TrainingError: nothing can be written.
        """
        from lora_sam.cli import at_work
        from lora_sam.cli.predicted import tell
        from lora_sam.core.console import progress
        from lora_sam.deployment.predicting.outcome import Outcome
        from lora_sam.deployment.predicting.work import finish, perform
        from lora_sam.runs.opening import open_model

        run, images, work = self._prepared()
        name, outcome = str(work.output.settings["backend"]), Outcome()
        work.output.begin()

        @cache
        def predictor() -> Predictor:
            return open_model(run, name, base=self._base(), device=self.device, threads=self.threads)

        def advice() -> str:
            return f"{len(outcome.counts):,} images are done and kept in {work.output.root}; go on with: {self.typed()}"

        with at_work(advice):
            with progress(f"predicting with {name}", "images") as on_image:
                perform(work, predictor, on_image, outcome)
            outcome.others = finish(work, images, outcome.failures)
            tell(work, outcome, run=run.root, again=self.typed)
        files = {format_: work.output.root / FORMATS[format_].place for format_ in work.formats}
        return Predicted(work.output.root, outcome.counts, outcome.failures, files)

    def _prepared(self) -> tuple[RunDirectory, tuple[SourceImage, ...], Work]:
        """The run, all images, and what is to be done with the first of them.

        Everything that can be wrong is found here, before the first image goes through the model.
        """
        from lora_sam.core.scores import scores_of
        from lora_sam.data.reading.pixel_scale import PixelScale
        from lora_sam.deployment.predicting.output import open_output
        from lora_sam.deployment.predicting.prompted import OBJECT
        from lora_sam.deployment.predicting.sources import masks_among, open_source, readable
        from lora_sam.deployment.predicting.task import Work
        from lora_sam.deployment.predicting.tiling import tiling_of
        from lora_sam.methods.peft_config import CLASS_HEAD
        from lora_sam.predictors.automatic import AutomaticMasks
        from lora_sam.runs.adapter_files import find_adapter, read_facts
        from lora_sam.runs.loading import load_classes
        from lora_sam.runs.opening import back_end_of, check_device, identity
        from lora_sam.runs.trained_for import not_trained_alone, trained_for

        run = find_run(self.run)
        adapter = find_adapter(run.root)
        facts = read_facts(adapter)
        name = back_end_of(self.backend, adapter=self.adapter)
        source = open_source(self.source, None if self.output is None else Path(self.output))
        prompts = self._read_prompts(source)
        images = source.images
        if prompts is not None:
            images = tuple(image for image in images if image.name in prompts.objects)
        readable(images, self.source)
        alone = None if prompts is not None or name == "base" else not_trained_alone(trained_for(run))
        for told in (alone, masks_among(source) if prompts is None else None):
            if told is not None:
                print(told, file=sys.stderr)
        check_device(name, self.device)
        weights = identity(run, name, self._base())
        automatic = AutomaticMasks(
            points_per_side=self.points_per_side,
            holes_per_side=self.holes_per_side,
            predicted_iou=self.predicted_iou,
            stability=self.stability,
            box_overlap=self.box_overlap,
            mask_overlap=self.mask_overlap,
        )
        of_base = facts["base"].get("scores", facts.get("scores"))
        scores = scores_of(of_base if name == "base" else facts.get("scores"))
        scale = PixelScale.of_run(adapter)
        tiles = tiling_of(facts, self.tile, self.halo)
        # the base never saw the classes
        head = load_classes(adapter) if name != "base" else None
        named = prompts is not None and prompts.names_classes
        classes = facts.get("classes") or [OBJECT]
        categories = dict(enumerate(classes if head or len(classes) == 1 else [OBJECT], 1))
        if prompts is not None and named:
            categories = dict(prompts.categories)
        settings = {
            "source": str(source.root),
            "backend": name,
            "weights": weights,
            "scale": None if scale is None else scale.to_json(),
            "classes": None if head is None else facts["files"][CLASS_HEAD],
            "tiles": tiles.to_json(),
            **self._decoding(automatic, scores, prompts),
        }
        output = open_output(self.output, subject_of(source), settings, overwrite=self.overwrite)
        work = Work(
            images=images[: self.max_images],
            stems=output.stems(image.name for image in source.images),
            output=output,
            formats=tuple(dict.fromkeys(self.formats)),
            categories=categories,
            automatic=automatic,
            prompts=None if prompts is None else prompts.objects,
            multimask=self.multimask,
            scale=scale,
            max_pixels=round(self.max_megapixels * 1e6),
            tiling=tiles,
            head=None if named else head,
            named=named,
        )
        return run, images, work

    def _base(self) -> Path | None:
        return None if self.base is None else Path(self.base)

    def _read_prompts(self, source: Source) -> PromptsFile | None:
        from lora_sam.data.reading.image_file import MAX_TILED_PIXELS, read_up_to
        from lora_sam.data.reading.images import image_size
        from lora_sam.deployment.predicting.prompts_file import check_within, read_prompts

        if self.prompts is None:
            return None
        file = Path(self.prompts).expanduser()
        found = read_prompts(file, source)
        sizes = {}
        for image in source.images:
            if image.name in found.objects and image.path is not None:
                try:
                    with read_up_to(MAX_TILED_PIXELS):
                        sizes[image.name] = image_size(image.path)
                except DataError:  # its turn will come
                    continue
        check_within(file, found, source.images, sizes)
        without = len(source.images) - len(found.objects)
        if without:
            print(f"{without:,} of {len(source.images):,} images have no prompts and are left out", file=sys.stderr)
        return found

    def _decoding(self, automatic: AutomaticMasks, scores: Scores, prompts: PromptsFile | None) -> dict[str, Any]:
        """Settings of what is made of an encoded image."""
        if prompts is not None:
            return {"prompts": prompts.kind, "multimask": self.multimask}
        asked = dict(vars(automatic.completed(scores)))
        # without what is as it always was: predictions that were made before there was a choice are still the same
        if asked["mask_overlap"] == 1:
            del asked["mask_overlap"]
        if self.holes_per_side is not None:
            asked["holes_per_side"] = self.holes_per_side
        return {"prompts": None, **asked}

    def typed(self, **changes: Any) -> str:
        """The command that does the same again, with some options changed."""
        from lora_sam.cli.step import as_typed
        from lora_sam.core.config import from_conf, plain_fields

        usual = plain_fields(from_conf(STEP, source=self.source))
        # to replace once more what has just been made is not the same
        values = {**plain_fields(self), **changes, "overwrite": False}
        changed = {key: value for key, value in values.items() if value != usual[key]}
        changed = {"run": self.run, "source": self.source, **changed}
        words = [
            f"{key}={quoted(value) if isinstance(value, str) else as_typed(value)}" for key, value in changed.items()
        ]
        return " ".join([step_called("predict"), *(shlex.quote(word) for word in words)])


def subject_of(source: Source) -> str:
    """What the predictions of a source are called where nothing else is said."""
    name = Path(source.images[0].name).stem if source.kind == "file" else source.root.name
    name = Path(source.typed).stem if source.kind == "coco" else name
    return re.sub(r"[^\w.-]+", "_", name).strip("._-") or "images"
