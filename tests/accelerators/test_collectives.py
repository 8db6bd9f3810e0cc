"""Collectives and the hosts that they span."""

from jclip.accelerators.collectives import Collective


def test_hosts():
    inside = Collective("all-reduce", 1, 8, 8, ((0, 1, 2, 3), (4, 5, 6, 7)))
    across = Collective("all-reduce", 1, 8, 8, ((0, 1, 4, 5), (2, 3, 6, 7)))
    assert not inside.spans(4)
    assert across.spans(4)
    assert (inside.fewest_together(4), across.fewest_together(4)) == (4, 2)
