"""Text files as containers: each line that is not blank is a text."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from jclip.data.importing.encodings import decoded, find_encoding
from jclip.errors import unreadable
from jclip.io.json_files import read_bytes
from jclip.search.entries import TEXT
from jclip.search.sources.items import Container, Item

_ENDS = (".txt", ".text")
_LARGEST = 1 << 30  # bytes


class TextFile(Container):
    """Text file, in any encoding that is detected safely."""

    kind: ClassVar[str] = "text"
    nested: ClassVar[bool] = False

    @staticmethod
    def recognises(place: Path) -> bool:
        """Returns True for the name of a text file."""
        return place.name.lower().endswith(_ENDS)

    def items(self) -> Iterator[Item]:
        """Yields its texts; their position is the number of the line. Raises JclipError if it is not text."""
        status = os.stat(self.place)
        data = read_bytes(self.place, "as texts", largest=_LARGEST)
        try:
            lines = decoded(data, find_encoding(data, str(self.place))).split("\n")
        except UnicodeDecodeError as error:
            raise unreadable(self.place, error, "as texts") from None
        stamp, container = self.stamp(), (self.kind, os.fsencode(self.place))
        for number, line in enumerate(lines, 1):
            if text := line.strip():
                size = len(text.encode())
                facts = {"size": size, "mtime_ns": status.st_mtime_ns, "text": text, "position": number}
                yield Item(self.member(str(number)), stamp, TEXT, **facts, container=container)  # type: ignore[arg-type]
