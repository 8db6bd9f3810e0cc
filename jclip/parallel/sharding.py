"""Sharding of arrays: batches by rows, parameters by a table of rules."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jclip.axes import BATCH_AXES
from jclip.errors import JclipError
from jclip.models.placements import Placement, Placements
from jclip.parallel.processes import is_first_process
from jclip.rules import match, paths_of, tree_from_paths

Rules = Placements
"""Ordered (path regex, placement) over the paths of a whole model."""


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first dimension over the batch's axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_devices(mesh: Mesh) -> int:
    """Returns the number of parts into which a batch is split."""
    return math.prod(mesh.shape[name] for name in BATCH_AXES)


def local_rows(batch_size: int, mesh: Mesh) -> list[int]:
    """Returns the rows of a global batch that this process's devices hold, ascending.

    Processes hold the same rows if the tensor axis spans them.
    """
    places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    parts = {tuple(range(batch_size)[place[0]]) for place in places.values() if place}
    return sorted(row for part in parts for row in part)


def place_whole(tree: Any, shardings: Any) -> Any:
    """Places host arrays on the mesh; each process sends only its devices' shards.

    `jax.device_put` would first compare the arrays between processes, which sends all of them to every device.
    """
    return jax.tree.map(
        lambda leaf, at: jax.make_array_from_callback(np.shape(leaf), at, lambda index: np.asarray(leaf)[index]),
        tree,
        shardings,
    )


def on_mesh(shapes: Any, shardings: Any) -> Any:
    """Returns the shapes with their shardings, for lowering a function or restoring a checkpoint."""
    return jax.tree.map(lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at), shapes, shardings)


def place_rows(rows: np.ndarray, batch_size: int, mesh: Mesh) -> jax.Array:
    """Returns a global batch on the mesh, from this process's `local_rows` of it."""
    at = {row: number for number, row in enumerate(local_rows(batch_size, mesh))}

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        return rows[[at[row] for row in range(batch_size)[index[0] if index else slice(0)]]]

    return jax.make_array_from_callback((batch_size, *rows.shape[1:]), batch_sharding(mesh), part)


def whole(tree: Any, mesh: Mesh) -> Any:
    """Returns arrays as numpy on process 0, and None on the others. Every process must call it."""

    def fetch(leaf: jax.Array) -> np.ndarray | None:
        if not leaf.is_fully_addressable and not leaf.is_fully_replicated:
            leaf = jax.jit(lambda x: x, out_shardings=replicated(mesh))(leaf)
        return np.asarray(leaf) if is_first_process() else None

    return jax.tree.map(fetch, tree)


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Checks that a batch divides evenly over the devices; raises JclipError if not."""
    devices = batch_devices(mesh)
    left = batch_size % devices
    if batch_size < 1 or left:
        below, above = batch_size - left, batch_size - left + devices
        use = f"{below} or {above}" if below > 0 else f"{max(above, devices)}"
        raise JclipError(f"batch of {batch_size} is not divisible by {devices} devices: use {use}")


def param_shardings(shapes: Mapping[str, Any], mesh: Mesh, rules: Rules) -> dict[str, Any]:
    """Returns the sharding of every parameter, nested like `shapes`.

    With `jax.jit(init, out_shardings=...)` no device ever holds all parameters. Raises RuleError if a parameter has no
    rule, or a rule no parameter; and JclipError, with the parameter, if a placement names an unknown axis or has the
    wrong number of dimensions.
    """
    leaves = paths_of(shapes)
    placements = match(rules, leaves, what="sharding")
    return tree_from_paths(
        {path: NamedSharding(mesh, _spec(path, leaf.shape, mesh, placements[path])) for path, leaf in leaves.items()}
    )


def follow(tree: Any, params: Mapping[str, Any], shardings: Mapping[str, Any], mesh: Mesh) -> Any:
    """Returns the sharding of every leaf of a training state: optimizer slots are split like their parameters.

    A leaf belongs to a parameter if its path ends in the parameter's ("…/mu/text/norm/scale") and the shapes are equal.
    Other leaves (counts, batch statistics) are small, and replicated.
    """
    shapes, places = paths_of(params), paths_of(shardings)

    def place(path: Any, leaf: Any) -> NamedSharding:
        words = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        for start in range(len(words)):
            name = "/".join(words[start:])
            if name in shapes and shapes[name].shape == leaf.shape:
                found: NamedSharding = places[name]
                return found
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, tree)


def bytes_per_device(tree: Any, shardings: Any) -> int:
    """Returns the bytes of arrays, or of shapes, that one device holds under `shardings`."""
    leaves = zip(jax.tree.leaves(tree), jax.tree.leaves(shardings), strict=True)
    return sum(math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf, place in leaves)


def _spec(path: str, shape: tuple[int, ...], mesh: Mesh, placement: Placement) -> PartitionSpec:
    if placement == "copy":
        return PartitionSpec()
    parts = [part.split("+") if part != "-" else [] for part in placement.split(",")]
    named = [axis for part in parts for axis in part]
    for axis in named:
        if axis not in mesh.shape:
            raise JclipError(f"sharding of {path}: the mesh has no axis {axis!r}, only {', '.join(mesh.shape)}")
        if named.count(axis) > 1:
            raise JclipError(f"sharding of {path}: {placement!r} names {axis} twice: an axis splits one dimension")
    if len(parts) == 1:
        return _along_one(shape, named, mesh)
    if len(parts) != len(shape):
        raise JclipError(
            f"sharding of {path}: {placement!r} names {len(parts)} dimensions, but the shape is {shape}: give 'fsdp', "
            "'copy', or axes or - for each"
        )
    return PartitionSpec(*(_over(_dividing(size, axes, mesh)) for size, axes in zip(shape, parts, strict=True)))


def _along_one(shape: tuple[int, ...], axes: list[str], mesh: Mesh) -> PartitionSpec:
    """Splits the dimension that divides over the most devices; among equals, the largest."""
    # XLM-R's table has 250002 rows, which no power of two above 2 divides, so its width is split.
    found = [_dividing(size, axes, mesh) for size in shape]
    best = max(range(len(shape)), key=lambda i: (_ways(found[i], mesh), shape[i]), default=None)
    return PartitionSpec(*(_over(some) if i == best else None for i, some in enumerate(found)))


def _dividing(size: int, axes: list[str], mesh: Mesh) -> tuple[str, ...]:
    """Returns the subset of the axes that divides a dimension into the most parts."""
    real = [axis for axis in axes if mesh.shape[axis] > 1]
    choices = [some for count in range(len(real) + 1) for some in itertools.combinations(real, count)]
    return max((some for some in choices if size % _ways(some, mesh) == 0), key=lambda some: _ways(some, mesh))


def _ways(axes: tuple[str, ...], mesh: Mesh) -> int:
    return math.prod(mesh.shape[axis] for axis in axes)


def _over(axes: tuple[str, ...]) -> str | tuple[str, ...] | None:
    """Returns the axes of one dimension in PartitionSpec's form."""
    return axes if len(axes) > 1 else axes[0] if axes else None
