"""How arrays lie on the mesh: the batch over the devices that split it, parameters by a table of rules."""

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jclip.errors import JclipError
from jclip.models.spread import BATCH_AXES
from jclip.parallel.processes import is_first_process
from jclip.rules import match, paths_of, tree_from_paths

Placement = str
"""Of a parameter, in words that a command line can give: "copy", whole on every device; "fsdp", split over that mesh
axis along the largest dimension that it divides, and so "fsdp+tensor" over two; or axes for each dimension, "-" where
it stays whole: "-,fsdp,tensor".

What does not divide is no error: it is copied over the axes that do not divide it, and `jclip.parallel.replication`
tells how much that is."""

Rules = tuple[tuple[str, Placement], ...]
"""Ordered (path regex, placement)."""


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first dimension over the axes "data" and "fsdp"."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_devices(mesh: Mesh) -> int:
    """Into how many parts a batch is split."""
    return math.prod(mesh.shape[name] for name in BATCH_AXES)


def local_rows(batch_size: int, mesh: Mesh) -> list[int]:
    """The rows of a global batch that lie on this process's devices, ascending.

    A tensor axis that spans processes gives the same rows to several of them.
    """
    places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    parts = {tuple(range(batch_size)[place[0]]) for place in places.values() if place}
    return sorted(row for part in parts for row in part)


def place_whole(tree: Any, shardings: Any) -> Any:
    """Host arrays on the mesh, where `shardings` (nested alike) says: from each process only what its devices hold.

    `jax.device_put` would compare all of it between the processes first, which sends it to every device.
    """
    return jax.tree.map(
        lambda leaf, at: jax.make_array_from_callback(np.shape(leaf), at, lambda index: np.asarray(leaf)[index]),
        tree,
        shardings,
    )


def place_rows(rows: np.ndarray, batch_size: int, mesh: Mesh) -> jax.Array:
    """A global batch on the mesh, from this process's `local_rows` of it, first dimension first."""
    at = {row: number for number, row in enumerate(local_rows(batch_size, mesh))}

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        return rows[[at[row] for row in range(batch_size)[index[0]]]]

    return jax.make_array_from_callback((batch_size, *rows.shape[1:]), batch_sharding(mesh), part)


def whole(tree: Any, mesh: Mesh) -> Any:
    """Arrays as numpy on the first process, None elsewhere, one after another. Every process must call it."""

    def fetch(leaf: jax.Array) -> np.ndarray | None:
        if not leaf.is_fully_addressable and not leaf.is_fully_replicated:
            leaf = jax.jit(lambda x: x, out_shardings=replicated(mesh))(leaf)
        return np.asarray(leaf) if is_first_process() else None

    return jax.tree.map(fetch, tree)


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Raises JclipError unless the devices that split a batch get equal parts of it."""
    devices = batch_devices(mesh)
    left = batch_size % devices
    if batch_size < 1 or left:
        below, above = batch_size - left, batch_size - left + devices
        use = f"{below} or {above}" if below > 0 else f"{max(above, devices)}"
        raise JclipError(f"batch of {batch_size} is not divisible by {devices} devices: use {use}")


def check_rules(rules: Rules, mesh: Mesh) -> None:
    """Raises JclipError when the mesh has a tensor axis that no rule uses: its devices would all do the same work."""
    size = mesh.shape["tensor"]
    if size > 1 and not any("tensor" in re.split("[,+]", placement) for _, placement in rules):
        raise JclipError(
            f"a mesh with tensor={size} needs sharding rules that use the axis, and none does: give one such as "
            "('text/layers/mlp/fc1/kernel', '-,fsdp,tensor'), none at all for the towers' own, or set mesh.tensor to 1"
        )


def param_shardings(shapes: Mapping[str, Any], mesh: Mesh, rules: Rules) -> dict[str, Any]:
    """The sharding of every parameter: for `jax.jit(init, out_shardings=...)`, so that no device ever holds them all.

    Args:
      shapes: nested dicts of arrays, or of what `jax.eval_shape` gives.
      mesh: from `make_mesh`.
      rules: ordered (path regex, placement).

    Returns:
      Nested dicts like `shapes`.

    Raises:
      RuleError: a parameter without a rule, or a rule without a parameter.
      JclipError: a placement that is none on this mesh, or for another number of dimensions; it names the parameter.
    """
    leaves = paths_of(shapes)
    placements = match(rules, leaves, what="sharding")
    return tree_from_paths(
        {path: NamedSharding(mesh, _spec(path, leaf.shape, mesh, placements[path])) for path, leaf in leaves.items()}
    )


def follow(tree: Any, params: Mapping[str, Any], shardings: Mapping[str, Any], mesh: Mesh) -> Any:
    """The sharding of every leaf of a training state: optimizer slots lie where their parameters lie.

    A leaf belongs to the parameter whose path its own ends in ("…/mu/text/norm/scale") if it has that one's shape. What
    belongs to none (counts, batch statistics) is small, and copied.

    Args:
      tree: any pytree of arrays or shapes.
      params, shardings: the parameters' shapes and what `param_shardings` gives for them.
      mesh: from `make_mesh`.
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
    """What one device holds of arrays, or of shapes, that lie as `shardings` says."""
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
    """Along the dimension that the most devices divide, and of several such the largest."""
    # XLM-R's table has 250002 rows, which no power of two above 2 divides: then its width is split instead.
    found = [_dividing(size, axes, mesh) for size in shape]
    best = max(range(len(shape)), key=lambda i: (_ways(found[i], mesh), shape[i]), default=None)
    return PartitionSpec(*(_over(some) if i == best else None for i, some in enumerate(found)))


def _dividing(size: int, axes: list[str], mesh: Mesh) -> tuple[str, ...]:
    """Those of the axes that together divide a dimension into the most parts."""
    real = [axis for axis in axes if mesh.shape[axis] > 1]
    choices = [some for count in range(len(real) + 1) for some in itertools.combinations(real, count)]
    return max((some for some in choices if size % _ways(some, mesh) == 0), key=lambda some: _ways(some, mesh))


def _ways(axes: tuple[str, ...], mesh: Mesh) -> int:
    return math.prod(mesh.shape[axis] for axis in axes)


def _over(axes: tuple[str, ...]) -> str | tuple[str, ...] | None:
    """As PartitionSpec wants it."""
    return axes if len(axes) > 1 else axes[0] if axes else None
