import json

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.serve.fields import Field, Flag, ListOf, MapOf, Number, OneOf, Record, Text, Whole
from jclip.serve.refusals import Refusal

WORD = Text(5, "--max-characters")
RECORD = Record(
    {
        "a": Field(OneOf((WORD, ListOf(WORD, 2, "--max-items"))), required=True),
        "b": Field(Whole(-1, 3), default=1),
        "c": Field(Number(0, 1)),
        "d": Field(Flag(), default=True),
        "e": Field(MapOf(Number(), 2)),
        "f": Field(Text(choices=("x", "y"))),
        "g": Field(ListOf(Number(), 2, least=2)),
    },
    closed=True,
)


@pytest.mark.parametrize(
    ("value", "status", "message"),
    [
        ([], 422, "a list is not an object"),
        ({}, 422, "a is missing: give a string or a list"),
        ({"a": None}, 422, "a is missing: give a string or a list"),
        ({"a": ""}, 400, "a: it is empty"),
        ({"a": []}, 400, "a: the list is empty"),
        ({"a": "123456"}, 413, "a: 6 characters, but the limit is 5 (--max-characters)"),
        ({"a": ["1", "123456"]}, 413, "a[1]: 6 characters, but the limit is 5 (--max-characters)"),
        ({"a": ["1"] * 3}, 413, "a: 3 items, but the limit is 2 (--max-items)"),
        ({"a": "\ud800"}, 422, "a: it has an unpaired surrogate, which is not a valid character"),
        ({"a": 1}, 422, "a: 1 is not a string or a list"),
        ({"a": "1", "b": 4}, 422, "b: 4 is not a whole number from -1 to 3"),
        ({"a": "1", "b": True}, 422, "b: True is not a whole number from -1 to 3"),
        ({"a": "1", "b": 1e400}, 422, "b: inf is not a whole number from -1 to 3"),
        ({"a": "1", "c": 1.5}, 422, "c: 1.5 is not a number from 0 to 1"),
        ({"a": "1", "c": float("nan")}, 422, "c: nan is not a number from 0 to 1"),
        ({"a": "1", "d": 0}, 422, "d: 0 is not true or false"),
        ({"a": "1", "e": {"x": "1"}}, 422, "e.x: '1' is not a number from -3e+38 to 3e+38"),
        ({"a": "1", "e": {"x": 1, "y": 1, "z": 1}}, 422, "e: the object has 3 names, but must have 2 or fewer"),
        ({"a": "1", "f": "z"}, 422, "f: 'z' is not one of x, y"),
        ({"a": "1", "g": [1]}, 422, "g: the list has 1 items, but must have 2"),
        ({"a": "1", "g_": 1}, 422, "g_ is not a field: did you mean g?"),
    ],
)
def test_a_wrong_value_is_named(value, status, message):
    with pytest.raises(Refusal) as refusal:
        RECORD.read(value, "")
    assert (refusal.value.status, str(refusal.value)) == (status, message)


def test_omitted_and_null_fields_have_their_defaults():
    others = {"c": None, "d": True, "e": None, "f": None, "g": None}
    assert RECORD.read({"a": "1", "c": None, "b": None}, "") == {"a": "1", "b": 1, **others}
    assert RECORD.read({"a": ["1"], "b": 2.0}, "") == {"a": ["1"], "b": 2, **others}


def test_exactly_one_of_some_fields_is_given():
    record = Record({name: Field(Flag()) for name in "abc"}, exactly_one=("a", "b"))
    for wrong, had in (({"c": True}, "none"), ({"a": True, "b": False}, "a and b"), ({"a": None}, "none")):
        with pytest.raises(Refusal, match=f"give exactly one of a, b; the request has {had}"):
            record.read(wrong, "")
        assert not jsonschema_rs.Draft202012Validator(record.schema()).is_valid(wrong)
    assert record.read({"b": False, "z": 1}, "") == {"a": None, "b": False, "c": None}
    assert jsonschema_rs.Draft202012Validator(record.schema()).is_valid({"b": False, "a": None, "z": 1})


def test_a_path_may_have_names_that_are_not_utf8():
    assert Text(path=True).read("\udcff", "folder") == "\udcff"
    with pytest.raises(Refusal, match="folder: it has an unpaired surrogate"):
        Text(path=True).read("\ud800", "folder")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 5) | st.floats(-1, 2) | st.text("ab", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", max_size=1), inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from("abcdefgh"), JSON, max_size=4), st.sampled_from(["ab", ["a"], None]))
def test_the_schema_accepts_what_the_reader_accepts(value, a):
    value = json.loads(json.dumps(value | ({} if a is None else {"a": a})))
    try:
        RECORD.read(value, "")
    except Refusal:
        accepted = False
    else:
        accepted = True
    assert jsonschema_rs.Draft202012Validator(RECORD.schema()).is_valid(value) == accepted
