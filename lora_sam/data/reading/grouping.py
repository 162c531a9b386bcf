"""Which images are parts of one thing, by what `data.group` finds in their ids."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from lora_sam.core.errors import ConfigError
from lora_sam.core.groups import clusters_of
from lora_sam.core.wording import plural
from lora_sam.data.noticed import Notes
from lora_sam.data.reading.labelled import LabelledImages
from lora_sam.data.sources import SampleSource, groups_of

SECONDS = 10
"""Of one core: what takes longer goes back over the ids again and again."""

_EXAMPLE = "\"data.group='(patient[0-9]+)_'\""

_Source = TypeVar("_Source", bound="SampleSource | None")

# re cannot be stopped, a process can; its limit counts its own time, so that a busy machine refuses nothing
_FIND = """
import json, re, sys
pattern, names, seconds = json.load(sys.stdin)
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
except ImportError:
    pass
found = (re.search(pattern, name) for name in names)
json.dump([one and one.group(1) for one in found], sys.stdout)
"""


def in_groups(sources: Mapping[str, _Source], pattern: str | None, notes: Notes) -> dict[str, _Source]:
    """The splits, whose images know what they are part of: what `pattern` finds in their ids, or their volume.

    Args:
        sources: Splits by name.
        pattern: `data.group`; None leaves all as they are.
        notes: Gets how many groups there are, and how many images are of none.

    Raises:
        ConfigError: the pattern is none, has no group in parentheses, finds nothing, or takes too long.
    """
    if pattern is None:
        return dict(sources)
    _check(pattern)
    images = [image for source in sources.values() if isinstance(source, LabelledImages) for image in source.images]
    names = list(dict.fromkeys(image.group or image.id for image in images))
    found = dict(zip(names, _searched(pattern, names), strict=True))
    matched = [name for name in names if found[name]]
    if names and not matched:
        raise ConfigError(
            f"data.group = {pattern}: finds nothing in any of {plural(len(names), 'id')}, such as {names[0]!r}; "
            "an id is the path below data.root, so leave ^ out or begin with the folders"
        )
    alone = sum(not found[image.group or image.id] for image in images)
    count = plural(len({found[name] for name in matched}), "group")
    notes.append(f"data.group: {plural(len(images) - alone, 'image')} of {count}")
    if alone:
        notes.found("ungrouped_image", f"data.group: finds nothing in the ids of {plural(alone, 'image')}, of no group")

    def grouped(source: _Source) -> _Source:
        if not isinstance(source, LabelledImages):
            return source
        parts = (replace(image, group=found[image.group or image.id] or image.group) for image in source.images)
        return replace(source, images=tuple(parts))

    return {name: grouped(source) for name, source in sources.items()}


def groups_within(source: SampleSource) -> list[list[int]]:
    """Places of the samples that are parts of one thing, for each of which there are two or more."""
    members: dict[int, list[int]] = {}
    for place, cluster in enumerate(clusters_of(groups_of(source)).tolist()):
        members.setdefault(cluster, []).append(place)
    return [places for places in members.values() if len(places) > 1]


def _check(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"data.group = {pattern}: is no regular expression ({error})") from error
    if not groups:
        raise ConfigError(
            f"data.group = {pattern}: has no parentheses, which say what of it names the group; such as {_EXAMPLE}"
        )


def _searched(pattern: str, names: Sequence[str]) -> list[str | None]:
    """What the first group of the pattern is in each name; None where it finds nothing."""
    program = [sys.executable, "-I", "-S", "-c", _FIND]
    asked = json.dumps([pattern, list(names), SECONDS])
    try:
        done = subprocess.run(program, input=asked, capture_output=True, text=True, timeout=60 * SECONDS, check=False)
    except subprocess.TimeoutExpired:
        done = None
    if done is not None and done.returncode > 0:
        reason = (done.stderr.strip().splitlines() or ["it failed"])[-1]
        raise ConfigError(f"data.group = {pattern}: cannot be looked for ({reason:.200}); use a simpler one")
    if done is None or done.returncode:
        raise ConfigError(
            f"data.group = {pattern}: takes longer than {SECONDS} s of a core on {plural(len(names), 'id')}; repeat "
            "nothing that is repeated inside, as (a+)+ does"
        )
    found: list[str | None] = json.loads(done.stdout)
    return found
