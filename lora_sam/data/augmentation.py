"""Random changes of a training sample that keep image and masks in step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lora_sam.core.errors import ConfigError
from lora_sam.core.mask_windows import MaskWindows
from lora_sam.core.seeds import generator_for
from lora_sam.core.structures import Sample, tight_boxes
from lora_sam.core.thin_arrays import thin_zeros

if TYPE_CHECKING:
    from torchvision.tv_tensors import Image, Mask

    Pixels = NDArray[np.generic]

_CHUNK = 32  # masks that are moved at once
_MEAN_COLOUR = [124.0, 116.0, 104.0]  # what Segment Anything pads with, before normalising

Probability = Annotated[float, Field(ge=0, le=1)]
Zoom = Annotated[float, Field(ge=0.1, le=10)]


@dataclass(frozen=True)
class View:
    """One of the eight ways to look at an image by mirroring and quarter turns.

    Attributes:
        mirrored: Left and right are exchanged first.
        quarters: Then it is turned counterclockwise by this many times 90 degrees, 0 to 3.
    """

    mirrored: bool = False
    quarters: int = 0

    def of(self, pixels: Pixels, axes: tuple[int, int]) -> Pixels:
        """`pixels` seen so, without a copy.

        Args:
            pixels: Image or masks.
            axes: Which axes are rows and columns.
        """
        return np.rot90(np.flip(pixels, axes[1]) if self.mirrored else pixels, self.quarters, axes)

    def on(self, sample: Sample) -> Sample:
        """The sample seen so, image and masks."""
        if self == View():
            return sample
        image: NDArray[Any] = np.ascontiguousarray(self.of(sample.image, (0, 1)))
        ignored: NDArray[Any] | None = sample.ignored
        if ignored is not None:
            ignored = np.ascontiguousarray(self.of(ignored, (0, 1)))
        if sample.known_boxes is None:
            masks: NDArray[Any] = np.ascontiguousarray(self.of(sample.masks, (1, 2)))
            return replace(sample, image=image, masks=masks, ignored=ignored)
        parts: tuple[NDArray[Any], ...] = tuple(self.of(part, (0, 1)) for part in sample.windows.parts)
        windows = MaskWindows(image.shape[:2], self.of_boxes(sample.known_boxes, sample.size), parts)
        return Sample.of_windows(sample.id, image, windows, sample.object_ids, sample.classes, ignored, sample.group)

    def of_boxes(self, boxes: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        """XYXY boxes [N, 4] in an image of `size` (H, W), seen so."""
        left, top, right, bottom = boxes.T
        height, width = size
        if self.mirrored:
            left, right = width - right, width - left
        for _ in range(self.quarters):  # counterclockwise: the right side comes to lie on top
            left, top, right, bottom = top, width - right, bottom, width - left
            height, width = width, height
        return np.stack([left, top, right, bottom], axis=1)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Flips, quarter turns, zoom and colour, with `torchvision.transforms.v2`.

    Attributes:
        horizontal_flip: Probability of mirroring left and right.
        vertical_flip: Probability of mirroring top and bottom.
        rotate90: Probability of a turn by 90, 180 or 270 degrees, each as likely.
        scale: Lowest and highest zoom. Above 1 a random window of the image is enlarged to the image's size, below 1
            the image is shrunk and placed at random on the mean colour; (1, 1) is off.
        brightness: The image is multiplied by 1 - brightness to 1 + brightness.
        contrast: Likewise for the distance to the mean grey.
        saturation: Likewise for the distance to grey, pixel by pixel.
        hue: Hue is turned by up to this share of the colour circle, either way.
    """

    horizontal_flip: Probability
    vertical_flip: Probability
    rotate90: Probability
    scale: tuple[Zoom, Zoom]
    brightness: Annotated[float, Field(ge=0, le=1)]
    contrast: Annotated[float, Field(ge=0, le=1)]
    saturation: Annotated[float, Field(ge=0, le=1)]
    hue: Annotated[float, Field(ge=0, le=0.5)]

    def __post_init__(self) -> None:
        """Check what a field alone cannot say. Raises `ConfigError`."""
        if self.scale[0] > self.scale[1]:
            raise ConfigError(f"augmentation.scale={list(self.scale)}: the lowest zoom comes first, then the highest.")

    def apply(self, sample: Sample, *seed_parts: int | str) -> Sample:
        """A changed copy of `sample`, the same for the same `seed_parts`; no global random state is touched.

        Objects that leave the image are dropped; if all do, the sample comes back unchanged. The size changes only by
        a quarter turn (height and width swap).

        Args:
            sample: Left as it is.
            seed_parts: What the change depends on, e.g. seed, epoch and sample id.
        """
        if self.one_view and self.only_views:
            return sample
        draws = generator_for(*seed_parts, "augmentation")
        viewed = self._view(draws).on(sample)
        if not self._makes_pixels():
            return viewed  # before torchvision is imported, which takes seconds
        import torch
        from torchvision import tv_tensors

        image = tv_tensors.Image(torch.from_numpy(np.array(viewed.image)).permute(2, 0, 1))
        zoom = self._zoom(viewed.size, draws)
        image = self._colour(zoom.of_image(image), draws)
        ignored = None if viewed.ignored is None else _moved(zoom, viewed.ignored[None])[0]
        rows: list[int] = []
        boxes: list[NDArray[np.float32]] = []
        moved = thin_zeros(viewed.masks.shape, 0.0 if len(viewed.masks) > _CHUNK else 1.0)
        for first in range(0, len(viewed.masks), _CHUNK):  # few are large at once
            masks = _moved(zoom, viewed.masks[first : first + _CHUNK])
            left = np.flatnonzero(np.any(masks, axis=(1, 2)))
            for row, box in zip(left.tolist(), tight_boxes(masks[left]) if len(left) else (), strict=True):
                x0, y0, x1, y1 = box.astype(int).tolist()
                moved[len(rows), y0:y1, x0:x1] = masks[row, y0:y1, x0:x1]
                rows.append(first + row)
                boxes.append(box)
        if not rows:
            return sample
        pixels = np.ascontiguousarray(image.as_subclass(torch.Tensor).permute(1, 2, 0).numpy())
        return replace(
            sample,
            image=pixels,
            masks=moved[: len(rows)],
            ignored=ignored,
            object_ids=tuple(sample.object_ids[row] for row in rows),
            classes=tuple(sample.classes[row] for row in rows) if sample.classes else (),
        ).with_boxes(np.stack(boxes))

    @property
    def only_views(self) -> bool:
        """Whether an image changes by mirroring and quarter turns only, if at all."""
        return not self._makes_pixels()

    @property
    def one_view(self) -> bool:
        """Whether an image is never mirrored or turned."""
        return not any((self.horizontal_flip, self.vertical_flip, self.rotate90))

    def view(self, *seed_parts: int | str) -> View:
        """The view that `apply` gives for the same `seed_parts`, before zoom and colour."""
        return self._view(generator_for(*seed_parts, "augmentation"))

    def _makes_pixels(self) -> bool:
        """Whether pixels come about that the image does not have: by zoom or colour."""
        return any((self.brightness, self.contrast, self.saturation, self.hue)) or tuple(self.scale) != (1, 1)

    def _view(self, draws: np.random.Generator) -> View:
        # drawn whether used or not, so that changing one probability leaves the other draws as they are
        horizontal, vertical, rotate = draws.random(3)
        quarters = int(draws.integers(1, 4))
        view = View(mirrored=bool(horizontal < self.horizontal_flip))
        if vertical < self.vertical_flip:  # top and bottom are left and right turned by half
            view = View(not view.mirrored, 2)
        return replace(view, quarters=(view.quarters + quarters) % 4) if rotate < self.rotate90 else view

    def _zoom(self, size: tuple[int, int], draws: np.random.Generator) -> _Zoom:
        low, high = self.scale
        share, down, across = draws.random(3)
        zoom = low * (high / low) ** float(share)  # as likely to halve as to double
        height, width = size
        if zoom > 1:
            h, w = max(1, round(height / zoom)), max(1, round(width / zoom))
            return _Zoom(size, window=(int(down * (height - h + 1)), int(across * (width - w + 1)), h, w))
        if zoom < 1:
            h, w = max(1, round(height * zoom)), max(1, round(width * zoom))
            return _Zoom(size, place=(int(down * (height - h + 1)), int(across * (width - w + 1)), h, w))
        return _Zoom(size)

    def _colour(self, image: Image, draws: np.random.Generator) -> Image:
        from torchvision.transforms.v2 import functional

        brightness, contrast, saturation, hue = (float(draw) for draw in draws.uniform(-1, 1, 4))
        if self.brightness:
            image = functional.adjust_brightness(image, 1 + brightness * self.brightness)
        if self.contrast:
            image = functional.adjust_contrast(image, 1 + contrast * self.contrast)
        if self.saturation:
            image = functional.adjust_saturation(image, 1 + saturation * self.saturation)
        if self.hue:
            image = functional.adjust_hue(image, hue * self.hue)
        return image


@dataclass(frozen=True)
class _Zoom:
    """A part of an image made as large as the image, or the image made smaller and put somewhere.

    Attributes:
        size: (height, width) of the image, before and after.
        window: Top, left, height and width of the part that is enlarged; None for none.
        place: Top, left, height and width of where the shrunk image comes to lie; None for none.
    """

    size: tuple[int, int]
    window: tuple[int, int, int, int] | None = None
    place: tuple[int, int, int, int] | None = None

    def of_image(self, image: Image) -> Image:
        from torchvision.transforms.v2 import functional

        if self.window is not None:
            return functional.resized_crop(image, *self.window, list(self.size))
        if self.place is not None:
            return functional.pad(functional.resize(image, list(self.place[2:])), self._padding(), fill=_MEAN_COLOUR)
        return image

    def of_masks(self, masks: Mask) -> Mask:
        from torchvision.transforms.v2 import functional

        if self.window is not None:
            return _resized(functional.crop(masks, *self.window), list(self.size))
        if self.place is not None:
            return functional.pad(_resized(masks, list(self.place[2:])), self._padding())
        return masks

    def _padding(self) -> list[int]:
        assert self.place is not None
        top, left, height, width = self.place
        return [left, top, self.size[1] - width - left, self.size[0] - height - top]


def _moved(zoom: _Zoom, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Masks [N, H, W] as `zoom` shows them."""
    import torch
    from torchvision import tv_tensors

    moved = zoom.of_masks(tv_tensors.Mask(torch.from_numpy(np.array(masks))))
    return np.ascontiguousarray(moved.as_subclass(torch.Tensor).numpy())


def _resized(masks: Mask, size: list[int]) -> Mask:
    """Masks at another size by the pixel under each centre; `functional.resize` shifts masks by up to half a pixel."""
    from torchvision import tv_tensors
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    exact = functional.resize_image(masks.byte(), size, interpolation=InterpolationMode.NEAREST_EXACT)
    return tv_tensors.Mask(exact.bool())
