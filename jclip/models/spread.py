"""Sharding of activations by example, and gathering of parameters."""

import math

import jax
import jax.numpy as jnp
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
    mesh, axes = jax.sharding.get_abstract_mesh(), _batch_axes()
    if not axes or len(x) % math.prod(mesh.shape[name] for name in axes):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes))


def gathered(x: jax.Array) -> jax.Array:
    """Returns a parameter, gathered on every device of the mesh. Its gradient is not. Without a mesh, returns `x`."""
    return _gathered(x) if _batch_axes() else x


@jax.custom_vjp
def _gathered(x: jax.Array) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, PartitionSpec())


# The transpose of the constraint would gather the gradient too.
_gathered.defvjp(lambda x: (_gathered(x), None), lambda _, gradient: (gradient,))


def gathered_along(kernel: jax.Array, axis: int) -> jax.Array:
    """Returns a kernel, gathered along one axis; its gradient is computed whole along it. Without a mesh, `kernel`.

    Otherwise XLA may compute each device's part of a gradient from the states of the whole batch, which devices then
    exchange.
    """
    if not _batch_axes():
        return kernel
    free = PartitionSpec.UNCONSTRAINED
    spec = PartitionSpec(*(None if number == axis else free for number in range(kernel.ndim)))
    return jax.lax.with_sharding_constraint(kernel, spec)


def rows_of(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Returns the rows `ids` (b, ...) of an embedding table (n, d): (b, ..., d); NaN for an id outside it.

    On a mesh, devices exchange whatever is smaller. A table that is smaller than the rows that the whole batch takes is
    gathered, as other parameters are; XLA alone would look all rows of the batch up in each part of the table, and send
    those. If it is smaller than the rows that one device takes, devices also sum their gradients of the whole table;
    otherwise they send the gradients of the rows to the parts of the table.
    """
    if axes := _batch_axes():
        devices = math.prod(jax.sharding.get_abstract_mesh().shape[name] for name in axes)
        if len(table) <= min(ids.size // devices, _LARGEST_GATHERED):
            table = jax.lax.with_sharding_constraint(table, PartitionSpec())
        elif len(table) <= min(ids.size, _LARGEST_GATHERED):
            table = gathered(table)
    return by_example(jnp.take(table, ids, axis=0))


_LARGEST_GATHERED = 2**16
"""Rows of a table that a device may hold whole: Chinese-CLIP's 21128 and CLIP's 49408, but not XLM-R's 250002."""


def _batch_axes() -> tuple[str, ...]:
    """Returns the axes of the current mesh that split a batch and that XLA splits over."""
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(
        name
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if name in BATCH_AXES and kind == AxisType.Auto
    )
