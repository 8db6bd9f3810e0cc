"""Groups of devices in the forms that XLA prints."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.accelerators.groups import read_groups


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("{{0,1},{2,3}}", ((0, 1), (2, 3))),
        ("{}", ()),
        ("[1,4]<=[4]", ((0, 1, 2, 3),)),
        ("[4,2]<=[2,4]T(1,0)", ((0, 4), (1, 5), (2, 6), (3, 7))),
        ("mesh['a'=2,'b'=1,'c'=2] {'a','b'}", ((0, 2), (1, 3))),
        ("mesh['a'=2,'b'=2] {'b','a'}", ((0, 2, 1, 3),)),
        ("mesh['a'=8] {'a':(2)2}", ((0, 2), (1, 3), (4, 6), (5, 7))),
        ("mesh['a'=8] {'a':(1)2}", ((0, 4), (1, 5), (2, 6), (3, 7))),
        ("mesh['a'=2,'b'=4], device_ids=([2,2,2]T(1,0,2)) {'a'}", ((0, 2), (1, 3), (4, 6), (5, 7))),
        ("mesh['a'=2,'b'=2], device_ids=([4]) {'b'}", ((0, 1), (2, 3))),
        ("mesh['a'=2,'b'=2], device_ids=(3,1,2,0) {'b'}", ((3, 1), (2, 0))),
        ("mesh['a'=2,'b'=2], device_ids=(3,1) {'b'}", None),
        ("mesh['a'=8] {'a':(3)2}", None),
        ("mesh['a'=2] {'b'}", None),
        ("somehow", None),
    ],
)
def test_groups(text, groups):
    assert read_groups(text) == groups


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_groups_of_a_mesh_are_those_of_an_array(sizes, data):
    axes = data.draw(st.lists(st.sampled_from(range(len(sizes))), unique=True, min_size=1))
    mesh = ",".join(f"'{axis}'={size}" for axis, size in enumerate(sizes))
    numbers = np.arange(np.prod(sizes)).reshape(sizes)
    others = [axis for axis in range(len(sizes)) if axis not in axes]
    rows = numbers.transpose(*others, *axes).reshape(-1, int(np.prod([sizes[axis] for axis in axes])))
    found = read_groups(f"mesh[{mesh}] {{{','.join(repr(str(axis)) for axis in axes)}}}")
    assert found == tuple(map(tuple, rows.tolist()))
