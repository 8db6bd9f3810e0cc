"""Changes data folders atomically: adds a split, or moves images of split "train" to split "valid"."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jclip.data.importing.report import ImportReport, SplitReport
from jclip.data.importing.validation import TRAIN, VALID, HeldOut, Side, divide, picture_numbers
from jclip.data.sources.folders import Shard, open_folder, read_languages
from jclip.data.sources.kinds import PAIRS, RecordKind, kind_by_features
from jclip.data.sources.writing import gather_shards, write_languages
from jclip.errors import JclipError
from jclip.io.files import check_free, lasting_folder, recover, whole_folder
from jclip.io.json_files import entry, read_object
from jclip.plain import as_json

REPORT = "report.json"
_WRITTEN = ("dataset_info.json", "features.json", "examples-", "languages-", REPORT)


@dataclass(frozen=True)
class Contents:
    """Contents of a data folder.

    Attributes:
      kind, classes: kind of its records, and class names.
      shards: shards of each split, in order; in this folder or elsewhere.
      languages: language of each record, for splits where it is known.
      report: contents of report.json.
      files: other files, which are copied.
    """

    kind: RecordKind
    classes: tuple[str, ...]
    shards: Mapping[str, Sequence[Shard]]
    languages: Mapping[str, np.ndarray]
    report: dict[str, Any]
    files: tuple[Path, ...] = ()

    def write(self, partial: Path, notes: Sequence[tuple[str, str]] = ()) -> None:
        """Writes the contents into an empty folder, with `notes`, names and contents of more text files."""
        gather_shards(partial, self.kind, self.shards, self.classes)
        for name, languages in self.languages.items():
            write_languages(partial, name, languages)
        for file in self.files:
            shutil.copyfile(file, partial / file.name)
        text = as_json(self.report, indent=1)
        for name, note in (*notes, (REPORT, text + "\n")):
            (partial / name).write_text(note, encoding="utf-8")

    def joined(self, other: "Contents") -> "Contents":
        """Returns these contents with the splits of another."""
        report = {**self.report, "splits": {**self.report["splits"], **other.report["splits"]}}
        if other.report.get("read_as"):
            report["read_as"] = [*self.report.get("read_as", ()), *other.report["read_as"]]
        shards, languages = {**self.shards, **other.shards}, {**self.languages, **other.languages}
        return Contents(self.kind, self.classes, shards, languages, report, self.files)


def read_contents(folder: Path) -> Contents:
    """Reads a data folder. Raises JclipError if it is not one, is damaged, or was written with other features."""
    info = open_folder(folder).info
    kind = kind_by_features(info.features)
    if kind is None or not info.splits:
        raise JclipError(f"{folder} holds no pairs, parallel text or labelled images: name another data folder")
    classes = tuple(info.features["labels"].feature.names) if "labels" in info.features else ()
    if set(info.features) != set(kind.features(classes)):
        raise JclipError(f"{folder} was written by another version of jclip and cannot be changed: import it again")
    shards = {
        name: [Shard(Path(file), count) for file, count in zip(split.filepaths, split.shard_lengths, strict=True)]
        for name, split in info.splits.items()
    }
    known = {name: read_languages(folder, name) for name in shards}
    languages = {name: np.array(found[0])[found[1]] for name, found in known.items() if found is not None}
    kept = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith(_WRITTEN))
    return Contents(kind, classes, shards, languages, _report(folder, kind), tuple(kept))


def _report(folder: Path, kind: RecordKind) -> dict[str, Any]:
    """Returns the folder's report; an empty one if it has none."""
    file = folder / REPORT
    if not file.exists():
        return {"format": "", "kind": kind.name, "splits": {}}
    found = read_object(file, "as a report")
    entry(found, "splits", dict, file)
    return found


def check_addition(folder: Path, kind: RecordKind, classes: Sequence[str], splits: Sequence[str]) -> None:
    """Raises JclipError if a folder has another record kind or other classes, or has one of the new splits."""
    contents = read_contents(folder)
    if contents.kind is not kind:
        raise JclipError(f"{folder} holds {contents.kind.what}, but the source {kind.what}: add to another folder")
    if contents.classes != tuple(classes):
        raise JclipError(f"{folder} has other classes than the source: add to another folder")
    for split in splits:
        if split in contents.shards:
            raise JclipError(f"{folder} has a split {split!r} already: rename it with --splits, or add elsewhere")


def split_folder(
    folder: Path,
    share: HeldOut,
    destination: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
    notes: Sequence[tuple[str, str]] = (),
) -> ImportReport:
    """Moves images of split "train", with all their captions, to split "valid". Returns both splits' counts.

    The folder is unchanged until everything is written. Raises JclipError if it has no split "train", has a split
    "valid", has other records than pairs, or too few images.

    Args:
      destination: new folder for the result; None to change the folder itself.
      progress: called with (what is done, shards done, shards in all).
      notes: names and contents of text files to add.
    """
    target = destination or folder
    with lasting_folder(target) as work:
        if destination is not None:
            check_free(destination)
        recover(folder)
        for left in work.iterdir():  # files that a killed process left
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        contents = read_contents(folder)
        _check_divisible(folder, contents)
        shards = contents.shards[TRAIN]
        numbers = []
        for done, shard in enumerate(shards):
            progress("hashing the images", done, len(shards))
            numbers.append(picture_numbers(shard.file, contents.kind))
        bound = share.bound(np.concatenate(numbers))
        sides: list[Side] = []
        for done, shard in enumerate(shards):
            progress("dividing", done, len(shards))
            files = {name: work / f"{done:05d}.{name}" for name in (TRAIN, VALID)}
            sides += divide(shard.file, contents.kind, bound, files)
        report, new = _divided(contents, sides)
        with whole_folder(target, replace=destination is None) as partial:
            contents.joined(new).write(partial, notes)
    return report


def _check_divisible(folder: Path, contents: Contents) -> None:
    if contents.kind is not PAIRS:
        raise JclipError(f"{folder} holds {contents.kind.what}, but only {PAIRS.what} are divided: name another folder")
    if VALID in contents.shards:
        raise JclipError(f"{folder} has a split {VALID!r} already: use it as it is, or import the source again")
    if TRAIN not in contents.shards:
        raise JclipError(
            f"{folder} has no split {TRAIN!r} to divide, only {', '.join(contents.shards)}: import the source again "
            f"with --splits {TRAIN}"
        )


def _divided(contents: Contents, sides: Sequence[Side]) -> tuple[ImportReport, Contents]:
    report = ImportReport(contents.report["format"], contents.kind.name)
    shards: dict[str, list[Shard]] = {}
    languages: dict[str, np.ndarray] = {}
    for name in (TRAIN, VALID):
        split = report.splits.setdefault(name, SplitReport())
        mine = [side for side in sides if side.split == name and side.records]
        for side in mine:
            split.records += side.records
            split.units += side.units
            split.shards += 1
            split.languages.update(side.languages)
        shards[name] = [Shard(side.file, side.records) for side in mine]
        languages[name] = np.array([code for side in mine for code in side.record_languages])
    moved = report.splits[VALID].units
    report.splits[TRAIN].moved, report.splits[VALID].moved = moved, -moved
    found = report.as_json()
    del found["read_as"], found["left_out"]  # the folder's own stay
    before = contents.report["splits"].get(TRAIN, {})
    train = found["splits"][TRAIN]
    train |= {name: before[name] for name in ("found", "skipped", "beside", "remarks") if name in before}
    train["read"] += sum(each["count"] for each in train["skipped"].values())
    return report, Contents(contents.kind, contents.classes, shards, languages, found)
