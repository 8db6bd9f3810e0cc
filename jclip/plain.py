r"""Makes text from outside (captions; names of files, classes, languages and runs) safe to print.

Such text may contain terminal escape sequences, markup, line breaks, marks that change the text direction, and invalid
UTF-8. Everything that jclip prints, and everything that it writes for people, passes through one of these functions.

    >>> print(shown("cat\x1b[2J\u202egnp.jpg"))
    cat\x1b[2J\u202egnp.jpg
    >>> shown("猫 👩‍🚀 café")
    '猫 👩‍🚀 café'
"""

import codecs
import html
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

LONGEST = 200
"""Default for the maximum number of characters of a name."""

# C1 controls, line and paragraph separators, embeddings, overrides and isolates of direction, lone surrogates.
_HIDDEN = "\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE = re.compile(f"[\x00-\x1f{_HIDDEN}]")
_UNSAFE_LINES = re.compile(f"[\x00-\x09\x0b-\x1f{_HIDDEN}]")
_UNSAFE_HELP = re.compile(f"(?!\x1b\\[[0-9;]*m){_UNSAFE_LINES.pattern}")
_UNSAFE_HTML = re.compile(f"[\x00-\x08\x0b-\x1f{_HIDDEN}]")
_UNSAFE_JSON = re.compile(f"[{_HIDDEN}]")  # json itself escapes characters below the space
_NAMED = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}


def shown(text: object, longest: int | None = LONGEST) -> str:
    r"""Returns text on one line, with control characters escaped like \x1b, \n and \u202e.

    Letters of all scripts, combining marks and joined emoji are unchanged, and so are backslashes.

    If `longest` is a number, the middle of longer text is cut out.
    """
    words = str(text)
    if longest is not None and len(words) > longest:
        tail = longest // 4
        words = f"{words[: longest - tail - 1]}…{words[len(words) - tail :]}"
    return _UNSAFE.sub(_escaped, words)


def shown_lines(text: str) -> str:
    """Returns text as `shown` does, but in full and with its line breaks."""
    return _UNSAFE_LINES.sub(_escaped, text)


def shown_help(text: str) -> str:
    """Returns help text as `shown_lines` does, but with its colours."""
    return _UNSAFE_HELP.sub(_escaped, text)


def as_html(text: object) -> str:
    """Returns text escaped for HTML, inside an element or a quoted attribute."""
    return html.escape(_UNSAFE_HTML.sub(_escaped, str(text)), quote=True)


def as_json(value: Any, **more: Any) -> str:
    r"""Returns JSON, with control characters and unpaired surrogates as \uXXXX; `more` is for json.dumps."""
    found = json.dumps(value, ensure_ascii=False, **more)
    return _UNSAFE_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", found)


def say(text: str) -> None:
    """Prints jclip's own text to standard output.

    Raises:
      OSError: see `output_errors`.
    """
    with output_errors():
        print(text, flush=True)


def print_json(value: Any, **more: Any) -> None:
    """Prints JSON to standard output, in ASCII if the locale cannot encode it; arguments as in `as_json`."""
    text = as_json(value, **more)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, **more)
    say(text)


def complain(text: str) -> None:
    """Prints one line to standard error; raises nothing, so that the exit code stays the same."""
    with suppress(OSError, ValueError):
        print(shown(text, None), file=sys.stderr, flush=True)


@contextmanager
def patient_streams() -> Iterator[None]:
    """Replaces characters that the locale cannot encode, on standard output and error, within the block."""
    before = [(stream, stream.errors) for stream in (sys.stdout, sys.stderr) if hasattr(stream, "reconfigure")]
    for stream, _ in before:
        stream.reconfigure(errors=_PLAINER)
    try:
        yield
    finally:
        for stream, errors in before:
            with suppress(OSError, ValueError):  # full or closed: `main` reports it
                stream.reconfigure(errors=errors)


@contextmanager
def output_errors() -> Iterator[None]:
    """Names standard output in the errors of writing to it, within the block.

    Raises:
      OSError: the output is full or closed; BrokenPipeError if the reader of the pipe ended.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


@contextmanager
def all_written() -> Iterator[None]:
    """Flushes standard error after the block, so that the interpreter does not fail to do so at exit."""
    try:
        yield
    finally:
        if sys.stderr is not None:
            try:
                sys.stderr.flush()
            except OSError:
                forget(sys.stderr)


def forget(stream: TextIO) -> None:
    """Discards the unwritten output of a stream, which the interpreter would fail to write at exit."""
    with suppress(OSError, ValueError):  # a stream without a descriptor needs nothing
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _escaped(match: re.Match[str]) -> str:
    letter = match[0]
    return _NAMED.get(letter) or (f"\\x{ord(letter):02x}" if ord(letter) < 0x100 else f"\\u{ord(letter):04x}")


_PLAINER = "jclip.plainer"
_SIGNS = {
    "→": "->", "–": "-", "−": "-", "…": "...", "·": "-", "×": "x", "█": "#", "✓": "+", "━": "-", "╸": "-", "╺": "-",
}  # fmt: skip


def _plainer(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    sign = error.object[error.start]
    if sign in _SIGNS:
        return _SIGNS[sign], error.start + 1
    first = UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    return codecs.backslashreplace_errors(first)


codecs.register_error(_PLAINER, _plainer)
