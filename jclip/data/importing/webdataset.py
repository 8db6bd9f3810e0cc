"""webdataset tars: members KEY.jpg (or .png, .webp, …) and KEY.txt or KEY.json with the caption, next to each other.

A tar is read from its beginning to its end, compressed or not, and becomes one shard.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from jclip.data.images import PICTURES
from jclip.data.importing.archives import read_tar, said_as_damage
from jclip.data.importing.parts import UNCAPTIONED, UNPICTURED, Found, Lost, Part, Reader, Reading, numbered
from jclip.data.kinds import PAIRS
from jclip.errors import JclipError
from jclip.json_files import decode

_CAPTION = "caption"
_LARGEST = 1 << 30  # bytes of a member; a picture of more is a mistake, or an attack
_PER_TAR = 1 << 40  # ids of one tar's pictures do not reach those of the next


@dataclass(frozen=True)
class TarReader(Reader):
    """Tars, in the order of their names.

    Attributes:
      split: that they become.
      caption: the key of JSON members; None for KEY.txt first, and then "caption".
      language: of the captions.
    """

    split: str = "train"
    caption: str | None = None
    language: str = ""

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """See `Reader`: a tar each, for a tar is not read from its middle."""
        return [_Part(self.split, file, number, self.caption, self.language) for number, file in enumerate(self.files)]


def open_tars(source: Path, reading: Reading) -> TarReader:
    """Opens a tar, or all of a folder or of a pattern with * and ?.

    Raises:
      JclipError: there is none.
    """
    if source.is_file():
        files = [source]
    elif source.is_dir():
        files = sorted(file for end in ("tar", "tar.gz", "tgz") for file in source.glob(f"*.{end}"))
    else:
        files = sorted(source.parent.glob(source.name))
    if not files:
        raise JclipError(f"{source} names no tar: name one, or a folder of .tar files, or a pattern in quotes")
    return TarReader(PAIRS, tuple(files), False, (), reading.split(), reading.caption, reading.language or "")


@dataclass(frozen=True)
class _Part:
    split: str
    file: Path
    number: int
    caption: str | None
    language: str

    def records(self) -> Iterator[Found | Lost]:
        for count, (key, members) in enumerate(_samples(self.file)):
            place = f"{self.file.name}, {key}"
            picture = next((members[end] for end in PICTURES if end in members), None)
            if picture is None:
                yield Lost(place, UNPICTURED)
                continue
            caption = self._caption(members, place)
            if caption is None:
                yield Lost(place, UNCAPTIONED)
                continue
            number = self.number * _PER_TAR + count
            yield Found(place, numbered(picture, (caption,), number, (self.language,)))

    def _caption(self, members: dict[str, bytes], place: str) -> str | None:
        try:
            if "txt" in members and self.caption is None:
                return members["txt"].decode("utf-8")
            if "json" not in members:
                return None
            fields: Any = decode(members["json"])
            caption = fields.get(self.caption or _CAPTION) if isinstance(fields, dict) else None
        except ValueError:  # no UTF-8, or no JSON
            return None
        return caption if isinstance(caption, str) else None


def _samples(file: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, contents by suffix) of members with one key that stand together."""
    key = ""
    members: dict[str, bytes] = {}
    with said_as_damage(file):
        for name, size, stream in read_tar(file):
            if size > _LARGEST:
                raise JclipError(f"{file}, {name}: a file of {size} bytes is no picture: take it out")
            path, data = PurePosixPath(name), stream.read()
            stem, _, suffix = path.name.partition(".")
            if not stem or stem.startswith("__"):
                continue
            this = str(path.parent / stem)
            if this != key and members:
                yield key, members
                members = {}
            key = this
            members[suffix.lower()] = data
    if members:
        yield key, members
