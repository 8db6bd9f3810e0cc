"""Reports parameters that a mesh replicates although it should split them, and refuses too many."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

from jclip.axes import FSDP, TENSOR
from jclip.errors import JclipError
from jclip.rules import paths_of, rows
from jclip.units import format_size

SPLITTING = (FSDP, TENSOR)
"""Axes of the mesh that split parameters."""

_SMALL = 4096  # bytes; smaller parameters are not listed


@dataclass(frozen=True)
class Replication:
    """Parameters that a mesh replicates.

    Attributes:
      axes: the mesh axes that split parameters, as text: "fsdp=4 x tensor=2".
      devices: number of devices over which they could be split.
      total: bytes of all parameters.
      share: 0 if every device holds an equal part of the parameters, 1 if every device holds all.
      parts: (paths, bytes, copies) of replicated parameters, except small ones; the largest waste first.
    """

    axes: str
    devices: int
    total: int
    share: float
    parts: tuple[tuple[str, int, int], ...]

    def __str__(self) -> str:
        """Returns a summary on one line."""
        summary = f"{self.axes}: {self.share:.2%} of the parameters' {format_size(self.total)} are replicated"
        return f"{summary}, mostly {self.parts[0][0]} ({format_size(self.parts[0][1])})" if self.parts else summary

    def check(self, most: float) -> None:
        """Checks the share; raises JclipError if it is above `most`."""
        if self.share > most:
            named = ", ".join(path for path, _, _ in self.parts[:3])
            raise JclipError(
                f"the mesh {self.axes} replicates {self.share:.0%} of the parameters, above max_replicated={most}"
                f"{f' ({named})' if named else ''}: choose sizes that divide the widths and the heads, or raise it"
            )


def replication(shapes: Mapping[str, Any], shardings: Mapping[str, Any], mesh: Mesh) -> Replication:
    """Returns the replication of nested parameters, or shapes, under their `param_shardings`."""
    leaves, places = paths_of(shapes), paths_of(shardings)
    devices = math.prod(mesh.shape[axis] for axis in SPLITTING)
    whole = {path: math.prod(leaf.shape) * leaf.dtype.itemsize for path, leaf in leaves.items()}
    copies = {
        path: devices * math.prod(places[path].shard_shape(leaf.shape)) // math.prod(leaf.shape)
        for path, leaf in leaves.items()
    }
    total = sum(whole.values())
    # Bytes in excess of an equal part, over the largest possible excess.
    excess = sum(size * (copies[path] - 1) for path, size in whole.items())
    share = excess / (total * (devices - 1)) if devices > 1 and total else 0.0
    kinds = {path: (copies[path], leaf.dtype.itemsize) for path, leaf in leaves.items()}
    parts = [(name, count * itemsize, times) for name, count, (times, itemsize) in rows(kinds, leaves)]
    listed = [part for part in parts if part[2] > 1 and part[1] >= _SMALL]
    listed.sort(key=lambda part: -part[1] * (part[2] - 1))
    axes = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in SPLITTING)
    return Replication(axes, devices, total, share, tuple(listed))
