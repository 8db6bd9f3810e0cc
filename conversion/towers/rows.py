"""Rows of a mapping table: the two names of a parameter, and the order of its axes under each.

`ours` is the path in a bundle ("image/layers/attention/query/kernel"), `theirs` the key in a checkpoint of PyTorch. A
key with "{i}" means all layers, which a bundle stacks under one path.
"""

from collections.abc import Iterable
from dataclasses import dataclass

AS_IS: tuple[int, ...] = ()
DENSE = (1, 0)
"""Axes of a matrix: PyTorch stores (out, in), a bundle (in, out)."""
CONV = (2, 3, 1, 0)
"""Axes of a convolution: PyTorch stores (out, in, height, width), a bundle (height, width, in, out)."""

FUSED = 3
"""Number of tensors that a fused tensor concatenates along its first axis: query, key and value."""


@dataclass(frozen=True)
class MappingRow:
    """Row of a mapping table.

    Attributes:
      ours: path in a bundle; of the stacked parameter if `theirs` contains "{i}".
      theirs: key in the checkpoint.
      axes: axes of their tensor in our order; empty if the order is the same.
      part: third of a fused query-key-value tensor: 0, 1 or 2; None for the whole tensor.
    """

    ours: str
    theirs: str
    axes: tuple[int, ...] = AS_IS
    part: int | None = None

    @property
    def stacked(self) -> bool:
        """True if the row is for all layers."""
        return "{i}" in self.theirs

    def our_shape(self, theirs: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of one layer's parameter, given the shape of their tensor."""
        if self.part is not None and theirs:
            theirs = (theirs[0] // FUSED, *theirs[1:])
        if self.axes and len(theirs) != len(self.axes):
            return theirs
        return tuple(theirs[axis] for axis in self.axes) if self.axes else theirs

    def their_shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of their tensor, given the shape of one layer's parameter."""
        theirs = tuple(ours[self.axes.index(axis)] for axis in range(len(ours))) if self.axes else ours
        return (FUSED * theirs[0], *theirs[1:]) if self.part is not None else theirs


MappingTable = tuple[MappingRow, ...]


def dense(ours: str, theirs: str, *, bias: bool = True) -> Iterable[MappingRow]:
    """Yields the rows of a linear layer."""
    yield MappingRow(f"{ours}/kernel", f"{theirs}.weight", DENSE)
    if bias:
        yield MappingRow(f"{ours}/bias", f"{theirs}.bias")


def norm(ours: str, theirs: str) -> Iterable[MappingRow]:
    """Yields the rows of a normalisation's scale and bias."""
    yield MappingRow(f"{ours}/scale", f"{theirs}.weight")
    yield MappingRow(f"{ours}/bias", f"{theirs}.bias")


def batch_norm(ours: str, theirs: str) -> Iterable[MappingRow]:
    """Yields the rows of a batch norm; a bundle stores its running statistics apart from the parameters."""
    yield from norm(ours, theirs)
    yield MappingRow(f"batch_stats/{ours}/mean", f"{theirs}.running_mean")
    yield MappingRow(f"batch_stats/{ours}/var", f"{theirs}.running_var")


def conv(ours: str, theirs: str) -> Iterable[MappingRow]:
    """Yields the row of a convolution without bias."""
    yield MappingRow(f"{ours}/kernel", f"{theirs}.weight", CONV)


def attention(ours: str, theirs: dict[str, str]) -> Iterable[MappingRow]:
    """Yields the rows of an attention layer; `theirs` maps query, key, value and output to their names."""
    for name, key in theirs.items():
        yield from dense(f"{ours}/{name}", key)


def fused_attention(ours: str, weight: str, bias: str, output: str) -> Iterable[MappingRow]:
    """Yields the rows of an attention layer whose query, key and value are one tensor."""
    for part, name in enumerate(("query", "key", "value")):
        yield MappingRow(f"{ours}/{name}/kernel", weight, DENSE, part)
        yield MappingRow(f"{ours}/{name}/bias", bias, part=part)
    yield from dense(f"{ours}/output", output)


def hf_layers(ours: str, prefix: str) -> Iterable[MappingRow]:
    """Yields the rows of a pre-norm transformer's layers in Hugging Face's layout."""
    theirs = f"{prefix}encoder.layers.{{i}}"
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
    yield from attention(f"{ours}/attention", {name: f"{theirs}.self_attn.{key}" for name, key in names.items()})
    yield from norm(f"{ours}/attention_norm", f"{theirs}.layer_norm1")
    yield from dense(f"{ours}/mlp/fc1", f"{theirs}.mlp.fc1")
    yield from dense(f"{ours}/mlp/fc2", f"{theirs}.mlp.fc2")
    yield from norm(f"{ours}/mlp_norm", f"{theirs}.layer_norm2")


def openai_layers(ours: str, prefix: str) -> Iterable[MappingRow]:
    """Yields the rows of a pre-norm transformer's layers in OpenAI's layout, which cn_clip and open_clip use too."""
    theirs = f"{prefix}.{{i}}"
    fused = f"{theirs}.attn.in_proj"
    yield from fused_attention(f"{ours}/attention", f"{fused}_weight", f"{fused}_bias", f"{theirs}.attn.out_proj")
    yield from norm(f"{ours}/attention_norm", f"{theirs}.ln_1")
    yield from dense(f"{ours}/mlp/fc1", f"{theirs}.mlp.c_fc")
    yield from dense(f"{ours}/mlp/fc2", f"{theirs}.mlp.c_proj")
    yield from norm(f"{ours}/mlp_norm", f"{theirs}.ln_2")
