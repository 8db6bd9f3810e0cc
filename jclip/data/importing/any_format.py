"""Turns any source of pairs into a data folder with splits "train" and "valid"."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from jclip.data.importing.engine import Plan, import_data, import_identity
from jclip.data.importing.formats import open_source
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Reading
from jclip.data.importing.stored import read_contents, split_folder
from jclip.data.importing.validation import VALID, HeldOut
from jclip.data.sources.folders import open_folder
from jclip.data.sources.kinds import PAIRS, kind_by_features
from jclip.errors import JclipError

_SOURCE = "source.json"  # identity of the source that `keep` was made of


def is_data_folder(place: Path) -> bool:
    """Returns True if a path is a folder that `jclip data import` wrote."""
    return (place / "dataset_info.json").is_file()


def import_pairs(
    source: Path,
    keep: Path,
    reading: Reading,
    *,
    validation: HeldOut | None,
    limit: Limit | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Path:
    """Returns a data folder of pairs with a split "train" and, if `validation` is given, a split "valid".

    Raises JclipError if the source has no pairs or cannot be read, or `keep` was made of something else.

    Args:
      source: a data folder; or a table, folder or archive whose format is detected.
      keep: folder to write if the source is not a data folder. It is reused if an earlier call made it of the same
        source.
      reading: the user's options about the source.
      validation: images of split "train" that become split "valid" if the source has none.
      limit: maximum number of skipped units; by default a tenth, or none for a benchmark.
      progress: called with (what is done, parts done, parts in all).
    """
    if is_data_folder(source):
        return _divided(source, keep, reading, validation, progress)
    name, reader = open_source(None, source, reading)
    if reader.kind is not PAIRS:
        raise JclipError(f"{source} ({name}) holds {reader.kind.what}, but {PAIRS.what} are needed: name another one")
    plan = Plan(
        name,
        asdict(reading),
        limit=limit or (Limit(count=0) if reader.strict else Limit(share=0.1)),
        validation=validation,
        own_validation=True,
    )
    made_of = json.dumps(import_identity(reader, plan), sort_keys=True)
    if not _made_before(keep, made_of, source):
        import_data(reader, keep, replace(plan, notes=((_SOURCE, made_of),)), progress)
    return keep


def _divided(
    source: Path, keep: Path, reading: Reading, validation: HeldOut | None, progress: Callable[[str, int, int], None]
) -> Path:
    """Returns a data folder with a split "valid": the source if it has one, else a copy in `keep`."""
    option = next((name for name, value in asdict(reading).items() if value is not None), None)
    if option is not None:
        raise JclipError(f"--{option.replace('_', '-')} does not apply to {source}, which is imported already: omit it")
    info = open_folder(source).info
    kind = kind_by_features(info.features)
    if kind is not PAIRS:
        what = kind.what if kind else "other records"
        raise JclipError(f"{source} holds {what}, but {PAIRS.what} are needed: name another folder")
    if validation is None or VALID in info.splits:
        return source
    found = (source / "dataset_info.json").stat()
    made_of = json.dumps([str(source.absolute()), found.st_size, found.st_mtime_ns, str(validation)])
    if not _made_before(keep, made_of, source):
        split_folder(source, validation, keep, progress, ((_SOURCE, made_of),))
    return keep


def _made_before(keep: Path, made_of: str, source: Path) -> bool:
    """Returns True if `keep` was made of this source. Raises JclipError if `keep` is something else."""
    if not os.path.lexists(keep):
        return False
    note = keep / _SOURCE
    if is_data_folder(keep) and note.is_file() and note.read_text(encoding="utf-8") == made_of:
        return True
    raise JclipError(f"{keep} exists already, and was not made of {source} as it is now: move it, or choose another")


def describe_folder(folder: Path) -> list[str]:
    """Returns lines that describe a data folder and how its source was read, from its report.

    Raises JclipError if it is not a data folder, or its report is damaged.
    """
    contents = read_contents(folder)
    lines = [*contents.report.get("read_as", ())]
    for name, shards in contents.shards.items():
        found = contents.report["splits"].get(name, {})
        pictures = sum(shard.records for shard in shards)
        line = f"{name}: {pictures:,} images"
        if "pairs" in found:
            line += f" with {found['pairs']:,} captions"
        languages = [f"{code} {count:,}" for code, count in found.get("languages", {}).items() if code]
        if languages:
            line += f" ({', '.join(languages)})"
        for reason, skip in found.get("skipped", {}).items():
            line += f"; {skip['count']:,} skipped: {reason}"
        lines.append(line)
    return lines
