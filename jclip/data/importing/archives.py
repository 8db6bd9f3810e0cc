"""Archives in a folder of downloads: found, unpacked once, and never past the folder they belong in."""

import errno
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from jclip.data.importing.parts import Part, Reader
from jclip.data.importing.webdataset import read_tar, said_as_damage
from jclip.errors import JclipError

# A name is that of a folder too, or too long.
_IMPOSSIBLE = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
_ENDS = (".zip", ".tar.gz", ".tgz", ".tar")


@dataclass(frozen=True)
class Packed(Reader):
    """A reader that needs archives unpacked first.

    Attributes:
      make: of the folders or files that `files` become, in the same order, the reader proper.
      only: a file's name: of the archives nothing else is unpacked. Empty for all of them.
    """

    make: Callable[..., Reader] = field(default=Reader)
    only: str = ""

    def unpack(self, workspace: Path) -> Reader:
        """See `Reader`.

        Raises:
          JclipError: an archive is damaged, or what is in it is not as expected.
        """
        return self.make(*(unpacked(file, workspace, self.only) for file in self.files))

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """See `Reader`."""
        return self.unpack(workspace).parts(workspace, shard_bytes)


def there(downloads: Path, name: str) -> Path | None:
    """As `find`, but None where there is none."""
    candidates = (downloads / f"{name}{end}" for end in ("", *_ENDS))
    return next((candidate for candidate in candidates if candidate.exists()), None)


def find(downloads: Path, name: str, fetch: str) -> Path:
    """A folder or file of that name, or an archive NAME.zip, .tar.gz, .tgz or .tar.

    Args:
      downloads: the folder to look in.
      name: without an archive's ending.
      fetch: where it comes from, for the message.

    Raises:
      JclipError: there is none.
    """
    if (found := there(downloads, name)) is not None:
        return found
    partial = [file.name for end in (".part", ".crdownload", ".aria2") for file in downloads.glob(f"{name}*{end}")]
    half = f" ({partial[0]} is a download that has not ended)" if partial else ""
    raise JclipError(f"{downloads} has no {name}, nor {name}.zip or .tar.gz{half}: fetch it from {fetch}")


def unpacked(file: Path, workspace: Path, only: str = "") -> Path:
    """What an archive holds, in a folder of the workspace, which is beside the destination and needs the room for it.

    A folder, or another file, is itself.

    Args:
      file: the archive.
      workspace: where its folder lies.
      only: unpack the files of that name alone; all when empty.

    Raises:
      JclipError: it is damaged or not whole, has no such file, or would write past its folder.
    """
    if file.is_dir() or not file.name.endswith(_ENDS):
        return file
    whole = workspace / "unpacked" / file.name
    if whole.is_dir():
        return whole
    partial = whole.with_name(f"{file.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    with said_as_damage(file):
        for name, stream in _members(file, only):
            path = PurePosixPath(name.replace("\\", "/"))
            if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
                raise JclipError(f"{file} has {name[:200]!r}, a path out of the archive: refusing to unpack it")
            place = partial.joinpath(*path.parts)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                out = place.open("wb")
            except OSError as error:
                if error.errno not in _IMPOSSIBLE:
                    raise
                raise JclipError(
                    f"{file} has {name[:200]!r}, which cannot be written beside the rest ({error.strerror}): fetch it "
                    "again, or unpack it yourself"
                ) from None
            with out:
                shutil.copyfileobj(stream, out, 1 << 20)
    if not partial.exists():
        raise JclipError(f"{file} {f'has no {only}' if only else 'is empty'}: fetch it again")
    partial.rename(whole)
    return whole


def _members(file: Path, only: str) -> Iterator[tuple[str, IO[bytes]]]:
    if not file.name.endswith(".zip"):
        for name, _, stream in read_tar(file):
            if PurePosixPath(name).name == only or not only:
                yield name, stream
        return
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if not info.is_dir() and (PurePosixPath(info.filename).name == only or not only):
                try:
                    stream = archive.open(info)
                except (NotImplementedError, RuntimeError) as error:  # another compression, or a password
                    raise JclipError(
                        f"{file}, {info.filename}: {error}: unpack it yourself, beside the archive"
                    ) from None
                with stream:
                    yield info.filename, stream


def holding(folder: Path, name: str) -> Path:
    """The folder that has a file of that name: this one, or one in it; archives differ in how deep they begin.

    Raises:
      JclipError: there is none, or several.
    """
    found = [folder] if (folder / name).exists() else sorted(file.parent for file in folder.rglob(name))
    if len(found) == 1:
        return found[0]
    raise JclipError(f"{folder} has {len(found) or 'no'} {name}, and one is wanted: fetch the archive again")
