"""What a run reads: of each stage's sources the kind, the place, counts, languages and one example.

A few records of each source are looked at, so that a set of millions costs no more than a small one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from jclip.data.sources.folders import SEVERAL, Records
from jclip.data.sources.records import Pair, Translation, called
from jclip.data.sources.source import Source
from jclip.errors import JclipError
from jclip.images.preprocess import Picture, open_picture
from jclip.stages import Stage
from jclip.train.run import Run

LOOKED_AT = 64
"""Maximum number of records of a source that are read."""

_LONGEST, _LANGUAGES = 60, 4  # characters of a caption, and languages, that are shown
_IDLE = 0.1  # share of pairs without a negative that is said


@dataclass(frozen=True)
class Reading:
    """Facts of one source of a stage.

    Attributes:
      stage: its name.
      kind: "pictures with captions" or "parallel text".
      source: the source's class.
      place: its folder and split; empty where it has none.
      records: their number; None where the data are not there.
      languages: (language, number of records), the most frequent first.
      counted: whether the languages are of all records, not only of those that were looked at.
      example: one record in words.
      texts, images: numbers of different texts and pictures among the records that were looked at.
      whole: whether those are all records.
      alike: the share of couples of these records that have a picture or a text in common.
      missing: why the data cannot be read; empty where they can.
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


def readings(run: Run, *, build: bool = True) -> list[Reading]:
    """Returns the facts of every source of every stage.

    Args:
      run: whose.
      build: open the sources that build themselves, too; otherwise only where they are built.
    """
    return [reading(stage, source, build=build) for stage in run.stages for source in stage.data]


def reading(stage: Stage, source: Source, *, build: bool = True) -> Reading:
    """Returns the facts of one source; where it cannot be read, `missing` says why.

    Args:
      stage, source: which.
      build: see `readings`.
    """
    kind = called(source.gives)
    place = repr(source.folder) if hasattr(source, "folder") else ""
    if hasattr(source, "split"):
        place += f" split {source.split!r}"
    base = Reading(stage.name, kind, type(source).__name__, place)
    if not build and hasattr(source, "unbuilt") and (words := source.unbuilt()):
        return replace(base, missing=words)
    try:
        records = source.open()
        if not len(records):
            return replace(base, missing="it is empty")
        return _looked_at(base, source, records)
    except JclipError as error:
        return replace(base, missing=str(error))


def check_learnable(stage: Stage, found: Sequence[Reading]) -> list[str]:
    """Checks that a stage's data can teach anything; returns warnings about what is merely odd.

    Args:
      stage: which.
      found: the facts of all its sources; nothing is said of data that are not there.

    Raises:
      JclipError: all pairs have one text, or one picture: then no pair is another's negative.
    """
    if not found or any(one.records is None for one in found):
        return []
    total, warnings = sum(one.records or 0 for one in found), []
    if stage.objective == "contrastive":
        for what, several, count in (
            ("caption", "captions", sum(one.texts for one in found)),
            ("picture", "pictures", sum(one.images for one in found)),
        ):
            if count > 1:
                continue
            if all(one.whole for one in found):
                raise JclipError(
                    f"stage {stage.name!r} can learn nothing: all of its {total:,} records have the same {what}, so no "
                    f"pair is another's negative. Give it data with different {several}"
                )
            warnings.append(
                f"stage {stage.name!r}: the {LOOKED_AT} records that were looked at have the same {what}; pairs that "
                "share one are not each other's negatives"
            )
    if stage.captions == "one" and stage.batch_size > total:
        repeats = {"mask": "which are not each other's negatives", "positives": "which are each other's positives"}
        how = repeats.get(stage.loss.duplicates, "as each other's negatives")
        what = f"repeats pairs, {how}" if stage.objective == "contrastive" else "repeats sentences"
        warnings.append(
            f"stage {stage.name!r}: a batch of {stage.batch_size:,} is larger than the data of {total:,} records, so "
            f"every batch {what}: lower batch_size to {total:,} or less"
        )
    elif stage.objective == "contrastive" and stage.captions == "one" and stage.loss.duplicates != "ignore":
        alike = sum(((one.records or 0) / total) ** 2 * one.alike for one in found)
        idle = alike ** (stage.batch_size - 1)
        if idle > _IDLE and not warnings:
            warnings.append(
                f"stage {stage.name!r}: about {idle:.0%} of the pairs have no negative in their batch of "
                f"{stage.batch_size:,}, because many records share a picture or a caption: raise batch_size"
            )
    return warnings


def check_trained(stage: Stage, trains: Iterable[str]) -> list[str]:
    """Returns a warning where a stage trains nothing that encodes pictures or texts.

    Args:
      stage: which.
      trains: paths of the parameters that it trains.
    """
    names = sorted(trains)
    if any(name.startswith(("image/", "text/")) for name in names):
        return []
    return [
        f"stage {stage.name!r} trains only {' and '.join(names)}: its loss can fall a little, but no picture and no "
        "text is encoded otherwise than before. Let `trains` match parameters of a tower"
    ]


def _looked_at(base: Reading, source: Source, records: Sequence[Any]) -> Reading:
    count = len(records)
    places = np.unique(np.linspace(0, count - 1, LOOKED_AT).astype(int)).tolist()
    some = [record for place in places if (record := _record(records, place)) is not None]
    if not some:
        return replace(base, missing=f"none of the {len(places)} records that were looked at can be read")
    texts = {number for record in some for number in _texts(record)}
    images = {number for record in some if isinstance(record, Pair) for number in record.image_ids}
    noted = _noted(records)
    whole = len(some) == count
    return replace(
        base,
        records=count,
        languages=_by_number(_spoken(some) if noted is None else noted),
        counted=whole or noted is not None,
        example=_example(some[0]),
        texts=len(texts),
        images=len(images),
        whole=whole,
        alike=_alike(some),
    )


def _record(records: Sequence[Any], place: int) -> Pair | Translation | None:
    try:
        record: Pair | Translation = records[place]
    except JclipError:
        return None  # the stage's max_unreadable decides about it
    return record


def _texts(record: Pair | Translation) -> Sequence[Any]:
    if isinstance(record, Translation):
        return [record.other]
    return record.text_ids or [record.text_id]


def _alike(some: Sequence[Pair | Translation]) -> float:
    """Returns the share of couples of records that have a picture, or a first text, in common."""
    pairs = [(record.image_ids, _texts(record)[0]) for record in some if isinstance(record, Pair)]
    couples = [bool(set(a[0]) & set(b[0])) or a[1] == b[1] for a, b in combinations(pairs, 2)]
    return sum(couples) / len(couples) if couples else 0.0


def _noted(records: Sequence[Any]) -> dict[str, int] | None:
    """Returns the number of records in each language, as the folder notes them, if it does."""
    noted = records.noted_languages() if isinstance(records, Records) else None
    if noted is None:
        return None
    names, codes = noted
    counts = np.bincount(codes, minlength=len(names)).tolist()
    return dict(zip(("several" if name == SEVERAL else name for name in names), counts, strict=True))


def _spoken(some: Sequence[Pair | Translation]) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in some:
        for language in dict.fromkeys([record.language] if isinstance(record, Translation) else record.languages):
            found[language] = found.get(language, 0) + 1
    return found


def _by_number(found: dict[str, int]) -> tuple[tuple[str, int], ...]:
    known = ((name, count) for name, count in found.items() if name and count)
    return tuple(sorted(known, key=lambda each: (-each[1], each[0])))


def _example(record: Pair | Translation) -> str:
    if isinstance(record, Translation):
        return f"{_quoted(record.english)} for {_quoted(record.other)}"
    return f"{_quoted(record.captions[0])} with {_size(record.pictures[0])}"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")


def _size(picture: Picture) -> str:
    if isinstance(picture, np.ndarray):
        height, width = picture.shape[:2]
    else:
        try:
            width, height = open_picture(picture, "").size
        except JclipError:
            return "a picture that cannot be read"
    return f"a picture of {width} x {height}"
