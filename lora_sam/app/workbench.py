"""Models, images and masks that are held between two requests, so that the second prompt is instant."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from lora_sam.app.backends import TORCH, backends_of, bytes_of, why_not
from lora_sam.app.patches import Patch, patch_of
from lora_sam.app.pictures import EvaluatedImages, Picture, images_of, picture_of
from lora_sam.app.runs import Run, find_runs
from lora_sam.app.scene import Choice, Scene, inside
from lora_sam.app.turns import Turns
from lora_sam.app.uploads import read_upload
from lora_sam.core.errors import AdapterError, DataError, LoraSamError
from lora_sam.data.reading.pixel_scale import PixelScale
from lora_sam.prompts.objects import ObjectPrompts, batches

if TYPE_CHECKING:
    from lora_sam.core.predictor import Predictor
    from lora_sam.core.structures import Prompts
    from lora_sam.methods.adapted import AdaptedSam, Strength
    from lora_sam.predictors.automatic import AutomaticMasks

T = TypeVar("T")
_MODELS, _PICTURES, _MASKS, _DEEP = 3, 16, 4096, 4


class Kept(Generic[T]):
    """The last few values by key."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> T | None:
        """The value, which counts as used now."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: T) -> T:
        """Keep a value, and forget the one that was not used for longest where there are too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._limit:
                self._values.popitem(last=False)
        return value


@dataclass
class Model:
    """A run in memory: base and tuned share one model where the method allows it.

    Attributes:
        run: The run.
        image_size: Side of the model's input.
        adapted: Base and adapter.
        predictors: By name: `base`, `torch` (tuned), and exported ones as they are asked for.
        alpha: Present strength of the adapter.
        measured: Milliseconds to (encode an image, answer a prompt) by predictor.
    """

    run: Run
    image_size: int
    adapted: AdaptedSam
    predictors: dict[str, Predictor]
    alpha: float = 1.0
    measured: dict[str, tuple[float, float]] = field(default_factory=dict)
    _strength: Strength | None = None

    def predictor(self, name: str) -> Predictor:
        """A predictor by name. `DataError`: no such back end; `AdapterError`: stale or damaged."""
        if name not in self.predictors:
            makers = backends_of(self.run.directory)
            if name not in makers:
                why_not(self.run.directory, name)
                raise DataError(
                    f"{self.run.name} has no back end {name!r:.40}; it has {', '.join([TORCH, *makers])}. "
                    "`python -m lora_sam.export` makes OpenVINO parts."
                )
            self.predictors[name] = makers[name]()
        return self.predictors[name]

    def set_alpha(self, alpha: float) -> None:
        """Scale the adapter. Raises `AdapterError` where that is not possible."""
        if alpha == self.alpha:
            return
        if self._strength is None:
            self._strength = self.adapted.strength()
        self._strength.set(alpha)
        self.alpha = alpha
        if self.adapted.trains_encoder:
            self.predictors[TORCH].forget()


@dataclass(frozen=True)
class Column:
    """What one model makes of the prompts.

    Attributes:
        key: `base`, or the name of the run.
        label: For people.
        patches: A mask per object at the shown size; None for an object without prompts.
        scores: IoU as the model predicts it, per object.
        encode_seconds: Time spent encoding the image; 0 where it was remembered.
        decode_seconds: Time spent answering prompts, enlarging masks included.
    """

    key: str
    label: str
    patches: tuple[Patch | None, ...]
    scores: tuple[float | None, ...]
    encode_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class Comparison:
    """Base and one or several tuned models on the same prompts.

    Attributes:
        picture: The image.
        objects: The prompts, inside the image.
        columns: Base first.
        notes: What the user should know.
    """

    picture: Picture
    objects: tuple[ObjectPrompts, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()


class Workbench:
    """Answers what a browser asks; every method may be called from any thread.

    Args:
        outputs: Directory of runs.
        wanted: The run to begin with; None for the latest.
        waiting: How many heavy jobs may wait for the one that works.

    Raises:
        AdapterError: there is no run.
    """

    def __init__(self, outputs: Path, wanted: str | None = None, *, waiting: int = 8) -> None:
        self.outputs, self._wanted = outputs, wanted
        self.turns = Turns(waiting)
        self.ready = threading.Event()
        self.failure: str | None = None
        self._starting = threading.Lock()
        self._loader: threading.Thread | None = None
        self._models: Kept[Model] = Kept(_MODELS)
        self._images: dict[str, EvaluatedImages | str] = {}
        self._pictures: Kept[Picture] = Kept(_PICTURES)
        self._deep: Kept[tuple[str, bytes]] = Kept(_DEEP)  # name and content of uploads that each run reads its own way
        self._masks: Kept[tuple[Patch, float]] = Kept(_MASKS)
        self.runs: dict[str, Run] = {}
        self.refresh()
        if not self.runs:
            raise AdapterError(
                f"{outputs}: no finished run there; make one with `python train.py` (some minutes), or name the "
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
                _measure(model, TORCH)
                _measure(model, "base")
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
            columns = [
                self._column(key, label, predictor, mark, picture, objects, scene.choice)
                for key, label, predictor, mark in self._predictors(scene)
            ]
            return Comparison(picture, objects, tuple(columns), (*_notes(scene), *_notes_on(objects)))

    def everything(
        self, scene: Scene, settings: AutomaticMasks, ticket: str = "everything", *, most: int = 200
    ) -> Comparison:
        """Masks found without prompts by base and tuned models, at most `most` each; raises as `compare` does."""
        columns, notes = [], list(_notes(scene))
        with self.turns.take(ticket):
            picture = self.picture(scene.image, self._first(scene))
            for key, label, predictor, _ in self._predictors(scene):
                start = time.perf_counter()
                predictor.set_image(picture.image)
                encoded = time.perf_counter()
                found = settings.generate(predictor, picture.image)
                if found.nothing is not None:
                    notes.append(f"{label}: {found.nothing}")
                patches = tuple(patch_of(mask) for mask in found.masks[:most])
                scores = tuple(float(score) for score in found.scores[:most])
                seconds = time.perf_counter() - encoded
                columns.append(Column(key, label, patches, scores, encoded - start, seconds))
        return Comparison(picture, (), tuple(columns), tuple(notes))

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
                    masks[key][places], scores[key][places] = _masks_of(
                        predictor, picture.original, prompts, scene.choice
                    )
            return picture, masks, scores

    def backends(self, run: str) -> dict[str, str]:
        """Label of every back end of a run: name, size, and the times to encode an image and to answer a prompt."""
        with self.turns.take("backends"):
            model = self._model(run)
            labels = {}
            for name in (TORCH, *backends_of(model.run.directory)):
                try:
                    encode, answer = _measure(model, name)
                    size = bytes_of(model.run.directory, name)
                except (LoraSamError, RuntimeError) as error:
                    labels[name] = f"{name} (cannot be loaded: {' '.join(str(error).split())[:80]})"
                    continue
                size = _weight_bytes(model) if size is None else size
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
        return known if known is not None else self._models.put((name, written), _load(run))

    def _predictors(self, scene: Scene) -> list[tuple[str, str, Predictor, Hashable]]:
        """Key, label, predictor, and what decides its masks beside image and prompts."""
        names = scene.runs or (self._first(scene),)
        made: list[tuple[str, str, Predictor, Hashable]] = []
        for place, name in enumerate(names):
            model = self._model(name)
            if place == 0:
                made.append(("base", "base", model.predictor("base"), (id(model), "base")))
            backend = scene.backend if place == 0 else TORCH
            label = "tuned" if len(names) == 1 else f"tuned: {name}"
            if backend == TORCH:
                model.set_alpha(scene.alpha)
                label += f", α {scene.alpha:g}" if scene.alpha != 1 else ""
            else:
                label += f", {backend}"
            mark = (id(model), backend, scene.alpha if backend == TORCH else 1.0)
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
            scaled = [_scaled(objects[place], picture.scale) for place in new]
            for places, prompts in batches(scaled):
                start = time.perf_counter()
                masks, scores = _masks_of(predictor, picture.image, prompts, choice)
                decode += time.perf_counter() - start
                for place, mask, score in zip(places, masks, scores, strict=True):
                    found[new[place]] = self._masks.put(keys[new[place]], (patch_of(mask), float(score)))
        patches = tuple(None if one is None else one[0] for one in found)
        return Column(key, label, patches, tuple(None if one is None else one[1] for one in found), encode, decode)


def _load(run: Run) -> Model:
    from lora_sam.core.scores import scores_of
    from lora_sam.predictors.torch_predictor import TorchPredictor
    from lora_sam.runs.loading import load_adapted, load_base, predictors_for

    facts = run.facts
    adapted = load_adapted(run.directory.root)
    side = facts["image_size"]
    predictors: dict[str, Predictor]
    if adapted.reversible:
        of_base = facts["base"].get("scores")
        pair = predictors_for(adapted, side, scores=facts.get("scores"), base_scores=of_base)
        predictors = {"base": pair["base"], TORCH: pair["tuned"]}
    else:
        untouched = load_base(run.directory.root)
        scores = scores_of(facts.get("scores"))
        predictors = {
            "base": TorchPredictor(
                untouched.sam, side, scores=scores_of(facts["base"].get("scores", facts.get("scores")))
            ),
            TORCH: TorchPredictor(adapted.sam, side, scores=scores),
        }
    return Model(run, side, adapted, predictors)


def _masks_of(
    predictor: Predictor, image: NDArray[np.uint8], prompts: Prompts, choice: Choice
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """The chosen mask of each prompt, bool [N, H, W], and its predicted IoU [N]."""
    if choice in ("single", "best"):
        found = predictor.predict(image, prompts, multimask=choice == "best")
        return found.masks, found.scores
    masks, scores, index = [], [], int(choice)
    for row in range(len(prompts)):  # four masks of every object at once would take gigabytes
        every = predictor.predict_all(image, prompts[row : row + 1])
        if every.scores.shape[1] <= index:
            raise DataError("this back end was exported for single masks only; choose the single mask, or torch")
        masks.append(every.logits[0, index] > 0)
        scores.append(every.scores[0, index])
    return np.stack(masks), np.array(scores, np.float32)


def _measure(model: Model, name: str) -> tuple[float, float]:
    """Milliseconds to (encode an image, answer a prompt), measured once."""
    if name not in model.measured:
        from lora_sam.core.structures import Prompts

        predictor = model.predictor(name)
        side = model.image_size
        times: list[tuple[float, float]] = []
        for seed in range(2):  # the first one warms up
            noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
            marks = [time.perf_counter()]
            predictor.set_image(noise)
            marks.append(time.perf_counter())
            for _ in range(2):
                predictor.predict(noise, Prompts(boxes=np.array([[8, 8, side - 8, side - 8]], np.float32)))
                marks.append(time.perf_counter())
            times.append((1e3 * (marks[1] - marks[0]), 1e3 * (marks[3] - marks[2])))
        model.measured[name] = times[-1]
    return model.measured[name]


def _weight_bytes(model: Model) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.adapted.peft.parameters())


def _scaled(one: ObjectPrompts, scale: tuple[float, float]) -> ObjectPrompts:
    """Prompts in pixels of the shown image."""
    if scale == (1.0, 1.0):
        return one
    x, y = scale
    box = None if one.box is None else (one.box[0] * x, one.box[1] * y, one.box[2] * x, one.box[3] * y)
    return replace(one, box=box, points=tuple((px * x, py * y, label) for px, py, label in one.points))


def _notes(scene: Scene) -> Iterator[str]:
    if scene.backend != TORCH and scene.alpha != 1:
        yield f"{scene.backend} computes at strength 1: the adapter is folded into its files."


def _notes_on(objects: Sequence[ObjectPrompts]) -> Iterator[str]:
    for number, one in enumerate(objects, 1):
        if one.box is None and one.points and not any(label for *_, label in one.points):
            yield f"object {number} has background points alone, which show no object: add one on it, or a box."
