"""Finds downloads by name in a folder, packed or not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jclip.data.importing.archives import ENDS, unpack_once
from jclip.data.importing.parts import Part, Reader
from jclip.errors import JclipError


@dataclass(frozen=True)
class Packed(Reader):
    """Reader that unpacks archives first.

    Attributes:
      make: returns the reader of the unpacked `files`, given in order.
      only: name of the only file to unpack; empty for all.
    """

    make: Callable[..., Reader] = field(default=Reader)
    only: str = ""

    def unpack(self, workspace: Path) -> Reader:
        """Unpacks the archives, see `Reader`. Raises JclipError if one is damaged, or has unexpected contents."""
        return self.make(*(unpack_once(file, workspace, self.only) for file in self.files))

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """Returns the parts, see `Reader`."""
        return self.unpack(workspace).parts(workspace, shard_bytes)


def find_optional(downloads: Path, name: str) -> Path | None:
    """Returns what `find_download` does, or None if it is missing."""
    candidates = (downloads / f"{name}{end}" for end in ("", *ENDS))
    return next((candidate for candidate in candidates if candidate.is_file() or candidate.is_dir()), None)


def find_download(downloads: Path, name: str, fetch: str) -> Path:
    """Returns the folder or file of a name, or an archive NAME.zip, .tar.gz, .tgz or .tar.

    Raises JclipError, which says where to `fetch` it from, if it is missing.
    """
    if (found := find_optional(downloads, name)) is not None:
        return found
    partial = [file.name for end in (".part", ".crdownload", ".aria2") for file in downloads.glob(f"{name}*{end}")]
    half = f" ({partial[0]} is an unfinished download)" if partial else ""
    raise JclipError(f"{downloads} has no {name}, nor {name}.zip or .tar.gz{half}: fetch it from {fetch}")


def folder_with(folder: Path, name: str) -> Path:
    """Returns the folder with a file of a name: this one, or one below it, because archives differ in depth.

    Raises JclipError unless there is exactly one.
    """
    found = [folder] if (folder / name).exists() else sorted(file.parent for file in folder.rglob(name))
    if len(found) == 1:
        return found[0]
    raise JclipError(f"{folder} has {len(found) or 'no'} {name}, but must have one: fetch the archive again")
