"""The two passes over a part: a survey of what may be kept, and then the writing of it as a shard.

Between the two, duplicates are found over all parts. Each pass leaves its result in a file that is whole or absent, so
that an import which was killed takes up the files that are there. Both are functions of the part and of the rules
alone: the bytes do not depend on workers, machines or interruptions.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jclip.data.folders import SEVERAL, count_records, write_shard
from jclip.data.importing.parts import Found, Part
from jclip.data.kinds import Kind, Rules
from jclip.errors import JclipError
from jclip.files import Unfinished

_SHOWN = 5  # places of a reason that a report names
_BUCKET = 1 << 24  # digests that are sorted at once
DUPLICATE = "exact duplicate"


@dataclass
class Skipped:
    """How many units were skipped for which reason, and the first places."""

    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def note(self, place: str, reason: str, units: int = 1) -> None:
        """Counts some more."""
        self.counts[reason] += units
        shown = self.places.setdefault(reason, [])
        if len(shown) < _SHOWN and place not in shown:
            shown.append(place)

    def add(self, other: "Skipped") -> None:
        """Counts all of another."""
        for reason, count in other.counts.items():
            self.counts[reason] += count
            shown = self.places.setdefault(reason, [])
            shown += other.places[reason][: _SHOWN - len(shown)]

    @property
    def units(self) -> int:
        """All of them."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Task:
    """A part and where its results lie.

    Attributes:
      number: of the part, from 0.
      part, kind, rules, classes: what is read, and how it is judged and stored.
      folder: of all results.
    """

    number: int
    part: Part
    kind: Kind
    rules: Rules
    classes: tuple[str, ...]
    folder: Path

    def file(self, name: str) -> Path:
        """The result of that name: "survey.npz", "duplicates.npy", "shard", "spoken.npy", "shard.json"."""
        return self.folder / f"{self.number:05d}.{name}"


def survey(task: Task) -> None:
    """The first pass: which units are kept, of which records, with a digest each.

    Raises:
      JclipError: the part cannot be read.
    """
    kept: list[bool] = []
    sizes: list[int] = []
    digests: list[bytes] = []
    skipped = Skipped()
    for item in task.part.records():
        if not isinstance(item, Found):
            skipped.note(*item)
            continue
        troubles = task.kind.troubles(item.record, task.rules)
        for trouble in filter(None, troubles):
            skipped.note(item.place, trouble)
        sizes.append(len(troubles))
        kept += [not trouble for trouble in troubles]
        digests += task.kind.digests(item.record)
    found = json.dumps({"counts": skipped.counts, "places": skipped.places})
    with whole_result(task.file("survey.npz")) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            kept=np.array(kept, bool),
            sizes=np.array(sizes, np.int32),
            digests=np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2),
            skipped=np.frombuffer(found.encode(), np.uint8),
        )


def surveyed(task: Task) -> tuple[np.ndarray, np.ndarray, Skipped]:
    """What a survey found: which units it kept, their digests, and what it skipped."""
    with np.load(task.file("survey.npz")) as stored:
        found = json.loads(stored["skipped"].tobytes())
        return stored["kept"], stored["digests"], Skipped(Counter(found["counts"]), found["places"])


def mark_duplicates(tasks: list[Task]) -> None:
    """Notes which kept units equal one that stands before them in the same split, over all parts."""
    for split in dict.fromkeys(task.part.split for task in tasks):
        mine = [task for task in tasks if task.part.split == split]
        found = [surveyed(task)[:2] for task in mine]
        kept = np.concatenate([each[0] for each in found])
        digests = np.concatenate([each[1] for each in found])[kept]
        again = _again(digests)
        repeated = np.zeros(len(kept), bool)
        repeated[np.flatnonzero(kept)[again]] = True
        ends = np.cumsum([len(each[0]) for each in found])[:-1]
        for task, marks in zip(mine, np.split(repeated, ends), strict=True):
            with whole_result(task.file("duplicates.npy")) as partial, partial.open("wb") as stream:
                np.save(stream, marks)


def _again(digests: np.ndarray) -> np.ndarray:
    """Which rows equal a row before them; by buckets, or sorting would take several times the memory of the digests."""
    again = np.ones(len(digests), bool)
    buckets = 1 + len(digests) // _BUCKET
    for bucket in range(buckets):
        rows = np.flatnonzero(digests[:, 0] % buckets == bucket)
        _, first = np.unique(np.ascontiguousarray(digests[rows]).view([("", np.uint64)] * 2), return_index=True)
        again[rows[first]] = False
    return again


def write(task: Task) -> None:
    """The second pass: the shard, and what it holds.

    Raises:
      JclipError: the part is no longer what was surveyed.
    """
    totals = _Totals()
    with whole_result(task.file("shard")) as partial:
        write_shard(partial, task.kind, _kept(task, totals), task.classes)
        if count_records(partial) != totals.records:
            raise Unfinished(f"{partial} could not be written to its end: free some space, and start again")
    names = sorted(set(totals.spoken))
    codes = {name: code for code, name in enumerate(names)}
    with whole_result(task.file("spoken.npy")) as partial, partial.open("wb") as stream:
        np.save(stream, np.array([codes[name] for name in totals.spoken], np.uint16))
    with whole_result(task.file("shard.json")) as partial:
        partial.write_text(json.dumps({**totals.as_json(), "spoken": names}), encoding="utf-8")


@dataclass
class _Totals:
    records: int = 0
    units: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    skipped: Skipped = field(default_factory=Skipped)
    spoken: list[str] = field(default_factory=list)  # the language of each record

    def as_json(self) -> dict[str, Any]:
        skipped = {"counts": self.skipped.counts, "places": self.skipped.places}
        return {"records": self.records, "units": self.units, "languages": self.languages, "skipped": skipped}


def _kept(task: Task, totals: _Totals) -> Iterator[Any]:
    with np.load(task.file("survey.npz")) as stored:
        kept, sizes = stored["kept"], stored["sizes"]
    again = np.load(task.file("duplicates.npy")) if task.rules.skip_duplicates else np.zeros_like(kept)
    changed = JclipError(f"the source changed while it was imported (part {task.number + 1}): import it again")
    start, seen = 0, 0
    for item in task.part.records():
        if not isinstance(item, Found):
            continue
        languages = task.kind.languages(item.record)
        if seen == len(sizes) or sizes[seen] != len(languages):
            raise changed
        span = slice(start, start + len(languages))
        start, seen = span.stop, seen + 1
        for _ in range(int(again[span].sum())):
            totals.skipped.note(item.place, DUPLICATE)
        mask = kept[span] & ~again[span]
        if not mask.any():
            continue
        totals.records += 1
        totals.units += int(mask.sum())
        left = [language for language, keep in zip(languages, mask, strict=True) if keep]
        totals.languages.update(left)
        totals.spoken.append(left[0] if len(set(left)) == 1 else SEVERAL)
        yield task.kind.only(item.record, mask.tolist())
    if seen != len(sizes):
        raise changed


@contextlib.contextmanager
def whole_result(file: Path) -> Iterator[Path]:
    """A name to write to, which becomes the file when the block ends well. Only one process writes a part."""
    partial = file.with_name(f"{file.name}.partial")
    partial.unlink(missing_ok=True)
    yield partial
    partial.replace(file)
