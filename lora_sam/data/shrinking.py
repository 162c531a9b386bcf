"""Masks in fewer pixels: those of which enough is covered. Only along outlines is anything computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.mask_windows import MaskWindows

_TOGETHER = 2**22  # pixels of windows that are looked at together
_HALF, _BYTE_MAX = 0.5, 0xFF
_WHOLE = 0.75  # a row and a column of which more lies in a window have more than half of their pixel in it

_Counts: TypeAlias = "NDArray[np.uint8 | np.uint32]"


def shrink_into(targets: NDArray[np.bool_], windows: MaskWindows, extent: tuple[int, int]) -> None:
    """Set the pixels of which at least half is covered; of a thinner mask those that are half as covered as its best.

    A pixel is covered by the mean over rows, then over columns, in float32. Where all pixels under it are equal, that
    is known without arithmetic; elsewhere it is worked out for all masks together.

    Args:
        targets: Bool [N, S, S], all false, in place.
        windows: The masks, none empty.
        extent: (height, width) that the image takes in the targets.
    """
    first, pixels = 0, 0
    for last, part in enumerate(windows.parts, 1):
        pixels += part.size
        if pixels >= _TOGETHER or last == len(windows):
            some = slice(first, last)
            _shrink_together(targets[some], windows.parts[some], windows.corners[some], windows.size, extent)
            first, pixels = last, 0


def _shrink_together(
    targets: NDArray[np.bool_],
    parts: Sequence[NDArray[np.bool_]],
    corners: NDArray[np.intp],
    size: tuple[int, int],
    extent: tuple[int, int],
) -> None:
    lengths = np.array([part.shape for part in parts], np.intp)
    down, across = _spans(corners, lengths, size, extent)
    # columns are the outer axis, as run lengths of COCO have them
    all_of_them = len(down.pixels) * len(across.pixels)
    kind = np.uint8 if all_of_them <= _BYTE_MAX else np.uint32
    turned: list[_Counts] = [np.ascontiguousarray(part.T).view(np.uint8).astype(kind, copy=False) for part in parts]
    partly, whole = [], []
    for number, (part, target) in enumerate(zip(turned, targets, strict=True)):
        (y0, y1, ys), (x0, x1, xs) = down.part(number), across.part(number)
        # how many of the pixels under each are in the mask
        found = _added(np.ascontiguousarray(_added(part, across, xs, 1).T), down, ys, len(across.pixels))
        inside = found == all_of_them
        target[y0:y1, x0:x1] = inside
        whole.append(bool(inside.any()))
        found -= kind(1)  # what is 0 becomes large
        partly.append(np.flatnonzero(found < all_of_them - 1))
    counts = np.array([len(some) for some in partly])
    window = np.repeat(np.arange(len(parts)), counts)
    row, column = np.divmod(np.concatenate(partly), across.counts[window])
    sizes = lengths[:, 0] * lengths[:, 1]
    covered = _covered(
        np.concatenate([part.ravel() for part in turned]),
        (np.cumsum(sizes) - sizes)[window],
        lengths[window, 0],
        (down, row + (down.ends - down.counts)[window]),
        (across, column + (across.ends - across.counts)[window]),
    )
    enough = np.full(len(parts), _HALF, np.float32)
    for number, last in enumerate(np.cumsum(counts).tolist()):
        if not whole[number]:
            best = float(covered[last - counts[number] : last].max())
            enough[number] = _HALF if best >= _HALF else _HALF * best
    targets[window, row + down.first[window], column + across.first[window]] = covered >= enough[window]


def _covered(
    values: _Counts,
    bases: NDArray[np.intp],
    heights: NDArray[np.intp],
    down: tuple[_Spans, NDArray[np.intp]],
    across: tuple[_Spans, NDArray[np.intp]],
) -> NDArray[np.float32]:
    """How much of K output pixels is covered, 0 to 1.

    Args:
        values: Pixels of all windows, column by column, one after the other.
        bases: Where the window of each output pixel begins in them, [K].
        heights: How high that is, [K].
        down: Spans down the windows, and which of them is the output pixel's, [K].
        across: Likewise across.
    """
    (lines, row), (bars, column) = down, across
    ys, shares = lines.pixels.take(row, axis=1), lines.shares.take(row, axis=1)
    covered = np.zeros(len(row), np.float32)
    for xs, share in zip(bars.pixels.take(column, axis=1), bars.shares.take(column, axis=1), strict=True):
        start = bases + xs * heights
        along = np.zeros(len(row), np.float32)
        for y, part in zip(ys, shares, strict=True):
            along += values.take(start + y) * part
        covered += along * share
    return covered


def _added(values: _Counts, spans: _Spans, outputs: slice, most: int) -> _Counts:
    """The sum of the rows under each output row, of up to `most` each; less than of all where it is not `whole`."""
    pixels = spans.pixels[:, outputs]
    added: _Counts = values.take(pixels[0], axis=0)
    for others in pixels[1:]:
        added += values.take(others, axis=0)
    beside = np.flatnonzero(~spans.whole[outputs])
    if len(beside):
        added[beside] = np.minimum(added[beside], len(pixels) * most - 1)
    return added


@dataclass(frozen=True)
class _Spans:
    """What output pixels cover along one axis of N windows, window after window: M output pixels in all.

    Attributes:
        first: First output pixel of each window, [N].
        counts: How many output pixels each window has, [N].
        ends: Where they end among all, [N].
        pixels: Up to T pixels of the window under each output pixel, intp [T, M]; the first one again for none.
        shares: Which share of the output pixel each of them is, float32 [T, M]; 0 for none.
        whole: Whether enough of the output pixel lies in the window that it is covered where they are, [M].
    """

    first: NDArray[np.intp]
    counts: NDArray[np.intp]
    ends: NDArray[np.intp]
    pixels: NDArray[np.intp]
    shares: NDArray[np.float32]
    whole: NDArray[np.bool_]

    def part(self, window: int) -> tuple[int, int, slice]:
        """First output pixel of a window, one past its last, and where they are among all."""
        first, count, end = int(self.first[window]), int(self.counts[window]), int(self.ends[window])
        return first, first + count, slice(end - count, end)


def _spans(
    starts: NDArray[np.intp], lengths: NDArray[np.intp], size: tuple[int, int], extent: tuple[int, int]
) -> tuple[_Spans, _Spans]:
    """Spans down and across of windows that begin at `starts` [N, 2] and have `lengths` [N, 2].

    The axes go from `size` to `extent`; one of them may grow. Both are worked out together, one after the other.
    """
    ratio = np.array(size) / np.array(extent)
    ratios = ratio.repeat(len(starts))
    starts, lengths, scaled = starts.T.ravel(), lengths.T.ravel(), np.repeat(extent, len(starts))
    first = (starts / ratios).astype(np.intp)
    counts = np.minimum(scaled, np.ceil((starts + lengths) / ratios).astype(np.intp)) - first
    ends = np.cumsum(counts)
    window = np.repeat(np.arange(len(starts)), counts)
    output = np.arange(len(window)) + (first - ends + counts)[window]
    start, limit, share = starts[window], lengths[window], ratios[window]
    low = np.minimum(np.maximum(output * share - start, 0), limit)
    high = np.minimum(np.maximum((output + 1) * share - start, 0), limit)
    pixels = low.astype(np.intp) + np.arange(math.ceil(ratio.max()) + 1)[:, None]
    shares = np.maximum(np.minimum(pixels + 1, high) - np.maximum(pixels, low), 0) / share
    pixels = np.where(shares > 0, pixels, np.minimum(pixels[0], limit - 1))
    whole = shares.sum(axis=0) > _WHOLE
    half, middle = len(starts) // 2, int(ends[len(starts) // 2 - 1])

    def along(windows: slice, outputs: slice) -> _Spans:
        used = shares[:, outputs].any(axis=1)  # the last pixel that one can reach has no share in any of some axes
        used[:2] = True  # so that some is never all
        return _Spans(
            first[windows],
            counts[windows],
            ends[windows] - outputs.start,
            pixels[used, outputs],
            shares[used, outputs].astype(np.float32),
            whole[outputs],
        )

    return along(slice(0, half), slice(0, middle)), along(slice(half, None), slice(middle, None))
