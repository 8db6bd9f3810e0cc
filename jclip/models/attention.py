"""Multi-head attention, once, for every tower, and what computes it.

Axes: b batch, q queries, k keys, l tokens (where queries and keys are the same), h heads, c channels of a head,
d width of the model.
"""

import re
from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from jclip.errors import JclipError
from jclip.models.dropout import dropout
from jclip.models.spread import by_example

Implementation = Literal["auto", "xla", "cudnn", "tokamax"]
"""What computes attention: "xla" anywhere; "cudnn", NVIDIA's fused kernel; "tokamax", where that library is installed;
"auto", cuDNN where it can and XLA elsewhere."""


def attend(
    queries_bqhc: jax.Array,
    keys_bkhc: jax.Array,
    values_bkhc: jax.Array,
    *,
    lengths_b: jax.Array | None = None,
    causal: bool = False,
    drop: Callable[[jax.Array], jax.Array] | None = None,
    implementation: Implementation = "auto",
) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2), its softmax in float32.

    Args:
      queries_bqhc: any float dtype, like the keys and the values.
      keys_bkhc: as above.
      values_bkhc: as above.
      lengths_b: so many keys, from the first, may be looked at: the others are padding. None: all. Where there is not
        one, the first is looked at nevertheless, so that an example made of padding alone stays finite.
      causal: whether a query looks at the keys up to its own place only.
      drop: dropout on the probabilities.
      implementation: what computes it; all agree but for rounding.

    Returns:
      (b, q, h, c), in the dtype of the values.

    Raises:
      JclipError: an implementation that was asked for by its name cannot do this.
    """
    if lengths_b is not None:
        lengths_b = jnp.maximum(lengths_b, 1).astype(jnp.int32)
    chosen = _choose(implementation, queries_bqhc, keys_bkhc, drop)
    if chosen == "xla":
        return _xla(queries_bqhc, keys_bkhc, values_bkhc, lengths_b, causal, drop)
    return {"cudnn": _cudnn, "tokamax": _tokamax}[chosen](queries_bqhc, keys_bkhc, values_bkhc, lengths_b, causal)


class Attention(nn.Module):
    """Attention with its four projections, each with a bias.

    Attributes:
      heads: they divide the width of the queries.
      kernel_init: of the query, key and value projections.
      output_init: of the output projection.
      features: width of the result; None for the width of the queries.
      causal: see `attend`.
      dropout: rate on the probabilities.
      dtype: of the computation; parameters are float32.
      implementation: see `attend`.
    """

    heads: int
    kernel_init: Initializer
    output_init: Initializer
    features: int | None = None
    causal: bool = False
    dropout: float = 0.0
    dtype: Dtype = jnp.float32
    implementation: Implementation = "auto"

    @nn.compact
    def __call__(
        self,
        x_bqd: jax.Array,
        context_bkd: jax.Array,
        lengths_b: jax.Array | None = None,
        seeds_b2: jax.Array | None = None,
    ) -> jax.Array:
        """The queries' states `x_bqd` looking at `context_bkd`, (b, q, features).

        Args:
          x_bqd: any float dtype.
          context_bkd: the same.
          lengths_b: as in `attend`.
          seeds_b2: of the dropout, see `jclip.models.dropout`; None for none.
        """
        width = x_bqd.shape[-1]
        x_bqd, context_bkd = by_example(x_bqd), by_example(context_bkd)

        def project(name: str, states_bld: jax.Array) -> jax.Array:
            projected = nn.Dense(width, kernel_init=self.kernel_init, dtype=self.dtype, name=name)(states_bld)
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
            implementation=self.implementation,
        )
        output = nn.Dense(self.features or width, kernel_init=self.output_init, dtype=self.dtype, name="output")
        return by_example(output(mixed_bqhc.reshape(*mixed_bqhc.shape[:2], width)))


def _choose(
    implementation: Implementation, queries_bqhc: jax.Array, keys_bkhc: jax.Array, drop: object | None
) -> Implementation:
    """An implementation that can do it, by its own name."""
    if implementation not in get_args(Implementation):
        known = ", ".join(get_args(Implementation))
        raise JclipError(f"attention {implementation!r} is unknown: choose one of {known}")
    if implementation == "xla":
        return "xla"
    obstacle = "it has no dropout on probabilities" if drop is not None else None
    if implementation != "tokamax":
        obstacle = obstacle or _cudnn_obstacle(_device(), queries_bqhc, keys_bkhc)
    if implementation == "auto":
        return "xla" if obstacle else "cudnn"
    if obstacle:
        raise JclipError(f"attention {implementation!r} is not possible here: {obstacle}; choose auto or xla")
    return implementation


def _device() -> Any:
    """One of the devices that what is being traced is for: the mesh's, or else the default one."""
    config: Any = jax.config  # its type does not know its flags
    found = jax.sharding.get_abstract_mesh().abstract_device or config.jax_default_device
    return jax.local_devices(backend=getattr(found, "platform", found))[0]


def _cudnn_obstacle(device: Any, queries_bqhc: jax.Array, keys_bkhc: jax.Array) -> str | None:
    """Why cuDNN's kernel cannot do this, or None if it can."""
    capability = re.fullmatch(r"(\d+)\.(\d+)", device.compute_capability) if device.platform == "gpu" else None
    if capability is None:  # another maker's are called otherwise, "gfx942"
        return f"cuDNN needs an NVIDIA GPU, and this is {device.device_kind}"
    generation = (int(capability[1]), int(capability[2]))
    if generation < (8, 0):
        return f"cuDNN's kernel needs compute capability 8.0, and this GPU has {device.compute_capability}"
    if queries_bqhc.dtype not in (jnp.bfloat16, jnp.float16):
        return f"cuDNN's kernel computes in bfloat16 or float16, and the dtype is {queries_bqhc.dtype}"
    widest, channels = 256 if generation >= (9, 0) else 128, queries_bqhc.shape[-1]
    if channels % 8 or channels > widest:
        return f"cuDNN's kernel has heads of 8, 16, … {widest} channels, and these have {channels}"
    if queries_bqhc.shape[1] != keys_bkhc.shape[1]:
        return "its queries are others than its keys"
    return None


def _xla(
    queries_bqhc: jax.Array,
    keys_bkhc: jax.Array,
    values_bkhc: jax.Array,
    lengths_b: jax.Array | None,
    causal: bool,
    drop: Callable[[jax.Array], jax.Array] | None,
) -> jax.Array:
    queries_bqhc = queries_bqhc * queries_bqhc.shape[-1] ** -0.5
    logits_bhqk = jnp.einsum("bqhc,bkhc->bhqk", queries_bqhc, keys_bkhc, preferred_element_type=jnp.float32)
    place_q, place_k = jnp.arange(queries_bqhc.shape[1]), jnp.arange(keys_bkhc.shape[1])
    if causal:
        logits_bhqk = jnp.where(place_k <= place_q[:, None], logits_bhqk, -jnp.inf)
    if lengths_b is not None:
        logits_bhqk = jnp.where(place_k < lengths_b[:, None, None, None], logits_bhqk, -jnp.inf)
    weights_bhqk = jax.nn.softmax(logits_bhqk, axis=-1).astype(values_bkhc.dtype)
    if drop is not None:
        weights_bhqk = drop(weights_bhqk)
    return jnp.einsum("bhqk,bkhc->bqhc", weights_bhqk, values_bkhc)


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
        # jax (0.10 to 0.12) refuses the gradient of odd lengths, as if there were always a bias: one more token then,
        # at which no other looks.
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


def _tokamax(
    queries_bqhc: jax.Array,
    keys_bkhc: jax.Array,
    values_bkhc: jax.Array,
    lengths_b: jax.Array | None,
    causal: bool,
) -> jax.Array:
    try:
        import tokamax
        from absl import flags
    except (ImportError, SyntaxError) as error:  # a SyntaxError beside another typeguard than its own
        raise JclipError(
            f"attention 'tokamax' is not possible here: importing it failed ({error}); choose auto"
        ) from None
    if not flags.FLAGS.is_parsed():  # or tokamax reads the program's own options, and fails at those it does not know
        flags.FLAGS.mark_as_parsed()
    mixed: jax.Array = tokamax.dot_product_attention(
        queries_bqhc, keys_bkhc, values_bkhc, is_causal=causal, key_value_seq_lengths=lengths_b
    )
    return mixed
