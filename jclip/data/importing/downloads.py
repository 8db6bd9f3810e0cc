"""A folder of downloads: what is in it, packed or not, under which name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jclip.data.importing.archives import ENDS, unpacked
from jclip.data.importing.parts import Part, Reader
from jclip.errors import JclipError


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
    candidates = (downloads / f"{name}{end}" for end in ("", *ENDS))
    return next((candidate for candidate in candidates if candidate.is_file() or candidate.is_dir()), None)


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


def holding(folder: Path, name: str) -> Path:
    """The folder that has a file of that name: this one, or one in it; archives differ in how deep they begin.

    Raises:
      JclipError: there is none, or several.
    """
    found = [folder] if (folder / name).exists() else sorted(file.parent for file in folder.rglob(name))
    if len(found) == 1:
        return found[0]
    raise JclipError(f"{folder} has {len(found) or 'no'} {name}, and one is wanted: fetch the archive again")
