"""Two passes over a part: `survey` decides what is kept, and `write` writes it as a shard.

Between the two, `mark_duplicates` compares all parts. Each pass writes its result to a file that is complete or absent,
so that an interrupted import resumes. Both depend only on the part and the rules: the bytes are the same for any number
of workers, machines or interruptions.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jclip.data.importing.parts import Beside, Found, Lost, Part
from jclip.data.sources.kinds import KeepRules, RecordKind, StoredLabelled, StoredPair
from jclip.data.sources.writing import count_records, language_of, write_shard
from jclip.errors import JclipError
from jclip.images.checking import Checked, check_picture, stored_form
from jclip.io.files import Unfinished

_SHOWN = 5  # places of a reason that a report names
_BUCKET = 1 << 24  # digests that are sorted at once
DUPLICATE = "exact duplicate"


@dataclass
class Skipped:
    """Numbers of skipped units by reason, and the first places of each."""

    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def note(self, place: str, reason: str, units: int = 1) -> None:
        """Counts more units with a reason."""
        self.counts[reason] += units
        shown = self.places.setdefault(reason, [])
        if len(shown) < _SHOWN and place not in shown:
            shown.append(place)

    def add(self, other: "Skipped") -> None:
        """Adds the counts of another."""
        for reason, count in other.counts.items():
            self.counts[reason] += count
            shown = self.places.setdefault(reason, [])
            shown += other.places[reason][: _SHOWN - len(shown)]

    @property
    def units(self) -> int:
        """Number of all skipped units."""
        return sum(self.counts.values())

    def as_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {"counts": self.counts, "places": self.places}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Skipped":
        """Returns the counts of `as_json`."""
        return cls(Counter(found["counts"]), found["places"])


@dataclass(frozen=True)
class Task:
    """Part of a source, and the files of its results.

    Attributes:
      number: number of the part, from 0.
      part, kind, rules, classes: the part, and how its records are checked and stored.
      folder: folder of all results.
    """

    number: int
    part: Part
    kind: RecordKind
    rules: KeepRules
    classes: tuple[str, ...]
    folder: Path

    def file(self, name: str) -> Path:
        """Returns the path of a result: "survey.npz", "duplicates.npy", "shard", "spoken.npy", "shard.json"."""
        return self.folder / f"{self.number:05d}.{name}"


def survey(task: Task) -> None:
    """Runs the first pass: decides which units of which records are kept, and computes their digests.

    Raises JclipError if the part cannot be read.
    """
    kept: list[bool] = []
    sizes: list[int] = []
    digests: list[bytes] = []
    skipped, beside, remarks, entries = Skipped(), Skipped(), Skipped(), 0
    for item in _records(task):
        if isinstance(item, Beside):
            beside.note(item.place, item.reason)
            entries += 1
            continue
        if isinstance(item, Lost):
            skipped.note(item.place, item.reason, item.units)
            entries += item.units if item.entries is None else item.entries
            continue
        picture = _picture(task, item.record)
        detailed = f"{item.place} ({picture.why})" if picture.why else item.place
        troubles = [picture.trouble or trouble for trouble in task.kind.skip_reasons(item.record, task.rules)]
        entries += len(troubles) if item.entries is None else item.entries
        for trouble in filter(None, troubles):
            skipped.note(detailed if picture.trouble else item.place, trouble)
        if picture.remark and not all(troubles):
            remarks.note(detailed, picture.remark)
        sizes.append(len(troubles))
        kept += [not trouble for trouble in troubles]
        digests += task.kind.digests(item.record)
    counted = {"skipped": skipped, "beside": beside, "remarks": remarks}
    found = json.dumps({**{name: each.as_json() for name, each in counted.items()}, "entries": entries})
    with whole_result(task.file("survey.npz")) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            kept=np.array(kept, bool),
            sizes=np.array(sizes, np.int32),
            digests=np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2),
            counted=np.frombuffer(found.encode(), np.uint8),
        )


class Surveyed(NamedTuple):
    """Result of a survey.

    Attributes:
      kept: True for each unit that is kept.
      digests: digest of each unit.
      skipped: units that are not kept.
      beside: entries of the source that are not data.
      remarks: records that are kept but odd.
      entries: number of the source's entries.
    """

    kept: np.ndarray
    digests: np.ndarray
    skipped: Skipped
    beside: Skipped
    remarks: Skipped
    entries: int


def surveyed(task: Task) -> Surveyed:
    """Returns what a survey found."""
    with np.load(task.file("survey.npz")) as stored:
        found = json.loads(stored["counted"].tobytes())
        skipped, beside, remarks = (Skipped.from_json(found[name]) for name in ("skipped", "beside", "remarks"))
        return Surveyed(stored["kept"], stored["digests"], skipped, beside, remarks, found["entries"])


def _records(task: Task) -> Iterator[Found | Lost | Beside]:
    """Yields the part's records, with their images in the form in which they are stored."""
    for item in task.part.records():
        if isinstance(item, Found) and isinstance(item.record, StoredPair | StoredLabelled):
            image = stored_form(item.record.image, task.rules.pictures)
            yield item._replace(record=item.record._replace(image=image))
        else:
            yield item


def _picture(task: Task, record: Any) -> Checked:
    if isinstance(record, StoredPair | StoredLabelled):
        return check_picture(record.image, task.rules.pictures)
    return Checked()


def mark_duplicates(tasks: list[Task]) -> None:
    """Marks the kept units that equal an earlier one of the same split, over all parts."""
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
    """Returns True for rows equal to an earlier row. Sorts in buckets, because sorting all takes too much memory."""
    again = np.ones(len(digests), bool)
    buckets = 1 + len(digests) // _BUCKET
    for bucket in range(buckets):
        rows = np.flatnonzero(digests[:, 0] % buckets == bucket)
        _, first = np.unique(np.ascontiguousarray(digests[rows]).view([("", np.uint64)] * 2), return_index=True)
        again[rows[first]] = False
    return again


def write(task: Task) -> None:
    """Runs the second pass: writes the shard and its counts. Raises JclipError if the part has changed since."""
    totals = _Totals()
    with whole_result(task.file("shard")) as partial:
        write_shard(partial, task.kind, _kept(task, totals), task.classes)
        if count_records(partial) != totals.records:
            raise Unfinished(f"{partial} could not be written completely: free some space, and start again")
    names = sorted(set(totals.spoken))
    codes = {name: code for code, name in enumerate(names)}
    with whole_result(task.file("spoken.npy")) as partial, partial.open("wb") as stream:
        np.save(stream, np.array([codes[name] for name in totals.spoken], np.uint16))
    counts = {**vars(totals), "skipped": totals.skipped.as_json(), "spoken": names}
    with whole_result(task.file("shard.json")) as partial:
        partial.write_text(json.dumps(counts), encoding="utf-8")


@dataclass
class _Totals:
    records: int = 0
    units: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    skipped: Skipped = field(default_factory=Skipped)
    spoken: list[str] = field(default_factory=list)  # the language of each record


def _kept(task: Task, totals: _Totals) -> Iterator[Any]:
    with np.load(task.file("survey.npz")) as stored:
        kept, sizes = stored["kept"], stored["sizes"]
    again = np.load(task.file("duplicates.npy")) if task.rules.skip_duplicates else np.zeros_like(kept)
    changed = JclipError(f"the source changed while it was imported (part {task.number + 1}): import it again")
    start, seen = 0, 0
    for item in _records(task):
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
        totals.spoken.append(language_of(left))
        yield task.kind.select(item.record, mask.tolist())
    if seen != len(sizes):
        raise changed


@contextlib.contextmanager
def whole_result(file: Path) -> Iterator[Path]:
    """Yields a temporary path, and renames it to `file` if the block succeeds. Only one process writes each file."""
    partial = file.with_name(f"{file.name}.partial")
    partial.unlink(missing_ok=True)
    yield partial
    partial.replace(file)
