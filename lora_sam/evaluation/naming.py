"""How often the class of an object is told right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.evaluation.comparison import compare_means


@dataclass
class Naming:
    """Collects the class of each object and the one it was told to be of, image by image.

    Attributes:
        names: Classes that are known.
    """

    names: tuple[str, ...]
    _true: list[tuple[str, ...]] = field(default_factory=list)
    _right: list[NDArray[np.float64]] = field(default_factory=list)
    _groups: list[str | None] = field(default_factory=list)

    def add(self, classes: tuple[str, ...], probabilities: NDArray[np.float32], group: str | None = None) -> None:
        """One image: the classes of its N objects, how likely each is of each known class, [N, C], and its group."""
        if not classes:
            return
        told = probabilities.argmax(axis=1)
        self._true.append(classes)
        self._groups.append(group)
        self._right.append(np.array([self.names[t] == label for t, label in zip(told, classes, strict=True)], float))

    def report(self, seed: int) -> dict[str, Any] | None:
        """Accuracy over objects, beside that of always saying the most common class of the same objects; for JSON.

        The 95 % interval resamples images, or groups of them. A class that no training image has is always wrong. None
        where no image has classes.
        """
        counts = Counter(label for image in self._true for label in image)
        if not counts:
            return None
        common = max(sorted(counts), key=lambda label: counts[label])
        always = [np.array([label == common for label in image], float) for image in self._true]
        compared = compare_means(always, self._right, seed, self._groups)
        return {
            "names": list(self.names),
            "objects": sum(counts.values()),
            "most_common": compared.base,
            "accuracy": compared.tuned,
            "accuracy_interval": list(compared.tuned_interval),
        }


def naming_line(report: Mapping[str, Any]) -> str:
    """One sentence about the `class_head` of an `evaluation.json`."""
    low, high = report["accuracy_interval"]
    return (
        f"Class told right for {100 * report['accuracy']:.1f} % of {report['objects']:,} objects (95 % interval "
        f"{100 * low:.1f} to {100 * high:.1f}), of {len(report['names'])} classes; always the most common one: "
        f"{100 * report['most_common']:.1f} %."
    )
