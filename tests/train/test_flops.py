"""Counts of FLOPs, checked by hand."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax._src.cudnn import fused_attention_stablehlo
from jax.sharding import PartitionSpec

from jclip.parallel.mesh import make_mesh
from jclip.train.planning.flops import count_flops


def test_one_matmul():
    assert count_flops(lambda a, b: a @ b, jnp.ones((3, 5)), jnp.ones((5, 7))) == 2 * 3 * 5 * 7


def test_batched_contraction():
    f = lambda a, b: jnp.einsum("bij,bjk->bik", a, b)  # noqa: E731
    assert count_flops(f, jnp.ones((4, 2, 3)), jnp.ones((4, 3, 5))) == 2 * 4 * 2 * 3 * 5


def test_a_scan_counts_every_turn():
    def f(x):
        return jax.lax.scan(lambda carry, _: (carry @ x, None), x, length=6)[0]

    assert count_flops(f, jnp.ones((3, 3))) == 6 * 2 * 3 * 3 * 3


def test_a_shard_map_counts_every_device():
    mesh, split = make_mesh(), PartitionSpec("data")
    f = jax.shard_map(lambda a, b: a @ b, mesh=mesh, in_specs=(split, PartitionSpec()), out_specs=split)
    assert count_flops(f, jnp.ones((16, 5)), jnp.ones((5, 7))) == 2 * 16 * 5 * 7


def test_gradient_costs_twice_the_forward_pass():
    def loss(w, x):
        return jnp.sum((x @ w) ** 2)

    w, x = jnp.ones((3, 4)), jnp.ones((5, 3))
    forward = 2 * 5 * 3 * 4
    assert count_flops(jax.grad(loss), w, x) == 2 * forward  # x is data: its gradient is not computed
    assert count_flops(jax.grad(loss, argnums=(0, 1)), w, x) == 3 * forward


def test_patch_convolution():
    conv = nn.Conv(8, (4, 4), strides=(4, 4), use_bias=False)
    x = jnp.ones((2, 8, 8, 3))
    variables = conv.init(jax.random.key(0), x)
    assert count_flops(conv.apply, variables, x) == 2 * (2 * 2 * 2 * 8) * (4 * 4 * 3)


def test_fused_attention_counts_as_its_matmuls(monkeypatch):
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91200)
    x = jnp.ones((2, 6, 3, 8), jnp.bfloat16)

    def loss(x, implementation):
        return jax.nn.dot_product_attention(x, x, x, implementation=implementation).astype(jnp.float32).sum()

    one = 2 * 2 * 3 * 6 * 6 * 8
    assert count_flops(partial(loss, implementation="cudnn"), x) == 2 * one
    assert count_flops(partial(loss, implementation="xla"), x) == 2 * one
    # The logits are computed once more than when they are kept.
    assert count_flops(jax.grad(partial(loss, implementation="cudnn")), x) == 7 * one
    assert count_flops(jax.grad(partial(loss, implementation="xla")), x) == 6 * one
