"""What a page is told, as plain mappings ready for JSON; a mistake of the user comes back as one sentence."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from lora_sam.app.comparison import Comparison
from lora_sam.app.figures import means, table
from lora_sam.app.pictures import EXAMPLES, Picture
from lora_sam.app.scene import MAX_CHARACTERS, Scene, objects_json, scene_from
from lora_sam.app.uploads import MAX_BYTES
from lora_sam.app.workbench import Workbench
from lora_sam.core.errors import DataError, LoraSamError
from lora_sam.runs.trained_for import in_words, trained_for

Answer = dict[str, Any]


class Answers:
    """The functions that the page calls. None of them opens a path that came from it.

    Args:
        workbench: Models and images.
    """

    def __init__(self, workbench: Workbench) -> None:
        self.workbench = workbench

    def opening(self, link: str) -> Answer:
        """The state to begin with: that of `link` (a scene as JSON), or the first example; waits for the model."""

        def answer() -> Answer:
            bench = self.workbench
            if not bench.ready.is_set():
                bench.start()
            bench.ready.wait()
            if bench.failure is not None:
                raise DataError(bench.failure)
            scene, note = Scene(runs=(next(iter(bench.runs)),)), None
            if link:
                try:
                    scene = scene_from(link)
                    bench.picture(scene.image, self._run(scene))
                except LoraSamError as error:
                    scene, note = Scene(runs=scene.runs or (next(iter(bench.runs)),)), str(error)
                    scene = replace(scene, runs=tuple(name for name in scene.runs if name in bench.runs))
            run = self._run(scene)
            return {
                "examples": self._examples(run),
                "scene": self._plain(scene),
                "note": note,
                "trained": self._trained(run),
            }

        return _answered(answer)

    def examples(self, run: str) -> Answer:
        """Thumbnails of test images of a run."""
        return _answered(lambda: {"examples": self._examples(run), "trained": self._trained(run)})

    def open_picture(self, id: str, run: str) -> Answer:
        """An image by its id, with the prompts to begin with; an empty id opens the first example."""

        def answer() -> Answer:
            bench = self.workbench
            chosen = id
            if not chosen:
                order = bench.evaluated(run).order()
                chosen = f"test:{order[0]}"
            return _shown(bench.picture(chosen, run))

        return _answered(answer)

    def upload(self, name: str, content: str) -> Answer:
        """Take an image; `content` is the file in base 64."""

        def answer() -> Answer:
            if len(content) > MAX_BYTES * 4 // 3 + 4:
                raise DataError(f"{name[-80:]} is larger than {MAX_BYTES // 2**20} MiB; save it smaller.")
            try:
                decoded = base64.b64decode(content, validate=True)
            except binascii.Error as error:
                raise DataError("the image did not arrive whole; try again.") from error
            return _shown(self.workbench.upload(name, decoded))

        return _answered(answer)

    def masks(self, scene: str, ticket: str, known: str = "") -> Answer:
        """Masks and figures of base and tuned models for a scene as JSON.

        Args:
            scene: The scene.
            ticket: What the page calls itself, for `ahead`.
            known: Ids of masks that the page has, with blanks between; their bits are left out.
        """

        def answer() -> Answer:
            start = time.perf_counter()
            comparison = self.workbench.compare(scene_from(scene), _ticket(ticket))
            rows = table(comparison)
            plain = _columns(comparison, frozenset(known[:MAX_CHARACTERS].split()))
            for column, mean in zip(plain, means(rows, len(plain)), strict=True):
                column["mean_iou"] = mean
            return {
                "columns": plain,
                "table": rows,
                "notes": list(comparison.notes),
                "seconds": time.perf_counter() - start,
            }

        return _answered(answer)

    def everything(self, scene: str, options: str, ticket: str) -> Answer:
        """Automatic masks of base and tuned models; `options` are fields of `AutomaticMasks` as JSON."""

        def answer() -> Answer:
            settings = automatic_settings(options)
            comparison = self.workbench.everything(scene_from(scene), settings, _ticket(ticket))
            columns = _columns(comparison)
            return {"columns": columns, "table": [], "notes": list(comparison.notes), "found": comparison.mark}

        return _answered(answer)

    def ahead(self, ticket: str) -> int:
        """How many jobs come before this one."""
        return self.workbench.turns.ahead(_ticket(ticket))

    def _run(self, scene: Scene) -> str:
        return scene.runs[0] if scene.runs and scene.runs[0] in self.workbench.runs else next(iter(self.workbench.runs))

    def _examples(self, run: str) -> list[Answer]:
        try:
            images = self.workbench.evaluated(run)
        except LoraSamError:
            return []
        order = images.order()
        shown = order if len(order) <= EXAMPLES else [*order[: EXAMPLES - 3], *order[-3:]]
        return [images.thumbnail(index) for index in shown]

    def _trained(self, run: str) -> Answer:
        """The tool to begin with, and a sentence on what the run was trained with; neither where that is not known."""
        known = self.workbench.runs.get(run)
        kinds = () if known is None else trained_for(known.directory)
        told = in_words(kinds)
        return {"tool": "box" if "box" in kinds else "+", "note": f"This run was trained with {told}." if told else ""}

    def _plain(self, scene: Scene) -> Answer:
        return {
            "image": scene.image,
            "objects": objects_json(scene.objects),
            "runs": list(scene.runs) or [next(iter(self.workbench.runs))],
            "alpha": scene.alpha,
            "backend": scene.backend,
            "choice": scene.choice,
        }


def automatic_settings(options: str) -> Any:
    """`AutomaticMasks` from a JSON object. Raises `DataError` that names what is wrong."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

    from lora_sam.predictors.automatic import AutomaticMasks

    checked = with_config(ConfigDict(extra="forbid", allow_inf_nan=False))(AutomaticMasks)
    try:
        return TypeAdapter(checked).validate_json(options or "{}")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:100]
        raise DataError(f"settings of everything: {place}: {first['msg']}") from error


def _shown(picture: Picture) -> Answer:
    height, width = picture.size
    return {
        "id": picture.id,
        "name": picture.name,
        "width": width,
        "height": height,
        "shown": [picture.shown_size[1], picture.shown_size[0]],
        "url": picture.preview,
        "truth": [patch.packed() for patch in picture.truth],
        "objects": objects_json(picture.objects),
    }


def _columns(comparison: Comparison, known: Collection[str] = ()) -> list[Answer]:
    return [
        {
            "key": column.key,
            "label": column.label,
            "masks": [None if patch is None else patch.packed(known) for patch in column.patches],
            "scores": list(column.scores),
            "names": list(column.names),
            "encode_ms": 1e3 * column.encode_seconds,
            "decode_ms": 1e3 * column.decode_seconds,
        }
        for column in comparison.columns
    ]


def _ticket(text: str) -> str:
    return text[:64]


def _answered(make: Callable[[], Answer]) -> Answer:
    try:
        return make()
    except LoraSamError as error:
        return {"error": " ".join(str(error).split())}
