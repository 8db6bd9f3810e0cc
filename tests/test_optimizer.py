"""Schedules at hand-computed points, AdamW against torch's, and slots that carry over."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from jclip import rules
from jclip.errors import JclipError
from jclip.optimizer import MAX_LOGIT_SCALE, Optimizer, build, carry_slots, clamp_logit_scale, learning_rate
from jclip.rules import RuleError


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


def test_misspelt_decay_rule():
    with pytest.raises(RuleError, match="decays.*biass"):
        built(Optimizer(decays=((".*/biass", False), (".*", True))), params())


def test_impossible_learning_rate():
    with pytest.raises(JclipError, match="learning rate of -1"):
        built(Optimizer(learning_rate=-1), params())


def slots_of(state):
    """{"mu a/kernel": array} of the moments and counts in an optimizer's state."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        words = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        for kind in ("mu", "nu", "count"):
            if kind in words:
                name = "/".join(words[words.index(kind) + 1 :])
                found[
                    f"{kind} {name}" if name else f"{kind} of {words[2] if words[1:2] == ['inner_states'] else 'rate'}"
                ] = np.asarray(leaf)
    return found


def after_a_step(optimizer, params):
    _, state = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    return state


def test_carried_slots_go_on_and_others_start_fresh():
    whole = params()
    old = after_a_step(built(Optimizer(), {"a": whole["a"]}), {"a": whole["a"]})
    fresh = built(Optimizer(), whole).init(whole)
    found = slots_of(carry_slots(fresh, old, frozenset({"a/kernel", "logit_scale"})))
    # The logit scale is asked for, but was not trained before; the bias was, but is not asked for.
    names = ("a/kernel", "a/bias", "logit_scale")
    assert {name: int(found[f"count {name}"]) for name in names} == {"a/kernel": 1, "a/bias": 0, "logit_scale": 0}
    for kind in ("mu", "nu"):
        assert {name: bool(np.any(found[f"{kind} {name}"])) for name in names} == {
            "a/kernel": True,
            "a/bias": False,
            "logit_scale": False,
        }


def stack(layers, seed=0):
    values = jax.random.normal(jax.random.key(seed), (3, 2, 4))
    return {"text": {"layers": {"kernel": values[3 - layers :]}}}


def run(spec, params, state, steps):
    optimizer = built(spec, params, rules.paths_of(stack(3)))
    state = optimizer.init(params) if state is None else state
    for step in range(steps):
        gradients = jax.tree.map(lambda leaf, step=step: jnp.sin(leaf * (step + 1)), params)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 2)])
def test_each_layer_of_a_stack_goes_on_or_starts_fresh_by_itself(before, after):
    spec = Optimizer(learning_rate=0.1, schedule="constant", eps=1e-3, decays=((".*", True),))
    _, old = run(spec, stack(before), None, 20)
    begun, _ = run(spec, stack(after), None, 0)
    fresh = built(spec, begun, rules.paths_of(stack(3))).init(begun)
    carried, _ = run(spec, begun, carry_slots(fresh, old, frozenset({"text/layers/kernel"})), 5)
    anew, _ = run(spec, begun, None, 5)
    both = min(before, after)
    ours, fresh_ones = carried["text"]["layers"]["kernel"], anew["text"]["layers"]["kernel"]
    np.testing.assert_array_equal(ours[: after - both], fresh_ones[: after - both])
    # The others continue as if they had always been alone.
    _, old = run(spec, stack(both), None, 20)
    alone, _ = run(spec, stack(both), old, 5)
    np.testing.assert_array_equal(ours[after - both :], alone["text"]["layers"]["kernel"])
    assert not np.allclose(ours[after - both :], fresh_ones[after - both :])


def test_muons_one_count_goes_on_with_its_momentum():
    spec = Optimizer(name="muon", learning_rate=0.1, decays=((".*", True),))
    _, old = run(spec, stack(1), None, 4)
    fresh = built(spec, stack(3), rules.paths_of(stack(3))).init(stack(3))
    found = slots_of(carry_slots(fresh, old, frozenset({"text/layers/kernel"})))
    assert found["count of muon"] == 4 and found["count of rate"] == 0
    assert [bool(np.any(layer)) for layer in found["mu text/layers/kernel"]] == [False, False, True]


def test_nothing_carried_is_the_fresh_state():
    fresh = built(Optimizer(), params()).init(params())
    assert carry_slots(fresh, fresh, frozenset()) is fresh


def test_logit_scale_is_clamped():
    assert clamp_logit_scale({"logit_scale": jnp.array(9.0)})["logit_scale"] == pytest.approx(MAX_LOGIT_SCALE)
    assert clamp_logit_scale({"logit_scale": jnp.array(-1.0)})["logit_scale"] == 0
    assert clamp_logit_scale({"a": 1}) == {"a": 1}
