"""Multi-head attention of every tower, and the choice of its implementation.

XLA computes attention with dropout, although cuDNN's kernel has dropout too. The kernel's random numbers depend on the
place of an example in a device's batch, so results would depend on the number of devices and micro-batches;
`jclip.models.dropout` has a seed for each example. jax also makes the kernel's seed a constant of the program, so every
step would drop the same values. A bias cannot replace dropout, because the kernel adds it before the softmax.

XLA also computes attention on TPUs. By the estimate of the TPU's compiler (benchmarks/RESULTS.md), jax's Pallas kernels
need padding and layouts that cost more than the kernels save, up to 257 tokens. At 577 tokens they could save at most a
fifth: the estimate has the least time that a kernel can take, and no TPU has confirmed it.

Axes: b batch, q queries, k keys, l tokens (where queries and keys are the same), h heads, c channels of a head,
d width of the model.
"""

import re
from collections.abc import Callable
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

from jclip.errors import JclipError
from jclip.internals import current_mesh
from jclip.models.compute import Compute, Implementation
from jclip.models.derivatives import product, softmax
from jclip.models.dropout import dropout
from jclip.models.spread import by_example

Drop = Callable[[jax.Array], jax.Array]
"""Function that drops attention probabilities."""


def attend(
    queries_bqhc: jax.Array,
    keys_bkhc: jax.Array,
    values_bkhc: jax.Array,
    *,
    lengths_b: jax.Array | None = None,
    causal: bool = False,
    drop: Drop | None = None,
    implementation: Implementation = "auto",
) -> jax.Array:
    """Computes scaled dot-product attention (Vaswani et al. 2017, section 3.2) with its softmax in float32.

    Returns (b, q, h, c), in the values' dtype. Raises JclipError if the chosen implementation cannot compute this.

    Args:
      queries_bqhc, keys_bkhc, values_bkhc: arrays of one float dtype.
      lengths_b: number of keys before the padding; None for no padding. A length of 0 counts as 1, so that the result
        stays finite for an example that is all padding.
      causal: if true, a query attends only to the keys up to its own position.
      drop: dropout on the probabilities.
      implementation: see `Implementation`; results differ only by rounding.
    """
    if lengths_b is not None:
        lengths_b = jnp.maximum(lengths_b, 1).astype(jnp.int32)
    if _choose(implementation, queries_bqhc, keys_bkhc, drop) == "cudnn":
        return _cudnn(queries_bqhc, keys_bkhc, values_bkhc, lengths_b, causal)
    if implementation == "auto" and _device().platform == "cpu":
        return _heads_first(queries_bqhc, keys_bkhc, values_bkhc, lengths_b, causal, drop)
    return _xla("bqhc", "bkhc", queries_bqhc, keys_bkhc, values_bkhc, lengths_b, causal, drop)


def with_even_tokens(x_bld: jax.Array, heads: int, compute: Compute) -> tuple[jax.Array, jax.Array | None]:
    """Pads an odd number of tokens by one if cuDNN computes a tower's attention; returns the lengths that mask it.

    The lengths are None without padding. cuDNN's gradient needs an even number, so `_cudnn` would pad the queries, keys
    and values of every layer. To pad the states once takes less memory traffic.
    """
    batch, length, width = x_bld.shape
    like = jax.ShapeDtypeStruct((batch, length, heads, width // heads), compute.dtype)
    if length % 2 == 0 or _choose(compute.attention, like, like, None) != "cudnn":
        return x_bld, None
    return jnp.pad(x_bld, ((0, 0), (0, 1), (0, 0))), jnp.full((batch,), length, jnp.int32)


class Attention(nn.Module):
    """Attention with its four projections, each with a bias.

    Attributes:
      heads: number of heads; divides the width of the queries.
      kernel_init, output_init: initializers of the query, key and value projections, and of the output projection.
      features: width of the result; None for the width of the queries.
      dropout: dropout rate on the probabilities.
    """

    heads: int
    kernel_init: Initializer
    output_init: Initializer
    features: int | None = None
    causal: bool = False
    dropout: float = 0.0
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        x_bqd: jax.Array,
        context_bkd: jax.Array,
        lengths_b: jax.Array | None = None,
        seeds_b2: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the states `x_bqd` after attending to `context_bkd`, (b, q, features).

        `lengths_b` is as in `attend`; `seeds_b2` are seeds of the dropout, see `row_seeds`, or None for no dropout.
        """
        width, dtype = x_bqd.shape[-1], self.compute.dtype
        x_bqd, context_bkd = by_example(x_bqd), by_example(context_bkd)

        def project(name: str, states_bld: jax.Array) -> jax.Array:
            projected = nn.Dense(width, kernel_init=self.kernel_init, dtype=dtype, name=name)(states_bld)
            return projected.reshape(*projected.shape[:2], self.heads, width // self.heads)

        def drop(weights_bhqk: jax.Array) -> jax.Array:
            return dropout(weights_bhqk, self.dropout, seeds_b2)

        mixed_bqhc = attend(
            project("query", x_bqd),
            project("key", context_bkd),
            project("value", context_bkd),
            lengths_b=lengths_b,
            causal=self.causal,
            drop=drop if self.dropout and seeds_b2 is not None else None,
            implementation=self.compute.attention,
        )
        output = nn.Dense(self.features or width, kernel_init=self.output_init, dtype=dtype, name="output")
        return by_example(output(mixed_bqhc.reshape(*mixed_bqhc.shape[:2], width)))


Shaped = jax.Array | jax.ShapeDtypeStruct


def _choose(
    implementation: Implementation, queries_bqhc: Shaped, keys_bkhc: Shaped, drop: Drop | None
) -> Implementation:
    """Returns "xla" or "cudnn"; raises JclipError if `implementation` cannot compute this."""
    if implementation not in get_args(Implementation):
        known = ", ".join(get_args(Implementation))
        raise JclipError(f"attention {implementation!r} is unknown: choose one of {known}")
    if implementation == "xla":
        return "xla"
    obstacle = "cuDNN's kernel has no dropout" if drop else _cudnn_obstacle(_device(), queries_bqhc, keys_bkhc)
    if implementation == "auto":
        return "xla" if obstacle else "cudnn"
    if obstacle:
        raise JclipError(f"attention {implementation!r} is not possible here: {obstacle}; choose auto or xla")
    return implementation


def _device() -> Any:
    """Returns a device of the current mesh, or the default device.

    The mesh may consist of compile-only devices, which `jax.devices` does not list, as in a plan.
    """
    mesh = current_mesh()
    if not mesh.empty:
        return mesh.devices.flat[0]
    # `shard_map` without `jax.set_mesh` has only an abstract device, without a compute capability.
    if abstract := jax.sharding.get_abstract_mesh().abstract_device:
        return next((device for device in jax.local_devices() if device.device_kind == abstract.device_kind), abstract)
    config: Any = jax.config  # mypy does not know its flags
    default = config.jax_default_device
    return jax.local_devices(backend=getattr(default, "platform", default))[0]


def _cudnn_obstacle(device: Any, queries_bqhc: Shaped, keys_bkhc: Shaped) -> str | None:
    """Returns the reason why cuDNN's kernel cannot compute this; None if it can."""
    known = str(getattr(device, "compute_capability", None))  # AMD's is "gfx942", for example
    capability = re.fullmatch(r"(\d+)\.(\d+)", known) if device.platform == "gpu" else None
    if capability is None:
        return f"cuDNN needs an NVIDIA GPU, and this is {device.device_kind}"
    generation = (int(capability[1]), int(capability[2]))
    if generation < (8, 0):
        return f"cuDNN's kernel needs compute capability 8.0, and this GPU has {known}"
    if queries_bqhc.dtype not in (jnp.bfloat16, jnp.float16):
        return f"cuDNN's kernel computes in bfloat16 or float16, and the dtype is {queries_bqhc.dtype}"
    widest, channels = 256 if generation >= (9, 0) else 128, queries_bqhc.shape[-1]
    if channels % 8 or channels > widest:
        return f"cuDNN's kernel has heads of 8, 16, … {widest} channels, and these have {channels}"
    if queries_bqhc.shape[1] != keys_bkhc.shape[1]:
        return "cuDNN's kernel needs equal numbers of queries and keys"
    return None


def _xla(
    query_axes: str,
    key_axes: str,
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    lengths_b: jax.Array | None,
    causal: bool,
    drop: Drop | None,
) -> jax.Array:
    """Returns attention, with the axes of the queries.

    `query_axes` are einsum's letters for the axes of the queries, and `key_axes` those for the keys and values. Their
    order matters only on CPUs, because compilers for accelerators choose the order in memory themselves.
    """
    queries = queries * queries.shape[-1] ** -0.5
    logits_bhqk = product(f"{query_axes},{key_axes}->bhqk", queries, keys)
    position_q, position_k = map(jnp.arange, logits_bhqk.shape[2:])
    if causal:
        logits_bhqk += jnp.where(position_k <= position_q[:, None], 0, -jnp.inf)  # a sum stores no mask
    if lengths_b is not None:
        logits_bhqk += jnp.where(position_k < lengths_b[:, None, None, None], 0, -jnp.inf)
    weights_bhqk = softmax(logits_bhqk, values.dtype)
    if drop is not None:
        weights_bhqk = drop(weights_bhqk)
    return jnp.einsum(f"bhqk,{key_axes}->{query_axes}", weights_bhqk, values)


def _heads_first(
    queries_bqhc: jax.Array,
    keys_bkhc: jax.Array,
    values_bkhc: jax.Array,
    lengths_b: jax.Array | None,
    causal: bool,
    drop: Drop | None,
) -> jax.Array:
    """Returns the same as `_xla`, for CPUs: makes the matrices of every head contiguous first.

    XLA would multiply with strides, which takes three times as long (benchmarks/RESULTS.md).
    """
    queries_bhqc, keys_bhkc, values_bhkc = (x.swapaxes(1, 2) for x in (queries_bqhc, keys_bkhc, values_bkhc))
    return _xla("bhqc", "bhkc", queries_bhqc, keys_bhkc, values_bhkc, lengths_b, causal, drop).swapaxes(1, 2)


def _cudnn(
    queries_blhc: jax.Array,
    keys_blhc: jax.Array,
    values_blhc: jax.Array,
    lengths_b: jax.Array | None,
    causal: bool,
) -> jax.Array:
    batch, length = queries_blhc.shape[:2]
    odd = length % 2
    if odd:
        # jax (0.10 to 0.12) refuses the gradient of odd lengths, as if a bias were given: add a masked token.
        queries_blhc, keys_blhc, values_blhc = (
            jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (queries_blhc, keys_blhc, values_blhc)
        )
        if lengths_b is None and not causal:
            lengths_b = jnp.full((batch,), length, jnp.int32)
    mixed_blhc = jax.nn.dot_product_attention(
        queries_blhc,
        keys_blhc,
        values_blhc,
        is_causal=causal,
        key_value_seq_lengths=lengths_b,
        implementation="cudnn",
    )
    return mixed_blhc[:, :length]
