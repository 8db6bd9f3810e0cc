"""webdataset tars: members KEY.jpg (or .png, .webp, …) next to KEY.txt or KEY.json with the caption.

A tar is read sequentially, compressed or not, and becomes one shard. `pairing` decides which members belong together.
Members that are in no record are counted with a reason.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path, PurePosixPath
from typing import IO, Any

from jclip.data.importing.archives import read_tar, reporting_damage
from jclip.data.importing.lines import LONGEST_TEXT
from jclip.data.importing.pairing import JSON, TEXTS, NamePair, pair
from jclip.data.importing.parts import UNCAPTIONED, Beside, Found, Lost, Part, Reader, Reading
from jclip.data.importing.splits import others
from jclip.data.sources.kinds import PAIRS, StoredPair
from jclip.errors import JclipError
from jclip.io.json_files import decode
from jclip.io.reading import LARGEST_PICTURE, TOO_LARGE
from jclip.units import format_size

_CAPTION = "caption"
_ENDS = ("tar", "tar.gz", "tgz", "tar.bz2", "tbz2", "tar.xz", "txz")

# Bounds of the memory that a tar takes.
LARGEST_GROUP = 1 << 16
"""Maximum number of members of a group; a longer group is divided, and each piece is paired by itself."""
LARGEST_HELD = 512 << 20
"""Maximum number of bytes of images and captions in memory until the other one of their pair is read."""
_LONGEST_NAME = 4096

_HIDDEN = "hidden member"
_LINK = "a link or a device, not a file"
_LONG_NAME = f"a name of more than {format_size(_LONGEST_NAME)}"
_LONG_TEXT = f"a text of more than {format_size(LONGEST_TEXT)}"
_FAR = "image and caption are too far apart in the tar: sort it by name"


@dataclass(frozen=True)
class TarReader(Reader):
    """Tars, in the order of their names. A `caption` of None prefers KEY.txt, then the key "caption"."""

    split: str = "train"
    caption: str | None = None
    language: str = ""

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """Returns the parts, see `Reader`. Each tar is a part, because a tar cannot be read from its middle."""
        return [_Part(self.split, file, self.caption, self.language) for file in self.files]


def open_tars(source: Path, reading: Reading) -> TarReader:
    """Opens a tar, all of a folder, or those that match a pattern with * and ?. Raises JclipError if there is none."""
    if source.is_file():
        files = [source]
    elif source.is_dir():
        files = sorted(file for end in _ENDS for file in source.glob(f"*.{end}"))
    else:
        files = sorted(source.parent.glob(source.name.replace("[", "[[]")))
    if not files:
        raise JclipError(f"{source} names no tar: name one, or a folder of .tar files, or a pattern in quotes")
    return TarReader(
        PAIRS,
        tuple(files),
        False,
        (),
        reading.split(),
        reading.caption,
        reading.language or "",
        left_out=others(source, files, "no tar") if source.is_dir() else (),
    )


@dataclass(frozen=True)
class _Part:
    split: str
    file: Path
    caption: str | None
    language: str

    def records(self) -> Iterator[Found | Lost | Beside]:
        captions = JSON if self.caption else (*TEXTS, *JSON)
        # The names of a group are read before its contents, so that only what is in a pair is held.
        with reporting_damage(self.file), closing(read_tar(self.file)) as tar:
            for group in _groups(self.file, captions):
                waiting: dict[str, bytes] = {}
                for at, name in enumerate(group.names):
                    member = next(tar, None)
                    if member is None or member.name[:_LONGEST_NAME] != name:
                        raise self._changed()
                    item = self._item(group, at, name, member.stream, waiting)
                    if item is not None:
                        yield item
            for _ in tar:  # raises an error if the tar is truncated
                pass

    def _changed(self) -> JclipError:
        return JclipError(f"{self.file} changed while it was read: import it again")

    def _item(
        self, group: "_Group", at: int, name: str, stream: IO[bytes] | None, waiting: dict[str, bytes]
    ) -> Found | Lost | Beside | None:
        """Returns the result of a member; None while it waits for the other one of its pair."""
        place = f"{self.file.name}, {name[:200]}"
        if at in group.beside:
            return Beside(place, group.beside[at])
        if at in group.lost:
            reason, entries = group.lost[at]
            return Lost(place, reason, entries=entries) if entries else None
        one = group.pairs[at]
        if stream is None:  # it was a file when the names were read
            raise self._changed()
        data = stream.read()
        if one.key not in waiting:
            waiting[one.key] = data
            return None
        other = waiting.pop(one.key)
        image, text = (data, other) if at == one.picture else (other, data)
        place = f"{self.file.name}, {str(PurePosixPath(name).parent / one.key)[:200]}"
        caption = self._caption(group.names[one.caption], text)
        if caption is None:
            return Lost(place, UNCAPTIONED, entries=2)
        return Found(place, StoredPair(image, (caption,), (self.language,)), 2)

    def _caption(self, name: str, text: bytes) -> str | None:
        try:
            if name.rpartition(".")[2].lower() not in JSON:
                return text.decode("utf-8")
            fields: Any = decode(text)
            caption = fields.get(self.caption or _CAPTION) if isinstance(fields, dict) else None
        except ValueError:  # no UTF-8, or no JSON
            return None
        return caption if isinstance(caption, str) else None


@dataclass
class _Group:
    """Neighbouring members, and the result of each, by its number in the group.

    Attributes:
      names: all names.
      pairs: pair of each image or caption.
      lost: reason why a member is skipped, and number of members to count for it; 0 if it is counted with another.
      beside: reason why a member is not data.
    """

    names: list[str] = field(default_factory=list)
    pairs: dict[int, NamePair] = field(default_factory=dict)
    lost: dict[int, tuple[str, int]] = field(default_factory=dict)
    beside: dict[int, str] = field(default_factory=dict)


def _groups(file: Path, captions: Sequence[str]) -> Iterator[_Group]:
    """Yields stretches of neighbouring members with the same name up to the first dot."""
    group, sizes, mark = _Group(), list[int](), ""
    for name, size, stream in read_tar(file):
        this = mark
        odd = _odd(name, stream is None)
        if not odd:
            path = PurePosixPath(name)
            this = str(path.parent / path.name.partition(".")[0])
        if (this != mark and group.names) or len(group.names) == LARGEST_GROUP:
            yield _decided(group, sizes, captions)
            group, sizes = _Group(), []
        mark = this
        at = len(group.names)
        group.names.append(name[:_LONGEST_NAME])
        sizes.append(size)
        if odd == _HIDDEN:
            group.beside[at] = odd
        elif odd:
            group.lost[at] = (odd, 1)
    if group.names:
        yield _decided(group, sizes, captions)


def _odd(name: str, special: bool) -> str:
    """Returns the reason to ignore a member because of its name or type; empty if there is none."""
    parts = PurePosixPath(name).parts
    # webdataset keeps names with two underlines at both ends for itself, and macOS a folder __MACOSX.
    own = not parts or (parts[-1].startswith("__") and parts[-1].partition(".")[0].endswith("__"))
    if own or "__MACOSX" in parts or any(part.startswith(".") and part != ".." for part in parts):
        return _HIDDEN
    if special:
        return _LINK
    return _LONG_NAME if len(name) > _LONGEST_NAME else ""


def _decided(group: _Group, sizes: Sequence[int], captions: Sequence[str]) -> _Group:
    """Returns the group with the result of each member, by names and sizes alone."""
    looked_at = [at for at in range(len(group.names)) if at not in group.lost and at not in group.beside]
    found = pair([PurePosixPath(group.names[at]).name for at in looked_at], captions)
    group.lost |= {looked_at[number]: (reason, 1) for number, reason in found.lost.items()}
    group.beside |= {looked_at[number]: reason for number, reason in found.beside.items()}
    held, leaving = 0, list[tuple[int, int]]()
    for one in found.pairs:
        picture, caption = looked_at[one.picture], looked_at[one.caption]
        at, last = sorted((picture, caption))
        while leaving and leaving[0][0] < at:
            held -= heappop(leaving)[1]
        wrong = TOO_LARGE if sizes[picture] > LARGEST_PICTURE else ""
        wrong = wrong or (_LONG_TEXT if sizes[caption] > LONGEST_TEXT else "")
        wrong = wrong or (_FAR if held + sizes[at] > LARGEST_HELD else "")
        if wrong:
            group.lost |= {at: (wrong, 2), last: (wrong, 0)}
        else:
            group.pairs |= dict.fromkeys((at, last), NamePair(one.key, picture, caption))
            held += sizes[at]
            heappush(leaving, (last, sizes[at]))
    return group
