"""Assembled stages, and programs of objectives on toy towers, for tests of single steps."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from jclip.models.build import init_variables
from jclip.models.dual_encoder import DualEncoder, DualEncoderConfig
from jclip.parallel.sharding import on_mesh
from jclip.stages import Context
from jclip.train.assembly import assemble, devices_of, open_stage, open_tokenizer
from tests.toys import ToyImageConfig, ToyTextConfig

WIDTH = 24
MODEL = DualEncoderConfig(ToyImageConfig(width=WIDTH), ToyTextConfig(vocab_size=1000, width=WIDTH, dropout=0.5), WIDTH)


def assembled(run, index=0, *, devices=None):
    """Returns a stage that is ready to run, on the first `devices` devices or on all."""
    on = devices_of(run, jax.devices()[:devices])
    return assemble(run, index, on, open_stage(run, index, on, open_tokenizer(run)))


_MADE = {}


def assemble_once(run, index, devices, inputs=None):
    """Works like `assemble`, but reuses the compiled step of a toy's stage that was assembled before."""
    stage = run.stages[index]
    if not isinstance(run.model.image, ToyImageConfig) or stage.budget.steps is None:
        return assemble(run, index, devices, inputs)
    facts = (run.model, run.dtype, run.remat, run.preprocessing, devices.rules, devices.mesh, devices.own_memory)
    key = repr((index, stage, *facts))
    if key not in _MADE:
        _MADE[key] = assemble(run, index, devices, inputs)
    return replace(_MADE[key], run=run, devices=devices, inputs=inputs)


def shapes_of(run, index=0, *, devices=None):
    """Returns a stage of shapes, without arrays."""
    return assemble(run, index, devices_of(run, jax.devices()[:devices]))


def lowered_step(run, index=0, *, devices=None):
    """Returns a stage's step, lowered from shapes on the first `devices` devices or on all."""
    part = shapes_of(run, index, devices=devices)
    state = on_mesh(part.state_shapes, part.shardings)
    with jax.set_mesh(part.mesh):
        key = jax.eval_shape(lambda: jax.random.key(0))
        return part.compiled.lower(state, part.program.constants, part.program.batch, key)


def first_inputs(part):
    """Returns the state, constants and batch of a stage's first step. Call it in the context of the mesh."""
    return part.start(), part.constants(), part.place(part.open_batches()[0])


def toy_params(bias=None):
    """Returns parameters of `MODEL`, with a logit bias if it is given."""
    return init_variables(replace(MODEL, logit_bias_init=bias), jax.random.key(1))["params"]


def toy_program(part, objective=None, **changes):
    """Returns the program of a stage's objective on the towers of `MODEL`; `changes` apply to the stage."""
    stage = replace(part.stage, **changes)
    context = Context(stage, DualEncoder(MODEL), part.run.preprocessing, part.trains, part.mesh)
    return (objective or stage.objective).program(context)


def toy_batch(size=16, length=12, side=32, seed=0):
    """Returns the arrays of both objectives' batches, the teacher's states among them."""
    key = jax.random.key(seed)
    ids = jax.random.randint(key, (size, length), 1, 1000)
    number = jnp.arange(size, dtype=jnp.int32)
    pixels = jax.random.randint(key, (size, side, side, 3), 0, 255).astype(jnp.uint8)
    target = jax.random.normal(key, (size, WIDTH))
    pairs = {"image": pixels, "text": ids, "image_id": number, "text_id": number + 100, "example": number}
    return pairs | {"student": ids, "target": target}
