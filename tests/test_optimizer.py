"""Schedules at points computed by hand, and AdamW against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from jclip import rules
from jclip.errors import JclipError
from jclip.optimizer import MAX_LOGIT_SCALE, Optimizer, build, clamp_logit_scale, learning_rate
from jclip.rules import RuleError
from tests.toys import ToyImageConfig


def built(spec, trainable, leaves=None):
    return build(spec, 10, rules.paths_of(trainable) if leaves is None else leaves, trainable, {})


def params():
    kernel = jax.random.normal(jax.random.key(0), (3, 4))
    return {"a": {"kernel": kernel, "bias": jnp.ones(4)}, "logit_scale": jnp.array(1.0)}


@pytest.mark.parametrize(
    ("schedule", "expected"), [("cosine", [0.5, 1.0, 1.0, 0.5, 0.0]), ("linear", [0.5, 1.0, 1.0, 0.5, 0.0])]
)
def test_warm_up_then_decay(schedule, expected):
    rate = learning_rate(Optimizer(learning_rate=1.0, warmup_steps=2, schedule=schedule), steps=10)
    np.testing.assert_allclose([float(rate(step)) for step in (0, 1, 2, 6, 10)], expected, atol=1e-6)


def test_adamw_equals_torch():
    spec = Optimizer(
        learning_rate=0.1, schedule="constant", beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.3, clip_norm=0.5
    )
    ours = params()
    theirs = {
        name: torch.tensor(np.asarray(leaf))
        for name, leaf in [("kernel", ours["a"]["kernel"]), ("bias", ours["a"]["bias"])]
    }
    for tensor in theirs.values():
        tensor.requires_grad_(True)
    torch_optimizer = torch.optim.AdamW(
        [{"params": [theirs["kernel"]], "weight_decay": 0.3}, {"params": [theirs["bias"]], "weight_decay": 0.0}],
        lr=0.1,
        betas=(0.8, 0.9),
        eps=1e-3,
    )
    optimizer = built(spec, ours)
    slots = optimizer.init(ours)
    for step in range(5):
        gradient = jax.tree.map(lambda leaf, step=step: jnp.sin(leaf * (step + 1)), ours).copy()
        gradient["logit_scale"] = jnp.zeros(())
        for tensor in theirs.values():
            tensor.grad = torch.sin(tensor.detach() * (step + 1))
        torch.nn.utils.clip_grad_norm_(theirs.values(), 0.5)
        torch_optimizer.step()
        updates, slots = optimizer.update(gradient, slots, ours)
        ours = optax.apply_updates(ours, updates)
    for name, tensor in theirs.items():
        np.testing.assert_allclose(ours["a"][name], tensor.detach().numpy(), atol=2e-6)


def test_multipliers_scale_the_update():
    spec = Optimizer(weight_decay=0.0, schedule="constant", multipliers=(("a/bias", 0.5), (".*", 1.0)))
    optimizer = built(spec, params())
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params()), optimizer.init(params()), params())
    np.testing.assert_allclose(updates["a"]["bias"], updates["a"]["kernel"][0] / 2, rtol=1e-6)


def test_a_misspelt_decay_rule_is_refused():
    with pytest.raises(RuleError, match="decays.*biass"):
        built(Optimizer(decays=((".*/biass", False), (".*", True))), params())


def test_an_impossible_learning_rate_is_refused():
    with pytest.raises(JclipError, match="^learning_rate is -1, but must be 0 or more"):
        built(Optimizer(learning_rate=-1), params())


def muon(kernel, depth):
    """The first update of a kernel in the "layers/" of a tower of this depth."""
    trainable = {"image": {"layers": {"conv": {"kernel": kernel}}}}
    spec = Optimizer(name="muon", learning_rate=1.0, decays=((".*", False),), schedule="constant")
    optimizer = build(spec, 10, rules.paths_of(trainable), trainable, {"image": ToyImageConfig(depth=depth)})
    updates, _ = optimizer.update(trainable, optimizer.init(trainable), trainable)
    return updates["image"]["layers"]["conv"]["kernel"]


def test_muon_takes_a_stacked_convolution_as_one_matrix_a_layer():
    kernels = jax.random.normal(jax.random.key(0), (2, 3, 3, 4, 5))
    found = muon(kernels, depth=2)
    np.testing.assert_allclose(found, muon(kernels.reshape(2, 36, 5), depth=2).reshape(kernels.shape), atol=1e-6)
    for layer in found:  # of full rank, with singular values of about 1
        values = np.linalg.svd(np.asarray(layer).reshape(36, 5), compute_uv=False)
        assert values.min() > 0.7 and values.max() < 1.3


def test_muon_asks_the_tower_whether_its_layers_are_stacked():
    kernel = jax.random.normal(jax.random.key(0), (3, 4, 5))
    np.testing.assert_allclose(jnp.abs(muon(kernel, depth=0)), 1, atol=1e-3)  # Adam's first step
    vectors = kernel[0]
    np.testing.assert_allclose(jnp.abs(muon(vectors, depth=3)), 1, atol=1e-3)  # a stack of vectors has no matrices


def test_logit_scale_is_clamped():
    assert clamp_logit_scale({"logit_scale": jnp.array(9.0)})["logit_scale"] == pytest.approx(MAX_LOGIT_SCALE)
    assert clamp_logit_scale({"logit_scale": jnp.array(-1.0)})["logit_scale"] == 0
    assert clamp_logit_scale({"a": 1}) == {"a": 1}
