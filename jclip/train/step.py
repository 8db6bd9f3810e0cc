"""One optimizer step: the objective of a stage, differentiated in its trainable subtree only."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jclip.data.augment import augment
from jclip.data.images import Preprocessing, normalise
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

    A batch holds "image" uint8 (b, h, w, 3), "text" ids (b, l), "image_id", "text_id" and "example" (b,).
    Batch statistics move only when the image tower trains: in Chinese-CLIP's first stage they stay as they are.
    """
    image_trains = any(path.startswith("image/") for path in chosen)

    def objective(
        params: dict[str, Any], stats: dict[str, Any], constants: Constants, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Metrics, Any]]:
        draw, drop = jax.random.split(key)
        images_bhwc = augment(stage.augmentation, batch["image"], draw, batch["example"])
        images_bhwc = normalise(preprocessing, images_bhwc).astype(model.dtype)
        variables = {"params": params, **({"batch_stats": stats} if stats else {})}
        mutable = ["batch_stats"] if stats and image_trains else []
        image_bd, moved = model.apply(
            variables, images_bhwc, train=image_trains, method="encode_image", mutable=mutable
        )
        text_bd: Any = model.apply(
            variables, batch["text"], train=stage.dropout, method="encode_text", rngs={"dropout": drop}
        )
        loss, metrics = contrastive_loss(
            image_bd,
            text_bd,
            params["logit_scale"],
            impl=stage.loss,
            mesh=mesh,
            image_ids_b=batch["image_id"],
            text_ids_b=batch["text_id"],
        )
        metrics["logit_scale"] = jnp.exp(params["logit_scale"])
        return loss, (metrics, moved.get("batch_stats", stats))

    return objective


def teacher_objective(model: DualEncoder, stage: Stage, teacher: DualEncoder) -> Objective:
    """Teacher learning (Chen et al. 2022, section 3.1): the student's text state against the frozen teacher's.

    A batch holds "student" ids (b, l) and "teacher" ids (b, m): the same meaning, the teacher's always in English.
    The teacher's parameters are the constant "teacher".
    """

    def objective(
        params: dict[str, Any], stats: dict[str, Any], constants: Constants, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Metrics, Any]]:
        target_bw: Any = teacher.apply({"params": constants["teacher"]}, batch["teacher"], method="text_state")
        state_bw: Any = model.apply(
            {"params": params}, batch["student"], train=stage.dropout, method="text_state", rngs={"dropout": key}
        )
        loss, metrics = teacher_loss(state_bw, target_bw)
        return loss, (metrics, stats)

    return objective
