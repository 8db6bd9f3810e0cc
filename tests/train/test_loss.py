"""The loss of a stage, chosen in its configuration: by name, on the command line, and for a model with a bias."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip import rules
from jclip.cli.configs import parse
from jclip.cli.plan import Options
from jclip.errors import JclipError
from jclip.losses.contrastive import ContrastiveLoss
from jclip.optimizer import CN_CLIP_DECAYS, NO_DECAY_ON_SCALES_AND_BIASES, Optimizer, build
from jclip.parallel.mesh import make_mesh
from jclip.stages import merge
from jclip.tokenizers.text import load_tokenizer
from jclip.train.assembly import StageParts
from jclip.train.checks import check


def with_loss(run, loss, bias=None):
    optimizer = replace(run.stages[0].optimizer, warmup_steps=0)
    stage = replace(run.stages[0], loss=loss, optimizer=optimizer)
    return replace(run, stages=(stage,), model=replace(run.model, logit_bias_init=bias), dtype="bfloat16")


def part_of(run):
    return StageParts(run, 0, make_mesh(), load_tokenizer(run.tokenizer))


def first_loss(run, **changes):
    """The loss of a run's first batch, with some of the batch's arrays exchanged."""
    part = part_of(run)
    with jax.set_mesh(part.mesh):
        state, batch = part.start(), part.place({**part.batches[0], **changes})
        params = merge(state.trainable, state.frozen)
        return float(jax.jit(part.objective)(params, state.stats, {}, batch, jax.random.key(0))[0])


def test_every_field_can_be_set_on_the_command_line():
    words = "--stages.0.loss.impl chunked --stages.0.loss.kind sigmoid --stages.0.loss.duplicates positives"
    words = f"configs/chinese_clip/vit_b_16.py {words} --stages.0.loss.chunk 64 --model.logit-bias-init -10"
    _, run = parse(Options, words.split(), "plan")
    assert run.stages[0].loss == ContrastiveLoss("chunked", "sigmoid", "positives", 64)
    assert run.stages[1].loss == ContrastiveLoss("ring")
    assert run.model.logit_bias_init == -10


def test_a_sigmoid_needs_a_bias(chinese_clip):
    sigmoid = ContrastiveLoss(kind="sigmoid")
    with pytest.raises(JclipError, match=r"'image-frozen': loss\.kind is sigmoid, .* set model\.logit_bias_init"):
        check(with_loss(chinese_clip, sigmoid))
    check(with_loss(chinese_clip, sigmoid, bias=-10.0))


def test_a_step_with_the_sigmoid_moves_the_bias(chinese_clip):
    part = part_of(with_loss(chinese_clip, ContrastiveLoss("ring", "sigmoid"), bias=-10.0))
    with jax.set_mesh(part.mesh):
        state, metrics = part.compiled(part.start(), {}, part.place(part.batches[0]), jax.random.key(0))
    assert state.trainable["logit_bias"].dtype == state.trainable["logit_scale"].dtype == jnp.float32
    # Up by Adam's first step: at this bias nearly all of the loss is that of the pairs, which are rejected.
    assert state.trainable["logit_bias"] > -10
    assert 5 < metrics["loss"] < 15


def test_every_form_gives_the_same(chinese_clip):
    dense, chunked, ring = (
        first_loss(with_loss(chinese_clip, ContrastiveLoss(impl, "sigmoid"), bias=-10.0))
        for impl in ("dense", "chunked", "ring")
    )
    assert chunked == pytest.approx(dense, rel=1e-5)
    assert ring == pytest.approx(dense, rel=1e-5)


def test_what_duplicates_are_reaches_the_loss(chinese_clip):
    """In a batch of two pictures, masked pairs are no negatives, and the loss is less."""
    pictures = np.arange(16, dtype=np.int32) // 8
    masked, positives, ignored = (
        first_loss(with_loss(chinese_clip, ContrastiveLoss(duplicates=duplicates)), image_id=pictures)
        for duplicates in ("mask", "positives", "ignore")
    )
    assert masked < ignored - 0.3
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
    optimizer = build(spec, 10, rules.paths_of(params), params)
    nothing = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(nothing, optimizer.init(params), params)
    assert updates["logit_scale"] == updates["logit_bias"] == 0
    assert (updates["image"]["kernel"] != 0).all()
