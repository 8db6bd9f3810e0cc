"""Attention on a TPU by the estimate of its compiler: XLA's beside the Pallas kernels that jax ships.

    pip install "jclip[plan-tpu]"
    python -m benchmarks.tpu_attention                  some minutes; no TPU is needed
    python -m benchmarks.tpu_attention --place v6e:1x1

It compiles the forward and backward pass of six layers at the towers' shapes, in bfloat16 and with rematerialisation
"dots". Whole layers, because layouts decide: for attention alone the compiler chooses other layouts, with which the
kernels seem faster by half.

The compiler estimates the clock cycles of fusions, but not of kernels: `optimal_seconds` of its cost analysis counts
-1 second for each. So a kernel counts with the least time that it can take, which is the longer of two: the time of its
products, on tokens padded to tiles of 128 and heads padded to the 128 rows of a matrix unit, and that of its memory
traffic. The totals of kernels are therefore too low.
"""

import sys
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import tyro

from benchmarks.on_a_gpu import SHAPES, AttentionShape

_TILE = 128
_LAYERS = 6
_PRODUCTS = {"splash": 9, "flash": 11}
"""Number of matmuls: two forward, again for "dots", and five backward, of which "flash" computes two twice."""


@dataclass(frozen=True)
class Options:
    """Settings.

    Attributes:
      place: one device of a target of `jclip plan --targets`.
    """

    place: str = "v5e:1x1"


class Found(NamedTuple):
    """Estimate of one implementation.

    Attributes:
      around: milliseconds of everything except the kernels, by the compiler's cycles.
      kernels: least milliseconds of the kernels.
      temporaries: bytes of temporary memory.
    """

    around: float
    kernels: float
    temporaries: int


def main(options: Options) -> int:
    """Prints a table."""
    from jclip.accelerators.compiler import CompilerFailed
    from jclip.accelerators.compiler_process import CompilerProcess
    from jclip.accelerators.targets import parse_place

    print("| six layers of | attention | ms | of which kernels, at least | MiB of temporaries |")
    print("|---|---|---:|---:|---:|", flush=True)
    with CompilerProcess(parse_place(options.place)) as process:
        for shape in SHAPES:
            for name in ("xla", *_PRODUCTS):
                try:
                    found = Found(*process.call(estimated, shape, name))
                except CompilerFailed as failed:
                    print(f"{shape.tower}, {name}: {failed}", file=sys.stderr)
                    continue
                figures = f"{found.around + found.kernels:.2f} | {found.kernels:.2f} | {found.temporaries / 2**20:.0f}"
                print(f"| {shape.tower}, {shape.tokens} tokens | {name} | {figures} |", flush=True)
    return 0


def estimated(compiler: Any, shape: AttentionShape, name: str) -> tuple[float, float, int]:
    """Compiles layers with one implementation, in the compiler's process; returns the fields of `Found`."""
    import jax
    import jax.numpy as jnp

    from jclip.accelerators.account import account
    from jclip.models import attention
    from jclip.models.compute import Compute
    from jclip.models.transformer import PreNormLayer, stacked
    from jclip.parallel.mesh import make_mesh

    attention.attend = IMPLEMENTATIONS[name]  # in this process, which is the compiler's
    width = shape.heads * shape.channels
    layer = partial(
        PreNormLayer,
        heads=shape.heads,
        hidden=4 * width,
        activation="quick_gelu",
        depth=_LAYERS,
        causal=shape.mask == "causal",
        compute=Compute(jnp.bfloat16, "dots"),
    )
    layers = stacked(layer, _LAYERS, "dots")

    def loss(params: Any, x: Any, lengths: Any) -> Any:
        states, _ = layers.apply(params, x, lengths, None)
        return jnp.square(states[:, 0].astype(jnp.float32)).sum()

    mesh = make_mesh(devices=compiler.devices[:1])
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    x = jax.ShapeDtypeStruct((shape.examples, shape.tokens, width), jnp.bfloat16, sharding=whole)
    lengths = jax.ShapeDtypeStruct(x.shape[:1], jnp.int32, sharding=whole) if shape.mask == "lengths" else None
    params = jax.eval_shape(lambda: layers.init(jax.random.key(0), jnp.zeros(x.shape, x.dtype), None, None))
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), params)
    with jax.set_mesh(mesh):
        program = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, x, lengths).compile()
    target, found = compiler.place.target, account(program.as_text())
    kernels = [each for each in found.work if each.opcode == "custom-call"]
    least = 0.0
    if name in _PRODUCTS:
        tokens, channels = (-(-number // _TILE) * _TILE for number in (shape.tokens, shape.channels))
        products = _LAYERS * _PRODUCTS[name] * 2 * shape.examples * shape.heads * tokens**2 * channels
        least = max(products / target.peak, sum(each.times * each.traffic for each in kernels) / target.bandwidth)
    temporaries = program.memory_analysis().temp_size_in_bytes
    return 1000 * found.cycles / target.clock, 1000 * least, int(temporaries)


def xla(queries: Any, keys: Any, values: Any, *, lengths_b: Any, causal: bool, **unused: Any) -> Any:
    """Computes attention as jclip does on TPUs."""
    from jclip.models.attention import _xla

    return _xla("bqhc", "bkhc", queries, keys, values, lengths_b, causal, None)


def flash(queries: Any, keys: Any, values: Any, *, lengths_b: Any, causal: bool, **unused: Any) -> Any:
    """Computes jax's flash attention, which needs tokens in multiples of 128."""
    from jax.experimental.pallas.ops.tpu import flash_attention as kernel

    (queries, keys, values), real, tokens = _padded((queries, keys, values), lengths_b)
    names = ("q", "k_major", "k", "q_major_dkv", "k_major_dkv", "k_dkv", "q_dkv", "k_major_dq", "k_dq", "q_dq")
    blocks = kernel.BlockSizes(block_b=1, **{f"block_{each}": queries.shape[2] for each in names})
    mixed = kernel.flash_attention(
        queries,
        keys,
        values,
        segment_ids=kernel.SegmentIds(real, real),
        causal=causal,
        sm_scale=queries.shape[-1] ** -0.5,
        block_sizes=blocks,
    )
    return mixed.swapaxes(1, 2)[:, :tokens]


def splash(queries: Any, keys: Any, values: Any, *, lengths_b: Any, causal: bool, **unused: Any) -> Any:
    """Computes jax's splash attention with one kernel for the backward pass, as `flash`."""
    import jax
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    (queries, keys, values), real, tokens = _padded((queries, keys, values), lengths_b)
    heads, size = queries.shape[1:3]
    mask = (masks.CausalMask if causal else masks.FullMask)((size, size))
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute")
    blocks = kernel.BlockSizes(**{f"block_{each}": size for each in names}, use_fused_bwd_kernel=True)
    attend = kernel.make_splash_mha(
        masks.MultiHeadMask([mask] * heads), head_shards=1, q_seq_shards=1, block_sizes=blocks
    )
    scaled = queries * queries.shape[-1] ** -0.5
    mixed = jax.vmap(lambda q, k, v, s: attend(q, k, v, segment_ids=kernel.SegmentIds(s, s)))(
        scaled, keys, values, real
    )
    return mixed.swapaxes(1, 2)[:, :tokens]


IMPLEMENTATIONS = {"xla": xla, "flash": flash, "splash": splash}


def _padded(arrays: Any, lengths: Any) -> tuple[list[Any], Any, int]:
    """Returns arrays (b, l, h, c) as (b, h, l, c) with padded tokens; a mask of the real ones; and their number."""
    import jax.numpy as jnp

    examples, tokens = arrays[0].shape[:2]
    size = -(-tokens // _TILE) * _TILE
    real = jnp.arange(size) < (tokens if lengths is None else lengths[:, None])
    padded = [jnp.pad(x, ((0, 0), (0, size - tokens), (0, 0), (0, 0))).swapaxes(1, 2) for x in arrays]
    return padded, jnp.broadcast_to(real.astype(jnp.int32), (examples, size)), tokens


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
