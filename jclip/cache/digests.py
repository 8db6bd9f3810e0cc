"""Digests of files, which the cache remembers until the files change."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from jclip.cache.folder import cache_folder
from jclip.errors import JclipError
from jclip.io.files import remove_folder, whole_file
from jclip.io.json_files import read_object

_DIGESTS = "digests"


def stamp(folder: Path, files: Iterable[Path]) -> str:
    """Returns a text that changes when a file in a folder is written or replaced: names, sizes, inodes and times.

    A missing file has its name alone.
    """
    found: list[list[object]] = []
    for file in sorted(files):
        facts: list[object] = [os.fsencode(file.relative_to(folder)).hex()]
        with suppress(OSError):
            status = file.stat()
            facts += [status.st_size, status.st_ino, status.st_mtime_ns]
        found.append(facts)
    return json.dumps(found)


def remembered(kind: str, place: Path | str, stamp: str, compute: Callable[[], str]) -> str:
    """Returns what `compute` returned when it was last called for this stamp. Arguments as in `remember`."""
    known = recall(kind, place, stamp)
    if known is None:
        known = compute()
        remember(kind, place, stamp, known)
    return known


def recall(kind: str, place: Path | str, stamp: str) -> str | None:
    """Returns the digest that `remember` noted under the same stamp; None if there is none."""
    try:
        found = read_object(_note(kind, place))
    except JclipError:
        return None
    digest = found.get("digest")
    return digest if found.get("stamp") == stamp and isinstance(digest, str) else None


def remember(kind: str, place: Path | str, stamp: str, digest: str) -> None:
    """Notes a digest in the cache. Does nothing if the cache cannot be written.

    Args:
      kind: name of the digest, with a version; each kind has its own note.
      place: file, folder, or the name of something else.
      stamp: `stamp` of the files, taken before they were read.
      digest: digest of its contents.
    """
    with suppress(JclipError, OSError), whole_file(_note(kind, place), replace=True) as partial:
        partial.write_text(json.dumps({"stamp": stamp, "digest": digest}), encoding="utf-8")


def clear_digests() -> None:
    """Removes all digests."""
    folder = cache_folder() / _DIGESTS
    if folder.is_dir():
        remove_folder(folder)


def _note(kind: str, place: Path | str) -> Path:
    where = place.resolve() if isinstance(place, Path) else place
    name = hashlib.blake2b(f"{kind}:".encode() + os.fsencode(where), digest_size=16).hexdigest()
    return cache_folder() / _DIGESTS / f"{name}.json"
