"""A target that is ready to be fuzzed."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from jclip.errors import JclipError


class Ready(NamedTuple):
    """Valid inputs, and the function that reads one. Only JclipError may come out of it."""

    seeds: Iterable[bytes]
    read: Callable[[bytes], object]

    def guarded(self, data: bytes) -> None:
        """Reads an input; JclipError is no error."""
        with suppress(JclipError):
            self.read(data)
