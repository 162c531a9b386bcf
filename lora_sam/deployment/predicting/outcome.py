"""What became of the images of a source."""

from __future__ import annotations

from dataclasses import dataclass, field

from lora_sam.deployment.predicting.found import FoundImage


@dataclass
class Outcome:
    """What became of the images.

    Attributes:
        counts: Objects by the name of the image.
        scores: Of all objects.
        empty: Prompts that gave an empty mask.
        there: Images whose masks were there before.
        predicted: Images that went through the model.
        failures: Why, by the name of the image.
        nothing: Why nothing was found in the first image without an object, and what to change; None where all have
            some, or had prompts.
        others: Names of images of earlier calls whose masks are there still.
        unscaled: Images that went through the model and have more than 8 bits, where the training had none of these.
        unknown_frames: What images with a place on earth say about its frame, by name, where that is no EPSG code.
        model_seconds: In which the model worked.
        seconds: From the first image to the last.
    """

    counts: dict[str, int] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    empty: int = 0
    there: int = 0
    predicted: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    nothing: str | None = None
    others: tuple[str, ...] = ()
    unscaled: list[str] = field(default_factory=list)
    unknown_frames: dict[str, str] = field(default_factory=dict)
    model_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, image: FoundImage) -> None:
        """Count an image that is done."""
        self.counts[image.name] = len(image.objects)
        self.scores += [one.score for one in image.objects]
        self.empty += image.empty
        self.nothing = self.nothing or image.nothing
        if image.place is not None and image.place.epsg is None:
            self.unknown_frames[image.name] = image.place.citation
