"""The step: micro-batches change nothing, a frozen tower costs only its forward pass, and what stays in float32."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from jclip import rules
from jclip.errors import JclipError
from jclip.images.on_device import Augmentation
from jclip.losses.contrastive import ContrastiveLoss
from jclip.models.resnet import ResNetConfig
from jclip.parallel.sharding import on_mesh
from jclip.train.assembly import devices_of
from jclip.train.checks import check
from jclip.train.layout import merge
from jclip.train.planning.flops import count_flops
from jclip.train.step import in_micro_batches
from tests.train.assembled import assembled, first_inputs, shapes_of, toy_batch, toy_params, toy_program

KEY = jax.random.key(7)


def first_stage(run, **changes):
    """Returns the run with only its first stage, changed."""
    return replace(run, stages=(replace(run.stages[0], **changes),))


def with_objective(run, **changes):
    """Returns the run with only its first stage, whose objective is changed."""
    return first_stage(run, objective=replace(run.stages[0].objective, **changes))


def is_contrastive(run):
    return run.stages[0].objective.title == "contrastive"


def gradients(part):
    """Returns the loss and the gradients on the first batch."""
    with jax.set_mesh(part.mesh):
        state, constants, batch = first_inputs(part)

        def loss_of(trainable):
            return part.program.loss(merge(trainable, state.frozen), state.stats, constants, batch, KEY)[0]

        loss, found = jax.jit(jax.value_and_grad(loss_of))(state.trainable)
    return float(loss), {path: np.asarray(leaf) for path, leaf in rules.paths_of(found).items()}


def test_micro_batches_change_nothing(recipe):
    """Checks loss and gradients, with augmentation and dropout, which depend on the example."""
    part, lively = shapes_of(recipe), Augmentation(scale=0.2, rotate=10.0, flip=0.5, hue=20.0)
    changes = {"augmentation": lively, "patch_dropout": 0.5} if is_contrastive(recipe) else {}
    objective = replace(part.stage.objective, **changes)

    def loss_of(**changes):
        loss = toy_program(part, objective, cache="" if is_contrastive(recipe) else "x", **changes).loss
        return lambda params: loss(params, {}, {}, toy_batch(), KEY)[0]

    def gradients(**changes):
        loss, found = jax.jit(jax.value_and_grad(loss_of(**changes)))(toy_params())
        return float(loss), rules.paths_of(found)

    (whole, expected), (parts, found) = gradients(dropout=True), gradients(dropout=True, micro_batches=2)
    assert parts == pytest.approx(whole, rel=1e-6)
    for path, leaf in expected.items():
        np.testing.assert_allclose(found[path], leaf, rtol=0, atol=4e-6 * np.abs(leaf).max() + 1e-9, err_msg=path)
    still = float(jax.jit(loss_of(dropout=False))(toy_params()))
    assert still != pytest.approx(whole, rel=1e-3)  # dropout did act


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_micro_batches_of_the_towers_change_nothing(recipe, devices):
    run = first_stage(replace(recipe, dtype="float32"), batch_size=16, dropout=True)
    if is_contrastive(recipe):
        lively = Augmentation(scale=0.2, rotate=10.0, flip=0.5, hue=20.0)
        run = first_stage(with_objective(run, augmentation=lively, patch_dropout=0.5), trains=((".*", True),))
    assert run.model.text.dropout > 0
    loss, whole = gradients(assembled(run, devices=devices))
    size = np.sqrt(sum(np.square(leaf).sum() for leaf in whole.values()))
    other, parts = gradients(assembled(first_stage(run, micro_batches=2), devices=devices))
    assert other == pytest.approx(loss, rel=1e-6)
    far = {path: np.linalg.norm(parts[path] - leaf) for path, leaf in whole.items()}
    assert np.linalg.norm(list(far.values())) < 1e-6 * size
    for path, leaf in whole.items():
        # The gradients of some biases, above all of keys, are only rounding errors.
        assert far[path] < 5e-6 * max(np.linalg.norm(leaf), 1e-3 * size), path
    # Dropout did act.
    _, plain = gradients(assembled(first_stage(run, dropout=False), devices=devices))
    assert sum(np.linalg.norm(plain[path] - leaf) for path, leaf in whole.items()) > 1e-2 * size


def compiled(part):
    with jax.set_mesh(part.mesh):
        state = on_mesh(part.state_shapes, part.shardings)
        return part.compiled.lower(state, part.program.constants, part.program.batch, KEY).compile()


def test_micro_batches_need_the_memory_of_one():
    def loss(kernel, x, count):
        return in_micro_batches(lambda x: jnp.tanh(jnp.tanh(x @ kernel) @ kernel.T), count, x).sum()

    shape = jax.ShapeDtypeStruct
    gradient = jax.jit(jax.grad(loss), static_argnums=2)
    one, eight = (
        gradient.lower(shape((64, 512), jnp.float32), shape((1024, 64), jnp.float32), count).compile()
        for count in (1, 8)
    )
    assert eight.memory_analysis().temp_size_in_bytes < one.memory_analysis().temp_size_in_bytes / 3


@pytest.mark.slow
def test_micro_batches_of_the_towers_need_the_memory_of_one(recipe):
    sizes = []
    for count in (1, 8):
        part = shapes_of(first_stage(recipe, batch_size=512, micro_batches=count, dropout=True))
        sizes.append(compiled(part).memory_analysis().temp_size_in_bytes)
    assert sizes[1] < sizes[0] / 3, sizes


def test_micro_batches_that_do_not_divide_are_refused(chinese_clip):
    with pytest.raises(JclipError, match="'image-frozen': micro_batches=3 does not divide a batch of 16"):
        check(first_stage(chinese_clip, micro_batches=3))


def test_micro_batches_that_devices_do_not_divide_are_refused(chinese_clip):
    with pytest.raises(JclipError, match="parts of 4 pairs, which 8 devices do not divide: use 2"):
        devices_of(first_stage(chinese_clip, micro_batches=4))


def test_batch_statistics_are_of_the_whole_batch(chinese_clip):
    resnet = ResNetConfig(image_size=32, layers=(1, 1, 1, 1), width=8, heads=4)
    run = replace(chinese_clip, model=replace(chinese_clip.model, image=resnet))
    check(first_stage(run, micro_batches=2))  # its first stage freezes the image tower
    with pytest.raises(
        JclipError, match="'image-frozen' trains an image tower with batch norm, which needs the whole batch"
    ):
        check(first_stage(run, micro_batches=2, trains=((".*", True),)))


def large_enough(run):
    """Returns the run with one wide layer a tower: XLA counts a scan's body once, and the matmuls should dominate."""

    def grown(model):
        image = replace(model.image, layers=1, width=256, heads=4, image_size=64)
        return replace(
            model, image=image, text=replace(model.text, layers=1, width=256, heads=4, **perceptron(model.text))
        )

    def perceptron(text):
        return {"intermediate": 1024} if hasattr(text, "intermediate") else {}

    model = grown(run.model)
    if model.head_width:
        model = replace(model, head_width=256)
    run = replace(run, model=model, preprocessing=replace(run.preprocessing, size=64), dtype="float32")
    if is_contrastive(run):
        run = with_objective(run, loss=ContrastiveLoss("dense"))
    else:
        run = with_objective(run, model=grown(run.stages[0].objective.model))
    optimizer = replace(run.stages[0].optimizer, clip_norm=1.0)
    return first_stage(run, optimizer=optimizer, batch_size=64, dropout=False)


def forwards(part):
    """Returns the forward passes of (frozen, trained) towers: functions of the state, the constants and the batch."""
    model, objective = part.context.towers, part.stage.objective

    def text(name, variables, ids):
        return model.apply(variables, ids, method=name)

    if not is_contrastive(part.run):
        teacher = type(model)(objective.model)
        return (
            lambda state, constants, batch: text_of(teacher, constants["teacher"], batch["teacher"]),
            lambda state, constants, batch: text_of(model, merge(state.trainable, state.frozen), batch["student"]),
        )
    return (
        lambda state, constants, batch: model.apply(
            {"params": state.frozen}, batch["image"].astype(jnp.float32), method="encode_image"
        ),
        lambda state, constants, batch: text("encode_text", {"params": state.trainable}, batch["text"]),
    )


def text_of(model, params, ids):
    return model.apply({"params": params}, ids, method="text_state")


def xla_flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_a_frozen_tower_costs_its_forward_pass(recipe):
    part = shapes_of(large_enough(recipe), devices=1)
    arguments = (part.state_shapes, part.program.constants, part.program.batch)
    frozen, trained = forwards(part)
    with jax.set_mesh(part.mesh):
        bound = count_flops(frozen, *arguments) + 3 * count_flops(trained, *arguments)
        assert count_flops(part.step, *arguments, KEY) == pytest.approx(bound, rel=0.03)


@pytest.mark.slow
def test_a_frozen_tower_costs_its_forward_pass_as_xla_counts(recipe):
    part = shapes_of(large_enough(recipe), devices=1)
    arguments = (part.state_shapes, part.program.constants, part.program.batch)
    frozen, trained = forwards(part)
    with jax.set_mesh(part.mesh):
        forward = xla_flops(frozen, *arguments)
        bound = forward + 3 * xla_flops(trained, *arguments)
        step = compiled(part).cost_analysis()["flops"]
    assert step == pytest.approx(bound, rel=0.03)
    # The bound is tight enough: one more trained tower would be far off.
    assert step < 0.8 * (bound + 2 * forward)


def test_frozen_parameters_have_no_slots(recipe):
    part = shapes_of(first_stage(recipe))
    state = part.state_shapes
    trained = sum(leaf.size for leaf in jax.tree.leaves(state.trainable))
    moments = [leaf.size for leaf in jax.tree.leaves(state.slots) if leaf.dtype == jnp.float32]
    assert sum(moments) == 2 * trained
    words = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.slots)]
    assert not any("'image'" in word for word in words) and any("'text'" in word for word in words)


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr)
        ):
            if isinstance(value, core.ClosedJaxpr):
                yield from equations(value.jaxpr)
            elif isinstance(value, core.Jaxpr):
                yield from equations(value)


def test_what_stays_float32_when_the_towers_compute_in_bfloat16(recipe):
    changes = {"trains": ((".*", True),), "dropout": True}
    part = shapes_of(first_stage(replace(recipe, dtype="bfloat16"), **changes))
    with jax.set_mesh(part.mesh):
        inputs = part.state_shapes, part.program.constants, part.program.batch, KEY
        jaxpr, (state, metrics) = jax.make_jaxpr(part.step, return_shape=True)(*inputs)
    # Master parameters and slots.
    for leaf in jax.tree.leaves((state.trainable, state.frozen, state.slots)):
        assert leaf.dtype == (jnp.int32 if jnp.issubdtype(leaf.dtype, jnp.integer) else jnp.float32)
    assert metrics["loss"].dtype == metrics["gradient_norm"].dtype == jnp.float32
    # Norms (rsqrt), softmaxes (reduce_max) and the loss (log).
    found = {}
    for equation in equations(jaxpr.jaxpr):
        if equation.invars and jnp.issubdtype(equation.invars[0].aval.dtype, jnp.floating):
            found.setdefault(equation.primitive.name, set()).add(str(equation.invars[0].aval.dtype))
    assert found["rsqrt"] == found["reduce_max"] == {"float32"}
    assert not is_contrastive(recipe) or found["log"] == {"float32"}
    # The towers do compute in bfloat16.
    assert "bfloat16" in found["dot_general"]


@pytest.mark.slow
def test_a_step_that_bfloat16_would_round_away_moves_a_parameter(chinese_clip):
    optimizer = replace(chinese_clip.stages[0].optimizer, learning_rate=1e-4, warmup_steps=0, schedule="constant")
    part = assembled(first_stage(replace(chinese_clip, dtype="bfloat16"), optimizer=optimizer))
    with jax.set_mesh(part.mesh):
        state, constants, batch = first_inputs(part)
        before = np.array(state.trainable["text"]["layers"]["attention_norm"]["scale"])
        state, _ = part.compiled(state, constants, batch, KEY)
    moved = np.abs(state.trainable["text"]["layers"]["attention_norm"]["scale"] - before)
    assert 0 < moved.max() < 2.0**-9
