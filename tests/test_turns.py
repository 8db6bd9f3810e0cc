"""Turns of programs in processes of their own."""

from functools import partial

import pytest

from benchmarks.remote import Failed, call_apart
from benchmarks.turns import Ratio, alternate, open_programs, ratio, take_turns


def opens(factor):
    """Opens a program that multiplies its batch, but not by zero."""

    def prepare(batch):
        return lambda: factor * batch / (factor != 0)

    return prepare


def fail():
    raise SystemExit("no")


def test_programs_compute_their_batches_in_turns():
    with open_programs({"two": partial(opens, 2), "three": partial(opens, 3)}, threads=1) as programs:
        assert [each.call("compute", 5) for each in programs.values()] == [10, 15]
        seconds = take_turns(programs, rounds=2)
        assert list(seconds) == ["two", "three"] and all(0 < each < 1 for both in seconds.values() for each in both)
    assert not any(each._process.is_alive() for each in programs.values())


def test_an_error_of_a_program_has_its_traceback():
    with (
        open_programs({"zero": partial(opens, 0)}, threads=1, cpu=True) as programs,
        pytest.raises(Failed, match="^ZeroDivisionError: ") as caught,
    ):
        programs["zero"].call("compute", 5)
    assert "in <lambda>" in str(caught.value.__cause__)


def test_the_order_alternates():
    called = []
    seconds = {"a": 1.0, "b": 2.0}
    turns = {name: lambda name=name: called.append(name) or seconds[name] for name in seconds}
    assert alternate(turns, 3) == {"a": [1.0] * 3, "b": [2.0] * 3}
    assert "".join(called) == "abbaab"


def test_a_ratio_is_that_of_speeds_in_the_same_round():
    assert ratio([1.0, 2.0, 4.0], [3.0, 2.0, 2.0]) == Ratio(1.0, 0.5, 3.0)


def test_a_call_apart_that_fails_ends_the_program():
    with pytest.raises(SystemExit, match="^fail failed$"):
        call_apart(fail)
