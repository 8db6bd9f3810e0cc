"""The two names of a parameter, and how its axes lie under each: the rows of a mapping table.

Ours is the path in a bundle ("image/layers/attention/query/kernel"); theirs is the key in a checkpoint. A key with
"{i}" stands for every layer, which we keep stacked under one path.
"""

from collections.abc import Iterable
from dataclasses import dataclass

AS_IS: tuple[int, ...] = ()
DENSE = (1, 0)
"""A matrix: PyTorch keeps (out, in), we keep (in, out)."""
CONV = (2, 3, 1, 0)
"""A convolution: PyTorch keeps (out, in, height, width), we keep (height, width, in, out)."""

FUSED = 3
"""Query, key and value in one tensor, one above the other along its first axis."""


@dataclass(frozen=True)
class Row:
    """One line of a mapping table.

    Attributes:
      ours: path; with "{i}" in `theirs`, of the stacked parameter.
      theirs: key.
      axes: of theirs, in our order; empty for the same order.
      part: which third of a tensor that holds query, key and value; None for the whole tensor.
    """

    ours: str
    theirs: str
    axes: tuple[int, ...] = AS_IS
    part: int | None = None

    @property
    def stacked(self) -> bool:
        """Whether this stands for all layers."""
        return "{i}" in self.theirs

    def our_shape(self, theirs: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one layer's value under our name, from the shape of their tensor."""
        if self.part is not None and theirs:
            theirs = (theirs[0] // FUSED, *theirs[1:])
        if self.axes and len(theirs) != len(self.axes):
            return theirs
        return tuple(theirs[axis] for axis in self.axes) if self.axes else theirs

    def their_shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of their tensor, from that of one layer's value under our name."""
        theirs = tuple(ours[self.axes.index(axis)] for axis in range(len(ours))) if self.axes else ours
        return (FUSED * theirs[0], *theirs[1:]) if self.part is not None else theirs


Table = tuple[Row, ...]


def dense(ours: str, theirs: str, *, bias: bool = True) -> Iterable[Row]:
    """A linear map."""
    yield Row(f"{ours}/kernel", f"{theirs}.weight", DENSE)
    if bias:
        yield Row(f"{ours}/bias", f"{theirs}.bias")


def norm(ours: str, theirs: str) -> Iterable[Row]:
    """Scale and shift of a normalisation."""
    yield Row(f"{ours}/scale", f"{theirs}.weight")
    yield Row(f"{ours}/bias", f"{theirs}.bias")


def batch_norm(ours: str, theirs: str) -> Iterable[Row]:
    """A batch norm with its running statistics, which a bundle keeps apart from the parameters."""
    yield from norm(ours, theirs)
    yield Row(f"batch_stats/{ours}/mean", f"{theirs}.running_mean")
    yield Row(f"batch_stats/{ours}/var", f"{theirs}.running_var")


def conv(ours: str, theirs: str) -> Iterable[Row]:
    """A convolution without bias."""
    yield Row(f"{ours}/kernel", f"{theirs}.weight", CONV)


def attention(ours: str, theirs: dict[str, str]) -> Iterable[Row]:
    """Four linear maps; `theirs` names each: query, key, value, output."""
    for name, key in theirs.items():
        yield from dense(f"{ours}/{name}", key)


def fused_attention(ours: str, weight: str, bias: str, output: str) -> Iterable[Row]:
    """Attention whose query, key and value are one tensor."""
    for part, name in enumerate(("query", "key", "value")):
        yield Row(f"{ours}/{name}/kernel", weight, DENSE, part)
        yield Row(f"{ours}/{name}/bias", bias, part=part)
    yield from dense(f"{ours}/output", output)
