"""The console prints neither markup nor terminal commands, through any part of rich."""

import io
import re

import pytest
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from jclip.console import Console, description, facts, text
from tests.poison import TEXT, assert_harmless


def console(**more):
    file = io.StringIO()
    return file, Console(file=file, width=2000, **more)


def in_table(name):
    table = Table(name, title=name, caption=name)
    table.add_row(name)
    return table


def in_facts(name):
    table = facts(name)
    table.add_row(name, text(name))
    return table


@pytest.mark.parametrize(
    "made",
    [
        str,
        Text,
        text,
        in_table,
        in_facts,
        lambda name: Text(name, "red"),
        lambda name: Text.assemble((name, "red"), name),
    ],
)
def test_names_are_printed_without_effect(made):
    file, out = console()
    out.print(made(TEXT))
    assert_harmless(file.getvalue())
    assert "[/b][red]:cat:" in file.getvalue()


def test_tell_prints_one_whole_line():
    file, out = console()
    out.tell(TEXT * 20)
    assert file.getvalue().count("\n") == 1
    assert_harmless(file.getvalue(), TEXT)


def test_spinners_and_bars_print_names_without_effect():
    file, out = console(force_terminal=True, color_system=None)
    with out.working(TEXT) as say:
        say(TEXT)
    with Progress(description(), console=out, auto_refresh=False) as bar:
        bar.add_task(TEXT, total=1)
        bar.refresh()
    # rich's own commands remain: hide and show the cursor, erase lines.
    printed = re.sub(r"\x1b\[(\?25[lh]|\d*[AK])|\r", "", file.getvalue())
    assert_harmless(printed)
    assert printed.count("[/b][red]:cat:") >= 2


def test_styles_are_seen_on_a_terminal():
    file, out = console(force_terminal=True, color_system="standard")
    out.tell("done", style="green")
    assert file.getvalue() == "\x1b[32mdone\x1b[0m\n"


class Full(io.StringIO):
    def write(self, words):
        raise OSError(28, "No space left on device")


def test_a_full_disk(monkeypatch):
    monkeypatch.setattr("sys.stderr", Full())
    Console(stderr=True).tell("progress that nobody sees")
    monkeypatch.setattr("sys.stdout", Full())
    with pytest.raises(OSError, match="No space left on device: 'standard output'"):
        Console().tell("a result")


def test_a_closed_pipe_is_an_error(monkeypatch):
    class Gone(io.StringIO):
        def write(self, words):
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("sys.stdout", Gone())
    with pytest.raises(BrokenPipeError):
        Console().tell("a result")
