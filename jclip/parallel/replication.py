"""What stays copied on a mesh that should split the parameters: told, and refused where it is too much."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

from jclip.errors import JclipError
from jclip.rules import paths_of, rows

SPLITTING = ("fsdp", "tensor")
"""The mesh axes over which parameters are split."""

_SMALL = 4096  # bytes: what is smaller is not told of by itself


@dataclass(frozen=True)
class Replication:
    """What a mesh leaves in copies.

    Attributes:
      axes: the mesh axes that split parameters, in words: "fsdp=4 x tensor=2".
      devices: into how many parts they could be split.
      total: bytes of all parameters.
      share: 0 where every device holds an even part of the parameters, 1 where every device holds all.
      parts: (paths, bytes, copies) of what is there more than once, without the small; the largest waste first.
    """

    axes: str
    devices: int
    total: int
    share: float
    parts: tuple[tuple[str, int, int], ...]

    def __str__(self) -> str:
        """A line."""
        told = f"{self.axes}: {self.share:.2%} of the parameters' {in_units(self.total)} stay in copies"
        return f"{told}, most of it {self.parts[0][0]} ({in_units(self.parts[0][1])})" if self.parts else told

    def check(self, most: float) -> None:
        """Raises JclipError if the share is above `most`."""
        if self.share > most:
            named = ", ".join(path for path, _, _ in self.parts[:3])
            raise JclipError(
                f"the mesh {self.axes} leaves {self.share:.0%} of the parameters in copies, above max_replicated={most}"
                f"{f' ({named})' if named else ''}: choose sizes that divide the widths and the heads, or raise it"
            )


def replication(shapes: Mapping[str, Any], shardings: Mapping[str, Any], mesh: Mesh) -> Replication:
    """What stays in copies on the devices over which the parameters should be split.

    Args:
      shapes: the parameters, nested, or their shapes.
      shardings: what `param_shardings` gives for them.
      mesh: from `make_mesh`.
    """
    leaves, places = paths_of(shapes), paths_of(shardings)
    devices = math.prod(mesh.shape[axis] for axis in SPLITTING)
    whole = {path: math.prod(leaf.shape) * leaf.dtype.itemsize for path, leaf in leaves.items()}
    copies = {
        path: devices * math.prod(places[path].shard_shape(leaf.shape)) // math.prod(leaf.shape)
        for path, leaf in leaves.items()
    }
    total = sum(whole.values())
    # What a device holds too much, of all that it can hold too much.
    beyond = sum(size * (copies[path] - 1) for path, size in whole.items())
    share = beyond / (total * (devices - 1)) if devices > 1 and total else 0.0
    kinds = {path: (copies[path], leaf.dtype.itemsize) for path, leaf in leaves.items()}
    parts = [(name, count * itemsize, times) for name, count, (times, itemsize) in rows(kinds, leaves)]
    return Replication(
        axes=" x ".join(f"{axis}={mesh.shape[axis]}" for axis in SPLITTING),
        devices=devices,
        total=total,
        share=share,
        parts=tuple(
            sorted(
                (part for part in parts if part[2] > 1 and part[1] >= _SMALL), key=lambda part: -part[1] * (part[2] - 1)
            )
        ),
    )


def in_units(count: int) -> str:
    """A number of bytes, to read."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count / 1024:,.1f} KiB"
