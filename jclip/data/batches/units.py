"""What an example is drawn from: a record, one of its languages, or one of its pairs; and sources as groups of these.

A group is what `mixing.Order` mixes: so many units, each once an epoch, with a weight. Without options there is one
group a source, and its units are its records.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jclip.data.sources.any_source import Source
from jclip.data.sources.folders import SEVERAL, PairFolder, ParallelFolder, read_languages
from jclip.data.sources.records import Pair, Translation
from jclip.errors import JclipError

Captions = Literal["one", "all"]


class Unit(NamedTuple):
    """Of a record, what an example may take.

    Attributes:
      source, record: numbers.
      picture, caption: within the record; None where the example draws one.
      language: in which a caption is drawn; None for any.
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
      source: its number.
      count: of units, which is examples an epoch.
      weight: in the mixture of all groups.
      records: of each unit; None where they are 0, 1, 2, …
      pairs: (picture, caption) of each unit, (n, 2); None where both are drawn. -1 for a record that cannot be read.
      language: of its units' texts; None for any.
    """

    source: int
    count: int
    weight: float
    records: np.ndarray | None = None
    pairs: np.ndarray | None = None
    language: str | None = None

    def unit(self, place: int) -> Unit:
        """By its place in the group."""
        record = place if self.records is None else int(self.records[place])
        picture, caption = (-1, -1) if self.pairs is None else map(int, self.pairs[place])
        drawn = caption < 0
        return Unit(self.source, record, None if drawn else picture, None if drawn else caption, self.language)


def groups(
    sources: Sequence[Source], opened: Sequence[Sequence[Any]], captions: Captions, temperature: float | None
) -> list[Group]:
    """The units of a stage.

    Args:
      sources, opened: with their records.
      captions: "one": a record is a unit, and an example draws one of its pictures and captions. "all": each picture
        with each caption of a record is a unit.
      temperature: None: each source has its share by its weight. T: languages have theirs, in proportion to
        n^(1/T), where n is a language's number of units in all sources, each counted with its source's weight (Conneau
        and Lample 2019, section 3.1, with alpha = 1/T). So 1 takes languages as they come, and a large T all equally
        often. A record with captions in several languages is a unit in each.

    Raises:
      JclipError: a temperature, but no language is known.
    """
    if temperature is None:
        return [
            _whole(number, source, records, captions)
            for number, (source, records) in enumerate(zip(sources, opened, strict=True))
        ]
    split = [
        group
        for number, (source, records) in enumerate(zip(sources, opened, strict=True))
        for group in _by_language(number, source, records, captions)
    ]
    if not any(group.language for group in split):
        raise JclipError(
            "language_temperature needs texts of known language: import the data with its languages, or leave it out"
        )
    totals: dict[str | None, float] = {}
    for group in split:
        totals[group.language] = totals.get(group.language, 0.0) + group.weight * group.count
    return [
        replace(group, weight=group.weight * group.count * totals[group.language] ** (1 / temperature - 1))
        for group in split
    ]


def _whole(number: int, source: Source, records: Sequence[Any], captions: Captions) -> Group:
    if captions == "one" or isinstance(source, ParallelFolder):
        return Group(number, len(records), source.weight)
    table = [row for record in range(len(records)) for row in _units(records, record, captions)]
    return _group(number, source.weight, [row[:3] for row in table], None)


def _by_language(number: int, source: Source, records: Sequence[Any], captions: Captions) -> list[Group]:
    """A source's groups, one or two a language, with its weight each.

    Records that cannot be read are among those of its most common language, for whoever draws them to note: as a
    language of their own they would be drawn as often as one, and what replaces them might be of the same.
    """
    found: list[Group] = []
    lost: list[int] = []
    looked_into: Sequence[int] = range(len(records))
    noted = _noted_languages(source, len(records))
    if noted is not None and captions == "one":
        names, codes = noted
        for code, name in enumerate(names):
            some = np.flatnonzero(codes == code)
            if name == SEVERAL:
                looked_into = some.tolist()
            elif len(some):
                found.append(Group(number, len(some), source.weight, some.astype(np.uint32), None, name))
        looked_into = looked_into if SEVERAL in names else ()
    units: dict[str, list[tuple[int, int, int]]] = {}
    for record in looked_into:
        for unit, picture, caption, language in _units(records, record, captions):
            if language is None:
                lost.append(unit)
            else:
                units.setdefault(language, []).append((unit, picture, caption))
    found += [_group(number, source.weight, units[name], name) for name in sorted(units)]
    if lost and found:
        most = max(range(len(found)), key=lambda place: found[place].count)
        found[most] = _with_lost(found[most], lost)
    elif lost:
        found = [_group(number, source.weight, [(record, -1, -1) for record in lost], "")]
    return found


def _with_lost(group: Group, lost: Sequence[int]) -> Group:
    assert group.records is not None
    records = np.append(group.records, np.array(lost, np.uint32))
    pairs = None if group.pairs is None else np.append(group.pairs, np.full((len(lost), 2), -1, np.int32), axis=0)
    return replace(group, count=len(records), records=records, pairs=pairs)


def _noted_languages(source: Source, count: int) -> tuple[list[str], np.ndarray] | None:
    """The language of each record, as its folder notes them, if it does."""
    if not isinstance(source, PairFolder | ParallelFolder):
        return None
    noted = read_languages(Path(source.folder), source.split)
    if noted is not None and len(noted[1]) != count:
        raise JclipError(
            f"{source.folder} notes the languages of {len(noted[1])} records in split {source.split!r}, which has "
            f"{count}: import it again"
        )
    return noted


def _units(records: Sequence[Any], number: int, captions: Captions) -> list[tuple[int, int, int, str | None]]:
    """(record, picture, caption, language) of a record's units; -1 for what is drawn, None where it cannot be read."""
    try:
        record = records[number]
    except JclipError:
        return [(number, -1, -1, None)]  # whoever draws it will note it
    if isinstance(record, Translation):
        return [(number, -1, -1, record.language)]
    assert isinstance(record, Pair)
    languages = record.languages or ("",) * len(record.captions)
    if captions == "one":
        return [(number, -1, -1, language) for language in dict.fromkeys(languages)]
    return [
        (number, picture, caption, languages[caption])
        for picture in range(len(record.pictures))
        for caption in range(len(record.captions))
    ]


def _group(number: int, weight: float, units: Sequence[tuple[int, int, int]], language: str | None) -> Group:
    table = np.array(units, np.int64)
    pairs = None if (table[:, 2] < 0).all() else table[:, 1:].astype(np.int32)
    # Four bytes each, for there may be hundreds of millions; grain's shuffle takes no more than 2^32 either.
    return Group(number, len(table), weight, table[:, 0].astype(np.uint32), pairs, language)
