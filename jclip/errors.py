"""Errors that users can fix."""

from pathlib import Path

from jclip.plain import shown

_LONGEST = 4000  # characters of a message


class JclipError(ValueError):
    """Error that the user can fix; the message names the cause and the remedy.

    The command line prints the message without a traceback and exits with code 1. Any other exception is a bug in jclip
    and keeps its traceback. The message is one line: line breaks and terminal escape sequences are escaped.
    """

    def __init__(self, message: object = ""):
        super().__init__(shown(message, _LONGEST))


def first_line(error: Exception) -> str:
    """Returns the first line of an exception's message, at most 400 characters; its class's name if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:400]


def unreadable(file: Path | str, error: Exception, what: str = "") -> JclipError:
    """Returns the error for a text or JSON file, from the exception that reading it raised.

    `what` is the expected content, like "as a WordPiece vocabulary".
    """
    if isinstance(error, UnicodeDecodeError):
        reason = "it is not UTF-8 text"
    elif isinstance(error, UnicodeEncodeError):
        reason = "it has an unpaired surrogate, which is not a valid character"
    elif isinstance(error, OSError):
        reason = error.strerror or "check the disk"
    elif isinstance(error, ValueError):
        reason = shown(str(error))
    elif isinstance(error, RecursionError):
        reason = "it is nested too deep"
    elif isinstance(error, KeyError):
        reason = f"it has no {error}"
    else:
        reason = "it does not have the expected structure"
    return JclipError(f"{file} cannot be read{what and ' '}{what} ({reason}): correct it, or fetch it again")
