"""Shapes of TPU slices and of groups of GPU hosts."""

Shape = tuple[int, ...]
"""Numbers of chips along the dimensions of a slice, or of hosts and of the GPUs of a host."""


def named(shape: Shape) -> str:
    """Returns a shape as text.

    >>> named((4, 4, 8))
    '4x4x8'
    """
    return "x".join(map(str, shape))
