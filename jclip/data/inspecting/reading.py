"""Facts about a stage's data: kind, place, counts, languages and an example of each source.

Reads only a sample of each source, so that millions of records take no longer than a few.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from jclip.data.sources.folders import SEVERAL, Records
from jclip.data.sources.records import Record
from jclip.data.sources.source import Source
from jclip.errors import JclipError

LOOKED_AT = 64
"""Maximum number of records of a source that are read."""

_LANGUAGES = 4  # that are shown


@dataclass(frozen=True)
class SourceFacts:
    """Facts about one source of a stage.

    Attributes:
      kind: kind of the records, such as "images with captions".
      source: class of the source.
      place: folder and split; empty if it has none.
      records: number of records; None if they cannot be read.
      languages: (language, number of records), the most frequent first.
      counted: True if `languages` counts all records, not only the sample.
      example: description of one record.
      texts, images: numbers of different texts and images in the sample.
      whole: True if the sample is all records.
      alike: share of the sample's pairs of records that have an image, or their first text, in common.
      missing: reason why the data cannot be read; empty if it can.
    """

    stage: str
    kind: str
    source: str
    place: str
    records: int | None = None
    languages: tuple[tuple[str, int], ...] = ()
    counted: bool = False
    example: str = ""
    texts: int = 0
    images: int = 0
    whole: bool = False
    alike: float = 0.0
    missing: str = ""

    def __str__(self) -> str:
        where = f"{self.source} {self.place}".rstrip()
        if self.records is None:
            return f"stage {self.stage!r} reads {self.kind}: {where}: {self.missing}"
        facts = [f"{self.records:,} record{'' if self.records == 1 else 's'}"]
        if self.languages:
            names = [f"{name} {count:,}" if self.counted else name for name, count in self.languages[:_LANGUAGES]]
            rest = len(self.languages) - _LANGUAGES
            facts.append(f"languages {', '.join(names)}{f' and {rest} more' if rest > 0 else ''}")
        return f"stage {self.stage!r} reads {self.kind}: {where}: {'; '.join(facts)}; such as {self.example}"


def source_facts(stage: str, source: Source, *, build: bool = True) -> SourceFacts:
    """Returns the facts about one source of a stage; if it cannot be read, `missing` is the reason.

    Builds a source that must be built first, unless `build` is False.
    """
    kind = source.gives.called()
    place = repr(source.folder) if hasattr(source, "folder") else ""
    if hasattr(source, "split"):
        place += f" split {source.split!r}"
    base = SourceFacts(stage, kind, type(source).__name__, place)
    if not build and hasattr(source, "unbuilt") and (words := source.unbuilt()):
        return replace(base, missing=words)
    try:
        records = source.open()
        if not len(records):
            return replace(base, missing="it is empty")
        return _sampled(base, records)
    except JclipError as error:
        return replace(base, missing=str(error))


def _sampled(base: SourceFacts, records: Sequence[Any]) -> SourceFacts:
    count = len(records)
    places = np.unique(np.linspace(0, count - 1, LOOKED_AT).astype(int)).tolist()
    some: list[Record] = []
    for place in places:
        with suppress(JclipError):  # the stage's max_unreadable decides about unreadable records
            some.append(records[place])
    if not some:
        return replace(base, missing=f"none of the {len(places)} records of a sample can be read")
    identities = [record.identities() for record in some]
    noted = _noted(records)
    whole = len(some) == count
    return replace(
        base,
        records=count,
        languages=_by_number(_spoken(some) if noted is None else noted),
        counted=whole or noted is not None,
        example=some[0].shown(),
        texts=len({text for _, texts in identities for text in texts}),
        images=len({image for images, _ in identities for image in images}),
        whole=whole,
        alike=_alike(identities),
    )


def _alike(found: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> float:
    """Returns the share of pairs of records that have an image, or a first text, in common."""
    firsts = [(set(images), set(texts[:1])) for images, texts in found]
    couples = [not (a[0].isdisjoint(b[0]) and a[1].isdisjoint(b[1])) for a, b in combinations(firsts, 2)]
    return sum(couples) / len(couples) if couples else 0.0


def _noted(records: Sequence[Any]) -> dict[str, int] | None:
    """Returns the number of records in each language, if the folder notes it; else None."""
    noted = records.noted_languages() if isinstance(records, Records) else None
    if noted is None:
        return None
    names, codes = noted
    counts = np.bincount(codes, minlength=len(names)).tolist()
    return dict(zip(("several" if name == SEVERAL else name for name in names), counts, strict=True))


def _spoken(some: Sequence[Record]) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in some:
        for language in dict.fromkeys(language for _, _, language in record.pairs()):
            found[language] = found.get(language, 0) + 1
    return found


def _by_number(found: dict[str, int]) -> tuple[tuple[str, int], ...]:
    known = ((name, count) for name, count in found.items() if name and count)
    return tuple(sorted(known, key=lambda each: (-each[1], each[0])))
