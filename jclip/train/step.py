"""One optimizer step: a loss, differentiated with respect to the trainable parameters only."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from jclip.optimizer import clamp_logit_scale
from jclip.stages import Batch, Constants, Loss, Metrics
from jclip.train.layout import merge
from jclip.train.state import TrainState

Step = Callable[[TrainState, Constants, Batch, jax.Array], tuple[TrainState, Metrics]]
"""(state, constants, batch, key) -> the next state, metrics."""


def make_step(loss: Loss, optimizer: optax.GradientTransformation) -> Step:
    """Returns the pure training step of a loss, for `jax.jit` under the mesh."""

    def step(state: TrainState, constants: Constants, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        def loss_of(trainable: dict[str, Any]) -> tuple[jax.Array, tuple[Metrics, Any]]:
            return loss(merge(trainable, state.frozen), state.stats, constants, batch, key)

        (value, (metrics, stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.trainable)
        updates, slots = optimizer.update(gradients, state.slots, state.trainable)
        trainable = clamp_logit_scale(optax.apply_updates(state.trainable, updates))
        metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradients), **metrics}
        return TrainState(trainable, state.frozen, stats, slots), metrics

    return step


def in_micro_batches(encode: Callable[..., Any], count: int, *inputs_b: jax.Array) -> Any:
    """Encodes a batch in `count` micro-batches, one after another, with exact gradients (GradCache, Gao et al. 2021).

    The backward pass encodes each micro-batch again; the loss sees the features of the whole batch. `encode` must treat
    examples independently, dropout included.

    Args:
      encode: inputs -> a pytree of arrays (b, ...).
      count: number of micro-batches. It divides the batch; the devices divide the size of a micro-batch.
      inputs_b: arrays (b, ...).
    """
    if count == 1:
        return encode(*inputs_b)
    # The micro-batch is the inner of the two axes, so that each one is split over all devices like the batch.
    parts = [x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1) for x in inputs_b]
    outputs = jax.lax.map(lambda part: jax.checkpoint(encode)(*part), parts)
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), outputs)
