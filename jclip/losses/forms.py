"""Forms of the contrastive loss: dense, chunked and ring.

Every form multiplies each block of images and texts once, for both directions, and stores statistics (see `kinds`).

  dense    all logits at once, split over the devices by XLA under `jit`. Memory grows with the square of the batch.
  chunked  every device keeps its images and gathers the texts of all devices, a chunk at a time.
  ring     every device keeps its images; the texts and their statistics are passed on from device to device.

For the backward pass, chunked and ring store only their inputs and the statistics, and recompute the logits. So the
memory of a device grows only with its share of the batch.

Axes: b global batch, r rows (images), c columns (texts), d features, k kinds of id.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jclip.losses.kinds import PairwiseLoss

PairStats = tuple[Any, Any]
"""Statistics of the images and of the texts."""

_PADDING = -1
"""Position of the rows that pad a chunk."""


class Embeddings(NamedTuple):
    """Features of images or texts, and their ids. The first id is the position in the batch."""

    features_bd: jax.Array
    ids_bk: jax.Array


@dataclass(frozen=True)
class Blocks:
    """Computation of a block of logits.

    Attributes:
      loss: loss whose statistics are computed.
      positives: True if pairs that share an id are positives; otherwise they do not count.
    """

    loss: PairwiseLoss
    positives: bool

    def reduce(
        self, images: Embeddings, texts: Embeddings, bias: jax.Array | None, total: PairStats | None = None
    ) -> PairStats:
        """Computes a block of logits (images are rows) and reduces it to statistics; `total` as in `PairwiseLoss`."""
        # On some devices the default product of float32 has bfloat16 precision: 0.06 off at a scale of 100.
        highest = jax.lax.Precision.HIGHEST
        logits_rc = jnp.einsum("rd,cd->rc", images.features_bd, texts.features_bd, precision=highest)
        if bias is not None:
            logits_rc += bias
        own_rc, *equal = (images.ids_bk[:, None, k] == texts.ids_bk[None, :, k] for k in range(images.ids_bk.shape[1]))
        shared_rc = jnp.zeros(logits_rc.shape, bool)
        for equal_rc in equal:
            shared_rc |= equal_rc
        others_rc = ~own_rc & (texts.ids_bk[None, :, 0] != _PADDING)
        positive_rc = shared_rc & others_rc if self.positives else None
        return self.loss.reduce(logits_rc, ~shared_rc & others_rc, positive_rc, total)


def dense(images: Embeddings, texts: Embeddings, bias: jax.Array | None, *, blocks: Blocks) -> PairStats:
    """Computes the statistics of all images and texts in one block."""
    return blocks.reduce(images, texts, bias)


def chunked(
    images: Embeddings, texts: Embeddings, bias: jax.Array | None, *, blocks: Blocks, axes: tuple[str, ...], chunk: int
) -> PairStats:
    """Computes the statistics of one device's images and texts under `shard_map`, gathering texts in chunks.

    Args:
      images, texts: this device's shares.
      bias, blocks: as in `dense`.
      axes: axes of the mesh that split the batch.
      chunk: number of texts that are gathered at once; at least one from each device.
    """
    devices = jax.lax.axis_size(axes)

    def scatter(stats: Any) -> Any:
        # Each device sends every other its statistics of the other's texts.
        split = jax.tree.map(lambda x: x.reshape(devices, -1), stats)
        return jax.tree.map(partial(jax.lax.all_to_all, axis_name=axes, split_axis=0, concat_axis=0), split).merged()

    sweep = _Sweep(
        blocks,
        width=max(chunk // devices, 1),
        gather=partial(jax.tree.map, partial(jax.lax.all_gather, axis_name=axes, tiled=True)),
        scatter=scatter,
        scatter_gradient=partial(jax.lax.psum_scatter, axis_name=axes, tiled=True),
    )

    def forward(batch: _Batch, empty: PairStats) -> PairStats:
        return sweep.forward(batch, empty[0])

    return _differentiable(forward, sweep.backward, blocks, axes)(_Batch(images, texts, bias))


def ring(
    images: Embeddings, texts: Embeddings, bias: jax.Array | None, *, blocks: Blocks, axes: tuple[str, ...], chunk: int
) -> PairStats:
    """Computes the same as `chunked` without gathering: texts are passed around the ring of devices.

    A device holds the logits of `chunk` texts at once.
    """
    devices = jax.lax.axis_size(axes)
    neighbours = [(i, (i + 1) % devices) for i in range(devices)]
    pass_on = partial(jax.tree.map, partial(jax.lax.ppermute, axis_name=axes, perm=neighbours))
    sweep = _Sweep(blocks, width=chunk)

    # Texts are passed on while they are read, so that the next round does not wait for this one's result.
    def forward(batch: _Batch, empty: PairStats) -> PairStats:
        def visit(carry: tuple, _: None) -> tuple[tuple, None]:
            image_stats, text_stats, texts = carry
            image_stats, more = sweep.forward(batch._replace(texts=texts), image_stats)
            return (image_stats, *pass_on((_merged(text_stats, more), texts))), None

        return jax.lax.scan(visit, (*empty, batch.texts), length=devices)[0][:2]

    def backward(batch: _Batch, total: PairStats, cotangents: PairStats, zeros: _Gradients) -> _Gradients:
        def visit(carry: tuple, _: None) -> tuple[tuple, None]:
            sums, texts, text_stats, text_cotangents = carry
            visited = batch._replace(texts=texts)
            more = sweep.backward(visited, (total[0], text_stats), (cotangents[0], text_cotangents), sums)
            to_texts, *others = pass_on((sums.texts + more.texts, texts, text_stats, text_cotangents))
            return (more._replace(texts=to_texts), *others), None

        return jax.lax.scan(visit, (zeros, batch.texts, total[1], cotangents[1]), length=devices)[0][0]

    return _differentiable(forward, backward, blocks, axes)(_Batch(images, texts, bias))


class _Batch(NamedTuple):
    """Inputs of the logits."""

    images: Embeddings
    texts: Embeddings
    bias: jax.Array | None


class _Gradients(NamedTuple):
    """Gradients of the features and the bias of a `_Batch`."""

    images: jax.Array
    texts: jax.Array
    bias: jax.Array | None


def _identity(x: Any) -> Any:
    return x


@dataclass(frozen=True)
class _Sweep:
    """Pass over the texts in chunks, each with all images of this device, which bounds the logits in memory.

    Attributes:
      blocks: computation of a block.
      width: number of this device's texts in a chunk.
      gather: maps a chunk to the texts of the block.
      scatter: maps statistics of these texts to those of the chunk.
      scatter_gradient: maps gradients of these texts to those of the chunk.
    """

    blocks: Blocks
    width: int
    gather: Callable[[Any], Any] = _identity
    scatter: Callable[[Any], Any] = _identity
    scatter_gradient: Callable[[jax.Array], jax.Array] = _identity

    def forward(self, batch: _Batch, image_stats: Any) -> PairStats:
        """Merges the image statistics of this pass into `image_stats`; returns them and those of the texts."""

        def visit(image_stats: Any, chunk: Embeddings) -> PairStats:
            more, text_stats = self.blocks.reduce(batch.images, self.gather(chunk), batch.bias)
            return _merged(image_stats, more), self.scatter(text_stats)

        image_stats, text_stats = jax.lax.scan(visit, image_stats, self._chunks(batch.texts))
        return image_stats, _concatenated(text_stats, len(batch.texts.ids_bk))

    def backward(self, batch: _Batch, total: PairStats, cotangents: PairStats, sums: _Gradients) -> _Gradients:
        """Adds the image and bias gradients to `sums` and returns them with the text gradients of this pass.

        Args:
          batch: the batch of `forward`.
          total: statistics of these images and texts over the whole batch.
          cotangents: gradients of the loss with respect to `total`.
          sums: gradients of the passes before.
        """

        def visit(sums: tuple, chunk: tuple) -> tuple[tuple, jax.Array]:
            texts, text_stats, text_cotangents = self.gather(chunk)

            def recompute(images_rd: jax.Array, texts_cd: jax.Array, bias: jax.Array | None) -> PairStats:
                examples = Embeddings(images_rd, batch.images.ids_bk), Embeddings(texts_cd, texts.ids_bk)
                return self.blocks.reduce(*examples, bias, (total[0], text_stats))

            _, vjp = jax.vjp(recompute, batch.images.features_bd, texts.features_bd, batch.bias)
            to_images, to_texts, to_bias = vjp((cotangents[0], text_cotangents))
            return jax.tree.map(jnp.add, sums, (to_images, to_bias)), self.scatter_gradient(to_texts)

        chunks = self._chunks((batch.texts, total[1], cotangents[1]))
        (to_images, to_bias), to_texts = jax.lax.scan(visit, (sums.images, sums.bias), chunks)
        return _Gradients(to_images, _concatenated(to_texts, len(batch.texts.ids_bk)), to_bias)

    def _chunks(self, texts: Any) -> Any:
        """Splits arrays over texts into chunks of equal size, (chunks, texts of a chunk); pads the last one."""
        size = len(jax.tree.leaves(texts)[0])
        count = -(-size // self.width)
        width = -(-size // count)

        def split(x: jax.Array) -> jax.Array:
            padding = [(0, count * width - size)] + [(0, 0)] * (x.ndim - 1)
            fill = _PADDING if jnp.issubdtype(x.dtype, jnp.integer) else 0
            return jnp.pad(x, padding, constant_values=fill).reshape(count, width, *x.shape[1:])

        return jax.tree.map(split, texts)


def _concatenated(chunks: Any, size: int) -> Any:
    """Undoes `_Sweep._chunks`."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:size], chunks)


def _merged(one: Any, other: Any) -> Any:
    """Merges two statistics of the same rows or columns."""
    return jax.tree.map(lambda *both: jnp.stack(both), one, other).merged()


def _differentiable(
    forward: Callable[[_Batch, PairStats], PairStats],
    backward: Callable[[_Batch, PairStats, PairStats, _Gradients], _Gradients],
    blocks: Blocks,
    axes: tuple[str, ...],
) -> Callable[[_Batch], PairStats]:
    """Returns `forward` with `backward` as its gradient; autodiff would store the inputs of every block."""

    def varying(tree: Any) -> Any:
        # Inside shard_map, new arrays count as equal on all devices unless they are cast.
        return jax.tree.map(partial(jax.lax.pcast, axis_name=axes, to="varying"), tree)

    @jax.custom_vjp
    def form(batch: _Batch) -> PairStats:
        return forward(batch, varying(blocks.loss.empty(len(batch.images.ids_bk))))

    def save(batch: _Batch) -> tuple[PairStats, tuple[_Batch, PairStats]]:
        total = form(batch)
        return total, (batch, total)

    def pull_back(saved: tuple[_Batch, PairStats], cotangents: PairStats) -> tuple[_Batch]:
        batch, total = saved
        like = _Gradients(batch.images.features_bd, batch.texts.features_bd, batch.bias)
        zeros = varying(jax.tree.map(lambda x: jnp.zeros(x.shape), like))
        gradients = backward(batch, total, cotangents, zeros)
        no_gradient: Any = None  # for the ids, which are integers
        return (
            _Batch(Embeddings(gradients.images, no_gradient), Embeddings(gradients.texts, no_gradient), gradients.bias),
        )

    form.defvjp(save, pull_back)
    # The gradient of a bias that varies over the devices is summed over them.
    return lambda batch: form(batch._replace(bias=varying(batch.bias)))
