"""The forms of a contrastive loss: how every image of the batch meets every text.

All forms multiply each block of images and texts once, for both directions, and keep tallies of it (see `kinds`).

  dense    all logits at once; under `jit` XLA splits them over the devices. Memory grows with the square of the batch.
  chunked  every device holds its images; the texts are gathered from all devices, a chunk at a time.
  ring     every device holds its images; the texts travel from device to device, with what is known of them.

The last two keep for the backward pass only what they were given and the tallies, and let everything meet again. So a
device's memory grows with its share of the batch, and with nothing else.

Axes: b global batch, r rows (images), c columns (texts), d features, k kinds of id.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jclip.losses.kinds import Kind

Tallies = tuple[Any, Any]
"""What is known of the images and of the texts."""


_PADDING = -1
"""The place in the batch of what only fills up a part."""


class Side(NamedTuple):
    """Images or texts: features, and ids, of which the first is the pair's place in the batch."""

    features_bd: jax.Array
    ids_bk: jax.Array


@dataclass(frozen=True)
class Blocks:
    """How a block is looked at.

    Attributes:
      kind: of the loss.
      positives: whether pairs that share an id are positives; otherwise they do not count.
    """

    kind: Kind
    positives: bool

    def look(self, images: Side, texts: Side, bias: jax.Array | None, known: Tallies | None = None) -> Tallies:
        """The tallies of a block, from one matmul; `known` as in `Kind.look`."""
        # float32 products of bfloat16 passes, the default on some devices, are 0.06 off at a scale of 100.
        highest = jax.lax.Precision.HIGHEST
        logits_rc = jnp.einsum("rd,cd->rc", images.features_bd, texts.features_bd, precision=highest)
        if bias is not None:
            logits_rc += bias
        alike = [images.ids_bk[:, None, k] == texts.ids_bk[None, :, k] for k in range(images.ids_bk.shape[1])]
        shared_rc = jnp.zeros(logits_rc.shape, bool)
        for alike_rc in alike[1:]:
            shared_rc |= alike_rc
        others_rc = ~alike[0] & (texts.ids_bk[None, :, 0] != _PADDING)
        positive_rc = shared_rc & others_rc if self.positives else None
        return self.kind.look(logits_rc, ~shared_rc & others_rc, positive_rc, known)


def dense(images: Side, texts: Side, bias: jax.Array | None, *, blocks: Blocks) -> Tallies:
    """The tallies of all images and all texts; the logits are the products of their features, plus the bias."""
    return blocks.look(images, texts, bias)


def chunked(
    images: Side, texts: Side, bias: jax.Array | None, *, blocks: Blocks, axes: tuple[str, ...], chunk: int
) -> Tallies:
    """As `dense`, on one device of `shard_map` over `axes`, for its share of the images and texts.

    `chunk` is how many columns it reads at once, and never less than one from each device.
    """
    devices = jax.lax.axis_size(axes)

    def home(tally: Any) -> Any:
        # Every device gets from every other what that one knows of its columns.
        split = jax.tree.map(lambda x: x.reshape(devices, -1), tally)
        return jax.tree.map(partial(jax.lax.all_to_all, axis_name=axes, split_axis=0, concat_axis=0), split).merged()

    meeting = _Meeting(
        blocks,
        width=max(chunk // devices, 1),
        fetch=partial(jax.tree.map, partial(jax.lax.all_gather, axis_name=axes, tiled=True)),
        home=home,
        home_gradient=partial(jax.lax.psum_scatter, axis_name=axes, tiled=True),
    )

    def there(batch: _Batch, blank: Tallies) -> Tallies:
        return meeting.there(batch, blank[0])

    def back(batch: _Batch, known: Tallies, wanted: Tallies, zeros: _Gradients) -> _Gradients:
        return meeting.back(batch, known, wanted, zeros)

    return _differentiable(there, back, blocks, axes)(_Batch(images, texts, bias))


def ring(
    images: Side, texts: Side, bias: jax.Array | None, *, blocks: Blocks, axes: tuple[str, ...], chunk: int
) -> Tallies:
    """As `chunked`, but nothing is ever gathered: the texts of one device after another come by."""
    devices = jax.lax.axis_size(axes)
    neighbours = [(i, (i + 1) % devices) for i in range(devices)]
    onward = partial(jax.tree.map, partial(jax.lax.ppermute, axis_name=axes, perm=neighbours))
    meeting = _Meeting(blocks, width=chunk)

    # Texts are sent on while they are read: the next round's do not wait for what this one computes.
    def there(batch: _Batch, blank: Tallies) -> Tallies:
        def visit(carry: tuple, _: None) -> tuple[tuple, None]:
            of_images, of_texts, texts = carry
            of_images, more = meeting.there(batch._replace(texts=texts), of_images)
            return (of_images, *onward((_joined(of_texts, more), texts))), None

        return jax.lax.scan(visit, (*blank, batch.texts), length=devices)[0][:2]

    def back(batch: _Batch, known: Tallies, wanted: Tallies, zeros: _Gradients) -> _Gradients:
        def visit(carry: tuple, _: None) -> tuple[tuple, None]:
            sums, texts, of_texts, texts_wanted = carry
            here = batch._replace(texts=texts)
            more = meeting.back(here, (known[0], of_texts), (wanted[0], texts_wanted), sums)
            to_texts, *others = onward((sums.texts + more.texts, texts, of_texts, texts_wanted))
            return (more._replace(texts=to_texts), *others), None

        return jax.lax.scan(visit, (zeros, batch.texts, known[1], wanted[1]), length=devices)[0][0]

    return _differentiable(there, back, blocks, axes)(_Batch(images, texts, bias))


class _Batch(NamedTuple):
    """What the logits are made of."""

    images: Side
    texts: Side
    bias: jax.Array | None


class _Gradients(NamedTuple):
    """Of the features and the bias of a `_Batch`."""

    images: jax.Array
    texts: jax.Array
    bias: jax.Array | None


def _same(x: Any) -> Any:
    return x


@dataclass(frozen=True)
class _Meeting:
    """Images that meet texts, a part of them at a time, so that few logits exist at once.

    Attributes:
      blocks: how a block is looked at.
      width: so many of the given texts are one part.
      fetch: from a part to what the images meet in its place.
      home: from a tally of what was fetched to one of the part.
      home_gradient: from a gradient of what was fetched to one of the part.
    """

    blocks: Blocks
    width: int
    fetch: Callable[[Any], Any] = _same
    home: Callable[[Any], Any] = _same
    home_gradient: Callable[[jax.Array], jax.Array] = _same

    def there(self, batch: _Batch, of_images: Any) -> Tallies:
        """The tallies of the images, those known before included, and of the texts."""

        def visit(of_images: Any, part: Side) -> Tallies:
            more, of_texts = self.blocks.look(batch.images, self.fetch(part), batch.bias)
            return _joined(of_images, more), self.home(of_texts)

        of_images, of_texts = jax.lax.scan(visit, of_images, self._parts(batch.texts))
        return of_images, _whole(of_texts, len(batch.texts.ids_bk))

    def back(self, batch: _Batch, known: Tallies, wanted: Tallies, sums: _Gradients) -> _Gradients:
        """The gradients of the images and the bias, those of before included, and of the texts alone.

        Args:
          batch: as it was given to `there`.
          known: its tallies over the whole batch.
          wanted: the gradients of the loss in these.
          sums: the gradients of before.
        """

        def visit(sums: tuple, part: tuple) -> tuple[tuple, jax.Array]:
            texts, of_texts, texts_wanted = self.fetch(part)

            def again(images_rd: jax.Array, texts_cd: jax.Array, bias: jax.Array | None) -> Tallies:
                sides = Side(images_rd, batch.images.ids_bk), Side(texts_cd, texts.ids_bk)
                return self.blocks.look(*sides, bias, (known[0], of_texts))

            _, pull = jax.vjp(again, batch.images.features_bd, texts.features_bd, batch.bias)
            to_images, to_texts, to_bias = pull((wanted[0], texts_wanted))
            return jax.tree.map(jnp.add, sums, (to_images, to_bias)), self.home_gradient(to_texts)

        parts = self._parts((batch.texts, known[1], wanted[1]))
        (to_images, to_bias), to_texts = jax.lax.scan(visit, (sums.images, sums.bias), parts)
        return _Gradients(to_images, _whole(to_texts, len(batch.texts.ids_bk)), to_bias)

    def _parts(self, texts: Any) -> Any:
        """Arrays over texts as arrays (parts, texts of a part), in parts as equal as can be."""
        size = len(jax.tree.leaves(texts)[0])
        count = -(-size // self.width)
        width = -(-size // count)

        def split(x: jax.Array) -> jax.Array:
            padding = [(0, count * width - size)] + [(0, 0)] * (x.ndim - 1)
            fill = _PADDING if jnp.issubdtype(x.dtype, jnp.integer) else 0
            return jnp.pad(x, padding, constant_values=fill).reshape(count, width, *x.shape[1:])

        return jax.tree.map(split, texts)


def _whole(parts: Any, size: int) -> Any:
    """The inverse of `_Meeting._parts`."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:size], parts)


def _joined(one: Any, other: Any) -> Any:
    """The tally of two tallies of the same rows or columns."""
    return jax.tree.map(lambda *both: jnp.stack(both), one, other).merged()


def _differentiable(
    there: Callable[[_Batch, Tallies], Tallies],
    back: Callable[[_Batch, Tallies, Tallies, _Gradients], _Gradients],
    blocks: Blocks,
    axes: tuple[str, ...],
) -> Callable[[_Batch], Tallies]:
    """`there`, with `back` for its gradient: autodiff would keep what every visit began with, all texts among it."""

    def varying(tree: Any) -> Any:
        # Arrays made here are the same on all devices until they are said to differ.
        return jax.tree.map(partial(jax.lax.pcast, axis_name=axes, to="varying"), tree)

    @jax.custom_vjp
    def form(batch: _Batch) -> Tallies:
        return there(batch, varying(blocks.kind.blank(len(batch.images.ids_bk))))

    def forward(batch: _Batch) -> tuple[Tallies, tuple[_Batch, Tallies]]:
        known = form(batch)
        return known, (batch, known)

    def backward(kept: tuple[_Batch, Tallies], wanted: Tallies) -> tuple[_Batch]:
        batch, known = kept
        like = _Gradients(batch.images.features_bd, batch.texts.features_bd, batch.bias)
        zeros = varying(jax.tree.map(lambda x: jnp.zeros(x.shape), like))
        gradients = back(batch, known, wanted, zeros)
        of_ids: Any = None  # integers have no gradient
        return (_Batch(Side(gradients.images, of_ids), Side(gradients.texts, of_ids), gradients.bias),)

    form.defvjp(forward, backward)
    # A bias that is said to differ per device has its gradients summed over the devices.
    return lambda batch: form(batch._replace(bias=varying(batch.bias)))
