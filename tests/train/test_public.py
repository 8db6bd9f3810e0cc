"""The public names of jclip.train."""

import pytest

import jclip.train


def test_every_name_is_there_and_documented():
    for name in set(jclip.train.__all__) - {"MakeBatches", "TextLength"}:  # aliases of types have no docstring
        found = getattr(jclip.train, name)
        assert found.__module__.startswith("jclip.") and found.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'Stages': it has kind_of, "):
        jclip.train.Stages  # noqa: B018
