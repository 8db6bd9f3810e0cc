"""cuDNN's fused attention, as NVIDIA's compiler takes it from every kind of transformer tower."""

import re
from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jclip.accelerators.account import account
from jclip.models.bert import Bert, BertConfig
from jclip.models.clip_text import ClipText, ClipTextConfig
from jclip.models.compute import Compute
from jclip.models.vit import Vit, VitConfig
from jclip.parallel.mesh import make_mesh
from tests.accelerators.compiled.places import at

pytestmark = pytest.mark.slow
FORWARD, BACKWARD = "__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"
TOWERS = {  # five layers are a loop; 17 tokens are odd
    "image": (Vit(VitConfig(56, 14, 128, 5, 2), 64), jax.ShapeDtypeStruct((8, 56, 56, 3), jnp.float32)),
    "causal": (ClipText(ClipTextConfig(99, 17, 128, 5, 2), 64), jax.ShapeDtypeStruct((8, 17), jnp.int32)),
    "padded": (
        Bert(BertConfig(99, 128, 5, 2, 256, 17, 2, 0, 1e-12), 64),
        jax.ShapeDtypeStruct((8, 17), jnp.int32),
    ),
}


def program(compiler, model, inputs, rows):
    """Returns the compiled gradient of a tower; with `rows`, with dropout."""
    mesh = make_mesh(devices=compiler.devices)
    whole = NamedSharding(mesh, PartitionSpec())

    def placed(tree):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), tree)

    def loss(variables, inputs):
        dropped = {"rows_b": jnp.arange(8), "rngs": {"dropout": jax.random.key(0)}} if rows else {}
        return jnp.square(model.apply(variables, inputs, **dropped)).sum()

    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(inputs.shape, inputs.dtype)))
    with jax.set_mesh(mesh):
        return compiler.compile(jax.jit(jax.grad(loss)).lower(placed(variables), placed(inputs))).text


def calls(text):
    return Counter(each for each in re.findall(r'custom_call_target="([^"]+)"', text) if "fmha" in each)


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("place", [at("a100:1"), at("h100:1")])
def test_cudnns_kernel_is_compiled(place, tower, processes):
    """The forward pass and the backward pass call it once a layer; "dots" computes the forward pass again."""
    model, inputs = TOWERS[tower]
    for remat, forward in (("none", 1), ("dots", 2)):
        text = processes(place).call(program, model.clone(compute=Compute(jnp.bfloat16, remat)), inputs, False)
        assert calls(text) == {FORWARD: forward, BACKWARD: 1}
        assert not account(text).unknown


@pytest.mark.xdist_group("a100:1")
def test_the_probabilities_that_are_dropped_are_xlas(processes):
    model, inputs = TOWERS["padded"]
    model = model.clone(compute=Compute(jnp.bfloat16))
    assert not calls(processes("a100:1").call(program, model, inputs, True))
    kept = model.clone(config=replace(model.config, attention_dropout=0.0))
    assert calls(processes("a100:1").call(program, kept, inputs, True)) == {FORWARD: 1, BACKWARD: 1}
