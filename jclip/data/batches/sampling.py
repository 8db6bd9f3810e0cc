"""Sampling: groups of units, by source and language.

A unit is a record, one of its languages, or one of its `Record.pairs`; an example is drawn from one unit. `order.Order`
mixes the groups by weight and visits each unit once an epoch. Without options, every source is one group of its
records.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from jclip.data.batches.opened import OpenSources
from jclip.data.sources.folders import SEVERAL, Records
from jclip.errors import JclipError

Captions = Literal["one", "all"]


class Unit(NamedTuple):
    """Part of a record that one example takes.

    Attributes:
      source, record: numbers.
      picture, caption: numbers within the record; None if drawn at random.
      language: language of the caption that is drawn; None for any.
    """

    source: int
    record: int
    picture: int | None = None
    caption: int | None = None
    language: str | None = None


@dataclass(frozen=True)
class Group:
    """Units of a source that are drawn equally often.

    Attributes:
      source: number of the source.
      count: number of units, and so of examples an epoch.
      weight: share in the mixture of all groups.
      records: record of each unit, (n,); None for 0, 1, 2, …
      pairs: (picture, caption) of each unit, (n, 2); -1 if drawn at random; None if all are.
      language: language of the units' texts; None for any.
    """

    source: int
    count: int
    weight: float
    records: np.ndarray | None = None
    pairs: np.ndarray | None = None
    language: str | None = None

    def unit(self, number: int) -> Unit:
        """Returns a unit by its number in the group."""
        record = number if self.records is None else int(self.records[number])
        picture, caption = (-1, -1) if self.pairs is None else map(int, self.pairs[number])
        if caption < 0:
            return Unit(self.source, record, language=self.language)
        return Unit(self.source, record, picture, caption, self.language)

    def with_lost(self, records: Sequence[int]) -> "Group":
        """Returns the group with additional, unreadable records."""
        known = np.arange(self.count, dtype=np.uint32) if self.records is None else self.records
        found = np.append(known, np.array(records, np.uint32))
        pairs = self.pairs
        if pairs is not None:
            pairs = np.append(pairs, np.full((len(records), 2), -1, np.int32), axis=0)
        return replace(self, count=len(found), records=found, pairs=pairs)


def groups(opened: OpenSources, captions: Captions, temperature: float | None) -> list[Group]:
    """Returns the groups of a stage. Raises JclipError if a temperature is set, but no language is known.

    Args:
      opened: sources with their records.
      captions: "one": a record is a unit; an example draws one of its images and captions. "all": each image with
        each caption of a record is a unit.
      temperature: T: a language is drawn in proportion to n^(1/T). Here n is its number of units in all sources, each
        counted with its source's weight (Conneau and Lample 2019, section 3.1, with alpha = 1/T). 1 keeps the natural
        proportions; a large T draws all languages equally often. A record with captions in several languages is a unit
        in each. None: languages are ignored, and sources are drawn by their weights.
    """
    if temperature is None:
        return [_whole(number, opened, captions) for number in range(len(opened.sources))]
    split = [group for number in range(len(opened.sources)) for group in _by_language(number, opened, captions)]
    if not any(group.language for group in split):
        raise JclipError("language_temperature needs known languages: import the data with its languages, or omit it")
    totals: dict[str | None, float] = {}
    for group in split:
        totals[group.language] = totals.get(group.language, 0.0) + group.weight * group.count
    return [
        replace(group, weight=group.weight * group.count * totals[group.language] ** (1 / temperature - 1))
        for group in split
    ]


def _whole(number: int, opened: OpenSources, captions: Captions) -> Group:
    records, weight = opened.records[number], opened.sources[number].weight
    if captions == "one":
        return Group(number, len(records), weight)
    return _group(number, weight, [unit[:3] for unit in _units(records, range(len(records)), captions)], None)


def _by_language(number: int, opened: OpenSources, captions: Captions) -> list[Group]:
    """Returns a source's groups, one or two for each language.

    Unreadable records join the most common language; they are noted and replaced when they are drawn. In a group of
    their own they would be drawn too often, and replaced by each other.
    """
    records, weight = opened.records[number], opened.sources[number].weight
    found: list[Group] = []
    unknown: Iterable[int] = range(len(records))
    noted = records.noted_languages() if isinstance(records, Records) and captions == "one" else None
    if noted is not None:  # so that only the records of several languages must be read
        names, codes = noted
        unknown = []
        for code, name in enumerate(names):
            some = np.flatnonzero(codes == code)
            if name == SEVERAL:
                unknown = some.tolist()
            elif len(some):
                found.append(Group(number, len(some), weight, some.astype(np.uint32), None, name))
    lost: list[int] = []
    units: dict[str, list[tuple[int, int, int]]] = {}
    for record, picture, caption, language in _units(records, unknown, captions):
        if language is None:
            lost.append(record)
        else:
            units.setdefault(language, []).append((record, picture, caption))
    found += [_group(number, weight, units[name], name) for name in sorted(units)]
    if lost and found:
        most = max(range(len(found)), key=lambda place: found[place].count)
        found[most] = found[most].with_lost(lost)
    elif lost:
        found = [_group(number, weight, [(record, -1, -1) for record in lost], "")]
    return found


def _units(
    records: Sequence[Any], numbers: Iterable[int], captions: Captions
) -> Iterable[tuple[int, int, int, str | None]]:
    """Yields (record, picture, caption, language) of each unit.

    Picture and caption are -1 if they are drawn later. The language is None for an unreadable record.
    """
    for number in numbers:
        try:
            pairs = records[number].pairs()
        except JclipError:
            yield number, -1, -1, None  # noted when it is drawn
            continue
        if captions == "one":
            yield from ((number, -1, -1, language) for language in dict.fromkeys(pair[2] for pair in pairs))
        else:
            yield from ((number, *pair) for pair in pairs)


def _group(number: int, weight: float, units: Sequence[tuple[int, int, int]], language: str | None) -> Group:
    table = np.array(units, np.int64)
    pairs = None if (table[:, 2] < 0).all() else table[:, 1:].astype(np.int32)
    # Four bytes each, because there may be hundreds of millions; grain's shuffle takes at most 2^32 anyway.
    return Group(number, len(table), weight, table[:, 0].astype(np.uint32), pairs, language)
