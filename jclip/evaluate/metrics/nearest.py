"""Nearest neighbours in a large gallery, on the devices of the mesh, a block of scores at a time.

Devices compute in float32, which cannot tell equal cosines from slightly different ones. So this module returns
candidates, and an upper bound on the cosines of all other rows that holds despite rounding. `recall` then decides in
float64: over the candidates, or over the whole gallery if the bound is not sufficient.

Axes: q queries, g gallery, d features, k kept, b a block of the gallery.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

GALLERY_BLOCK, QUERY_BLOCK = 4096, 1024
"""Size of a device's block of scores: 16 MiB."""


def candidates(query_qd: Floats, gallery_gd: Floats, k: int) -> Iterator[tuple[slice, Ints, Floats]]:
    """Yields the k nearest gallery rows by float32 cosine, in blocks of queries.

    The gallery is split over all devices of the mesh (`jax.set_mesh`); without a mesh one device computes. All
    processes must call with the same features, and each gets the complete result.

    Args:
      query_qd, gallery_gd: rows of unit norm, or of zeros.
      k: number of candidates; at most the gallery's size.

    Yields:
      Rows of the block; (q, min(k, g)) indices into the gallery; and for each query an upper bound on the true cosines
      of all other gallery rows.
    """
    gallery, width = gallery_gd.shape
    k = min(k, gallery)
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        mesh = Mesh(np.array(jax.local_devices()[:1]), ("data",))
    share = -(-gallery // mesh.size)
    block = min(GALLERY_BLOCK, share)
    share = -(-share // block) * block
    split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    copied = NamedSharding(mesh, PartitionSpec())

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        if index is None:
            raise TypeError("the sharding names no rows")
        rows = gallery_gd[index[0]].astype(np.float32)
        wanted = len(range(share * mesh.size)[index[0]])
        return np.pad(rows, ((0, wanted - len(rows)), (0, 0)))

    spread_gd = jax.make_array_from_callback((share * mesh.size, width), split, part)
    size = min(QUERY_BLOCK, len(query_qd))
    # The error of the dot product of two unit rows of width d, rounded to float32, is at most (d + 4) 2**-24 in any
    # order of summation. It is doubled for devices that emulate float32 with smaller formats.
    doubt = (width + 4) * 2.0**-23
    for start in range(0, len(query_qd), size):
        rows = query_qd[start : start + size].astype(np.float32)
        filled_qd = np.pad(rows, ((0, size - len(rows)), (0, 0)))
        asked_qd = jax.make_array_from_callback(filled_qd.shape, copied, filled_qd.__getitem__)
        found = _search(asked_qd, spread_gd, mesh=mesh, count=gallery, k=k, block=block)
        scores_qk, indices_qk = (np.asarray(one)[: len(rows)] for one in found)
        bound_q = np.full(len(rows), -np.inf) if k == gallery else scores_qk[:, -1].astype(np.float64) + doubt
        yield slice(start, start + len(rows)), indices_qk.astype(np.int64), bound_q


@partial(jax.jit, static_argnames=("mesh", "count", "k", "block"))
def _search(
    query_qd: jax.Array, gallery_gd: jax.Array, *, mesh: Mesh, count: int, k: int, block: int
) -> tuple[jax.Array, jax.Array]:
    """Returns (scores_qk, indices_qk), best first, on all devices; gallery rows from `count` on are padding."""
    axes = mesh.axis_names

    def best(scores_qb: jax.Array, indices_qb: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores_qk, places_qk = jax.lax.top_k(scores_qb, k)
        return scores_qk, jnp.take_along_axis(indices_qb, places_qk, axis=1)

    def local(query_qd: jax.Array, mine_gd: jax.Array) -> tuple[jax.Array, jax.Array]:
        first = jax.lax.axis_index(axes) * len(mine_gd)

        def merge(kept: tuple[jax.Array, jax.Array], start: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
            block_bd = jax.lax.dynamic_slice_in_dim(mine_gd, start, block)
            scores_qb = jnp.einsum("qd,bd->qb", query_qd, block_bd, precision=jax.lax.Precision.HIGHEST)
            indices_b = first + start + jnp.arange(block)
            scores_qb = jnp.where((indices_b < count)[None, :], scores_qb, -jnp.inf)
            indices_qb = jnp.broadcast_to(indices_b[None, :], scores_qb.shape)
            return best(
                *(jnp.concatenate(pair, axis=1) for pair in zip(kept, (scores_qb, indices_qb), strict=True))
            ), None

        nothing = (jnp.full((len(query_qd), k), -jnp.inf), jnp.full((len(query_qd), k), count, jnp.int32))
        kept, _ = jax.lax.scan(merge, nothing, jnp.arange(0, len(mine_gd), block))
        return best(*(jax.lax.all_gather(one, axes, axis=1, tiled=True) for one in kept))

    spec = PartitionSpec(axes)
    return jax.shard_map(
        local, mesh=mesh, in_specs=(PartitionSpec(), spec), out_specs=PartitionSpec(), check_vma=False
    )(query_qd, gallery_gd)
