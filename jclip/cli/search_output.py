"""Forms in which `jclip search` prints what it found."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from rich.table import Table

from jclip.console import Console, text
from jclip.errors import JclipError
from jclip.images.preprocess import Orientation
from jclip.plain import output_errors, print_json, say, shown
from jclip.search.page import Section
from jclip.search.searching import Hit
from jclip.search.terminal_images import PROTOCOLS, protocol_of
from jclip.search.thumbnails import thumbnail

_SIDE = 160  # pixels of an image on a terminal

Draw = Callable[[Image.Image], str]
"""Function that returns an image as a terminal's commands, see `jclip.search.terminal_images`."""


@dataclass(frozen=True)
class Found:
    """Results of a search: the base of hits and groups.

    Attributes:
      title: the query.
      offset: number of results before the first one.
      items: the results.
      more: True if there are more.
    """

    title: str
    offset: int
    items: Sequence[Any]
    more: bool

    def sections(self) -> list[Section]:
        """Returns the hits, with headings for people."""
        raise NotImplementedError

    def record(self) -> dict[str, Any]:
        """Returns the results as JSON."""
        raise NotImplementedError

    def note(self) -> str:
        """Returns a line for people about what is not shown; empty if there is nothing to say."""
        if not self.items:
            return "nothing found"
        return f"there are more: --offset {self.offset + len(self.items)}" if self.more else ""


class Hits(Found):
    """Hits of a query."""

    items: Sequence[Hit]

    def sections(self) -> list[Section]:
        """Returns the hits as one section without a heading."""
        return [Section("", self.items)]

    def record(self) -> dict[str, Any]:
        """Returns {"query", "hits", "more"}."""
        return {"query": self.title, "hits": [hit.record() for hit in self.items], "more": self.more}


class Groups(Found):
    """Groups of near duplicates."""

    items: Sequence[Sequence[Hit]]

    def sections(self) -> list[Section]:
        """Returns a section for each group."""
        numbered = enumerate(self.items, self.offset + 1)
        return [Section(f"group {number}, {len(group)} entries", group) for number, group in numbered]

    def record(self) -> dict[str, Any]:
        """Returns {"groups", "more"}."""
        return {"groups": [[hit.record() for hit in group] for group in self.items], "more": self.more}


def images(chosen: str, environment: Mapping[str, str]) -> Draw | None:
    """Returns the function that draws images on the terminal; None to draw none.

    `chosen` is the name of a protocol, "no", or "auto", which draws if standard output is a known terminal.
    """
    if chosen == "auto":
        name = protocol_of(environment) if sys.stdout is not None and sys.stdout.isatty() else None
    else:
        name = None if chosen == "no" else chosen
    return PROTOCOLS[name] if name else None


def table(found: Found, draw: Draw | None, orientation: Orientation) -> None:
    """Prints a table for people; with images, one hit below the other."""
    console = Console()
    for section in found.sections():
        first = 1 if section.heading else found.offset + 1
        if draw is not None:
            if section.heading:
                console.tell(section.heading, "bold")
            for number, hit in enumerate(section.hits, first):
                _drawn(hit, draw, orientation)
                console.tell("  ".join(_cells(number, hit)))
        elif section.hits:
            console.print(_rows(section, first))
    if note := found.note():
        Console(stderr=True).tell(note)


def _rows(section: Section, first: int) -> Table:
    table = Table(title=text(section.heading) if section.heading else None, title_justify="left")
    table.add_column("", justify="right")
    for name in ("score", "path", "text")[: 3 if any(hit.entry.text for hit in section.hits) else 2]:
        table.add_column(name, overflow="fold")
    for number, hit in enumerate(section.hits, first):
        table.add_row(*(text(cell, longest=None) for cell in _cells(number, hit)[: len(table.columns)]))
    return table


def _cells(number: int, hit: Hit) -> tuple[str, str, str, str]:
    return str(number), f"{hit.score:.4f}", str(hit.entry.path), shown(hit.entry.text or "")


def _drawn(hit: Hit, draw: Draw, orientation: Orientation) -> None:
    try:
        commands = draw(thumbnail(hit.entry, _SIDE, orientation))
    except JclipError:
        return  # the line below names the file
    say(commands)


def _paths(found: Found, draw: Draw | None, orientation: Orientation) -> None:
    """Prints paths, each on a line: escaped on a terminal, else as they are."""
    if sys.stdout.isatty():
        for path in _each(found):
            say(shown(path, None) if path is not None else "")
    else:
        _write(found, b"\n")


def _null(found: Found, draw: Draw | None, orientation: Orientation) -> None:
    """Prints paths with NUL characters between them."""
    _write(found, b"\0")


def _json(found: Found, draw: Draw | None, orientation: Orientation) -> None:
    print_json(found.record(), indent=1)


def _each(found: Found) -> Iterator[Any]:
    """Yields the paths; None after each group."""
    for section in found.sections():
        yield from (hit.entry.path for hit in section.hits)
        if section.heading:
            yield None


def _write(found: Found, end: bytes) -> None:
    lines: Iterable[bytes] = (b"" if path is None else os.fsencode(path) for path in _each(found))
    with output_errors():
        sys.stdout.flush()
        sys.stdout.buffer.write(b"".join(line + end for line in lines))
        sys.stdout.buffer.flush()


FORMS: dict[str, Callable[[Found, Draw | None, Orientation], None]] = {"paths": _paths, "null": _null, "json": _json}
"""Functions that print results in a form, by the option that chooses it."""
