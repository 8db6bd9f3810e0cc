"""Shapes of slices and of groups of hosts."""

Shape = tuple[int, ...]
"""Numbers of chips, or of hosts and their devices."""


def named(shape: Shape) -> str:
    """Returns a shape as text.

    >>> named((4, 4, 8))
    '4x4x8'
    """
    return "x".join(map(str, shape))
