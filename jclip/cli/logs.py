"""Lines that libraries log (orbax, grain and tensorflow-datasets through absl, jax): one plain line each, or none."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jclip.plain import complain, shown


@contextmanager
def plain_logs(name: str) -> Iterator[None]:
    """Within the block warnings and errors of libraries are printed to standard error as one line each.

    While a progress bar is shown, they appear above it.

    Args:
      name: of the command, which begins the line.
    """
    handler = _Lines(name)
    # On the root, where absl would otherwise put a handler of its own format at its first line.
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
    """Returns whose line it is: the package of the file that logged it, for most log under the name "absl"."""
    parts = Path(record.pathname).parts
    for place in ("site-packages", "dist-packages"):
        if place in parts[:-1]:
            return parts[parts.index(place) + 1]
    return record.name
