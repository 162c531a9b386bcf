"""What a run encodes once instead of at every step, and what it says about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from lora_sam.core.config import from_conf
from lora_sam.core.errors import LoraSamError
from lora_sam.core.files import digest_of
from lora_sam.core.wording import plural
from lora_sam.predictors.embeddings.images import VALUES, EncodedSplit, digests_of, row_key
from lora_sam.predictors.embeddings.store import CacheUnavailable, EmbeddingCache, RowSpec, RowTooLarge
from lora_sam.predictors.frozen import FrozenPart

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lora_sam.data.augmentation import Augmentation
    from lora_sam.data.sources import SampleSource
    from lora_sam.methods.adapted import AdaptedSam
    from lora_sam.models.base_model import BaseModel
    from lora_sam.models.stages import Stage
    from lora_sam.predictors.embeddings.options import CacheOptions

Say = Callable[[str], None]


class Encodings:
    """The frozen part of a run's image encoder, and the images it was given.

    Whatever goes wrong with the cache is said once; the run then encodes at every step.

    Args:
        adapted: The model that trains.
        base: Which base it is.
        stage: Its frozen part.
        options: Where and how rows are kept.
        say: Takes one line for people.
    """

    def __init__(self, adapted: AdaptedSam, base: BaseModel, stage: Stage, options: CacheOptions, say: Say) -> None:
        self._adapted = adapted
        self._base = base
        self._stage = stage
        self._options = options
        self._say = say
        self._stores: dict[str, EmbeddingCache] = {}
        self._damaged: dict[str, int] = {}
        self._training: EncodedSplit | None = None
        self._source: SampleSource | None = None
        self._off = False

    def training(self, source: SampleSource, augmentation: Augmentation, seed: int) -> EncodedSplit:
        """The training images, to be encoded by `before_epoch`."""
        split = EncodedSplit(None, (), tuple(source.ids), augmentation, self._options.views, seed)
        store = self._store(self._options.dtype)
        if store is not None:
            split = replace(split, store=store, pixels=digests_of(source, store))
        self._training, self._source = split, source
        return split

    def images(self, count: int, augmentation: Augmentation) -> int:
        """How many images are encoded for `count` training images, at most."""
        return count * (1 if augmentation.one_view else self._options.views)

    def before_epoch(self, epoch: int) -> None:
        """Encode what the epoch will need and no epoch before did."""
        split, source = self._training, self._source
        if split is None or split.store is None or source is None or self._off:
            return

        def image(index: int) -> NDArray[np.uint8]:
            return split.view(epoch, index).on(source[index]).image

        self._fill(split.store, [split.key(epoch, index) for index in range(len(source))], image, "training")

    def frozen(self, source: SampleSource, what: str, *, exact: bool = False) -> FrozenPart | None:
        """The frozen part for a predictor, with the images of `source` encoded; None where nothing can be kept.

        Args:
            source: Images.
            what: What they are called in messages.
            exact: Keep fp32, so that predictions are the same bits as without.
        """
        store = self._store("float32" if exact else self._options.dtype)
        if store is None:
            return None
        keys = [row_key(pixels) for pixels in digests_of(source, store)]
        self._fill(store, keys, lambda index: source[index].image, what)
        return None if self._off else self._part(store)

    def close(self) -> None:
        """Let others evict what this run used."""
        for store in self._stores.values():
            store.close()

    def _part(self, store: EmbeddingCache) -> FrozenPart:
        return FrozenPart(self._adapted.sam, self._stage, store)

    def _store(self, dtype: Literal["float16", "float32"]) -> EmbeddingCache | None:
        if self._off:
            return None
        if dtype not in self._stores:
            spec = RowSpec(
                variant=self._base.variant,
                weights=self._base.sha256,
                stage=self._stage.name,
                image_size=self._base.image_size,
                precision="float32",
                shapes={VALUES: self._stage.shape(self._adapted.sam.image_encoder)},
                dtype=dtype,
                architecture=_own_architecture(self._base),
            )
            place = self._options.place()
            try:
                self._stores[dtype] = EmbeddingCache.open(place, spec, max_bytes=int(self._options.max_gb * 1e9))
            except CacheUnavailable as error:
                self._turn_off(error)
                return None
            for note in self._stores[dtype].notes:
                self._say(f"embedding cache: {note}")
        return self._stores[dtype]

    def _fill(
        self, store: EmbeddingCache, keys: Sequence[str], image: Callable[[int], NDArray[np.uint8]], what: str
    ) -> None:
        told = 0
        try:
            missing = len(store.missing(keys))
        except CacheUnavailable as error:
            self._turn_off(error)
            return
        damaged = store.damaged - self._damaged.get(store.spec.dtype, 0)
        if damaged:  # also what was found by reading since the last time
            self._say(f"embedding cache: {damaged} damaged rows are made anew")
            self._damaged[store.spec.dtype] = store.damaged
        if not missing:
            return
        self._say(f"embedding cache: encoding {plural(missing, f'{what} image')} once, in fp32")

        def tell(there: int, wanted: int) -> None:
            nonlocal told
            tenth = 10 * there // max(1, wanted)
            if tenth > told and missing >= 100:
                told = tenth
                self._say(f"embedding cache: {there} of {wanted} {what} images are there")

        try:
            self._part(store).fill(keys, image, tell)
        except CacheUnavailable as error:
            self._turn_off(error)

    def _turn_off(self, error: CacheUnavailable) -> None:
        self._off = True
        hint = "; cache.dtype=float32 has room for such values" if isinstance(error, RowTooLarge) else ""
        self._say(f"embedding cache: off, the run goes on without: {error}{hint}")


def _own_architecture(base: BaseModel) -> str:
    """Digest of an architecture that is not that of the variant's file in `conf/model/`; empty where it is.

    Windows, heads and which blocks attend to the whole image need not show in any weight.
    """
    if not base.architecture:
        return ""
    try:
        usual = from_conf(f"model/{base.variant}", image_size=base.image_size).architecture()
    except (OSError, LoraSamError):  # a variant of somebody's own
        usual = None
    return "" if usual == base.architecture else digest_of(base.architecture)


def why_no_cache(stage: Stage | None, augmentation: Augmentation) -> str | None:
    """Why nothing can be encoded once for all steps; None where it can."""
    if stage is None:
        return "the method trains the image encoder from its first block on; method.blocks=last:n leaves some frozen"
    if not augmentation.only_views:
        return "augmentation makes new pixels at every step (zoom, colour); augmentation=flips would not"
    return None
