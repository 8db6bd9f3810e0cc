"""How arrays lie on the mesh: the batch over the devices that split it, parameters by a table of rules."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jclip.errors import JclipError
from jclip.rules import match, paths_of, tree_from_paths

Placement = tuple[str | None, ...] | Literal["fsdp"] | None
"""Of a parameter: a mesh axis (or None) for each dimension; "fsdp", the largest dimension that divides over that axis;
None, a whole copy on every device."""

Rules = Sequence[tuple[str, Placement]]

REPLICATED: Rules = ((".*", None),)
FSDP: Rules = ((".*", "fsdp"),)

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


def _spec(path: str, shape: tuple[int, ...], mesh: Mesh, placement: Placement) -> PartitionSpec:
    if placement is None:
        return PartitionSpec()
    if placement == "fsdp":
        return _largest(shape, mesh)
    if not isinstance(placement, tuple):
        raise JclipError(f"sharding of {path}: {placement!r} is unknown: give 'fsdp', None, or an axis a dimension")
    if len(placement) != len(shape):
        raise JclipError(f"sharding of {path}: {placement} names {len(placement)} dimensions, but the shape is {shape}")
    for size, axis in zip(shape, placement, strict=True):
        if axis is None:
            continue
        if axis not in mesh.shape:
            raise JclipError(f"sharding of {path}: the mesh has no axis {axis!r}, only {', '.join(mesh.shape)}")
        if size % mesh.shape[axis]:
            raise JclipError(
                f"sharding of {path}: {size} of {shape} is not divisible by {mesh.shape[axis]} ({axis}): "
                "place it by 'fsdp' or None"
            )
    return PartitionSpec(*placement)


def _largest(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    # XLM-R's table has 250002 rows, which no power of two above 2 divides: then its width is split instead. What
    # nothing divides (the logit scale, odd biases) is small, and is copied.
    fitting = [i for i, size in enumerate(shape) if size % mesh.shape["fsdp"] == 0]
    if not fitting or mesh.shape["fsdp"] == 1:
        return PartitionSpec()
    chosen = max(fitting, key=lambda i: shape[i])
    return PartitionSpec(*("fsdp" if i == chosen else None for i in range(len(shape))))
