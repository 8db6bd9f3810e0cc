"""Where activations lie on a mesh, if there is one: each example's on the device that has its row of the batch."""

import math

import jax
from jax.sharding import AxisType, PartitionSpec

BATCH_AXES = ("data", "fsdp")
"""The mesh axes over which a batch is split."""


def by_example(x: jax.Array) -> jax.Array:
    """`x` (b, ...), with its first dimension split over the batch's axes and no other; as it is where there is no mesh.

    Without this anchor XLA takes the split of a matrix over "fsdp" for a wish to split the states likewise, and sends
    activations around where it should gather weights.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(
        name
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if name in BATCH_AXES and kind == AxisType.Auto
    )
    if not axes or len(x) % math.prod(mesh.shape[name] for name in axes):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes))
