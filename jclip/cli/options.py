"""Options on the command line, read by tyro; wrong ones are reported in one line, with exit code 2."""

import contextlib
import dataclasses
import difflib
import io
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

import tyro

from jclip.plain import complain, say, shown_help

T = TypeVar("T")
BundleArgument = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="BUNDLE")]]
"""Argument BUNDLE: a source of `jclip.load`. Not a Path, which would lose a slash of "hf://"."""


def read(kind: Any, arguments: Sequence[str], prog: str, **more: Any) -> Any:
    """Returns options read by `tyro.cli`, as the dataclass `kind`, whose docstring is the help.

    An error is one line on standard error that begins with `prog`, such as "jclip train". `more` are arguments of
    `tyro.cli`: `default`. Raises SystemExit: code 2 after an error, or 0 after --help.
    """
    value, unknown = read_known(kind, arguments, prog, **more)
    if unknown:
        refuse(prog, unknown, option_names(more.get("default", kind)))
    return value


def read_known(kind: Any, arguments: Sequence[str], prog: str, **more: Any) -> tuple[Any, list[str]]:
    """Returns options like `read`, and the words that `kind` does not know: other options and their values."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), _shown_help():
            value, rest = tyro.cli(kind, args=list(arguments), prog=prog, return_unknown_args=True, **more)
    except SystemExit as stop:
        if stop.code == 2:
            complain(f"{prog}: {_in_a_line(complaint.getvalue(), prog)}")
        raise
    return value, list(rest)


def explain(kind: Any, prog: str, **more: Any) -> None:
    """Prints the help of `kind`, like --help, but returns. Arguments as for `read`."""
    with contextlib.suppress(SystemExit), _shown_help():
        tyro.cli(kind, args=["--help"], prog=prog, **more)


def option_names(kind: Any, prefix: str = "--") -> list[str]:
    """Returns the options of a dataclass, or of an instance, as tyro spells them: "--stages.0.batch-size".

    For an instance, a tuple of dataclasses gives an option for each field of each item. `prefix` begins each name.
    """
    if isinstance(kind, tuple | list):
        parts = [(str(number), item) for number, item in enumerate(kind)]
    else:
        parts = [(field.name.replace("_", "-"), getattr(kind, field.name, None)) for field in dataclasses.fields(kind)]
    found = []
    for name, value in parts:
        items = value if isinstance(value, tuple | list) else (value,)
        nested = bool(items) and all(dataclasses.is_dataclass(item) for item in items)
        found += option_names(value, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return found


def refuse(prog: str, unknown: Sequence[str], known: Sequence[str]) -> NoReturn:
    """Reports an unknown argument with the nearest known one, and exits with code 2."""
    wrong = next((word for word in unknown if word.startswith("-")), None)
    if wrong is None:
        complain(f"{prog}: too many arguments: {unknown[0]!r} is not expected (see {prog} --help)")
        sys.exit(2)
    wrong = wrong.partition("=")[0]
    close = difflib.get_close_matches(wrong.replace("_", "-"), known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"see {prog} --help"
    complain(f"{prog}: unknown option {wrong}: {hint}")
    sys.exit(2)


class _Help(io.StringIO):
    """Buffer for tyro's output, with the encoding and colours of standard output."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = sys.stdout

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def isatty(self) -> bool:
        return self._stream.isatty()


@contextlib.contextmanager
def _shown_help() -> Iterator[None]:
    """Escapes what tyro prints in the block, because help shows values from configurations."""
    held = _Help()
    try:
        with contextlib.redirect_stdout(held):
            yield
    finally:
        if text := held.getvalue():
            say(shown_help(text).removesuffix("\n"))


def _in_a_line(box: str, prog: str) -> str:
    """Returns the first sentence in tyro's error box, without frame, title and help."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    framed = "╭" in plain  # with the title in the frame; where ╭ cannot be printed, the title is the first part
    parts: list[list[str]] = [[]]
    for row in plain.splitlines():
        inner = row.strip("│").rstrip()
        if row.startswith(("╭", "╰")) or set(inner.strip()) <= set("─-"):
            parts.append([])
        else:
            parts[-1].append(inner)
    parts = [part for part in parts if part]
    told = parts[0 if framed else 1] if len(parts) > 1 else [plain]
    if told[0].strip().startswith("Missing from"):  # names, each with its help indented under it
        names = [row.strip() for row in told[1:] if _indent(row) == _indent(told[0]) + 4]
        return f"missing: {', '.join(names)} (see {prog} --help)"
    return re.sub(r"\s+", " ", " ".join(told)).strip()


def _indent(row: str) -> int:
    return len(row) - len(row.lstrip())
