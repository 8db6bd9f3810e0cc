"""Contents of jclip's cache: converted models, compiled programs and results of the accelerators' compilers."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jclip.cache import models, programs, results
from jclip.cache.bounds import files_by_use
from jclip.cache.digests import clear_digests
from jclip.cache.folder import cache_folder
from jclip.errors import JclipError
from jclip.io.files import recover_all, remove_folder
from jclip.names import suggestion

_SHARED = {programs.FOLDER: "compiled programs", results.FOLDER: "plans for accelerators"}
"""Folders of files that many commands share, and their descriptions."""


@dataclass(frozen=True)
class Item:
    """Something in the cache.

    Attributes:
      name: name to clear it by.
      source: source of a converted model; a description of other things.
      folder: folder that holds it.
      bytes: size of its files.
      last_used: seconds since the epoch.
      remove: removes it. Raises JclipError if another process uses it.
    """

    name: str
    source: str
    folder: Path
    bytes: int
    last_used: float
    remove: Callable[[], None]


def contents() -> list[Item]:
    """Returns everything in the cache, what was used last first."""
    found = [
        Item(
            name=entry.folder.name,
            source=str(entry.record.get("source", "damaged")),
            folder=entry.content,
            bytes=size_of(entry.folder),
            last_used=entry.last_used,
            remove=partial(models.clear, entry),
        )
        for entry in models.entries()
    ]
    for name, source in _SHARED.items():
        folder = cache_folder() / name
        if folder.is_dir():
            found.append(
                Item(
                    name=name,
                    source=source,
                    folder=folder,
                    bytes=size_of(folder),
                    last_used=max((time for time, _, _ in files_by_use(folder)), default=folder.stat().st_mtime),
                    remove=partial(remove_folder, folder),
                )
            )
    return sorted(found, key=lambda item: -item.last_used)


def clear(names: Sequence[str] = ()) -> tuple[list[Item], list[str]]:
    """Removes items by their names or sources, or everything, and what killed processes have left.

    A source may be given as a relative path. Returns what was removed, and an error for each item that another process
    uses. Raises JclipError, before anything is removed, if nothing has one of the names.
    """
    found = contents()
    known = {known: item for item in found for known in (item.source, item.name)}
    wanted = {name: name if name in known else str(Path(name).resolve()) for name in names}
    for name, meant in wanted.items():
        if meant not in known:
            hint = suggestion(name, list(known)) if known else "it is empty"
            raise JclipError(f"{name!r} is not in the cache: {hint}")
    chosen = [item for item in found if not names or {item.name, item.source} & set(wanted.values())]
    removed, errors = [], []
    for item in chosen:
        try:
            item.remove()
            removed.append(item)
        except JclipError as error:
            errors.append(str(error))
    recover_all(cache_folder())
    models.clear_leftovers()
    if not names:
        try:
            clear_digests()
        except JclipError as error:
            errors.append(str(error))
    return removed, errors


def size_of(folder: Path) -> int:
    """Returns the bytes of all files in a folder, at any depth."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # another process has removed it
            total += 0 if file.is_dir() else file.stat().st_size
    return total
