"""An import from beginning to end: plan, survey, find duplicates, write the shards, gather them into a folder.

.NAME.unfinished/     beside the destination, while the import is not finished
  import.json         what is imported, and how: another import does not go on from here
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
from pathlib import Path
from typing import Any

import numpy as np

from jclip.data.folders import Shard, gather_shards, write_languages
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Reader
from jclip.data.importing.report import Report, Split
from jclip.data.importing.survey import DUPLICATE, Skipped, Task, mark_duplicates, survey, surveyed, write
from jclip.data.importing.workers import Run, in_processes
from jclip.data.kinds import Rules
from jclip.errors import JclipError
from jclip.files import check_free, check_utf8, lasting_folder, whole_folder
from jclip.plain import as_json

_VERSION = 2  # of what lies in .NAME.unfinished

Progress = Callable[[str, int, int], None]
"""(what is being done, parts done, parts in all)."""


@dataclass(frozen=True)
class Plan:
    """How an import is done.

    Attributes:
      format: the name of the format, for the report.
      said: what else decides the result, as plain values.
      rules: what is kept.
      limit: how much may be skipped.
      shard_bytes: about how many bytes of the source become one shard.
      run: where the work is done.
    """

    format: str
    said: dict[str, Any] = field(default_factory=dict)
    rules: Rules = Rules()
    limit: Limit = Limit(share=0.1)
    shard_bytes: int = 128 << 20
    run: Run = field(default_factory=lambda: in_processes(1))


def import_data(reader: Reader, destination: Path, plan: Plan, progress: Progress = lambda *_: None) -> Report:
    """Writes a folder that `jclip.data.folders` reads.

    An import that was killed goes on where it was when it is started again with the same source and the same plan; the
    folder is then the same, byte for byte, as one that was never interrupted.

    Args:
      reader: the source.
      destination: the folder, which must not be there yet.
      plan: how.
      progress: called now and then.

    Raises:
      JclipError: the source is not as its format wants it, too much of it had to be skipped, or the destination is
        taken. Nothing is left behind then.
    """
    check_utf8(destination)
    if os.path.lexists(destination):
        with suppress(JclipError), lasting_folder(destination):
            pass  # a kill may have left it when the folder was whole
        check_free(destination)
    with lasting_folder(destination) as unfinished:
        check_free(destination)  # another import may just have ended
        _claim(unfinished, reader, plan)
        progress("looking at the source", 0, 0)
        (unfinished / "work").mkdir(exist_ok=True)
        reader = reader.unpack(unfinished / "work")
        parts = reader.parts(unfinished / "work", plan.shard_bytes)
        tasks = [
            Task(number, part, reader.kind, plan.rules, reader.classes, unfinished) for number, part in enumerate(parts)
        ]
        if not tasks:
            raise JclipError(f"{', '.join(map(str, reader.files[:1]))} holds nothing to import: name another source")
        read = _surveys(tasks, plan, progress)
        if plan.rules.skip_duplicates and not all(task.file("duplicates.npy").exists() for task in tasks):
            mark_duplicates(tasks)
        _check_limit(tasks, plan, read)
        _each("writing", write, "shard.json", tasks, plan, progress)
        return _gather(tasks, reader, destination, plan)


def _claim(unfinished: Path, reader: Reader, plan: Plan) -> None:
    files = hashlib.sha256()
    for file in _read_files(reader.files):
        found = file.stat()
        files.update(f"{file.absolute()}\0{found.st_size}\0{found.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    mine = {
        "version": _VERSION,
        "format": plan.format,
        "said": plan.said,
        "rules": asdict(plan.rules),
        "shard_bytes": plan.shard_bytes,
        "files": files.hexdigest(),
    }
    note = unfinished / "import.json"
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) == json.loads(json.dumps(mine)):
        return
    # What was done for another source, or in another way, is of no use.
    for left in unfinished.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    partial = note.with_suffix(".partial")
    partial.write_text(json.dumps(mine), encoding="utf-8")
    partial.replace(note)


def _read_files(sources: Sequence[Path]) -> Iterator[Path]:
    """The files of a source in an order that stays; a folder's own time says nothing of what is in its files."""
    for source in sorted(sources):
        if source.is_dir():
            yield from sorted(file for file in source.rglob("*") if file.is_file())
        else:
            yield source


def _surveys(tasks: Sequence[Task], plan: Plan, progress: Progress) -> int:
    """Surveys every part, stops as soon as a limit is passed, and returns how many units were read."""
    skipped, read, parts = Skipped(), 0, 0

    def look(task: Task) -> None:
        nonlocal read, parts
        kept, _, lost = surveyed(task)
        skipped.add(lost)
        read, parts = read + int(kept.sum()) + lost.units, parts + 1
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
        skipped.add(surveyed(task)[2])
        if plan.rules.skip_duplicates and (repeated := _repeated(task)):
            skipped.note(f"in part {task.number + 1} of {len(tasks)}", DUPLICATE, repeated)
    plan.limit.check(skipped, read)


def _repeated(task: Task) -> int:
    return int(np.load(task.file("duplicates.npy")).sum())


def _gather(tasks: Sequence[Task], reader: Reader, destination: Path, plan: Plan) -> Report:
    report = Report(plan.format, reader.kind.name, left_out=dict(reader.left_out))
    shards: dict[str, list[Shard]] = {}
    spoken: dict[str, list[np.ndarray]] = {}
    for task in tasks:
        split = report.splits.setdefault(task.part.split, Split())
        held = json.loads(task.file("shard.json").read_text(encoding="utf-8"))
        split.records += held["records"]
        split.units += held["units"]
        split.languages.update(held["languages"])
        split.skipped.add(surveyed(task)[2])
        split.skipped.add(Skipped(Counter(held["skipped"]["counts"]), held["skipped"]["places"]))
        if held["records"]:
            split.shards += 1
            shards.setdefault(task.part.split, []).append(Shard(task.file("shard"), held["records"]))
            spoken.setdefault(task.part.split, []).append(np.array(held["spoken"])[np.load(task.file("spoken.npy"))])
    kept = [name for name, split in report.splits.items() if split.records]
    for name, split in report.splits.items():
        if not split.records:
            why = ", ".join(f"{count:,} x {reason}" for reason, count in sorted(split.skipped.counts.items()))
            mend = f", or leave it out with --splits {','.join(kept)}" if kept else ""
            raise JclipError(f"nothing of split {name!r} can be kept ({why}): mend the source{mend}")
    with whole_folder(destination, replace=False) as partial:
        gather_shards(partial, reader.kind, shards, reader.classes)
        for name, languages in spoken.items():
            write_languages(partial, name, np.concatenate(languages))
        text = as_json(report.as_json(), indent=1)
        for name, note in reader.notes:
            (partial / name).write_text(note, encoding="utf-8")
        (partial / "report.json").write_text(text + "\n", encoding="utf-8")
    return report
