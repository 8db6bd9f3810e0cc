"""One optimizer step: the objective of a stage, differentiated in its trainable subtree only."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jclip.images.on_device import augment
from jclip.images.preprocess import Preprocessing, normalise
from jclip.losses.contrastive import contrastive_loss
from jclip.losses.distillation import teacher_loss
from jclip.models.dual_encoder import DualEncoder
from jclip.optimizer import clamp_logit_scale
from jclip.stages import Stage, merge
from jclip.train.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Constants = dict[str, Any]
"""Arrays that a stage reads and never changes, {"teacher": params}: XLA would bake them in if a closure held them."""
Objective = Callable[
    [dict[str, Any], dict[str, Any], Constants, Batch, jax.Array], tuple[jax.Array, tuple[Metrics, Any]]
]
"""(params, stats, constants, batch, key) -> loss, (metrics, new stats)."""
Step = Callable[[TrainState, Constants, Batch, jax.Array], tuple[TrainState, Metrics]]
"""(state, constants, batch, key) -> the next state, metrics."""


def make_step(objective: Objective, optimizer: optax.GradientTransformation) -> Step:
    """The pure step of a stage; `jax.jit` it under the mesh."""

    def step(state: TrainState, constants: Constants, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        def loss_of(trainable: dict[str, Any]) -> tuple[jax.Array, tuple[Metrics, Any]]:
            return objective(merge(trainable, state.frozen), state.stats, constants, batch, key)

        (loss, (metrics, stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.trainable)
        updates, slots = optimizer.update(gradients, state.slots, state.trainable)
        trainable = clamp_logit_scale(optax.apply_updates(state.trainable, updates))
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradients), **metrics}
        return TrainState(trainable, state.frozen, stats, slots), metrics

    return step


def contrastive_objective(
    model: DualEncoder, stage: Stage, preprocessing: Preprocessing, chosen: frozenset[str], mesh: jax.sharding.Mesh
) -> Objective:
    """The contrastive loss over the global batch.

    A batch holds "image" uint8 (b, h, w, 3), "text" ids (b, l), "image_id", "text_id" and "example" (b,); of a cached
    image tower "image_feature" (b, e) instead of "image".
    Batch statistics move only when the image tower trains: in Chinese-CLIP's first stage they stay as they are.
    """
    image_trains = any(path.startswith("image/") for path in chosen)

    def objective(
        params: dict[str, Any], stats: dict[str, Any], constants: Constants, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Metrics, Any]]:
        draw, drop = jax.random.split(key)
        rngs = {"dropout": drop}
        variables = {"params": params, **({"batch_stats": stats} if stats else {})}
        mutable = ["batch_stats"] if stats and image_trains else []

        def encode_image(pixels_bhwc: jax.Array, example_b: jax.Array) -> Any:
            how = {"rows_b": example_b if stage.patch_dropout else None, "rngs": rngs, "mutable": mutable}
            images_bhwc = augment(stage.augmentation, pixels_bhwc, draw, example_b)
            return see(model, preprocessing, variables, images_bhwc, train=image_trains, **how)

        def encode_text(ids_bl: jax.Array, example_b: jax.Array) -> Any:
            rows_b = example_b if stage.dropout else None
            return model.apply(variables, ids_bl, rows_b=rows_b, method="encode_text", rngs=rngs)

        if "image_feature" in batch:
            image_bd, moved = batch["image_feature"].astype(model.compute.dtype), {}
        else:
            image_bd, moved = in_micro_batches(encode_image, stage.micro_batches, batch["image"], batch["example"])
        text_bd = in_micro_batches(encode_text, stage.micro_batches, batch["text"], batch["example"])
        loss, metrics = contrastive_loss(
            image_bd,
            text_bd,
            params["logit_scale"],
            params.get("logit_bias"),
            **dataclasses.asdict(stage.loss),
            mesh=mesh,
            image_ids_b=batch["image_id"],
            text_ids_b=batch["text_id"],
        )
        metrics["scale"] = jnp.exp(params["logit_scale"])
        return loss, (metrics, moved.get("batch_stats", stats))

    return objective


def teacher_objective(model: DualEncoder, stage: Stage, teacher: DualEncoder) -> Objective:
    """Teacher learning (Chen et al. 2022, section 3.1): the student's text state against the frozen teacher's.

    A batch holds "student" ids (b, l) and "teacher" ids (b, m): the same meaning, the teacher's always in English.
    The teacher's parameters are the constant "teacher". Of a cached teacher a batch holds "target" (b, w) instead of
    ids, and there is no constant.
    """

    def objective(
        params: dict[str, Any], stats: dict[str, Any], constants: Constants, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Metrics, Any]]:
        def learn(ids_bl: jax.Array, example_b: jax.Array) -> Any:
            rows_b = example_b if stage.dropout else None
            return model.apply({"params": params}, ids_bl, rows_b=rows_b, method="text_state", rngs={"dropout": key})

        if "target" in batch:
            target_bw = batch["target"]
        else:
            read = partial(teach, teacher, constants["teacher"])
            target_bw = in_micro_batches(read, stage.micro_batches, batch["teacher"])
        state_bw = in_micro_batches(learn, stage.micro_batches, batch["student"], batch["example"])
        loss, metrics = teacher_loss(state_bw, target_bw)
        return loss, (metrics, stats)

    return objective


def see(
    model: DualEncoder, preprocessing: Preprocessing, variables: dict[str, Any], images_bhwc: jax.Array, **how: Any
) -> Any:
    """The image tower's embeddings of pictures in 0..255, (b, e) in the model's dtype; `how` as `apply` takes it."""
    images_bhwc = normalise(preprocessing, images_bhwc.astype(jnp.float32)).astype(model.compute.dtype)
    return model.apply(variables, images_bhwc, method="encode_image", **how)


def teach(teacher: DualEncoder, params: dict[str, Any], ids_bm: jax.Array) -> Any:
    """The teacher's text states, (b, w)."""
    return teacher.apply({"params": params}, ids_bm, method="text_state")


def in_micro_batches(encode: Callable[..., Any], count: int, *inputs_b: jax.Array) -> Any:
    """What `encode` makes of the inputs, `count` micro-batches one after another.

    The backward pass goes through each again, and the loss still sees the features of all (GradCache, Gao et al. 2021),
    so that gradients are those of the whole batch. `encode` must treat examples apart, dropout included.

    Args:
      encode: inputs -> a pytree; with a count above 1, all of it (b, ...).
      count: it divides the batch, and the batch over it divides over the devices.
      inputs_b: (b, ...).
    """
    if count == 1:
        return encode(*inputs_b)
    # The micro-batch is the inner axis of the two, so that each is spread over all devices as the batch is.
    parts = [x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1) for x in inputs_b]
    outputs = jax.lax.map(lambda part: jax.checkpoint(encode)(*part), parts)
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), outputs)
