"""Things made of parts, drawn apart from the scene, so that they can be lit, blurred, turned and hidden as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageChops, ImageFilter

from lora_sam.data.drawn.dice import Dice
from lora_sam.data.drawn.materials import Colour
from lora_sam.data.drawn.outlines import Outline
from lora_sam.data.drawn.shapes import Shape, filled, stroke

Paint = Image.Image | int | tuple[int, ...]
"""A picture of the shape's size, or one colour."""

MOST_PARTS = 255


@dataclass(frozen=True)
class Layer:
    """A thing on a transparent ground (Porter and Duff, 1984).

    Attributes:
        picture: RGB, already multiplied by `cover`: black where nothing is.
        cover: Share of every pixel that hides what is behind, 8-bit grey.
        parts: Number of the part that owns a pixel, 8-bit; 0 where none does. Glass owns pixels that it hardly covers.
        labels: Sets of parts, each labelled as one object: the whole, and what people name of it.
        foot: (x, y) within the layer of the place that stands on the ground.
    """

    picture: Image.Image
    cover: Image.Image
    parts: Image.Image
    labels: tuple[tuple[int, ...], ...]
    foot: tuple[float, float]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.cover.size

    def at(self, place: tuple[float, float]) -> tuple[int, int]:
        """Where the corner lies when the foot stands on `place`."""
        return round(place[0] - self.foot[0]), round(place[1] - self.foot[1])


class Painter:
    """Draws the parts of one thing, from back to front."""

    def __init__(self, width: float, height: float) -> None:
        """Room for a thing of this size in pixels; what reaches out of it is cut."""
        self.size = (max(4, math.ceil(width)), max(4, math.ceil(height)))
        self._picture = Image.new("RGB", self.size)
        self._cover = Image.new("L", self.size)
        self._parts = Image.new("L", self.size)
        self._labels: list[tuple[int, ...]] = []
        self._last = 0

    def put(self, shape: Shape, paint: Paint) -> int:
        """Add a part in front of those before and return its number."""
        if self._last == MOST_PARTS:
            raise ValueError(f"a thing has at most {MOST_PARTS} parts")
        self._last += 1
        self._picture.paste(paint, shape.box, shape.mask)
        self._cover.paste(255, shape.box, shape.mask)
        self._parts.paste(self._last, shape.box, shape.mask.convert("1", dither=Image.Dither.NONE))
        return self._last

    def fill(self, outline: Outline, paint: Paint) -> int:
        """Add a part with this outline."""
        return self.put(filled([outline]), paint)

    def limb(self, points: Outline, widths: Sequence[float] | float, paint: Paint) -> int:
        """Add a part along a line."""
        return self.put(stroke(points, widths), paint)

    def mark(self, shape: Shape, paint: Paint, over: Sequence[int] = ()) -> None:
        """Paint on what is there, or on some parts of it, without making a part."""
        window = shape.box
        solid = paint if isinstance(paint, Image.Image) else Image.new("RGB", shape.size, paint)
        mask = shape.mask
        if over:
            chosen = self._parts.crop(window).point([255 if value in over else 0 for value in range(256)])
            mask = ImageChops.multiply(mask, chosen)
        self._picture.paste(ImageChops.multiply(solid, grey(self._cover.crop(window))), shape.box, mask)

    def erase(self, shape: Shape) -> None:
        """Make a hole through everything."""
        self._picture.paste(0, shape.box, shape.mask)
        self._cover.paste(0, shape.box, shape.mask)
        self._parts.paste(0, shape.box, shape.mask.convert("1", dither=Image.Dither.NONE))

    def label(self, *parts: int) -> None:
        """Label some parts together as one object."""
        self._labels.append(parts)

    def layer(self, *, whole: bool = True) -> Layer:
        """What was drawn, cut to its extent, standing on the middle of its lower edge."""
        box = self._cover.getbbox() or (0, 0, 1, 1)
        labels = list(self._labels)
        every = tuple(range(1, self._last + 1))
        if whole and self._last and every not in labels:
            labels.append(every)
        picture, cover, parts = (image.crop(box) for image in (self._picture, self._cover, self._parts))
        return Layer(picture, cover, parts, tuple(labels), (cover.width / 2, float(cover.height)))


def grey(cover: Image.Image) -> Image.Image:
    """The same in three channels."""
    return Image.merge("RGB", (cover, cover, cover))


def lit(layer: Layer, turn: float, strength: float) -> Layer:
    """With light from direction `turn` on a form that bulges between its edges; `strength` 0 to about 2."""
    width, height = layer.size
    reach = max(1.0, min(width, height) / 7)
    bulge = layer.cover.filter(ImageFilter.BoxBlur(reach))
    dx, dy = round(reach * 0.6 * math.cos(turn)), round(reach * 0.6 * math.sin(turn))
    if not (dx or dy):
        dx = 1
    light = ImageChops.subtract(ImageChops.offset(bulge, -dx, -dy), ImageChops.offset(bulge, dx, dy), 2 / strength, 128)
    picture = ImageChops.hard_light(layer.picture, grey(light))
    return replace(layer, picture=ImageChops.darker(picture, grey(layer.cover)))


def textured(layer: Layer, relief: Image.Image, amount: float) -> Layer:
    """With a grey relief of the layer's size laid over all of it; 128 changes nothing."""
    relief = relief.point([round(128 + (value - 128) * amount) for value in range(256)])
    picture = ImageChops.hard_light(layer.picture, grey(relief))
    return replace(layer, picture=ImageChops.darker(picture, grey(layer.cover)))


def hazed(layer: Layer, tone: Colour, share: float) -> Layer:
    """Seen through air of this colour."""
    air = ImageChops.multiply(grey(layer.cover), Image.new("RGB", layer.size, tone))
    return replace(layer, picture=Image.blend(layer.picture, air, share))


def sheer(layer: Layer, share: float) -> Layer:
    """Letting through `share` of what is behind; it owns its pixels all the same."""
    table = [round(value * (1 - share)) for value in range(256)]
    return replace(layer, picture=layer.picture.point(table * 3), cover=layer.cover.point(table))


def defocused(layer: Layer, sigma: float) -> Layer:
    """Out of focus by `sigma` pixels; parts keep their edges, which are where coverage is one half."""
    margin = math.ceil(2 * sigma)
    wide = _with_margin(layer, margin)
    blur = ImageFilter.BoxBlur(sigma * 1.2)
    return replace(wide, picture=wide.picture.filter(blur), cover=wide.cover.filter(blur))


def moved(layer: Layer, reach: float) -> Layer:
    """Moved sideways by about `reach` pixels while the shutter was open."""
    wide = _with_margin(layer, math.ceil(reach))
    blur = ImageFilter.BoxBlur((reach / 2, 0))
    return replace(wide, picture=wide.picture.filter(blur), cover=wide.cover.filter(blur))


def mirrored(layer: Layer) -> Layer:
    """Left and right exchanged."""
    flip = Image.Transpose.FLIP_LEFT_RIGHT
    return replace(
        layer,
        picture=layer.picture.transpose(flip),
        cover=layer.cover.transpose(flip),
        parts=layer.parts.transpose(flip),
        foot=(layer.size[0] - layer.foot[0], layer.foot[1]),
    )


def turned(layer: Layer, turn: float) -> Layer:
    """Turned by `turn` radians around its middle, which it then stands on."""
    degrees = math.degrees(turn)
    smooth = Image.Resampling.BILINEAR
    picture = layer.picture.rotate(degrees, smooth, expand=True)
    cover = layer.cover.rotate(degrees, smooth, expand=True)
    parts = layer.parts.rotate(degrees, Image.Resampling.NEAREST, expand=True)
    return replace(layer, picture=picture, cover=cover, parts=parts, foot=(cover.width / 2, cover.height / 2))


def warped(dice: Dice, layer: Layer, amount: float) -> Layer:
    """Bent: nine points of a net are moved by up to `amount` of the layer's size."""
    width, height = layer.size
    if min(width, height) < 12:
        return layer
    net = {
        (i, j): (
            width * (i / 2 + (dice.uniform(-amount, amount) if i == 1 else 0)),
            height * (j / 2 + (dice.uniform(-amount, amount) if j == 1 else 0)),
        )
        for i in range(3)
        for j in range(3)
    }
    xs, ys = (0, width // 2, width), (0, height // 2, height)
    mesh = [
        (
            (xs[i], ys[j], xs[i + 1], ys[j + 1]),
            (*net[i, j], *net[i, j + 1], *net[i + 1, j + 1], *net[i + 1, j]),
        )
        for i in range(2)
        for j in range(2)
    ]
    kind = Image.Transform.MESH
    picture = layer.picture.transform(layer.size, kind, mesh, Image.Resampling.BILINEAR)
    cover = layer.cover.transform(layer.size, kind, mesh, Image.Resampling.BILINEAR)
    parts = layer.parts.transform(layer.size, kind, mesh, Image.Resampling.NEAREST)
    return replace(layer, picture=picture, cover=cover, parts=parts)


def _with_margin(layer: Layer, margin: int) -> Layer:
    """With empty room all around."""
    width, height = layer.size
    box = (-margin, -margin, width + margin, height + margin)
    foot = (layer.foot[0] + margin, layer.foot[1] + margin)
    return replace(
        layer, picture=layer.picture.crop(box), cover=layer.cover.crop(box), parts=layer.parts.crop(box), foot=foot
    )
