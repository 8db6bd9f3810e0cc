"""Queries: what is an operator, a weight, an image or plain text; and their vectors, worked out by hand."""

import re
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jclip.errors import JclipError
from jclip.search.queries import Query, Term, parse_query, quoted

VECTORS = {"狗": (1, 0), "雪": (0, 1), "人": (-1, 0), "near": (0.6, 0.8)}


class Stand:
    """Model of known vectors; an image's are those of its name."""

    def encode_text(self, texts):
        return np.array([VECTORS[text] for text in texts], np.float32)

    def encode_image(self, pictures, *, orientation=None):
        self.orientation = orientation
        return np.array([(0, -1)] * len(pictures), np.float32)


def terms(text, **more):
    return [(term.content, term.weight) for term in parse_query(text, **more).terms]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("狗", [("狗", 1)]),
        ("  a dog\u3000", [("a dog", 1)]),
        ("狗 + 雪 - 人", [("狗", 1), ("雪", 1), ("人", -1)]),
        ("狗\u3000＋\u3000雪\n－ 人", [("狗", 1), ("雪", 1), ("人", -1)]),
        ("- 人", [("人", -1)]),
        ("+ 狗", [("狗", 1)]),
        ("2:红色", [("红色", 2)]),
        ("2：红色 - .5:car + 3.:a", [("红色", 2), ("car", -0.5), ("a", 3)]),
        ("0:狗 + 雪", [("狗", 0), ("雪", 1)]),
        # plain text
        ("C++", [("C++", 1)]),
        ("a-b +c d- e+", [("a-b +c d- e+", 1)]),
        ("-5", [("-5", 1)]),
        ("3:2", [("3:2", 1)]),
        ("16:9 photo", [("16:9 photo", 1)]),
        ("2001: A Space Odyssey", [("2001: A Space Odyssey", 1)]),
        ("2:", [("2:", 1)]),
        ("-2:red", [("-2:red", 1)]),
        ("1e3:red", [("1e3:red", 1)]),
        ("²:red ٣:red", [("²:red ٣:red", 1)]),
        ("note: 2:red", [("note: 2:red", 1)]),
        ('say "hi" - loud', [('say "hi"', 1), ("loud", -1)]),
        ("@home", [("@home", 1)]),
        # quotes
        ('"a - b"', [("a - b", 1)]),
        ('2:"3:2" + "2:red" - "-"', [("3:2", 2), ("2:red", 1), ("-", -1)]),
        ('"say ""hi"""', [('say "hi"', 1)]),
        ('" padded "', [(" padded ", 1)]),
        ('@"a - b"', [('@"a', 1), ('b"', -1)]),
    ],
)
def test_terms(text, expected):
    assert terms(text) == expected
    assert {term.tower for term in parse_query(text).terms} == {"text"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the query is empty"),
        (" \u3000\n", "the query is empty"),
        ([], "the query is empty"),
        ("狗 +", "nothing after '+'"),
        ("-", "nothing after '-'"),
        ("狗 + - 人", "nothing between '+' and '-'"),
        ('""', "a text is empty"),
        ('狗 - "  "', "a text is empty"),
        ('"a - b', 'query: "a has no closing quote'),
        ('"a" b', "b follows a closing quote"),
        ('"a"+ b', "+ b follows a closing quote"),
        ("0:狗", "all weights are 0"),
        ("9" * 400 + ":狗", "a weight is inf"),
    ],
)
def test_wrong_queries(text, told):
    with pytest.raises(JclipError, match=re.escape(told)) as error:
        parse_query(text)
    assert "\n" not in str(error.value)


def test_a_query_without_terms():
    with pytest.raises(JclipError, match="empty"):
        Query(())


texts = st.text(min_size=1).filter(str.strip)
weights = st.floats(0.25, 1e6).map(lambda number: round(number, 3))


@given(st.lists(st.tuples(texts, weights, st.booleans()), min_size=1))
def test_quoted_terms_come_out_as_they_went_in(parts):
    written = " ".join(f"{'-' if minus else '+'} {weight}:{quoted(text)}" for text, weight, minus in parts)
    assert terms(written) == [(text, -weight if minus else weight) for text, weight, minus in parts]


@given(st.text(st.sampled_from('+-＋ :"2.@a狗\n')))
def test_any_text_is_a_query_or_a_clear_error(text):
    for files in (False, True):
        with suppress(JclipError):
            assert all(term.content and term.tower == "text" for term in parse_query(text, files=files).terms)


@given(st.text(st.sampled_from("abc狗+-:2")).filter(str.strip))
def test_without_white_space_and_weight_a_text_is_itself(text):
    if text not in {"+", "-"} and not re.match(r"2+:[^2]", text):
        assert terms(text) == [(text, 1)]


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "my - dog.jpg", 'q".png', "2:a.png", "bare"):
        Image.new("RGB", (1, 1)).save(tmp_path / name, "PNG")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.png", ["a.png"]),
        ("@a.png", ["a.png"]),
        ("@bare", ["bare"]),
        ("bare", []),
        ('"a.png"', []),
        ("b.png", []),
        ("2:@a.png - 狗", ["a.png"]),
        ('@"my - dog.jpg" + a.png', ["my - dog.jpg", "a.png"]),
        ('@"q"".png"', ['q".png']),
        (["my - dog.jpg", "+", "@my - dog.jpg", "-", 'q".png'], ["my - dog.jpg", "my - dog.jpg", 'q".png']),
        (["2:a.png"], ["2:a.png"]),
        ("2:a.png", ["a.png"]),
    ],
)
def test_images(pictures, text, expected):
    query = parse_query(text, files=True)
    assert [term.content for term in query.terms if term.tower == "image"] == expected
    assert all(term.tower == "text" for term in parse_query(text).terms)  # files are not looked at unasked


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("@nowhere.png", 'image nowhere.png does not exist; to search for the text, put it in quotes: "@nowhere.png"'),
        ("狗 - @.", "image . is a folder"),
        ("@", "image '' does not exist"),
        ("@a\0b", r"image a\x00b does not exist"),
        ("@a.png@", "image a.png@ does not exist"),
        (["a.png", "2:a.png"], "follows a closing quote"),
    ],
)
def test_wrong_images(pictures, text, told):
    with pytest.raises(JclipError, match=re.escape(told)):
        parse_query(text, files=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("狗", (1, 0)),
        ("- 狗", (-1, 0)),
        ("5:狗", (1, 0)),
        ("狗 + 雪", (0.5**0.5, 0.5**0.5)),
        ("4:狗 + 3:雪", (0.8, 0.6)),
        ("狗 - 人 + 2:雪", (0.5**0.5, 0.5**0.5)),
        ("0:狗 + 雪", (0, 1)),
        ("near + @a.png", (0.6 / 0.4**0.5, -0.2 / 0.4**0.5)),
        ("9" * 300 + ":狗", (1, 0)),
    ],
)
def test_vectors(pictures, text, expected):
    query = parse_query(text, files=True)
    model = Stand()
    found = query.vector(model, "apply")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert query.towers == {"text", "image"} if "@" in text else {"text"}
    assert getattr(model, "orientation", "apply") == "apply"


@pytest.mark.parametrize("text", ["狗 - 狗", "狗 + 人", "2:狗 - 狗 + 人"])
def test_terms_that_cancel_out(text):
    with pytest.raises(JclipError, match="cancel out"):
        parse_query(text).vector(Stand())


def test_encoded_images():
    """As the service gives them."""
    query = Query((Term(b"...", "image", 2.0), Term("狗", weight=-1.0)))
    np.testing.assert_allclose(query.vector(Stand()), np.array([-1, -2]) / 5**0.5, atol=1e-6)
