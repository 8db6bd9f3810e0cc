"""jclip's account and estimate of compiled programs beside the analysis of the TPU's compiler; no program is run.

    python -m benchmarks.tpu_account v5e:2x2         needs the extra plan-tpu; a minute

The programs have no loops, because the compiler's `cost_analysis` counts the body of a loop once. Its "bytes accessed"
include on-chip memory, and count both ends of a copy in the background twice. `in_all_memories` counts in the same way.
Its `optimal_seconds` is a roofline over those bytes; each instruction that it cannot judge adds -1.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jclip.accelerators.account import account
from jclip.accelerators.compiler import Compiler
from jclip.accelerators.compiler_process import CompilerProcess
from jclip.accelerators.roofline import estimate
from jclip.accelerators.targets import parse_place

COLUMNS = (
    "FLOPs, of the compiler's", "bytes in all memories, of the compiler's", "share of them in main memory",
    "roofline, ms", "`optimal_seconds`, ms", "cycles, ms",
)  # fmt: skip
_IN_BACKGROUND = ("copy-start", "copy-done", "slice-start", "slice-done")


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return a @ b


def _add(a: jax.Array, b: jax.Array) -> jax.Array:
    return a * b + a


def _tanh_sum(a: jax.Array) -> jax.Array:
    return jnp.tanh(a).sum(0)


def _attention(x_blhc: jax.Array) -> jax.Array:
    logits = jnp.einsum("bqhc,bkhc->bhqk", x_blhc, x_blhc).astype(jnp.float32)
    return jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(logits).astype(x_blhc.dtype), x_blhc)


def _mlp_step(weights: list[jax.Array], x_bd: jax.Array) -> list[jax.Array]:
    def loss(weights: list[jax.Array]) -> jax.Array:
        hidden = x_bd
        for weight in weights:
            hidden = jax.nn.gelu(hidden @ weight.astype(jnp.bfloat16))
        return jnp.square(hidden.astype(jnp.float32)).mean()

    return jax.tree.map(lambda weight, gradient: weight - 0.1 * gradient, weights, jax.grad(loss)(weights))


def _shape(*dims: int, dtype: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, dtype)


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "matmul 8192^3": (_matmul, (_shape(8192, 8192), _shape(8192, 8192))),
    "a * b + a, 2 x 1 GiB": (_add, (_shape(16384, 16384, dtype=jnp.float32),) * 2),
    "tanh, sum of rows, 1 GiB": (_tanh_sum, (_shape(16384, 16384, dtype=jnp.float32),)),
    "attention (128, 197, 12, 64)": (_attention, (_shape(128, 197, 12, 64),)),
    "step of an MLP of 4 layers": (_mlp_step, ([_shape(4096, 4096, dtype=jnp.float32)] * 4, _shape(8192, 4096))),
}


def compiled(compiler: Compiler) -> dict[str, tuple[str, dict[str, float]]]:
    """Returns each program's text and the compiler's analysis of it. Runs in the compiler's process."""
    device = jax.sharding.SingleDeviceSharding(compiler.devices[0])
    found = {}
    for name, (function, arguments) in PROGRAMS.items():
        program = jax.jit(function, in_shardings=device, out_shardings=device).lower(*arguments).compile()
        found[name] = program.as_text(), dict(program.cost_analysis() or {})
    return found


def in_all_memories(text: str) -> int:
    """Returns the traffic in bytes as the compiler counts it: in all memories."""
    work = account(text.replace("S(1)", "")).work
    return sum(each.times * each.traffic * (2 if each.opcode in _IN_BACKGROUND else 1) for each in work)


def main() -> None:
    """Prints a table."""
    place = parse_place(sys.argv[1] if len(sys.argv) > 1 else "v5e:2x2")
    with CompilerProcess(place) as process:
        found = process.call(compiled)
    print(f"| {place.target.title} |", " | ".join(COLUMNS), "|")
    print(f"|---|{'---:|' * len(COLUMNS)}")
    for name, (text, theirs) in found.items():
        ours = account(text)
        every = in_all_memories(text)
        cells = (
            f"{ours.products / theirs['flops']:.4f}" if ours.products else "-",
            f"{every / theirs['bytes accessed']:.4f}",
            f"{ours.traffic / every:.2f}",
            f"{1e3 * estimate(ours, place).seconds:.3f}",
            f"{1e3 * (theirs['optimal_seconds'] % 1):.3f}",
            f"{1e3 * ours.cycles / place.target.clock:.3f}",
        )
        print(f"| {name} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
