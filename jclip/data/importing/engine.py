"""Runs an import: surveys the source, finds duplicates, writes shards, gathers them into a folder.

.NAME.unfinished/     beside the destination, until the import is finished
  import.json         identity of the import; an import with another identity starts from the beginning
  work/               indices of the source, unpacked archives
  00012.survey.npz, 00012.duplicates.npy, 00012.shard, 00012.shard.json
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jclip.data.importing.dividing import divide_task, divided, number_pictures
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Reader
from jclip.data.importing.report import ImportReport, SplitReport
from jclip.data.importing.stored import Contents, check_addition, read_contents
from jclip.data.importing.survey import DUPLICATE, Skipped, Task, mark_duplicates, survey, surveyed, write
from jclip.data.importing.validation import TRAIN, VALID, HeldOut
from jclip.data.importing.workers import Runner, in_processes
from jclip.data.sources.folders import Shard
from jclip.data.sources.kinds import PAIRS, KeepRules
from jclip.errors import JclipError
from jclip.io.files import check_free, check_utf8, lasting_folder, recover, whole_folder
from jclip.io.json_files import read_object
from jclip.io.reading import files_under

_VERSION = 3  # of the files in .NAME.unfinished

Progress = Callable[[str, int, int], None]
"""(what is done, parts done, parts in all)"""


@dataclass(frozen=True)
class Plan:
    """Options of an import.

    Attributes:
      format: name of the format, for the report.
      options: the user's other options that decide the result, as plain values.
      rules: rules for what is kept.
      limit: maximum number of skipped units.
      shard_bytes: approximate number of source bytes of a shard.
      run: runs the tasks, see `workers`.
      validation: images of split "train" that become split "valid"; None keeps the splits.
      own_validation: True keeps a split "valid" that the source has; False makes it an error.
      add: add the splits to the destination, a folder of the same kind.
      notes: names and contents of text files to put into the folder.
    """

    format: str
    options: dict[str, Any] = field(default_factory=dict)
    rules: KeepRules = KeepRules()
    limit: Limit = Limit(share=0.1)
    shard_bytes: int = 128 << 20
    run: Runner = field(default_factory=lambda: in_processes(1))
    validation: HeldOut | None = None
    own_validation: bool = False
    add: bool = False
    notes: tuple[tuple[str, str], ...] = ()


def import_data(reader: Reader, destination: Path, plan: Plan, progress: Progress = lambda *_: None) -> ImportReport:
    """Writes a data folder that `jclip.data.sources.folders` reads.

    An import that was killed resumes when it is started again with the same source and plan. The folder is then equal,
    byte for byte, to that of an import without interruption. Raises JclipError, and leaves nothing behind, if the
    source does not fit its format, too much of it was skipped, or the destination exists and the plan does not add to
    it. Calls `progress` now and then.
    """
    check_utf8(destination)
    if os.path.lexists(destination) and not plan.add:
        with suppress(JclipError), lasting_folder(destination):
            pass  # removes what a process left that was killed after the folder was complete
        check_free(destination)
    with lasting_folder(destination) as unfinished:
        if not plan.add:
            check_free(destination)  # another import may have finished in the meantime
        _start_or_resume(unfinished, reader, plan)
        progress("scanning the source", 0, 0)
        (unfinished / "work").mkdir(exist_ok=True)
        reader = reader.unpack(unfinished / "work")
        parts = reader.parts(unfinished / "work", plan.shard_bytes)
        tasks = [Task(n, part, reader.kind, plan.rules, reader.classes, unfinished) for n, part in enumerate(parts)]
        if not tasks:
            raise JclipError(f"{', '.join(map(str, reader.files[:1]))} holds nothing to import: name another source")
        splits = _splits(tasks, plan)
        if plan.add:
            recover(destination)
            check_addition(destination, reader.kind, reader.classes, splits)
        read = _surveys(tasks, plan, progress)
        if plan.rules.skip_duplicates and not all(task.file("duplicates.npy").exists() for task in tasks):
            mark_duplicates(tasks)
        _check_limit(tasks, plan, read)
        _each("writing", write, "shard.json", tasks, plan, progress)
        if plan.validation is not None and VALID in splits and VALID not in {task.part.split for task in tasks}:
            _divide([task for task in tasks if task.part.split == TRAIN], plan.validation, plan, progress)
        return _gather(tasks, reader, destination, plan)


def _splits(tasks: Sequence[Task], plan: Plan) -> list[str]:
    """Returns the names of the splits that the import makes."""
    splits = list(dict.fromkeys(task.part.split for task in tasks))
    if plan.validation is None or (plan.own_validation and VALID in splits):
        return splits
    if tasks[0].kind is not PAIRS:
        raise JclipError(f"--validation divides {PAIRS.what}, not {tasks[0].kind.what}: omit it")
    if VALID in splits or TRAIN not in splits:
        raise JclipError(
            f"--validation makes split {VALID!r} from split {TRAIN!r}, but the source has {', '.join(splits)}: omit "
            f"--validation, or choose --splits {TRAIN}"
        )
    return [*splits, VALID]


def import_identity(reader: Reader, plan: Plan) -> dict[str, Any]:
    """Returns all that decides the result of an import, JSON-ready: the source's files and the plan."""
    files = hashlib.sha256()
    for file in _read_files(reader.files):
        found = file.stat()
        files.update(f"{file.absolute()}\0{found.st_size}\0{found.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    mine = {
        "version": _VERSION,
        "format": plan.format,
        "said": plan.options,
        "rules": asdict(plan.rules),
        "shard_bytes": plan.shard_bytes,
        "validation": str(plan.validation),
        "files": files.hexdigest(),
    }
    return json.loads(json.dumps(mine))


def _start_or_resume(unfinished: Path, reader: Reader, plan: Plan) -> None:
    """Keeps the files of an interrupted import with the same identity; otherwise empties the folder."""
    mine = import_identity(reader, plan)
    note = unfinished / "import.json"
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) == mine:
        return
    # Left by an import of another source, or with other options.
    for left in unfinished.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    fresh = note.with_suffix(".partial")
    fresh.write_text(json.dumps(mine), encoding="utf-8")
    fresh.replace(note)


def _read_files(sources: Sequence[Path]) -> Iterator[Path]:
    """Yields the files of a source in a fixed order. A folder's modification time does not cover its files."""
    for source in sorted(sources):
        if source.is_dir():
            yield from sorted(file for file in files_under(source) if file.is_file())
        else:
            yield source


def _surveys(tasks: Sequence[Task], plan: Plan, progress: Progress) -> int:
    """Surveys every part and returns the number of units read. Raises JclipError as soon as the limit is passed."""
    skipped, read, parts = Skipped(), 0, 0

    def look(task: Task) -> None:
        nonlocal read, parts
        found = surveyed(task)
        skipped.add(found.skipped)
        read, parts = read + int(found.kept.sum()) + found.skipped.units, parts + 1
        plan.limit.check(skipped, read, expected=read * len(tasks) // parts)  # parts are about equally large

    _each("reading", survey, "survey.npz", tasks, plan, progress, look)
    return read


def _each(
    what: str,
    function: Callable[[Task], None],
    result: str,
    tasks: Sequence[Task],
    plan: Plan,
    progress: Progress,
    look: Callable[[Task], None] = lambda _: None,
) -> None:
    """Runs a function on the tasks that lack the file `result`. Calls `look` on every task that has it."""
    finished = [task for task in tasks if task.file(result).exists()]
    for task in finished:
        look(task)
    done = len(finished)
    progress(what, done, len(tasks))

    def note(task: Task) -> None:
        nonlocal done
        done += 1
        look(task)
        progress(what, done, len(tasks))

    left = [task for task in tasks if not task.file(result).exists()]
    if left:
        plan.run(function, left, note)


def _check_limit(tasks: Sequence[Task], plan: Plan, read: int) -> None:
    skipped = Skipped()
    for task in tasks:
        skipped.add(surveyed(task).skipped)
        if plan.rules.skip_duplicates and (repeated := np.load(task.file("duplicates.npy")).sum()):
            skipped.note(f"in part {task.number + 1} of {len(tasks)}", DUPLICATE, int(repeated))
    plan.limit.check(skipped, read)


def _divide(tasks: Sequence[Task], validation: HeldOut, plan: Plan, progress: Progress) -> None:
    """Divides each shard of split "train" into one of split "train" and one of split "valid"."""
    tasks = [task for task in tasks if _held(task)["records"]]
    if not tasks:
        return  # `_gather` reports it
    _each("hashing the images", number_pictures, "pictures.npy", tasks, plan, progress)
    bound = validation.bound(np.concatenate([np.load(task.file("pictures.npy")) for task in tasks]))
    _each("dividing", partial(divide_task, bound=bound), "divided.json", tasks, plan, progress)


def _held(task: Task) -> dict[str, Any]:
    """Returns the counts of a task's shard."""
    return read_object(task.file("shard.json"))


class _Piece(NamedTuple):
    """Shard of the folder, and its counts."""

    split: str
    shard: Shard
    units: int
    languages: Counter[str]
    spoken: np.ndarray


def _pieces(task: Task) -> Iterator[_Piece]:
    if task.file("divided.json").exists():
        for side in divided(task):
            shard = Shard(side.file, side.records)
            yield _Piece(side.split, shard, side.units, side.languages, np.array(side.record_languages))
        return
    held = _held(task)
    spoken = np.array(held["spoken"])[np.load(task.file("spoken.npy"))] if held["records"] else np.array([])
    shard = Shard(task.file("shard"), held["records"])
    yield _Piece(task.part.split, shard, held["units"], Counter(held["languages"]), spoken)


def _gather(tasks: Sequence[Task], reader: Reader, destination: Path, plan: Plan) -> ImportReport:
    read_as = reader.read_as(tasks[0].folder / "work")
    report = ImportReport(plan.format, reader.kind.name, left_out=dict(reader.left_out), read_as=read_as)
    shards: dict[str, list[Shard]] = {}
    spoken: dict[str, list[np.ndarray]] = {}
    for task in tasks:
        split = report.splits.setdefault(task.part.split, SplitReport())
        found = surveyed(task)
        split.skipped.add(found.skipped)
        split.beside.add(found.beside)
        split.remarks.add(found.remarks)
        split.found += found.entries
        split.skipped.add(Skipped.from_json(_held(task)["skipped"]))
        for piece in _pieces(task):
            split = report.splits.setdefault(piece.split, SplitReport())
            split.records += piece.shard.records
            split.units += piece.units
            if piece.split != task.part.split:
                split.moved -= piece.units
                report.splits[task.part.split].moved += piece.units
            split.languages.update(piece.languages)
            if piece.shard.records:
                split.shards += 1
                shards.setdefault(piece.split, []).append(piece.shard)
                spoken.setdefault(piece.split, []).append(piece.spoken)
    kept = [name for name, split in report.splits.items() if split.records]
    for name, split in report.splits.items():
        if not split.records:
            why = ", ".join(f"{count:,} x {reason}" for reason, count in sorted(split.skipped.counts.items()))
            remedy = f", or omit the split with --splits {','.join(kept)}" if kept else ""
            raise JclipError(f"nothing of split {name!r} can be kept ({why}): correct the source{remedy}")
    languages = {name: np.concatenate(found) for name, found in spoken.items()}
    contents = Contents(reader.kind, reader.classes, shards, languages, report.as_json())
    if plan.add:
        contents = read_contents(destination).joined(contents)
    with whole_folder(destination, replace=plan.add) as written:
        contents.write(written, (*reader.notes, *plan.notes))
    return report
