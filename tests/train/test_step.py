"""The step: micro-batches that change nothing, a frozen tower that costs its forward pass, and what stays float32."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from jclip import rules
from jclip.bundle import load_bundle
from jclip.errors import JclipError
from jclip.images.on_device import Augmentation
from jclip.losses.contrastive import ContrastiveLoss
from jclip.models.resnet import ResNetConfig
from jclip.parallel.mesh import make_mesh
from jclip.stages import merge
from jclip.tokenizers.text import load_tokenizer
from jclip.train.assembly import StageParts, check_and_mesh, on_mesh
from jclip.train.checks import check
from jclip.train.planning.flops import count_flops

KEY = jax.random.key(7)


def first_stage(run, **changes):
    """The run with its first stage alone, changed."""
    return replace(run, stages=(replace(run.stages[0], **changes),))


def part_of(run, devices):
    teacher = load_bundle(run.teacher.bundle) if run.teacher else None
    return StageParts(run, 0, make_mesh(devices=jax.devices()[:devices]), load_tokenizer(run.tokenizer), teacher)


def gradients(part):
    """Loss and gradients at the first batch."""
    with jax.set_mesh(part.mesh):
        state, constants, batch = part.start(), part.constants(), part.place(part.batches[0])

        def loss_of(trainable):
            return part.objective(merge(trainable, state.frozen), state.stats, constants, batch, KEY)[0]

        loss, found = jax.jit(jax.value_and_grad(loss_of))(state.trainable)
    return float(loss), {path: np.asarray(leaf) for path, leaf in rules.paths_of(found).items()}


@pytest.mark.parametrize("devices", [1, 8])
def test_micro_batches_change_nothing(recipe, devices):
    run = first_stage(
        replace(recipe, dtype="float32"),
        batch_size=16,
        dropout=True,
        trains=((".*", True),) if recipe.teacher is None else recipe.stages[0].trains,
        augmentation=Augmentation(scale=0.2, rotate=10.0, flip=0.5, hue=20.0),
        patch_dropout=0.5 if recipe.teacher is None else 0.0,
    )
    assert run.model.text.dropout > 0
    loss, whole = gradients(part_of(run, devices))
    size = np.sqrt(sum(np.square(leaf).sum() for leaf in whole.values()))
    other, parts = gradients(part_of(first_stage(run, micro_batches=2), devices))
    assert other == pytest.approx(loss, rel=1e-6)
    far = {path: np.linalg.norm(parts[path] - leaf) for path, leaf in whole.items()}
    assert np.linalg.norm(list(far.values())) < 1e-6 * size
    for path, leaf in whole.items():
        # The gradients of some biases, of keys first of all, are nothing but rounding errors.
        assert far[path] < 5e-6 * max(np.linalg.norm(leaf), 1e-3 * size), path
    # Dropout did act.
    _, plain = gradients(part_of(first_stage(run, dropout=False), devices))
    assert sum(np.linalg.norm(plain[path] - leaf) for path, leaf in whole.items()) > 1e-2 * size


def compiled(part):
    with jax.set_mesh(part.mesh):
        state = on_mesh(part.state_shapes, part.shardings)
        return part.compiled.lower(state, part.constant_shapes, part.batch_shapes(), KEY).compile()


def test_micro_batches_need_the_memory_of_one(recipe):
    sizes = []
    for count in (1, 8):
        part = part_of(first_stage(recipe, batch_size=512, micro_batches=count, dropout=True), 8)
        sizes.append(compiled(part).memory_analysis().temp_size_in_bytes)
    assert sizes[1] < sizes[0] / 3, sizes


@pytest.mark.parametrize("count", [0, -2, 3])
def test_micro_batches_that_do_not_divide_are_refused(chinese_clip, count):
    with pytest.raises(JclipError, match=f"'image-frozen': micro_batches={count} does not divide a batch of 16"):
        check(first_stage(chinese_clip, micro_batches=count))


def test_micro_batches_that_devices_do_not_divide_are_refused(chinese_clip):
    with pytest.raises(JclipError, match="parts of 4, which 8 devices do not divide: use 2"):
        check_and_mesh(first_stage(chinese_clip, micro_batches=4))


def test_batch_statistics_are_of_the_whole_batch(chinese_clip):
    resnet = ResNetConfig(image_size=32, layers=(1, 1, 1, 1), width=8, heads=4)
    run = replace(chinese_clip, model=replace(chinese_clip.model, image=resnet))
    check(first_stage(run, micro_batches=2))  # its first stage freezes the image tower
    with pytest.raises(JclipError, match="'image-frozen' trains a ResNet, whose batch norm needs the whole batch"):
        check(first_stage(run, micro_batches=2, trains=((".*", True),)))


def large_enough(run):
    """One layer a tower, for XLA counts a scan's body once; and so large that the matmuls are nearly all there is."""

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
    teacher = run.teacher and replace(run.teacher, model=grown(run.teacher.model))
    run = replace(run, model=model, teacher=teacher, dtype="float32")
    optimizer = replace(run.stages[0].optimizer, clip_norm=1.0)
    return first_stage(run, optimizer=optimizer, batch_size=64, dropout=False, loss=ContrastiveLoss("dense"))


def forwards(part):
    """(of what is frozen, of what trains): functions of the state, the constants and the batch."""
    run, model = part.run, part.model

    def text(name, variables, ids):
        return model.apply(variables, ids, method=name)

    if part.stage.objective == "teacher":
        teacher = type(model)(run.teacher.model)
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
    part = StageParts(large_enough(recipe), 0, make_mesh(devices=jax.devices()[:1]))
    arguments = (part.state_shapes, part.constant_shapes, part.batch_shapes())
    frozen, trained = forwards(part)
    with jax.set_mesh(part.mesh):
        bound = count_flops(frozen, *arguments) + 3 * count_flops(trained, *arguments)
        assert count_flops(part.step, *arguments, KEY) == pytest.approx(bound, rel=0.03)
        bound = xla_flops(frozen, *arguments) + 3 * xla_flops(trained, *arguments)
        step = compiled(part).cost_analysis()["flops"]
    assert step == pytest.approx(bound, rel=0.03)
    # The figures do tell: a trained tower more would be far off.
    assert step < 0.8 * (bound + 2 * xla_flops(frozen, *arguments))


def test_frozen_parameters_have_no_slots(recipe):
    part = part_of(first_stage(recipe), 8)
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
    optimizer = replace(recipe.stages[0].optimizer, learning_rate=1e-4, warmup_steps=0, schedule="constant")
    changes = {"trains": ((".*", True),), "dropout": True, "optimizer": optimizer}
    part = part_of(first_stage(replace(recipe, dtype="bfloat16"), **changes), 8)
    with jax.set_mesh(part.mesh):
        state, constants, batch = part.start(), part.constants(), part.place(part.batches[0])
        jaxpr = jax.make_jaxpr(part.step)(state, constants, batch, KEY)
        before = jax.device_get(state.trainable)
        state, metrics = part.compiled(state, constants, batch, KEY)
    # Masters and slots.
    for leaf in jax.tree.leaves((state.trainable, state.frozen, state.slots)):
        assert leaf.dtype == (jnp.int32 if jnp.issubdtype(leaf.dtype, jnp.integer) else jnp.float32)
    assert metrics["loss"].dtype == metrics["gradient_norm"].dtype == jnp.float32
    # Norms (rsqrt), softmaxes (reduce_max) and the loss (log).
    found = {}
    for equation in equations(jaxpr.jaxpr):
        if equation.invars and jnp.issubdtype(equation.invars[0].aval.dtype, jnp.floating):
            found.setdefault(equation.primitive.name, set()).add(str(equation.invars[0].aval.dtype))
    assert found["rsqrt"] == found["reduce_max"] == {"float32"}
    assert recipe.teacher is not None or found["log"] == {"float32"}
    # And the towers do compute in bfloat16.
    assert "bfloat16" in found["dot_general"]
    # A step that bfloat16 would round away moves a master all the same.
    after = jax.device_get(state.trainable)["text"]["layers"]["attention_norm"]["scale"]
    moved = np.abs(after - before["text"]["layers"]["attention_norm"]["scale"])
    assert 0 < moved.max() < 2.0**-9
