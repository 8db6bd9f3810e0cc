"""Numbers by hand, then every form against the float64 oracle, then what each form costs."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jclip.errors import JclipError
from jclip.losses.contrastive import contrastive_loss
from jclip.parallel.mesh import MeshShape, make_mesh
from jclip.parallel.sharding import batch_sharding, replicated
from tests.losses import oracle

SCALE_100 = np.float32(np.log(100))
FORMS = ("dense", "chunked", "ring")


@cache
def mesh_of(devices, **shape):
    return make_mesh(MeshShape(**shape), jax.devices()[:devices])


@cache
def compiled(impl, mesh, chunk=None):
    """(image, text, logit scale, image ids, text ids) -> (loss, metrics), gradients."""

    def loss(image_bd, text_bd, scale, image_ids_b, text_ids_b):
        return contrastive_loss(
            image_bd, text_bd, scale, impl=impl, mesh=mesh, chunk=chunk, image_ids_b=image_ids_b, text_ids_b=text_ids_b
        )

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


def features(size, width, likeness, seed=0):
    rng = np.random.default_rng(seed)
    image_bd = rng.normal(size=(size, width))
    text_bd = likeness * image_bd + rng.normal(size=(size, width))
    lengths = np.exp(rng.normal(size=(2, size, 1)))  # rows of any length
    return (image_bd * lengths[0]).astype(np.float32), (text_bd * lengths[1]).astype(np.float32)


def ids(size, distinct, seed=1):
    return np.random.default_rng(seed).integers(0, distinct, size=(2, size)).astype(np.int32)


def relative_error(found, expected):
    return np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("impl", FORMS)
def test_two_pairs_by_hand(impl):
    # Logits [[3, 0], [0, 3]]: each row and column is log(1 + e^-3).
    loss, metrics = contrastive_loss(2 * jnp.eye(2), 5 * jnp.eye(2), jnp.log(3.0), impl=impl, mesh=mesh_of(2))
    assert loss == pytest.approx(np.log1p(np.exp(-3)), abs=1e-7)
    assert metrics == {"image_to_text_r1": 1, "text_to_image_r1": 1}


@pytest.mark.parametrize("which", ["image_ids_b", "text_ids_b"])
def test_duplicates_by_hand(which):
    # Pairs 0 and 1 share an id. All logits are 0, so rows and columns 0 and 1 keep one negative, 2 keeps two.
    ones = jnp.ones((3, 2))
    loss, _ = contrastive_loss(ones, ones, jnp.array(0.0), **{which: jnp.array([7, 7, 8])})
    assert loss == pytest.approx((2 * np.log(2) + np.log(3)) / 3, abs=1e-6)


@pytest.mark.parametrize("impl", FORMS)
def test_pairs_that_are_all_alike_have_nothing_to_learn(impl):
    image, text = features(8, 4, 0.0)
    same = np.zeros(8, np.int32)
    (loss, metrics), gradients = compiled(impl, mesh_of(4))(image, text, SCALE_100, same, same)
    assert loss == 0
    assert metrics == {"image_to_text_r1": 1, "text_to_image_r1": 1}
    assert all((np.asarray(g) == 0).all() for g in gradients)


# In the first case pairs are unlike each other, as before training, in the second alike, as after it.
@pytest.mark.parametrize("likeness", [0.0, 0.5])
@pytest.mark.parametrize("distinct", [10**6, 24])
@pytest.mark.parametrize(
    ("impl", "devices", "chunk"),
    [("dense", 1, None), ("dense", 8, None)]
    + [(impl, devices, None) for impl in ("chunked", "ring") for devices in (1, 2, 4, 8)]
    + [("chunked", 4, 7), ("ring", 2, 5)],
)
def test_every_form_is_the_oracle(impl, devices, chunk, likeness, distinct):
    mesh = mesh_of(devices)
    (image, text), (image_ids, text_ids) = features(64, 32, likeness), ids(64, distinct)
    expected_loss, expected_gradients, expected_recalls = oracle.contrastive(
        image, text, SCALE_100, image_ids, text_ids
    )
    batch = jax.device_put((image, text, image_ids, text_ids), batch_sharding(mesh))
    scale = jax.device_put(SCALE_100, replicated(mesh))
    (loss, metrics), gradients = compiled(impl, mesh, chunk)(*batch[:2], scale, *batch[2:])
    assert loss == pytest.approx(expected_loss, abs=1e-6, rel=1e-6)
    for found, expected in zip(gradients, expected_gradients, strict=True):
        assert relative_error(found, expected) < 1e-5
    assert (metrics["image_to_text_r1"], metrics["text_to_image_r1"]) == pytest.approx(expected_recalls, abs=1e-7)


@pytest.mark.parametrize("impl", ["chunked", "ring"])
def test_the_batch_may_be_split_over_several_axes(impl):
    mesh = mesh_of(8, data=2, fsdp=2, tensor=2)
    (image, text), (image_ids, text_ids) = features(24, 8, 0.5), ids(24, 16)
    expected_loss, expected_gradients, _ = oracle.contrastive(image, text, SCALE_100, image_ids, text_ids)
    with jax.set_mesh(mesh):
        (loss, _), gradients = compiled(impl, mesh)(image, text, SCALE_100, image_ids, text_ids)
    assert loss == pytest.approx(expected_loss, abs=1e-6, rel=1e-6)
    assert all(relative_error(g, e) < 1e-5 for g, e in zip(gradients, expected_gradients, strict=True))


@pytest.mark.parametrize("impl", FORMS)
@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32 - 1),
    likeness=st.floats(0, 3),
    logit_scale=st.floats(-2, float(SCALE_100), width=32),
    image_ids=st.lists(st.integers(0, 12), min_size=12, max_size=12),
    text_ids=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=12, max_size=12),
)
def test_any_batch_is_the_oracle(impl, seed, likeness, logit_scale, image_ids, text_ids):
    image, text = features(12, 4, likeness, seed)
    image_ids, text_ids = np.array(image_ids, np.int32), np.array(text_ids, np.int32)
    expected, expected_gradients, _ = oracle.contrastive(image, text, logit_scale, image_ids, text_ids)
    (loss, _), gradients = compiled(impl, mesh_of(4), 2)(image, text, np.float32(logit_scale), image_ids, text_ids)
    # A logit is off by a few units in the last place of the scale, and the loss of few pairs by no less.
    rounding = 4 * np.finfo(np.float32).eps * np.exp(logit_scale)
    assert loss == pytest.approx(expected, abs=rounding, rel=1e-6)
    for found, gradient in zip(gradients, expected_gradients, strict=True):
        assert np.linalg.norm(found - gradient) <= 1e-5 * np.linalg.norm(gradient) + rounding


@pytest.mark.parametrize("impl", FORMS)
def test_no_ids_is_distinct_ids(impl):
    image, text = features(8, 4, 0.5)
    mesh = mesh_of(4)
    loss, metrics = contrastive_loss(image, text, SCALE_100, impl=impl, mesh=mesh)
    (same, same_metrics), _ = compiled(impl, mesh)(image, text, SCALE_100, np.arange(8), np.arange(8))
    assert loss == pytest.approx(float(same), rel=1e-6)
    assert metrics == same_metrics


def test_half_precision_features_are_normalised_in_float32():
    image, text = (jnp.asarray(x, jnp.bfloat16) for x in features(16, 8, 0.5))
    loss, _ = contrastive_loss(image, text, jnp.asarray(SCALE_100, jnp.bfloat16))
    expected, _, _ = oracle.contrastive(image, text, np.float64(jnp.asarray(SCALE_100, jnp.bfloat16)))
    assert loss.dtype == jnp.float32
    assert loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_the_length_of_a_feature_does_not_matter(factor):
    image, text = features(8, 4, 0.5)
    loss, _ = contrastive_loss(image, text, SCALE_100)
    far, _ = contrastive_loss(image * np.float32(factor), text, SCALE_100)
    assert far == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("impl", FORMS)
@pytest.mark.parametrize(("value", "width"), [(1.0, 1), (0.3, 7), (0.0, 4), (np.nan, 4)])
def test_features_that_are_all_alike_retrieve_nothing(impl, value, width):
    same = np.full((24, width), value, np.float32)
    distinct = np.arange(24)
    (loss, metrics), gradients = compiled(impl, mesh_of(8))(same, same, SCALE_100, distinct, distinct)
    assert metrics == {"image_to_text_r1": 0, "text_to_image_r1": 0}
    if np.isnan(value):
        assert np.isnan(loss)
    else:
        assert loss == pytest.approx(np.log(24), abs=1e-5)
        assert all(np.isfinite(g).all() for g in gradients)


def test_one_pair_has_no_negatives():
    one = np.ones((1, 3), np.float32)
    (loss, _), gradients = compiled("dense", None)(one, -one, SCALE_100, np.arange(1), np.arange(1))
    assert loss == 0
    assert all((np.asarray(g) == 0).all() for g in gradients)


def test_chunked_and_ring_need_less_memory_than_dense():
    mesh, size, width = mesh_of(8), 2048, 64

    def temporary(impl, chunk=None):
        batch = jax.ShapeDtypeStruct((size, width), jnp.float32, sharding=batch_sharding(mesh))
        ids = jax.ShapeDtypeStruct((size,), jnp.int32, sharding=batch_sharding(mesh))
        scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated(mesh))
        program = compiled(impl, mesh, chunk).lower(batch, batch, scale, ids, ids).compile()
        return program.memory_analysis().temp_size_in_bytes, program.as_text()

    dense, _ = temporary("dense")
    chunked, _ = temporary("chunked", 256)
    ring, program = temporary("ring")
    assert dense > 2 * size**2 * 4 / 8, "dense holds its share of the logits, forward and backward"
    assert chunked < dense / 2
    assert ring < dense / 2
    assert "all-gather" not in program


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"impl": "ring"}, "impl='ring' needs a mesh: give one, or choose impl='dense'"),
        ({"impl": "sparse"}, "there is no contrastive loss 'sparse': choose dense, chunked or ring"),
        ({"impl": "ring", "axis": "dta", "mesh": 8}, "the mesh has the axes data, fsdp, tensor, but not 'dta'"),
        ({"impl": "chunked", "mesh": 8}, "a batch of 12 is not divisible by the 8 devices of data×fsdp: change"),
        ({"impl": "ring", "mesh": 4, "chunk": 0}, "a chunk of 0 columns"),
        ({"image_ids_b": np.zeros(3, int)}, r"ids of shape \(3,\) do not fit a batch of 12 pairs"),
        ({"text_bd": np.zeros((4, 3))}, r"image features \(12, 3\) and text features \(4, 3\) must be equal \(b, d\)"),
    ],
)
def test_errors_say_what_to_do(arguments, message):
    arguments = {"image_bd": np.ones((12, 3)), "text_bd": np.ones((12, 3)), "logit_scale": 0.0, **arguments}
    if "mesh" in arguments:
        arguments["mesh"] = mesh_of(arguments["mesh"])
    with pytest.raises(JclipError, match=message):
        contrastive_loss(**arguments)
