"""Which frozen parameters a step reads, and in which precision; a step of what it reads is the same to the bit."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip import rules
from jclip.configs.loading import load_config
from jclip.images.on_host import HostAugmentation
from jclip.models.derivatives import tapped, untapped
from jclip.models.spread import gathered
from jclip.train.reads import frozen_reads, with_frozen_reads
from jclip.train.state import TrainState
from tests.train.assembled import assembled, first_inputs, shapes_of

KEY = jax.random.key(7)
LOW = jnp.bfloat16
X = jax.ShapeDtypeStruct((6, 4), LOW)


def exactly(jitted, *inputs):
    """Runs a function that XLA compiles without omitting conversions to bfloat16."""
    return jitted.lower(*inputs).compile({"xla_allow_excess_precision": False})(*inputs)


def low_product(kernel, x):
    return x @ kernel.astype(LOW)


def scanned(kernels, x):
    return jax.lax.scan(lambda x, kernel: (low_product(kernel[0], x), None), x, kernels[:, None])[0]


def tapped_and_scanned(kernels, x):
    return jax.lax.scan(lambda x, kernel: (x @ untapped(kernel), None), x, tapped(kernels, LOW))[0]


def in_parts(kernel, x):
    parts = x.reshape(2, 3, 4)
    return jax.lax.map(lambda part: jax.checkpoint(lambda part: jnp.sin(low_product(kernel, part)))(part), parts)


def carried(kernel, x):
    return jax.lax.scan(lambda kernel, _: (kernel.T, low_product(kernel, x)), kernel, None, length=2)[1]


def read_next_round(kernel, x):
    return jax.lax.scan(lambda total, _: (kernel[0], total.sum()), x[0].astype(jnp.float32), None, length=2)


def chosen(kernel, x):
    return jax.lax.cond(x.sum() > 0, lambda: low_product(kernel, x), lambda: x)


@jax.custom_vjp
def gradient_in_float32(kernel, x):
    return low_product(kernel, x)


gradient_in_float32.defvjp(
    lambda kernel, x: (low_product(kernel, x), kernel), lambda kernel, g: (None, (g @ kernel.T).astype(LOW))
)


@pytest.mark.parametrize(
    ("reads", "shape", "dtype"),
    [
        (low_product, (4, 4), LOW),
        (lambda kernel, x: low_product(kernel.T.reshape(2, 8)[:, :4].reshape(4, 2), x), (4, 4), LOW),
        (lambda table, x: table[jnp.arange(3)].astype(LOW), (5, 4), LOW),
        (lambda table, x: jnp.take(table, jnp.arange(3), axis=0).astype(LOW), (5, 4), LOW),
        (lambda kernel, x: low_product(gathered(kernel), x), (4, 4), LOW),
        (jax.jit(low_product), (4, 4), LOW),
        (scanned, (3, 4, 4), LOW),
        (tapped_and_scanned, (3, 4, 4), LOW),
        (in_parts, (4, 4), LOW),
        (lambda bias, x: x + bias, (4,), jnp.float32),
        (lambda kernel, x: low_product(kernel, x).sum() + kernel.sum(), (4, 4), jnp.float32),
        (lambda kernel, x: kernel.astype(jnp.float16), (4, 4), jnp.float32),
        (lambda kernel, x: jnp.concatenate([kernel, kernel]).astype(LOW), (4, 4), jnp.float32),
        (carried, (4, 4), jnp.float32),
        (read_next_round, (4, 4), jnp.float32),
        (chosen, (4, 4), jnp.float32),
        (gradient_in_float32, (4, 4), jnp.float32),
        (lambda kernel, x: jnp.zeros(kernel.shape), (4, 4), None),
        (lambda kernel, x: jax.lax.scan(lambda x, kernel: (x, None), x, kernel)[0], (4, 4), None),
    ],
)
def test_what_is_read(reads, shape, dtype):
    """The parameter w trains, and its gradient passes through what is frozen."""

    def step(state, constants, batch, key):
        def loss_of(w):
            found = reads(state.frozen["a"]["read"], jnp.sin(batch["x"] * w.astype(LOW)))
            return sum(leaf.astype(jnp.float32).sum() for leaf in jax.tree.leaves(found))

        value, gradient = jax.value_and_grad(loss_of)(state.trainable["w"])
        return state._replace(trainable={"w": state.trainable["w"] - gradient}), {"loss": value}

    frozen = {"a": {"other": jax.ShapeDtypeStruct((2,), jnp.float32), "read": jax.ShapeDtypeStruct(shape, jnp.float32)}}
    state = TrainState({"w": jax.ShapeDtypeStruct((), jnp.float32)}, frozen, {}, {})
    inputs = {}, {"x": X}, KEY
    found = frozen_reads(step, LOW, state, *inputs)
    leaves = {path: (leaf.shape, leaf.dtype) for path, leaf in rules.paths_of(found).items()}
    assert leaves == ({} if dtype is None else {"a/read": (shape, dtype)})
    assert rules.paths_of(frozen_reads(step, jnp.float32, state, *inputs)).keys() == leaves.keys()
    after, _ = jax.eval_shape(with_frozen_reads(step, frozen), state._replace(frozen=found), *inputs)
    assert after.frozen == found
    if dtype == LOW:
        draw = jax.tree.map(lambda leaf: jax.random.normal(KEY, leaf.shape).astype(leaf.dtype), (state, inputs[1]))
        (whole, batch), (run, narrow) = draw, (jax.jit(step), jax.jit(with_frozen_reads(step, frozen)))
        low = whole._replace(frozen={"a": {"read": whole.frozen["a"]["read"].astype(LOW)}})
        (expected, loss), (other, again) = exactly(run, whole, {}, batch, KEY), exactly(narrow, low, {}, batch, KEY)
        assert (other.trainable, again) == (expected.trainable, loss)


def test_what_the_recipes_read(chinese_clip, altclip, own_memory):
    """Towers compute in bfloat16 with matrices, and in float32 with norms. AltCLIP's stage 1 has no images."""
    part = shapes_of(replace(chinese_clip, dtype="bfloat16"))
    read, frozen = (rules.paths_of(tree) for tree in (part.read, part.state_shapes.frozen))
    assert read.keys() == frozen.keys() and all(path.startswith("image/") for path in read)
    wide = {path for path, leaf in read.items() if leaf.dtype == jnp.float32}
    assert wide == {path for path in read if "norm/" in path} | {"image/class_embedding", "image/position_embedding"}
    assert all(leaf.dtype == LOW for path, leaf in read.items() if path not in wide)
    assert part.with_remat("layers").taken == part.taken
    teacher = shapes_of(replace(altclip, dtype="bfloat16"))
    assert any(path.startswith("image/") for path in rules.paths_of(teacher.state_shapes.frozen))
    assert teacher.read == {}
    objective = replace(chinese_clip.stages[0].objective, host_augmentation=HostAugmentation())
    cached = replace(chinese_clip.stages[0], objective=objective, cache="cache")
    assert shapes_of(replace(chinese_clip, stages=(cached,))).read == {}
    assert shapes_of(chinese_clip, 1).read == {}  # everything trains


@pytest.mark.parametrize(("name", "stage"), [("chinese_clip/vit_b_16", 0), ("altclip/vit_l_14", 1)])
def test_what_published_recipes_read(name, stage, own_memory):
    run = load_config(name)
    stages = tuple(replace(each, batch_size=16, micro_batches=1) for each in run.stages)
    read = rules.paths_of(shapes_of(replace(run, stages=stages), stage).read)
    matrices = {path: leaf.dtype for path, leaf in read.items() if path.endswith("kernel")}
    assert matrices == dict.fromkeys(matrices, LOW) and len(matrices) > 6


def test_a_cpus_step_takes_everything(altclip):
    part = shapes_of(replace(altclip, dtype="bfloat16"))
    assert rules.paths_of(part.read).keys() == rules.paths_of(part.state_shapes.frozen).keys()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(part.read))


@pytest.mark.slow
def test_a_step_is_the_same_to_the_bit(recipe, monkeypatch):
    run = replace(recipe, dtype="bfloat16")
    plain = assembled(run)
    monkeypatch.setattr("jclip.train.assembly.have_own_memory", lambda mesh: True)
    apart = assembled(run)
    found = []
    for part in (plain, apart):
        with jax.set_mesh(part.mesh):
            state, constants, batch = first_inputs(part)
            found.append(jax.device_get(exactly(part.compiled, part.taken_of(state), constants, batch, KEY)))
    (expected, metrics), (other, again) = found
    assert again == metrics
    for one, two in zip(
        jax.tree.leaves(other[:1] + other[2:]), jax.tree.leaves(expected[:1] + expected[2:]), strict=True
    ):
        np.testing.assert_array_equal(one, two)
