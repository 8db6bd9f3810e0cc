r"""Characters that a terminal obeys are escaped, all others are kept, and JSON and HTML keep their meaning."""

import html
import io
import json
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.errors import JclipError
from jclip.plain import as_html, as_json, patient_streams, print_json, shown, shown_help, shown_lines
from tests.poison import TEXT, assert_harmless

ANY = st.text(st.characters())  # lone surrogates too
OBEYED = [
    *map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]),
    "\ud800",
    "\udcff",
]


def test_by_hand():
    assert shown("a\x1b[31mb\n\tc\x9b\u202e\udcff") == r"a\x1b[31mb\n\tc\x9b\u202e\udcff"
    assert shown(r"C:\x1b") == r"C:\x1b"
    assert shown_lines("a\nb\rc") == "a\nb\\rc"
    assert shown_help("\x1b[1mbold\x1b[0m\n\x1b]0;title\x07\x1b[2J") == "\x1b[1mbold\x1b[0m\n\\x1b]0;title\\x07\\x1b[2J"
    assert as_html("a\"b'<&\x1b\n") == "a&quot;b&#x27;&lt;&amp;\\x1b\n"
    assert as_json(["\x9b\u202e\udcff猫\n"]) == r'["\u009b\u202e\udcff猫\n"]'


@pytest.mark.parametrize(
    "name", ["猫 図", "👩‍🚀🏴󠁧󠁢󠁥󠁮󠁧󠁿", "café", "हिन्दी", "עברית", "\u3000wide", "a\u200db", "[red]", "\\n"]
)
def test_harmless_characters_are_kept(name):
    assert shown(name) == shown_lines(name) == shown_help(name) == name


@pytest.mark.parametrize("letter", OBEYED, ids=ascii)
def test_characters_that_a_terminal_obeys_are_escaped(letter):
    assert all(" " <= part <= "~" for part in shown(letter))
    assert json.loads(as_json(letter)) == letter and letter not in as_json(letter)


@given(ANY)
def test_no_text_has_an_effect_on_a_terminal(text):
    for safe in (shown(text), shown_lines(text), as_json(text)):
        assert not {unicodedata.category(one) for one in safe.replace("\n", "")} & {"Cc", "Cs", "Zl", "Zp"}
        safe.encode("utf-8")
    assert shown(shown(text)) == shown(text)


@given(ANY)
def test_json_round_trips(text):
    assert json.loads(as_json({text: [text]})) == {text: [text]}


@given(st.text())
def test_html_keeps_the_meaning(text):
    assert html.unescape(as_html(text)) == html.unescape(html.escape(text)) or shown(text, None) != text


def test_long_names_keep_their_ends():
    name = "a" * 300 + ".jpg"
    assert len(shown(name)) == 200 and shown(name).endswith("aaa.jpg") and "…" in shown(name)
    assert shown(name, None) == name


def test_an_error_is_one_line():
    error = JclipError(f"{TEXT} is not there")
    assert "\n" not in str(error)
    assert_harmless(str(error), TEXT)
    assert str(JclipError(str(error))) == str(error)
    assert len(str(JclipError("x" * 10**6))) == 4000


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "utf-8"])
def test_streams_of_every_encoding_take_any_text(encoding, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding))
    found = {"猫": "é😀\udcff→"}
    with patient_streams():
        print_json(found)
        print("a → 猫 \udcff")
    sys.stdout.flush()
    first, second = written.getvalue().decode(encoding).splitlines()
    assert json.loads(first) == found
    assert second.replace("猫", r"\u732b").replace("→", "->") == r"a -> \u732b \udcff"
    assert sys.stdout.errors == "strict"


def test_importing_it_is_cheap():
    code = "import sys, jclip.plain; print(sorted({'rich', 'jax', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "[]\n"
