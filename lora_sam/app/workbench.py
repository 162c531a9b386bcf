"""Models, images and masks that are held between two requests, so that the second prompt is instant."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.app.backends import backends_of, bytes_of
from lora_sam.app.comparison import Column, Comparison, masks_of, notes_of, notes_on, scaled
from lora_sam.app.everything import find_everything, seen_whole, tiles_for
from lora_sam.app.kept import Kept
from lora_sam.app.models import Model, load_model, measure, weight_bytes
from lora_sam.app.patches import Patch, patch_of
from lora_sam.app.pictures import EvaluatedImages, Picture, images_of, picture_of
from lora_sam.app.runs import Run, find_runs
from lora_sam.app.scene import Choice, Scene, inside
from lora_sam.app.turns import WAITING, Turns
from lora_sam.app.uploads import read_upload
from lora_sam.core.errors import AdapterError, DataError, LoraSamError
from lora_sam.data.reading.pixel_scale import PixelScale
from lora_sam.evaluation.backends.names import TORCH
from lora_sam.prompts.objects import ObjectPrompts, batches
from lora_sam.runs.trained_for import not_trained_alone, trained_for

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.predictors.automatic import AutomaticMasks

_MODELS, _PICTURES, _MASKS, _DEEP, _FOUND = 3, 32, 4096, 4, 16
_PICTURE_BYTES = 2**29
COLLECTED = Path("data") / "corrected"


class Workbench:
    """Answers what a browser asks; every method may be called from any thread.

    Args:
        outputs: Directory of runs.
        wanted: The run to begin with; None for the latest.
        waiting: How many heavy jobs may wait for the one that works.
        folder: Where accepted masks are kept as training data; None for nowhere.
        program: How training is called, for the command that goes on with them.

    Raises:
        AdapterError: there is no run.
    """

    def __init__(
        self,
        outputs: Path,
        wanted: str | None = None,
        *,
        waiting: int = WAITING,
        folder: Path | None = COLLECTED,
        program: str = "python train.py",
    ) -> None:
        self.outputs, self._wanted = outputs, wanted
        self.folder, self.program = folder, program
        self.turns = Turns(waiting)
        self.ready = threading.Event()
        self.failure: str | None = None
        self._starting = threading.Lock()
        self._loader: threading.Thread | None = None
        self._models: Kept[Model] = Kept(_MODELS)
        self._images: dict[str, EvaluatedImages | str] = {}
        self._pictures: Kept[Picture] = Kept(_PICTURES, most_bytes=_PICTURE_BYTES, size=lambda one: one.nbytes)
        self._deep: Kept[tuple[str, bytes]] = Kept(_DEEP)  # name and content of uploads that each run reads its own way
        self._masks: Kept[tuple[Patch, float]] = Kept(_MASKS)
        self._found: Kept[Comparison] = Kept(_FOUND)
        self.runs: dict[str, Run] = {}
        self.refresh()
        if not self.runs:
            raise AdapterError(
                f"{outputs}: no finished run there; make one with `{program}` (some minutes), or name the "
                "directory of runs with --outputs"
            )

    def refresh(self) -> list[Run]:
        """Look for runs again; the first is the one to begin with."""
        found = find_runs(self.outputs, self._wanted)
        self.runs = {run.name: run for run in found}
        return found

    def start(self) -> None:
        """Load the first run in a thread of its own, unless that has begun already."""
        with self._starting:
            if self._loader is None:
                self._loader = threading.Thread(target=self.load, name="load", daemon=True)
                self._loader.start()

    def load(self) -> None:
        """Load the first run and warm it up."""
        try:
            name = next(iter(self.runs))
            with self.turns.take("load"):
                model = self._model(name)
                with suppress(LoraSamError):
                    self._evaluated(name)
                measure(model, TORCH)
                measure(model, "base")
        except LoraSamError as error:
            self.failure = str(error)
        finally:
            self.ready.set()

    # --- images ------------------------------------------------------------------------------------------------------

    def evaluated(self, run: str) -> EvaluatedImages:
        """The test images of a run. Raises `DataError` if they are gone."""
        with self.turns.take("images"):
            return self._evaluated(run)

    def picture(self, id: str, run: str) -> Picture:
        """An image by its id. Raises `DataError` if it is not known, or not any more."""
        kind, _, number = id.partition(":")
        deep = self._deep.get(id)
        key = (id, run if kind == "test" or deep else "")
        known = self._pictures.get(key)
        if known is not None:
            return known
        if kind == "test" and number.isdecimal() and len(number) < 9:
            return self._pictures.put(key, self._evaluated(run).picture(int(number)))
        if deep:
            return self._pictures.put(key, self._uploaded(*deep, run))
        raise DataError("this image is not here any more; upload it again, or choose a test image")

    def upload(self, name: str, content: bytes) -> Picture:
        """Take an image from a browser. Raises `DataError` in one sentence if it cannot be taken."""
        run = next(iter(self.runs))
        upload = read_upload(name, content, self._scale(run))
        if upload.deep:
            self._deep.put(upload.id, (name, content))
        key = (upload.id, run if upload.deep else "")
        return self._pictures.put(key, picture_of(upload.id, upload.name, upload.image))

    def _uploaded(self, name: str, content: bytes, run: str) -> Picture:
        upload = read_upload(name, content, self._scale(run))
        return picture_of(upload.id, upload.name, upload.image)

    def _scale(self, run: str) -> PixelScale | None:
        return PixelScale.of_run(self._run(run).directory.root)

    # --- masks -------------------------------------------------------------------------------------------------------

    def compare(self, scene: Scene, ticket: str = "compare") -> Comparison:
        """The masks of base and tuned models.

        Raises:
            BusyError: too many jobs wait.
            DataError: a prompt, the image or a run is not usable.
            AdapterError: a model cannot be loaded or scaled.
        """
        with self.turns.take(ticket):
            picture = self.picture(scene.image, self._first(scene))
            objects = inside(scene.objects, picture.size)
            whole = seen_whole(self._model(self._first(scene)).tiling, picture)
            columns = [
                self._column(key, label, predictor, mark, picture, objects, scene.choice)
                for key, label, predictor, mark in self._predictors(scene)
            ]
            return Comparison(picture, objects, tuple(columns), (*notes_of(scene), *notes_on(objects), *whole))

    def everything(
        self, scene: Scene, settings: AutomaticMasks, ticket: str = "everything", *, most: int = 200
    ) -> Comparison:
        """Masks found without prompts by base and tuned models, at most `most` each; raises as `compare` does."""
        columns, notes = [], list(notes_of(scene))
        with self.turns.take(ticket):
            picture = self.picture(scene.image, self._first(scene))
            tiles, told = tiles_for(self._model(self._first(scene)).tiling, picture)
            alone = not_trained_alone(trained_for(self._run(self._first(scene)).directory))
            notes += [note for note in (alone, told) if note is not None]
            for key, label, predictor, _ in self._predictors(scene):
                start = time.perf_counter()
                predictor.set_image(picture.image)
                encoded = time.perf_counter()
                # the base never saw the classes
                tell = (lambda *_: ()) if key == "base" else partial(self._model(key).classes, predictor)
                found = find_everything(settings, predictor, picture, tiles, tell, most)
                if found.nothing is not None:
                    notes.append(f"{label}: {found.nothing}")
                seconds = time.perf_counter() - encoded
                columns.append(Column(key, label, found.patches, found.scores, encoded - start, seconds, found.names))
        made = Comparison(picture, (), tuple(columns), tuple(notes))
        self._found.put((_what_is_looked_at(scene), made.mark), made)
        return self._found.put(_what_is_looked_at(scene), made)

    def found(self, scene: Scene, mark: str = "") -> Comparison:
        """What `everything` found for this image and these models: the masks with this mark, or without one the last.

        Others who look at the same image, with other settings, find other masks. Raises `DataError` if it is forgotten.
        """
        looked_at = _what_is_looked_at(scene)
        known = self._found.get((looked_at, mark) if mark else looked_at)
        if known is None:
            raise DataError("these masks are not here any more; find everything again")
        return known

    def whole(self, scene: Scene, ticket: str = "whole") -> tuple[Picture, dict[str, NDArray[np.bool_]], Any]:
        """Picture, masks bool [N, H, W] at its original size by column, and predicted IoU [N] by column."""
        with self.turns.take(ticket):
            picture = self.picture(scene.image, self._first(scene))
            objects = tuple(one for one in inside(scene.objects, picture.size) if not one.empty)
            masks, scores = {}, {}
            for key, _, predictor, _ in self._predictors(scene):
                masks[key] = np.zeros((len(objects), *picture.size), np.bool_)
                scores[key] = np.zeros(len(objects), np.float32)
                for places, prompts in batches(objects):
                    masks[key][places], scores[key][places] = masks_of(
                        predictor, picture.original, prompts, scene.choice
                    )
            return picture, masks, scores

    def told(
        self, scene: Scene, key: str, picture: Picture, masks: NDArray[np.bool_], ticket: str = "told"
    ) -> list[str]:
        """Classes of masks bool [N, H, W] of the original image in a column, as `predict` tells them; or nothing."""
        with self.turns.take(ticket):
            model = self._model(self._first(scene) if key == "base" else key)
            # the base never saw the classes
            by = {name: predictor for name, _, predictor, _ in self._predictors(scene)}
            found = () if key == "base" else model.classes(by[key], picture.original, masks)
            return list(found or model.only_class * len(masks))

    def backends(self, run: str) -> dict[str, str]:
        """Label of every back end of a run: name, size, and the times to encode an image and to answer a prompt."""
        with self.turns.take("backends"):
            model = self._model(run)
            labels = {}
            for name in (TORCH, *backends_of(model.run.directory)):
                try:
                    encode, answer = measure(model, name)
                    size = bytes_of(model.run.directory, name)
                except (LoraSamError, RuntimeError) as error:
                    labels[name] = f"{name} (cannot be loaded: {' '.join(str(error).split())[:80]})"
                    continue
                size = weight_bytes(model) if size is None else size
                labels[name] = f"{name}: {size / 1e6:.1f} MB, {encode:.0f} + {answer:.0f} ms"
            return labels

    def _first(self, scene: Scene) -> str:
        return scene.runs[0] if scene.runs else next(iter(self.runs))

    def _evaluated(self, name: str) -> EvaluatedImages:
        known = self._images.get(name)
        if known is None:
            try:
                known = images_of(self._run(name))
            except LoraSamError as error:
                known = " ".join(str(error).split())
            self._images[name] = known
        if isinstance(known, str):
            raise DataError(known)
        return known

    def _run(self, name: str) -> Run:
        if name not in self.runs:
            raise DataError(f"there is no run {name!r:.80} below {self.outputs}; choose one from the list")
        return self.runs[name]

    def _model(self, name: str) -> Model:
        run = self._run(name)
        written = (run.directory.adapter / "adapter_model.safetensors").stat().st_mtime_ns
        known = self._models.get((name, written))
        return known if known is not None else self._models.put((name, written), load_model(run))

    def _predictors(self, scene: Scene) -> list[tuple[str, str, Predictor, Hashable]]:
        """Key, label, predictor, and what decides its masks beside image and prompts."""
        names = scene.runs or (self._first(scene),)
        made: list[tuple[str, str, Predictor, Hashable]] = []
        for place, name in enumerate(names):
            model = self._model(name)
            if place == 0:
                made.append(("base", "base", model.predictor("base"), (model.number, "base")))
            backend = scene.backend if place == 0 else TORCH
            label = "tuned" if len(names) == 1 else f"tuned: {name}"
            if backend == TORCH:
                model.set_alpha(scene.alpha)
                label += f", α {scene.alpha:g}" if scene.alpha != 1 else ""
            else:
                label += f", {backend}"
            mark = (model.number, backend, scene.alpha if backend == TORCH else 1.0)
            made.append((name, label, model.predictor(backend), mark))
        return made

    def _column(
        self,
        key: str,
        label: str,
        predictor: Predictor,
        mark: Hashable,
        picture: Picture,
        objects: tuple[ObjectPrompts, ...],
        choice: Choice,
    ) -> Column:
        keys = [(mark, picture.digest, choice, one) for one in objects]
        found = [None if one.empty else self._masks.get(key) for key, one in zip(keys, objects, strict=True)]
        new = [place for place, one in enumerate(objects) if found[place] is None and not one.empty]
        encode, decode = 0.0, 0.0
        if new or not objects:
            before, start = predictor.encoded, time.perf_counter()
            predictor.set_image(picture.image)
            encode = time.perf_counter() - start if predictor.encoded > before else 0.0
            placed = [scaled(objects[place], picture.scale) for place in new]
            for places, prompts in batches(placed):
                start = time.perf_counter()
                masks, scores = masks_of(predictor, picture.image, prompts, choice)
                decode += time.perf_counter() - start
                for place, mask, score in zip(places, masks, scores, strict=True):
                    found[new[place]] = self._masks.put(keys[new[place]], (patch_of(mask), float(score)))
        patches = tuple(None if one is None else one[0] for one in found)
        return Column(key, label, patches, tuple(None if one is None else one[1] for one in found), encode, decode)


def _what_is_looked_at(scene: Scene) -> Hashable:
    return scene.image, scene.runs, scene.alpha, scene.backend
