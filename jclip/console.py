"""Output to the terminal with rich. Printed text is never interpreted as markup or terminal commands.

console = Console(stderr=True)
console.tell(f"{folder}: imported")           # one line, however long
console.tell("skipped", style="yellow")
with console.working("encoding") as say:      # a spinner
    say("scoring")
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any, TextIO

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.progress import TextColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from jclip.plain import output_errors, shown, shown_lines


class Console(rich.console.Console):
    """rich's Console without markup, emoji names and highlights. For a style, print a `Text`.

    With `stderr`, output that cannot be written is dropped, so that a closed terminal does not end a run.
    """

    def __init__(self, *, stderr: bool = False, quiet: bool = False, **more: Any):
        stream = sys.stderr if stderr else sys.stdout
        if stream is not None:
            more.setdefault("file", _Forgiving(stream) if stderr else _Output(stream))
        super().__init__(stderr=stderr, quiet=quiet, markup=False, highlight=False, emoji=False, **more)

    def tell(self, words: str, style: str = "") -> None:
        """Prints any text as one line, without wrapping."""
        self.print(text(words, style, longest=None), soft_wrap=True)

    @contextmanager
    def working(self, words: str) -> Iterator[Callable[[str], None]]:
        """Shows a spinner with a text during the block; yields a function that replaces the text."""
        spinner = "dots" if self.encoding.startswith("utf") else "line"
        with self.status(text(words), spinner=spinner) as status:
            yield lambda words: status.update(text(words))

    def render_str(self, text: str, **more: Any) -> Text:
        """Returns a string as rich's Text, escaped and without markup."""
        return super().render_str(shown_lines(text), **{**more, "markup": False, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Renders as rich does, with terminal commands escaped except rich's own."""
        for segment in super().render(renderable, options):
            if segment.control is None and (safe := shown_lines(segment.text)) != segment.text:
                segment = Segment(safe, segment.style)
            yield segment

    def on_broken_pipe(self) -> None:
        """Lets `main` handle a closed pipe."""
        raise  # rich calls this while it handles the error


def text(words: object, style: str = "", longest: int | None = 200) -> Text:
    """Returns any text as rich's Text, on one line and without markup."""
    return Text(shown(words, longest), style)


def facts(title: object) -> Table:
    """Returns a table without a header, for rows of a name and a value. Cells must be made with `text`."""
    return Table(title=text(title), title_justify="left", show_header=False)


def description() -> TextColumn:
    """Returns a progress bar's column for the description of a task."""
    return TextColumn("{task.description}", markup=False)


class _Output:
    """Standard output, whose errors name it."""

    errors: Callable[[], AbstractContextManager[None]] = staticmethod(output_errors)

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, words: str) -> int:
        with self.errors():
            self._stream.write(words)
        return len(words)

    def flush(self) -> None:
        with self.errors():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Forgiving(_Output):
    """Stream that drops output that cannot be written."""

    errors = staticmethod(partial(suppress, OSError))
