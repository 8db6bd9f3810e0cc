"""Where activations lie on a mesh, if there is one: an example's on the devices that have its row of the batch."""

import math

import jax
from jax.sharding import AxisType, PartitionSpec

BATCH_AXES = ("data", "fsdp")
"""The mesh axes over which a batch is split."""


def by_example(x: jax.Array) -> jax.Array:
    """`x` (b, ...) with its first dimension split over the batch's axes, and whole otherwise.

    It stands where a tensor-parallel pair of matrices begins and ends, which in Megatron (Shoeybi et al. 2019, section
    3) are the operators f and g. Left to itself, XLA

      - takes a matrix's split over "fsdp" for a wish to split the states likewise, and sends states about where it
        should gather weights;
      - gives wrong numbers, in jax 0.10 on axes of 2 x 2 x 2, for a product that sums over "tensor" with its result
        split over "tensor" too. Such a product never arises between these anchors.

    Without a mesh, or where the batch does not divide, `x` is returned as it is.
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
