"""Images through a model, one after the other: read ahead, predicted, written behind; what is there is skipped."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError, LoraSamError, TrainingError
from lora_sam.core.files import digest_of
from lora_sam.core.predictor import Predictor
from lora_sam.data.reading.deep_images import is_deep
from lora_sam.data.reading.georeference import georeference_of
from lora_sam.data.reading.image_file import MAX_TILED_PIXELS, read_up_to
from lora_sam.data.reading.images import digest_of_file, image_size, read_image
from lora_sam.deployment.predicting.found import (
    FoundImage,
    read_found,
    write_found,
)
from lora_sam.deployment.predicting.numbering import number_again
from lora_sam.deployment.predicting.objects import found_objects, prompted_objects
from lora_sam.deployment.predicting.outcome import Outcome
from lora_sam.deployment.predicting.sources import SourceImage
from lora_sam.deployment.predicting.task import Work
from lora_sam.deployment.predicting.writers.table import FORMATS

_AHEAD = 2  # images that are read before their turn, or written after it


@dataclass(frozen=True)
class _Ready:
    """An image whose turn may come.

    Attributes:
        source: The image.
        content: SHA-256 of its file.
        prompts: Digest of its prompts.
        pixels: RGB [H, W, 3]; None where its masks are there and no format needs it.
        found: Its record, if that still holds.
        missing: Formats that are to be written.
        unscaled: Whether it has more than 8 bits, and nobody knows which of its values are black and white.
    """

    source: SourceImage
    content: str
    prompts: str
    pixels: NDArray[np.uint8] | None
    found: FoundImage | None
    missing: tuple[str, ...]
    unscaled: bool = False


def perform(
    work: Work, predictor: Callable[[], Predictor], on_image: Callable[[int, int], None], outcome: Outcome
) -> None:
    """Do it, and count in `outcome`, which holds also what was done before an exception.

    An image that cannot be used is a failure of its own. Every file is written beside its place and renamed, the record
    of an image after all others, so what is there is whole whenever this ends.

    Args:
        work: What is to be done.
        predictor: Gives the model; called when the first image needs it.
        on_image: Called with (images done, all images).
        outcome: Empty.

    Raises:
        AdapterError: the model cannot be loaded.
        TrainingError: nothing can be written any more; says what to do.
    """
    start = time.perf_counter()
    pending: deque[Future[FoundImage]] = deque()
    done = 0

    def written(least: int) -> None:
        while len(pending) > least:
            outcome.add(pending.popleft().result())

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        try:
            for source, ready in _ahead(work, reader):
                try:
                    one = ready.result()
                    image = one.found
                    if image is None:
                        assert one.pixels is not None
                        model = predictor()  # outside of what is timed
                        began = time.perf_counter()
                        image = _predicted(work, model, one)
                        outcome.model_seconds += time.perf_counter() - began
                        outcome.predicted += 1
                        outcome.unscaled += [source.name] * one.unscaled
                    elif not one.missing:
                        outcome.there += 1
                        outcome.add(image)
                        continue
                    else:
                        outcome.there += 1
                    written(_AHEAD - 1)
                    pending.append(writer.submit(_write, work, image, one))
                except DataError as error:
                    outcome.failures[source.name] = str(error)
                finally:
                    done += 1
                    on_image(done, len(work.images))
            written(0)
        except TrainingError as error:
            raise _cannot_write(work.output.root, error) from error
        finally:
            reader.shutdown(wait=False, cancel_futures=True)
            writer.shutdown()
            # what was written although it ends here
            for last in pending:
                if last.exception() is None:
                    outcome.add(last.result())
            outcome.seconds = time.perf_counter() - start


def finish(work: Work, known: Sequence[SourceImage], failures: Mapping[str, str]) -> tuple[str, ...]:
    """Write what belongs to all images that are there; returns the names of others that earlier calls have left there.

    Args:
        work: What was done.
        known: All images of the source, more than those of `work` where it was limited to some.
        failures: Images that are not there, by name.

    Raises:
        TrainingError: it cannot be written.
    """
    there = {image.name: image for image in known if image.name not in failures}

    def found() -> Iterator[FoundImage]:
        for image in work.output.found():
            if image.name in there and image.prompts == _prompts_of(work, image.name):
                # with the ids that the source has now
                yield dataclasses.replace(image, coco=there[image.name].coco)

    try:
        number_again(work)
        # a list of all images from before would lack those of now
        older = [name for name, one in FORMATS.items() if one.each is None and (work.output.root / one.place).is_file()]
        for name in dict.fromkeys((*work.formats, *older)):
            whole = FORMATS[name].whole
            if whole is not None:
                whole(work.output.root, found, work.categories)
    except TrainingError as error:
        raise _cannot_write(work.output.root, error) from error
    return work.output.others(there)


def _cannot_write(root: Path, error: TrainingError) -> TrainingError:
    reason = getattr(error.__cause__, "strerror", None) or str(error)
    return TrainingError(
        f"{root}: cannot be written ({reason}). What is there is whole: make room, then the same command goes on; or "
        "choose another place with output=..."
    )


def _ahead(work: Work, reader: ThreadPoolExecutor) -> Iterator[tuple[SourceImage, Future[_Ready]]]:
    """Each image with what is read of it in a thread, a few images before its turn."""
    waiting: deque[tuple[SourceImage, Future[_Ready]]] = deque()
    for image in work.images:
        waiting.append((image, reader.submit(_read, work, image)))
        if len(waiting) > _AHEAD:
            yield waiting.popleft()
    yield from waiting


def _read(work: Work, image: SourceImage) -> _Ready:
    if image.path is None:
        raise DataError(str(image.problem))
    try:
        content = digest_of_file(image.path)
    except OSError as error:
        raise DataError(f"{image.path}: cannot be read ({error.strerror}); restore it") from error
    prompts = _prompts_of(work, image.name)
    found = read_found(work.output.record(image.name))
    same = (image.name, work.output.digest, content, prompts)
    if found is not None and (found.name, found.settings, found.content, found.prompts) != same:
        found = None
    if found is not None and not {one.category for one in found.objects} <= set(work.categories.values()):
        found = None  # an earlier version named them otherwise
    if found is not None:
        missing = work.missing(found)
        pixels = _pixels(work, image.path) if "overlays" in missing else None
        return _Ready(image, content, prompts, pixels, found, missing)
    each = tuple(name for name in work.formats if FORMATS[name].each is not None)
    pixels = _pixels(work, image.path)
    return _Ready(image, content, prompts, pixels, None, each, unscaled=work.scale is None and _is_deep(image.path))


def _is_deep(path: Path) -> bool:
    with read_up_to(MAX_TILED_PIXELS):
        return is_deep(path)


def _pixels(work: Work, path: Path) -> NDArray[np.uint8]:
    with read_up_to(MAX_TILED_PIXELS):
        size = height, width = image_size(path)
        if work.tiling.of(size) is not None:
            return read_image(path, work.scale)
    if height * width > work.max_pixels:
        raise DataError(
            f"{path}: {width}x{height} pixels, more than max_megapixels = {work.max_pixels / 1e6:g}; scale it down, "
            f"cut it into tiles with tile={work.tiling.usual}, or raise that if there is memory for a mask of this "
            "size for each object",
            "too_large",
        )
    return read_image(path, work.scale)


def _prompts_of(work: Work, name: str) -> str:
    """Digest of the prompts of an image; empty without."""
    if work.prompts is None:
        return ""
    return digest_of({"objects": [one.decisive for one in work.prompts.get(name, ())]})


def _predicted(work: Work, predictor: Predictor, one: _Ready) -> FoundImage:
    from lora_sam.training.out_of_memory import out_of_memory

    assert one.pixels is not None
    name, nothing = one.source.name, None
    try:
        if work.prompts is None:
            objects, nothing = found_objects(work, predictor, one.pixels)
        else:
            objects = prompted_objects(work, predictor, one.pixels, work.prompts[name])
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except LoraSamError:
        raise
    except Exception as error:
        if not out_of_memory(error):
            raise
        height, width = one.pixels.shape[:2]
        raise DataError(f"{name}: {width}x{height} pixels need more memory than there is; scale it down") from error
    present = tuple(found for found in objects if found is not None)
    return FoundImage(
        name=name,
        stem=work.stems[name],
        size=(one.pixels.shape[0], one.pixels.shape[1]),
        objects=present,
        empty=len(objects) - len(present),
        settings=work.output.digest,
        content=one.content,
        prompts=one.prompts,
        coco=one.source.coco,
        nothing=nothing,
    )


def _write(work: Work, image: FoundImage, one: _Ready) -> FoundImage:
    files, numbering = dict(image.files), dict(image.numbering)
    # read here: records of earlier versions do not have it
    image = dataclasses.replace(image, place=georeference_of(one.source.path))

    def pixels() -> NDArray[np.uint8]:
        assert one.pixels is not None
        return one.pixels

    for name in one.missing:
        each = FORMATS[name].each
        assert each is not None
        files[name] = each(work.output.root, image, pixels, work.categories)
        if FORMATS[name].numbers_classes:
            numbering[name] = work.numbering
    complete = dataclasses.replace(image, files=files, numbering=numbering)
    record = work.output.record(image.name)
    before = read_found(record) if one.found is None else None
    write_found(record, complete)
    if before is not None:  # of what the image was then
        now = {path for paths in files.values() for path in paths}
        work.output.remove(path for paths in before.files.values() for path in paths if path not in now)
    return complete
