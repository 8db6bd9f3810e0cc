"""Errors that users can fix."""

from pathlib import Path

from jclip.plain import shown

_LONGEST = 4000  # characters of a message


class JclipError(ValueError):
    """An error that the user can fix; the message names the cause and the remedy in a sentence or two.

    The command line prints the message without a traceback and exits with code 1. Any other exception is a bug of jclip
    and keeps its traceback. The message is one line and safe to print: line breaks and escape sequences are escaped.
    """

    def __init__(self, message: object = ""):
        super().__init__(shown(message, _LONGEST))


def unreadable(file: Path | str, error: Exception, what: str = "") -> JclipError:
    """Returns the error for a text or JSON file that cannot be read, with the reason in plain words.

    Args:
      file: the file.
      error: the exception that reading it raised.
      what: the expected content, like "as a WordPiece vocabulary".
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
