"""The forms of the contrastive loss alone, compiled for many devices.

docs/losses.json keeps one record for each compiled loss; docs/scaling.md is drawn from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp

from docs.records import Records
from jclip.accelerators.account import account
from jclip.accelerators.compiler import Compiled, Compiler
from jclip.accelerators.compiler_process import CompilerProcess
from jclip.accelerators.roofline import estimate
from jclip.accelerators.targets import Target, parse_place
from jclip.losses.contrastive import Impl, contrastive_loss
from jclip.parallel.mesh import make_mesh
from jclip.parallel.sharding import batch_sharding, replicated

FORMS: tuple[Impl, ...] = get_args(Impl)
WIDTH = 512
"""Width of the features of ViT-B/16."""
CHUNK = 1024
"""Columns of logits that "chunked" and "ring" hold at once, the default."""
PLACES = ("v5e:1x1", "v5e:2x4", "v5e:8x8", "v5e:16x16", "v5p:8x8x16", "h100:8", "h100:8x8", "h100:128x8")
PER_DEVICE, BATCH = 128, 32_768
"""Pairs per device of one series, and the global batch of the other."""


@dataclass(frozen=True, order=True)
class Key:
    """Loss of one form on the devices of a place, with `pairs` pairs per device."""

    form: Impl
    place: str
    pairs: int


@dataclass(frozen=True)
class Cost:
    """Loss and its gradients, compiled; bytes and seconds are those of one device.

    Attributes:
      needed: bytes that it needs, features and gradients included.
      sent: bytes that it sends to other devices, by kind of collective.
      times: number of executions of collectives, by kind.
      links: estimated seconds of communication.
      seconds: duration of the compilation.
    """

    needed: int
    sent: dict[str, int]
    times: dict[str, int]
    links: float
    seconds: float


Costs = dict[Key, Cost]


def wanted() -> Iterator[Key]:
    """Yields the losses to compile: PER_DEVICE pairs per device, and BATCH pairs on all devices."""
    for name in PLACES:
        devices = parse_place(name).devices
        for form in FORMS:
            yield Key(form, name, PER_DEVICE)
            if devices > 1 and BATCH // devices != PER_DEVICE:
                yield Key(form, name, BATCH // devices)


RECORDS = Records(Path(__file__).with_suffix(".json"), Key, Cost)


def compile_loss(process: CompilerProcess, key: Key) -> Cost:
    """Compiles a loss; raises JclipError as `CompilerProcess.call` does."""
    compiled: Compiled = process.call(compile_in_process, key.form, key.pairs)
    counted = account(compiled.text)
    kinds = counted.by_kind()
    return Cost(
        needed=compiled.needed,
        sent={kind: each.wire for kind, each in kinds.items()},
        times={kind: each.executions for kind, each in kinds.items()},
        links=estimate(counted, process.place).links,
        seconds=round(compiled.seconds, 1),
    )


def compile_in_process(compiler: Compiler, form: Impl, pairs: int) -> Compiled:
    """Compiles a loss with its gradients in the compiler's process. Pairs that share an id are masked, as in training.

    The features are bfloat16, as those of towers.
    """
    mesh = make_mesh(devices=compiler.devices)
    rows, everywhere = batch_sharding(mesh), replicated(mesh)
    batch = pairs * mesh.size

    def array(shape: tuple[int, ...], dtype: Any, at: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=at)

    def loss(images: jax.Array, texts: jax.Array, scale: jax.Array, ids: jax.Array) -> jax.Array:
        found, _ = contrastive_loss(
            images, texts, scale, impl=form, chunk=CHUNK, mesh=mesh, image_ids_b=ids, text_ids_b=ids
        )
        return found

    features = array((batch, WIDTH), jnp.bfloat16, rows)
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)), out_shardings=(everywhere, (rows, rows, everywhere)))
    with jax.set_mesh(mesh):
        scale, ids = array((), jnp.float32, everywhere), array((batch,), jnp.int32, rows)
        return compiler.compile(step.lower(features, features, scale, ids))


def columns(form: Impl, pairs: int, devices: int) -> int:
    """Returns the number of texts whose logits one device holds at once.

    >>> columns("dense", 128, 256), columns("chunked", 128, 256), columns("ring", 128, 256)
    (32768, 1024, 128)
    """
    batch = pairs * devices
    # A chunk has at least one text of every device; a round of the ring has those of one device.
    return {"dense": batch, "chunked": max(min(CHUNK, batch), devices), "ring": min(CHUNK, pairs)}[form]


def rounds(form: Impl, pairs: int, devices: int) -> int:
    """Returns the number of rounds of communication of one pass over the texts.

    >>> rounds("dense", 128, 256), rounds("chunked", 128, 256), rounds("ring", 128, 256)
    (1, 32, 256)
    """
    return {"dense": 1, "chunked": -(-pairs // max(CHUNK // devices, 1)), "ring": devices}[form]


def products(pairs: int, devices: int, width: int = WIDTH) -> int:
    """Returns the FLOPs of the loss on one device: logits, logits again in the backward pass, and two gradients.

    "dense" keeps the logits, and so has three quarters of these FLOPs.

    >>> products(128, 256) == 4 * 2 * 128 * 32_768 * 512
    True
    """
    return 4 * 2 * pairs * pairs * devices * width


def precise_peak(target: Target) -> float:
    """Returns the FLOP/s of one device for products of full float32 precision, as the loss has them.

    A TPU computes such a product as six in bfloat16. On NVIDIA's GPUs it is the rate of the vector units, from the data
    sheets.
    """
    return _VECTOR.get(target.name, target.peak / 6)


_VECTOR = {"v100": 15.7e12, "a100-40": 19.5e12, "a100": 19.5e12, "h100": 67e12, "h200": 67e12, "b200": 75e12}
