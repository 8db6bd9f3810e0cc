"""Sharding of activations: each example on the devices that hold its row of the batch."""

import math

import jax
from jax.sharding import AxisType, PartitionSpec

from jclip.axes import BATCH_AXES


def by_example(x: jax.Array) -> jax.Array:
    """Returns `x` (b, ...) with its first dimension split over the batch's axes and the others whole.

    Called where a tensor-parallel pair of matrices begins and ends: the operators f and g of Megatron (Shoeybi et al.
    2019, section 3). Without these constraints XLA

      - splits the states as the matrices are split over "fsdp", and sends states where it should gather weights;
      - computes wrong numbers, in jax 0.10 on axes of 2 x 2 x 2, for a product that sums over "tensor" and whose result
        is split over "tensor". Such a product never arises between these constraints.

    Without a mesh, or if the batch does not divide, `x` is returned unchanged.
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
