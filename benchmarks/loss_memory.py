"""Device memory of each implementation of the contrastive loss, as the compiler reports it; nothing is run.

    python -m benchmarks.loss_memory                 8 devices, simulated on this machine's CPU; about a minute

Measures the loss and its gradients for a global batch of width 1024 in float32: temporary bytes of one device, without
its share of the features and of their gradients.
"""

import os
from typing import get_args

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

import jax
import jax.numpy as jnp

from jclip.losses.contrastive import Impl, contrastive_loss
from jclip.parallel.mesh import make_mesh
from jclip.parallel.sharding import batch_sharding, replicated

_FORMS: tuple[Impl, ...] = get_args(Impl)
_WIDTH = 1024
_BATCHES = (16_384, 32_768, 65_536, 131_072)


def temporary(impl: Impl, size: int) -> int:
    """Returns the temporary bytes of one device for a global batch of `size`."""
    mesh = make_mesh()
    feature = jax.ShapeDtypeStruct((size, _WIDTH), jnp.float32, sharding=batch_sharding(mesh))
    scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated(mesh))

    def loss(image_bd: jax.Array, text_bd: jax.Array, logit_scale: jax.Array) -> jax.Array:
        return contrastive_loss(image_bd, text_bd, logit_scale, impl=impl, mesh=mesh)[0]

    gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    analysis = gradients.lower(feature, feature, scale).compile().memory_analysis()
    return int(analysis.temp_size_in_bytes)


def main() -> None:
    """Prints a table."""
    print("| global batch |", " | ".join(f"{impl}, MiB" for impl in _FORMS), "| of dense |")
    print("|---:" * (len(_FORMS) + 2) + "|")
    for size in _BATCHES:
        taken = [temporary(impl, size) for impl in _FORMS]
        others = zip(_FORMS[1:], taken[1:], strict=True)
        shares = ", ".join(f"{impl} {100 * each / taken[0]:.1f} %" for impl, each in others)
        print(f"| {size:,} |", " | ".join(f"{each / 2**20:,.0f}" for each in taken), f"| {shares} |")


if __name__ == "__main__":
    main()
