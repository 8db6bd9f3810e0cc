"""The one kind of error that is meant for the person at the keyboard."""

from pathlib import Path


class JclipError(ValueError):
    """Something the user can mend: one or two lines that name the thing and say what to do.

    The command line prints the message without a traceback and exits with code 1. Everything else that escapes is a
    defect of ours, and keeps its traceback.
    """


def shown(name: str) -> str:
    """Returns a name from outside for a message: short, and without control characters."""
    short = name if len(name) <= 200 else name[:200] + "…"
    return short if short.isprintable() else ascii(short)


def unreadable(file: Path | str, error: Exception, what: str = "") -> JclipError:
    """What to say of a text file, or one with JSON, that cannot be read: Python's own words would help nobody.

    Args:
      file: which.
      error: what came of reading it.
      what: it should have been, as "as a WordPiece vocabulary".
    """
    if isinstance(error, UnicodeDecodeError):
        reason = "it is not UTF-8 text"
    elif isinstance(error, UnicodeEncodeError):
        reason = "it holds half of a surrogate pair, which is no character"
    elif isinstance(error, OSError):
        reason = error.strerror or "look after the disk"
    elif isinstance(error, ValueError):
        reason = shown(str(error))
    elif isinstance(error, RecursionError):
        reason = "it is nested too deep"
    elif isinstance(error, KeyError):
        reason = f"it has no {error}"
    else:
        reason = "it is laid out in another way"
    return JclipError(f"{file} cannot be read{what and ' '}{what} ({reason}): mend it, or fetch it again")
