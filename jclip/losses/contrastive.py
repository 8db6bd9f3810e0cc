"""The contrastive loss over the global batch (Radford et al. 2021, figure 3), exactly, in three forms.

All forms read each block of the logits once, for both directions, and keep of it only what a softmax over the negatives
needs: per row and per column the largest logit and a sum of exponentials relative to it. With s the logit of a pair and
n the log of the summed exponentials of its negatives, the pair's cross-entropy is log(e^s + e^n) - s = softplus(n - s).

  dense    all logits at once; under `jit` XLA splits them over the devices. Memory grows with the square of the batch.
  chunked  every device holds its images and gathers all texts, and reads its rows of logits in blocks of columns.
  ring     every device holds its images; the texts travel from device to device, with what is known of their columns.

Axes: b global batch, r rows (images), c columns (texts), d features, k kinds of id.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from jclip.errors import JclipError
from jclip.losses.unit import unit

Impl = Literal["dense", "chunked", "ring"]

_MASKED = -1e30
"""The logit of what is not a negative. Finite, so that no maximum over it gives inf - inf."""

_TIE = 1e-6
"""Cosines closer than this are equal as far as float32 can tell."""


def contrastive_loss(
    image_bd: jax.Array,
    text_bd: jax.Array,
    logit_scale: jax.Array,
    *,
    impl: Impl = "dense",
    mesh: Mesh | None = None,
    axis: str | tuple[str, ...] | None = None,
    chunk: int | None = None,
    image_ids_b: jax.Array | None = None,
    text_ids_b: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean of the image-to-text and text-to-image cross-entropies, in float32.

    Args:
      image_bd, text_bd: features of any scale and float dtype; row i of each is a pair.
      logit_scale: scalar, the logarithm of the factor on the cosines.
      impl: how it is computed; the value is the same.
      mesh: the devices, needed by "chunked" and "ring".
      axis: the mesh's axes over which the batch is split; when None, those of "data" and "fsdp" that the mesh has.
      chunk: how many columns of logits "chunked" and "ring" hold at once on a device, 1024 when None.
      image_ids_b, text_ids_b: integers below 2**31; two pairs that share an image id or a text id are not each other's
        negatives.

    Returns:
      The loss, and in-batch recalls {"image_to_text_r1", "text_to_image_r1"}, which take no gradient: the share of
      pairs that score higher than all their negatives. A tie is a miss, so features all alike, or NaN, score 0.

    Raises:
      JclipError: features or ids of unequal shapes, no mesh, an axis that it lacks, or a batch that does not divide.
    """
    size = _check(image_bd, text_bd, image_ids_b, text_ids_b)
    z_bd, w_bd = unit(image_bd), unit(text_bd)
    scale = jnp.exp(jnp.asarray(logit_scale, jnp.float32))
    # A pair is not its own negative for the same reason that duplicates are not: an id is shared.
    kinds = [jnp.arange(size), *(ids for ids in (image_ids_b, text_ids_b) if ids is not None)]
    ids_bk = jnp.stack([jnp.asarray(ids, jnp.int32) for ids in kinds], axis=1)
    if impl == "dense":
        return _finish(_dense(scale * z_bd, w_bd, ids_bk), scale)
    forms = {"chunked": _chunked, "ring": _ring}
    if impl not in forms:
        raise JclipError(f"there is no contrastive loss {impl!r}: choose dense, chunked or ring")
    axes = _axes(impl, mesh, axis, size)
    if chunk is not None and chunk < 1:
        raise JclipError(f"impl={impl!r}: a chunk of {chunk} columns is none: give 1 or more")
    split = PartitionSpec(axes)
    form = jax.shard_map(
        partial(forms[impl], axes=axes, chunk=chunk or 1024), mesh=mesh, in_specs=(split,) * 3, out_specs=(split,) * 3
    )
    # Inside shard_map, jax.checkpoint works under jit only; a jit inside a jit costs nothing.
    return _finish(jax.jit(form)(scale * z_bd, w_bd, ids_bk), scale)


class _Negatives(NamedTuple):
    """The negatives of some rows or columns: their largest logit, and the sum of exp(logit - largest)."""

    largest: jax.Array
    total: jax.Array

    def joined(self, others: "_Negatives") -> "_Negatives":
        """With other negatives of the same rows or columns."""
        largest = jnp.maximum(self.largest, others.largest)
        mine = self.total * jnp.exp(self.largest - largest)
        return _Negatives(largest, mine + others.total * jnp.exp(others.largest - largest))


_Form = tuple[jax.Array, _Negatives, _Negatives]
"""The pairs' own logits, and the negatives of their images and of their texts, each (b,)."""


def _finish(form: _Form, scale: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    own_b, images, texts = form
    image_to_text_b, text_to_image_b = (
        jax.nn.softplus(negatives.largest + jnp.log(negatives.total) - own_b) for negatives in (images, texts)
    )
    metrics = {}
    for name, negatives in (("image_to_text_r1", images), ("text_to_image_r1", texts)):
        margin_b = jax.lax.stop_gradient(own_b) - negatives.largest
        metrics[name] = (margin_b > _TIE * jax.lax.stop_gradient(scale)).mean(dtype=jnp.float32)
    return (image_to_text_b.mean() + text_to_image_b.mean()) / 2, metrics


def _dense(z_bd: jax.Array, w_bd: jax.Array, ids_bk: jax.Array) -> _Form:
    return _own(z_bd, w_bd), *_block(z_bd, ids_bk, w_bd, ids_bk)


def _chunked(z_rd: jax.Array, w_rd: jax.Array, ids_rk: jax.Array, *, axes: tuple[str, ...], chunk: int) -> _Form:
    """On one device of `shard_map`: its rows against all columns."""
    w_cd = jax.lax.all_gather(w_rd, axes, tiled=True)
    ids_ck = jax.lax.all_gather(ids_rk, axes, tiled=True)
    images, part = _blocks(z_rd, ids_rk, w_cd, ids_ck, chunk)
    # What this device saw of all columns, joined with what the others saw; of the result each keeps its own columns.
    largest_c = jax.lax.pmax(part.largest, axes)
    total_c = part.total * jnp.exp(part.largest - largest_c)
    total_r = jax.lax.psum_scatter(total_c, axes, tiled=True)
    start = jax.lax.axis_index(axes) * len(z_rd)
    largest_r = jax.lax.dynamic_slice_in_dim(largest_c, start, len(z_rd))
    return _own(z_rd, w_rd), images, _Negatives(largest_r, total_r)


def _ring(z_rd: jax.Array, w_rd: jax.Array, ids_rk: jax.Array, *, axes: tuple[str, ...], chunk: int) -> _Form:
    """On one device of `shard_map`: its rows against one device's columns after another's."""
    devices = jax.lax.axis_size(axes)
    onward = partial(jax.lax.ppermute, axis_name=axes, perm=[(i, (i + 1) % devices) for i in range(devices)])

    def meet(carry: tuple, _: None) -> tuple[tuple, None]:
        images, *travelling = carry
        texts, w_cd, ids_ck = jax.tree.map(onward, tuple(travelling))
        more_images, more_texts = _blocks(z_rd, ids_rk, w_cd, ids_ck, chunk)
        return (images.joined(more_images), texts.joined(more_texts), w_cd, ids_ck), None

    images, texts = _blocks(z_rd, ids_rk, w_rd, ids_rk, chunk)
    (images, texts, _, _), _ = jax.lax.scan(meet, (images, texts, w_rd, ids_rk), length=devices - 1)
    # The last step, without the texts: what is known of the columns comes home.
    return _own(z_rd, w_rd), images, _Negatives(*map(onward, texts))


def _own(z_bd: jax.Array, w_bd: jax.Array) -> jax.Array:
    return (z_bd * w_bd).sum(axis=1)


def _blocks(
    z_rd: jax.Array, ids_rk: jax.Array, w_cd: jax.Array, ids_ck: jax.Array, chunk: int
) -> tuple[_Negatives, _Negatives]:
    """`_block` without ever holding more than `chunk` columns of logits, forward or backward."""
    block = jax.checkpoint(partial(_block, z_rd, ids_rk))
    columns = len(w_cd)
    if columns <= chunk:
        return block(w_cd, ids_ck)
    # Columns of padding have ids below 0.
    padding = ((0, -columns % chunk), (0, 0))
    w_ncd = jnp.pad(w_cd, padding).reshape(-1, chunk, w_cd.shape[1])
    ids_nck = jnp.pad(ids_ck, padding, constant_values=-1).reshape(-1, chunk, ids_ck.shape[1])
    rows, cols = jax.lax.map(lambda part: block(*part), (w_ncd, ids_nck))
    largest_r = rows.largest.max(axis=0)
    total_r = (rows.total * jnp.exp(rows.largest - largest_r)).sum(axis=0)
    return _Negatives(largest_r, total_r), _Negatives(*(x.reshape(-1)[:columns] for x in cols))


def _block(z_rd: jax.Array, ids_rk: jax.Array, w_cd: jax.Array, ids_ck: jax.Array) -> tuple[_Negatives, _Negatives]:
    """The negatives that some columns are to some rows, and these rows to the columns."""
    # float32 products of bfloat16 passes, the default on some devices, are 0.06 off at a scale of 100.
    logits_rc = jnp.einsum("rd,cd->rc", z_rd, w_cd, precision=jax.lax.Precision.HIGHEST)
    # The first kind of id is the pair's place in the batch, which only padding has below 0.
    masked_rc = (ids_ck[:, 0] < 0)[None, :]
    for kind in range(ids_rk.shape[1]):
        masked_rc = masked_rc | (ids_rk[:, None, kind] == ids_ck[None, :, kind])
    logits_rc = jnp.where(masked_rc, _MASKED, logits_rc)
    largest_r1, largest_1c = (jax.lax.stop_gradient(logits_rc).max(axis=i, keepdims=True) for i in (1, 0))
    return (
        _Negatives(largest_r1[:, 0], jnp.exp(logits_rc - largest_r1).sum(axis=1)),
        _Negatives(largest_1c[0], jnp.exp(logits_rc - largest_1c).sum(axis=0)),
    )


def _check(image_bd: jax.Array, text_bd: jax.Array, *ids: jax.Array | None) -> int:
    if image_bd.ndim != 2 or image_bd.shape != text_bd.shape:
        raise JclipError(f"image features {image_bd.shape} and text features {text_bd.shape} must be equal (b, d)")
    for some in ids:
        if some is not None and some.shape != image_bd.shape[:1]:
            raise JclipError(
                f"ids of shape {some.shape} do not fit a batch of {len(image_bd)} pairs: give one for each"
            )
    return len(image_bd)


def _axes(impl: str, mesh: Mesh | None, axis: str | tuple[str, ...] | None, size: int) -> tuple[str, ...]:
    if mesh is None:
        raise JclipError(f"impl={impl!r} needs a mesh: give one, or choose impl='dense'")
    if axis is None:
        axes = tuple(name for name in ("data", "fsdp") if name in mesh.shape)
    else:
        axes = (axis,) if isinstance(axis, str) else axis
    if not axes or not set(axes) <= set(mesh.shape):
        raise JclipError(f"impl={impl!r}: the mesh has the axes {', '.join(mesh.shape)}, but not {axis or 'data'!r}")
    devices = 1
    for name in axes:
        devices *= mesh.shape[name]
    if size % devices:
        raise JclipError(
            f"impl={impl!r}: a batch of {size} is not divisible by the {devices} devices of {'×'.join(axes)}: "
            "change its size, or choose impl='dense'"
        )
    return axes
