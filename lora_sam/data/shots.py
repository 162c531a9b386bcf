"""Train on a few of the labelled images, drawn at random: how many are enough is asked so."""

from __future__ import annotations

from dataclasses import replace

from lora_sam.core.errors import ConfigError
from lora_sam.core.seeds import generator_for
from lora_sam.core.wording import plural
from lora_sam.data.splits import Splits, Subset


def few_shot(splits: Splits, shots: int, draw: int) -> Splits:
    """The data with `shots` of its training images; val and test stay what they are.

    The images of a draw are the first of one permutation: more of them hold those of fewer. A split that is the
    training images themselves gets the same few.

    Args:
        splits: The data as it was opened.
        shots: How many training images.
        draw: Which permutation; it has nothing to do with the seed of training.

    Raises:
        ConfigError: there are not so many.
    """
    count = len(splits.train)
    if shots > count:
        raise ConfigError(
            f"trainer.shots = {shots}: the training split has {plural(count, 'image')}; give at most {count}, or null "
            "for all"
        )
    order = generator_for(draw, "shots").permutation(count)[:shots]
    few = Subset(splits.train, tuple(sorted(int(index) for index in order)))
    val, test = (few if source is splits.train else source for source in (splits.val, splits.test))
    note = f"{shots} of {count} training images are used (trainer.shots, draw {draw})"
    return replace(splits, train=few, val=val, test=test, notes=(*splits.notes, note))
