"""The loss of a stage, chosen in its configuration: by name, on the command line, and for a model with a bias."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip import rules
from jclip.cli.configs import parse
from jclip.cli.plan import PlanOptions
from jclip.errors import JclipError
from jclip.losses.contrastive import ContrastiveLoss
from jclip.optimizer import CN_CLIP_DECAYS, NO_DECAY_ON_SCALES_AND_BIASES, Optimizer, build
from jclip.train.checks import check
from jclip.train.state import TrainState
from jclip.train.step import make_step
from tests.train.assembled import MODEL, shapes_of, toy_batch, toy_params, toy_program


def with_loss(run, loss, bias=None):
    optimizer = replace(run.stages[0].optimizer, warmup_steps=0)
    objective = replace(run.stages[0].objective, loss=loss)
    stage = replace(run.stages[0], objective=objective, optimizer=optimizer)
    return replace(run, stages=(stage,), model=replace(run.model, logit_bias_init=bias), dtype="bfloat16")


def first_loss(run, bias=None, **changes):
    """Returns the loss of toy towers on a batch with some arrays replaced."""
    program = toy_program(shapes_of(run))
    args = (toy_params(bias=bias), {}, {}, {**toy_batch(), **changes}, jax.random.key(0))
    return float(jax.jit(program.loss)(*args)[0])


def test_every_field_can_be_set_on_the_command_line():
    values = {"impl": "chunked", "kind": "sigmoid", "duplicates": "positives", "chunk": "64"}
    words = " ".join(f"--stages.0.objective.loss.{name} {value}" for name, value in values.items())
    words = f"configs/chinese_clip/vit_b_16.py {words} --model.logit-bias-init -10"
    _, run = parse(PlanOptions, words.split(), "plan")
    assert run.stages[0].objective.loss == ContrastiveLoss("chunked", "sigmoid", "positives", 64)
    assert run.stages[1].objective.loss == ContrastiveLoss("ring")
    assert run.model.logit_bias_init == -10


def test_a_sigmoid_needs_a_bias(chinese_clip):
    sigmoid = ContrastiveLoss(kind="sigmoid")
    with pytest.raises(
        JclipError, match=r"'image-frozen': objective\.loss\.kind is sigmoid, .* set model\.logit_bias_init"
    ):
        check(with_loss(chinese_clip, sigmoid))
    check(with_loss(chinese_clip, sigmoid, bias=-10.0))


def test_a_step_with_the_sigmoid_moves_the_bias(chinese_clip):
    part = shapes_of(with_loss(chinese_clip, ContrastiveLoss("ring", "sigmoid"), bias=-10.0))
    assert part.state_shapes.trainable["logit_bias"].dtype == jnp.float32
    params = toy_params(bias=-10.0)
    optimizer = build(part.stage.optimizer, 10, rules.paths_of(params), params, MODEL.towers)
    step = make_step(toy_program(part).loss, optimizer)
    state, metrics = jax.jit(step)(
        TrainState(params, {}, {}, optimizer.init(params)), {}, toy_batch(), jax.random.key(0)
    )
    # It rises by Adam's first step: at this bias nearly all of the loss comes from positives that are rejected.
    assert state.trainable["logit_bias"] > -10
    assert 5 < metrics["loss"] < 15


def test_every_form_gives_the_same(chinese_clip):
    dense, chunked, ring = (
        first_loss(with_loss(chinese_clip, ContrastiveLoss(impl, "sigmoid"), bias=-10.0), bias=-10.0)
        for impl in ("dense", "chunked", "ring")
    )
    assert chunked == pytest.approx(dense, rel=1e-5)
    assert ring == pytest.approx(dense, rel=1e-5)


def test_what_duplicates_are_reaches_the_loss(chinese_clip):
    """In a batch of two images, masked pairs are not negatives, so the loss is lower."""
    pictures = np.arange(16, dtype=np.int32) // 8
    masked, positives, ignored = (
        first_loss(with_loss(chinese_clip, ContrastiveLoss(duplicates=duplicates)), image_id=pictures)
        for duplicates in ("mask", "positives", "ignore")
    )
    assert masked < ignored - 0.1
    assert positives not in (masked, ignored)


@pytest.mark.parametrize("decays", [NO_DECAY_ON_SCALES_AND_BIASES, CN_CLIP_DECAYS])
def test_the_temperature_and_the_bias_do_not_decay(decays):
    params = {
        "logit_scale": jnp.array(2.0),
        "logit_bias": jnp.array(-10.0),
        "image": {"norm": {"scale": jnp.ones(2)}, "kernel": jnp.ones(2)},
        "text": {"bias": jnp.ones(2)},
    }
    spec = Optimizer(learning_rate=0.1, weight_decay=0.5, schedule="constant", decays=decays)
    optimizer = build(spec, 10, rules.paths_of(params), params, MODEL.towers)
    nothing = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(nothing, optimizer.init(params), params)
    assert updates["logit_scale"] == updates["logit_bias"] == 0
    assert (updates["image"]["kernel"] != 0).all()
