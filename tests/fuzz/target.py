"""A target that is ready to be fuzzed."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from jclip.errors import JclipError


class Ready(NamedTuple):
    """Valid inputs, and the function that reads one. Only JclipError may come out of it. `close` ends the target."""

    seeds: Iterable[bytes]
    read: Callable[[bytes], object]
    close: Callable[[], object] = lambda: None

    def guarded(self, data: bytes) -> None:
        """Reads an input; JclipError is no error."""
        with suppress(JclipError):
            self.read(data)
