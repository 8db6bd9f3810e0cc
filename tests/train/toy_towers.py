"""Two small matrices in place of the towers: for what an objective does around them."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jclip.stages import Context
from jclip.train.objectives.teacher_learning import TeacherLearning

WIDTH = 24


@dataclass(frozen=True)
class ToyTowers:
    """Has what objectives use of `DualEncoder`. Dropout is by example, as the real towers' is."""

    config: Any
    dtype: Any = jnp.float32

    def clone(self, **changes):
        return self

    def apply(self, variables, x, *, method, rows_b=None, rngs=None, mutable=None, train=False):
        params = variables["params"]
        if method == "encode_image":
            out = jnp.tanh(x.mean(axis=(1, 2)) @ params["image"]["kernel"])
        else:
            out = jnp.tanh(params["text"]["table"][x].mean(axis=1))
        if rows_b is not None:
            keys = jax.vmap(lambda row: jax.random.fold_in(rngs["dropout"], row))(rows_b)
            out = out * jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, out.shape[1:]))(keys)
        return out if mutable is None else (out, {})


def toy_params(vocab_size=1000, bias=None):
    draw = jax.random.normal
    params = {
        "image": {"kernel": draw(jax.random.key(1), (3, WIDTH))},
        "text": {"table": draw(jax.random.key(2), (vocab_size, WIDTH))},
        "logit_scale": jnp.array(1.5),
    }
    return params if bias is None else {**params, "logit_bias": jnp.array(bias)}


def toy_program(part, objective=None, **changes):
    """The program of a stage's objective on toy towers; `changes` are of the stage."""
    stage = replace(part.stage, **changes)
    context = Context(stage, ToyTowers(part.run.model), part.run.preprocessing, part.trains, part.mesh)
    return (objective or stage.objective).program(context)


def toy_batch(size=16, length=12, side=32, seed=0):
    """Arrays of both objectives' batches; the teacher's states are given."""
    key = jax.random.key(seed)
    ids = jax.random.randint(key, (size, length), 1, 1000)
    number = jnp.arange(size, dtype=jnp.int32)
    pixels = jax.random.randint(key, (size, side, side, 3), 0, 255).astype(jnp.uint8)
    target = jax.random.normal(key, (size, WIDTH))
    pairs = {"image": pixels, "text": ids, "image_id": number, "text_id": number + 100, "example": number}
    return pairs | {"student": ids, "target": target}


def is_taught(part):
    return isinstance(part.stage.objective, TeacherLearning)
