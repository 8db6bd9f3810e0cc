"""Cost of the forms: multiplications, memory, and communication between devices. Programs are compiled but not run."""

from functools import cache

import jax
import jax.numpy as jnp
import pytest

from jclip.losses.contrastive import contrastive_loss
from jclip.parallel.sharding import batch_sharding, replicated
from jclip.train.planning.flops import count_flops
from tests.losses.batches import DUPLICATES, FORMS, KINDS, compiled, mesh_of


def shapes(size, width, mesh):
    """Shapes of the arguments of a `compiled` loss."""
    batch = jax.ShapeDtypeStruct((size, width), jnp.float32, sharding=batch_sharding(mesh))
    ids = jax.ShapeDtypeStruct((size,), jnp.int32, sharding=batch_sharding(mesh))
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated(mesh))
    return batch, batch, scalar, scalar, ids, ids


@pytest.mark.parametrize("impl", FORMS)
@pytest.mark.parametrize("duplicates", DUPLICATES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_pair_of_blocks_is_multiplied_once(kind, duplicates, impl):
    size, width, mesh = 64, 16, mesh_of(8)
    how = {"impl": impl, "kind": kind, "duplicates": duplicates, "chunk": 32 if impl == "chunked" else 4}

    def loss(image_bd, text_bd, scale, bias, image_ids_b, text_ids_b):
        ids = {"image_ids_b": image_ids_b, "text_ids_b": text_ids_b}
        return contrastive_loss(image_bd, text_bd, scale, bias, mesh=mesh, **ids, **how)[0]

    given = shapes(size, width, mesh)
    # The program has one matmul, in loops over all blocks.
    assert jax.jit(loss).lower(*given).as_text().count("stablehlo.dot_general") == 1
    assert count_flops(loss, *given) == 2 * size**2 * width
    # The gradients need two more. Dense stores its logits; the others recompute them.
    both = count_flops(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)), *given)
    assert both == (3 if impl == "dense" else 4) * 2 * size**2 * width


@cache
def temporary(impl, size, kind="softmax", duplicates="mask"):
    """Returns the temporary bytes of the compiled loss and its gradients on one of 8 devices."""
    mesh = mesh_of(8)
    program = compiled(mesh, impl=impl, kind=kind, duplicates=duplicates).lower(*shapes(size, 1024, mesh)).compile()
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("impl", ["chunked", "ring"])
@pytest.mark.parametrize(
    ("kind", "duplicates"),
    [
        ("softmax", "mask"),
        pytest.param("softmax", "positives", marks=pytest.mark.slow),
        pytest.param("sigmoid", "mask", marks=pytest.mark.slow),
    ],
)
def test_a_batch_of_65536_takes_under_a_tenth_of_dense(kind, duplicates, impl):
    dense = temporary("dense", 65_536, kind, duplicates)
    assert dense > 2 * 65_536**2 * 4 / 8, "a device's share of the logits, forward and backward"
    assert temporary(impl, 65_536, kind, duplicates) < dense / 10


@pytest.mark.parametrize("impl", ["chunked", "ring"])
def test_memory_is_linear_in_the_batch(impl):
    """The memory is a bounded number of arrays of a device's share of the images."""
    for size in (65_536, 262_144):
        share = size // 8 * 1024 * 4
        assert temporary(impl, size) < 16 * share
    assert temporary("dense", 65_536) > 140 * 65_536 // 8 * 1024 * 4


def test_the_ring_gathers_nothing_and_a_chunk_is_all_that_chunked_gathers():
    size, width, mesh = 4096, 64, mesh_of(8)
    ring = compiled(mesh, impl="ring").lower(*shapes(size, width, mesh)).compile().as_text()
    assert "collective-permute" in ring and "all-gather" not in ring and "all-to-all" not in ring
    chunked = compiled(mesh, impl="chunked", chunk=512).lower(*shapes(size, width, mesh)).compile().as_text()
    assert f"f32[512,{width}]" in chunked and f"f32[{size},{width}]" not in chunked
