"""Sharding of activations by example."""

import math

import jax
from jax.sharding import AxisType, PartitionSpec

from jclip.axes import BATCH_AXES


def by_example(x: jax.Array) -> jax.Array:
    """Constrains `x` (b, ...) so that only its first dimension is split, over the batch's axes.

    Called before and after each tensor-parallel pair of matrices: the operators f and g of Megatron (Shoeybi et al.
    2019, section 3). Without these constraints XLA

      - splits the states like the matrices, over "fsdp", and sends states instead of gathering weights;
      - computes wrong numbers (jax 0.10, a mesh of 2 x 2 x 2) for a product that sums over "tensor" and whose result is
        split over "tensor". The constraints prevent such products.

    Without a mesh, or if the batch does not divide, returns `x` unchanged.
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
