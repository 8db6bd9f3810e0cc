"""Exchanges between steps of two processes, one of which is simulated."""

from types import SimpleNamespace

import pytest

from jclip.data.sources.synthetic import SyntheticPairs, write_tokenizer
from jclip.errors import JclipError
from jclip.train.exchange import Exchange
from tests.data.loading import make_batches


@pytest.fixture
def other(monkeypatch):
    """Report of process 1 at the next exchange."""
    told = SimpleNamespace(word={})
    values = lambda own: [value for value in (own, told.word) if value]  # noqa: E731
    monkeypatch.setattr("jclip.train.exchange.gather", values)
    return told


@pytest.fixture
def batches(tmp_path):
    words = write_tokenizer("wordpiece", tmp_path / "words")
    return make_batches(SyntheticPairs(), tokenizer=words, stage=3, max_unreadable=2)


def test_a_limit_is_of_all_processes_together(batches, other):
    """Three unreadable records, of which each process replaced at most two."""
    exchange = Exchange(batches, [])
    batches.unreadable.append("record 1")
    assert exchange() == (["record 1"], None, None)
    batches.unreadable.append("record 4")
    other.word = {"unreadable": ["record 1", "record 4"]}
    assert exchange() == (["record 4"], None, None)
    other.word = {"unreadable": ["record 7"]}
    new, error, _ = exchange()
    assert new == ["record 7"]
    assert str(error).startswith("record 7: repair or remove it, or raise stages.3.max_unreadable (now 2)")


def test_errors_and_signals_of_others_are_heard(batches, other):
    signals = []
    exchange = Exchange(batches, signals)
    assert exchange() == ([], None, None)
    other.word = {"signal": 15}
    assert exchange().signal == 15
    signals.append(2)
    assert exchange().signal == 2
    other.word = {"error": "process 1: no picture"}
    heard = exchange()
    assert isinstance(heard.error, JclipError) and str(heard.error) == "process 1: no picture"
    mine = ValueError("mine")
    assert exchange(mine).error is mine
