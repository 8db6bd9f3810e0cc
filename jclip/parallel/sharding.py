"""How arrays lie on the mesh: the batch over the devices that split it, parameters by a table of rules."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jclip.errors import JclipError
from jclip.rules import match, paths_of, tree_from_paths

Placement = str
"""Of a parameter: "fsdp", its largest dimension that divides is split over that axis; "copy", a whole copy on every
device; or a mesh axis for each dimension, "-" where it stays whole: "-,-,tensor". Words, so that a command line can
give them."""

Rules = Sequence[tuple[str, Placement]]

REPLICATED: Rules = ((".*", "copy"),)
FSDP: tuple[tuple[str, Placement], ...] = ((".*", "fsdp"),)

BATCH_AXES = ("data", "fsdp")
"""The mesh axes over which a batch is split."""


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first dimension over the axes "data" and "fsdp"."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Raises JclipError unless the devices that split a batch get equal parts of it."""
    devices = math.prod(mesh.shape[name] for name in BATCH_AXES)
    left = batch_size % devices
    if batch_size < 1 or left:
        below, above = batch_size - left, batch_size - left + devices
        use = f"{below} or {above}" if below > 0 else f"{max(above, devices)}"
        raise JclipError(f"batch of {batch_size} is not divisible by {devices} devices: use {use}")


def check_rules(rules: Rules, mesh: Mesh) -> None:
    """Raises JclipError when the mesh has a tensor axis that no rule uses: its devices would all do the same work."""
    size = mesh.shape["tensor"]
    if size > 1 and not any("tensor" in placement.split(",") for _, placement in rules):
        raise JclipError(
            f"a mesh with tensor={size} needs sharding rules that use the axis, and none does: give one such as "
            "('text/layers/mlp/.*/kernel', '-,-,tensor'), or set mesh.tensor to 1"
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
      JclipError: a placement that does not fit the parameter or the mesh; it names the parameter.
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
    if placement == "fsdp":
        return _largest(shape, mesh)
    axes = placement.split(",")
    if len(axes) != len(shape):
        raise JclipError(
            f"sharding of {path}: {placement!r} names {len(axes)} dimensions, but the shape is {shape}: give 'fsdp', "
            "'copy', or an axis or - for each"
        )
    for size, axis in zip(shape, axes, strict=True):
        if axis == "-":
            continue
        if axis not in mesh.shape:
            raise JclipError(f"sharding of {path}: the mesh has no axis {axis!r}, only {', '.join(mesh.shape)}")
        if axes.count(axis) > 1:
            raise JclipError(f"sharding of {path}: {placement!r} names {axis} twice: an axis splits one dimension")
        if size % mesh.shape[axis]:
            raise JclipError(
                f"sharding of {path}: {size} of {shape} is not divisible by {mesh.shape[axis]} ({axis}): "
                "place it by 'fsdp' or 'copy'"
            )
    return PartitionSpec(*(None if axis == "-" else axis for axis in axes))


def _largest(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    # XLM-R's table has 250002 rows, which no power of two above 2 divides: then its width is split instead. What
    # nothing divides (the logit scale, odd biases) is small, and is copied.
    fitting = [i for i, size in enumerate(shape) if size % mesh.shape["fsdp"] == 0]
    if not fitting or mesh.shape["fsdp"] == 1:
        return PartitionSpec()
    chosen = max(fitting, key=lambda i: shape[i])
    return PartitionSpec(*("fsdp" if i == chosen else None for i in range(len(shape))))
