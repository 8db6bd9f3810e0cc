"""Log messages of libraries (jax; orbax, grain and tensorflow-datasets through absl), as one plain line each."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jclip.plain import complain, shown


@contextmanager
def plain_logs(name: str) -> Iterator[None]:
    """Prints warnings and errors of libraries to standard error, one line each, within the block.

    Each line begins with `name`, that of the command. They appear above a progress bar.
    """
    handler = _Lines(name)
    # On the root logger, where absl would otherwise install its own handler at its first message.
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


class _Lines(logging.Handler):
    def __init__(self, name: str):
        super().__init__(logging.WARNING)
        self._command = name

    def emit(self, record: logging.LogRecord) -> None:
        words = " ".join(_message(record).split())
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            words = f"{words} ({type(error).__name__}: {' '.join(str(error).split())})"
        complain(f"{self._command}: {record.levelname.lower()} of {_library(record)}: {shown(words, _LONGEST)}")


_LONGEST = 1000


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # its format does not fit its arguments
        return f"{record.msg} {record.args}"


def _library(record: logging.LogRecord) -> str:
    """Returns the package that logged a message, from its file: many log under the name "absl"."""
    parts = Path(record.pathname).parts
    for place in ("site-packages", "dist-packages"):
        if place in parts[:-1]:
            return parts[parts.index(place) + 1]
    return record.name
