"""The one kind of error that is meant for the person at the keyboard."""

from pathlib import Path

from jclip.plain import shown

_LONGEST = 4000  # characters of a message


class JclipError(ValueError):
    """Something the user can mend: a sentence or two that name the thing and say what to do.

    The command line prints the message without a traceback and exits with code 1. Everything else that escapes is a
    defect of ours, and keeps its traceback. A message is one line, safe to print: what came into it with a name (line
    breaks, escape sequences) is escaped here.
    """

    def __init__(self, message: object = ""):
        super().__init__(shown(message, _LONGEST))


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
