"""Numbers by hand, then every form of every kind against the float64 oracle, then what is at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jclip.axes import BATCH_AXES
from jclip.errors import JclipError
from jclip.losses.contrastive import _axes, contrastive_loss
from jclip.parallel.sharding import batch_sharding, replicated
from tests.losses import oracle
from tests.losses.batches import (
    DUPLICATES,
    FORMS,
    KINDS,
    SCALE_100,
    compiled,
    features,
    ids,
    mesh_of,
    relative_errors,
)

BOUNDS = {"loss": 1e-6, "gradient": 1e-5}
FEW_LOGITS = {"loss": 3e-6, "gradient": 2e-5}
"""Where one or two logits make up the loss: float32 knows one of 100 to 8e-6, and as much is unknown of its exponential
and of a gradient. Measured: 2.0e-6 and 1.7e-5."""


def assert_is_the_oracle(found, expected, *, loss=BOUNDS["loss"], gradient=BOUNDS["gradient"]):
    (ours, metrics), gradients = found
    assert ours == pytest.approx(expected.loss, abs=loss, rel=1e-6)
    assert max(relative_errors(gradients, expected)) < gradient
    assert (metrics["image_to_text_r1"], metrics["text_to_image_r1"]) == pytest.approx(expected.recalls, abs=1e-6)


@pytest.mark.parametrize("impl", FORMS)
def test_two_pairs_by_hand(impl):
    # Logits [[3, 0], [0, 3]]: each row and column is log(1 + e^-3).
    loss, metrics = contrastive_loss(2 * jnp.eye(2), 5 * jnp.eye(2), jnp.log(3.0), impl=impl, mesh=mesh_of(2))
    assert loss == pytest.approx(np.log1p(np.exp(-3)), abs=1e-7)
    assert metrics == {"image_to_text_r1": 1, "text_to_image_r1": 1}


@pytest.mark.parametrize("impl", FORMS)
def test_two_pairs_by_hand_with_the_sigmoid(impl):
    # With the bias [[1, -2], [-2, 1]]: two of log(1 + e^-1) and two of log(1 + e^-2), by two pairs.
    loss, metrics = contrastive_loss(
        2 * jnp.eye(2), 5 * jnp.eye(2), jnp.log(3.0), -2.0, kind="sigmoid", impl=impl, mesh=mesh_of(2)
    )
    assert loss == pytest.approx(np.log1p(np.exp(-1)) + np.log1p(np.exp(-2)), abs=1e-7)
    assert metrics == {"image_to_text_r1": 1, "text_to_image_r1": 1}


# Pairs 0 and 1 share an id, and all logits are 0. Masked, rows and columns 0 and 1 keep one negative, 2 keeps two.
# As positives they count in the sum, and their own logits too are 0. Sigmoids are log 2 for each of 7 or 9 pairs.
@pytest.mark.parametrize("which", ["image_ids_b", "text_ids_b"])
@pytest.mark.parametrize(
    ("kind", "duplicates", "expected"),
    [
        ("softmax", "mask", (2 * np.log(2) + np.log(3)) / 3),
        ("softmax", "positives", np.log(3)),
        ("softmax", "ignore", np.log(3)),
        ("sigmoid", "mask", 7 * np.log(2) / 3),
        ("sigmoid", "positives", 9 * np.log(2) / 3),
        ("sigmoid", "ignore", 9 * np.log(2) / 3),
    ],
)
def test_duplicates_by_hand(which, kind, duplicates, expected):
    ones, shared = jnp.ones((3, 2)), {which: jnp.array([7, 7, 8])}
    loss, _ = contrastive_loss(ones, ones, jnp.array(-90.0), 0.0, kind=kind, duplicates=duplicates, **shared)
    assert loss == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("impl", FORMS)
def test_positives_by_hand(impl):
    # Logits [[2, 0], [0, 2]]. Both texts are positives of both images: log(e^2 + 1) less the mean of 2 and 0.
    image, same = jnp.eye(2), jnp.zeros(2, int)
    given = {"image_ids_b": same, "duplicates": "positives", "impl": impl, "mesh": mesh_of(2)}
    softmax, _ = contrastive_loss(image, image, jnp.log(2.0), **given)
    assert softmax == pytest.approx(np.log(np.exp(2) + 1) - 1, abs=1e-6)
    # Signs are all 1: two pairs of log(1 + e^-2) and two of log 2, by two.
    sigmoid, _ = contrastive_loss(image, image, jnp.log(2.0), 0.0, kind="sigmoid", **given)
    assert sigmoid == pytest.approx(np.log1p(np.exp(-2)) + np.log(2), abs=1e-6)


# In the first batch pairs are unlike each other, as before training, in the second alike, as after it.
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("impl", FORMS)
@pytest.mark.parametrize("duplicates", DUPLICATES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_in_every_form_is_the_oracle(kind, duplicates, impl, devices):
    mesh = mesh_of(devices)
    loss = compiled(mesh, kind=kind, duplicates=duplicates, impl=impl, chunk=24)
    for likeness, distinct, bias in ((0.0, 10**6, -10), (0.5, 24, 3)):
        (image, text), some_ids = features(64, 32, likeness), ids(64, distinct)
        expected = oracle.contrastive(image, text, SCALE_100, bias, *some_ids, kind=kind, duplicates=duplicates)
        batch = jax.device_put((image, text, *some_ids), batch_sharding(mesh))
        scalars = jax.device_put((SCALE_100, np.float32(bias)), replicated(mesh))
        assert_is_the_oracle(loss(*batch[:2], *scalars, *batch[2:]), expected)


@settings(max_examples=40)
@given(data=st.data())
def test_any_size_on_any_mesh_is_the_oracle(data):
    how = {
        "impl": data.draw(st.sampled_from(FORMS)),
        "kind": data.draw(st.sampled_from(KINDS)),
        "duplicates": data.draw(st.sampled_from(DUPLICATES)),
        "chunk": data.draw(st.integers(1, 64)),
    }
    mesh = mesh_of(data.draw(st.sampled_from([1, 2, 4, 8])))
    size, width = 8 * data.draw(st.integers(2, 9)), data.draw(st.integers(8, 48))
    dtype = data.draw(st.sampled_from([jnp.float32, jnp.bfloat16]))
    bias = data.draw(st.floats(-20, 20, width=32))
    some_ids = [
        np.array(data.draw(st.lists(st.integers(0, most), min_size=size, max_size=size)), np.int32)
        for most in (data.draw(st.integers(0, 2 * size)), data.draw(st.integers(0, 2 * size)))
    ]
    image, text = (
        np.asarray(x, dtype)
        for x in features(size, width, data.draw(st.floats(0, 0.5)), data.draw(st.integers(0, 2**32 - 1)))
    )
    words = {"kind": how["kind"], "duplicates": how["duplicates"]}
    expected = oracle.contrastive(image, text, SCALE_100, bias, *some_ids, **words)
    (loss, metrics), gradients = compiled(mesh, **how)(image, text, SCALE_100, np.float32(bias), *some_ids)
    assert all(x.dtype == dtype for x in gradients[:2]) and loss.dtype == jnp.float32
    if dtype == jnp.bfloat16:  # what features of 8 bits can be told
        assert max(relative_errors(gradients, expected)) < 2**-8
        exact = gradients[2:], expected._replace(gradients=expected.gradients[2:], sizes=expected.sizes[2:])
        assert max(relative_errors(*exact)) < 1e-5
        gradients = expected.gradients
    assert_is_the_oracle(((loss, metrics), gradients), expected)


# A softmax of a few pairs that it tells apart is as far from the oracle as single logits are; all else is as near as
# large batches.
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("duplicates", DUPLICATES)
@pytest.mark.parametrize("impl", FORMS)
@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**32 - 1),
    likeness=st.floats(0, 3),
    logit_scale=st.floats(-2, float(SCALE_100), width=32),
    bias=st.floats(-20, 20, width=32),
    image_ids=st.lists(st.integers(0, 12), min_size=12, max_size=12),
    text_ids=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=12, max_size=12),
)
def test_any_batch_at_any_scale_is_the_oracle(
    impl, duplicates, kind, seed, likeness, logit_scale, bias, image_ids, text_ids
):
    image, text = features(12, 4, likeness, seed)
    some_ids = np.array([image_ids, text_ids], np.int32)
    expected = oracle.contrastive(image, text, logit_scale, bias, *some_ids, kind=kind, duplicates=duplicates)
    loss = compiled(mesh_of(4), kind=kind, duplicates=duplicates, impl=impl, chunk=2)
    found = loss(image, text, np.float32(logit_scale), np.float32(bias), *some_ids)
    few = kind == "softmax" and np.exp(logit_scale) > 32 and expected.loss < 3
    assert_is_the_oracle(found, expected, **(FEW_LOGITS if few else BOUNDS))


def test_the_axes_of_a_batch_are_those_of_the_towers():
    mesh = mesh_of(8, data=2, fsdp=2, tensor=2)
    assert _axes("ring", mesh, None, 8) == BATCH_AXES


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("impl", ["chunked", "ring"])
def test_the_batch_may_be_split_over_several_axes(impl, kind):
    mesh = mesh_of(8, data=2, fsdp=2, tensor=2)
    (image, text), some_ids = features(24, 8, 0.5), ids(24, 16)
    words = {"kind": kind, "duplicates": "positives"}
    expected = oracle.contrastive(image, text, SCALE_100, -3, *some_ids, **words)
    with jax.set_mesh(mesh):
        found = compiled(mesh, impl=impl, chunk=5, **words)(image, text, SCALE_100, np.float32(-3), *some_ids)
    assert_is_the_oracle(found, expected)


@pytest.mark.parametrize("impl", FORMS)
@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_no_ids_is_distinct_ids(impl, duplicates):
    image, text = features(8, 4, 0.5)
    mesh, how = mesh_of(4), {"impl": impl, "duplicates": duplicates}
    loss, metrics = contrastive_loss(image, text, SCALE_100, mesh=mesh, **how)
    (same, same_metrics), _ = compiled(mesh, **how)(image, text, SCALE_100, 0.0, np.arange(8), np.arange(8))
    assert loss == pytest.approx(float(same), rel=1e-6)
    assert metrics == same_metrics


@pytest.mark.parametrize("impl", FORMS)
def test_pairs_that_are_all_alike_have_nothing_to_learn(impl):
    image, text = features(8, 4, 0.0)
    same = np.zeros(8, np.int32)
    (loss, metrics), gradients = compiled(mesh_of(4), impl=impl)(image, text, SCALE_100, 0.0, same, same)
    assert loss == 0
    assert metrics == {"image_to_text_r1": 1, "text_to_image_r1": 1}
    assert all((np.asarray(g) == 0).all() for g in gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_features_are_normalised_in_float32(kind):
    image, text = (jnp.asarray(x, jnp.bfloat16) for x in features(16, 8, 0.5))
    scalars = jnp.asarray(SCALE_100, jnp.bfloat16), jnp.asarray(-10.1, jnp.bfloat16)
    loss, _ = contrastive_loss(image, text, *scalars, kind=kind)
    expected = oracle.contrastive(image, text, *map(float, scalars), kind=kind)
    assert loss.dtype == jnp.float32
    assert loss == pytest.approx(expected.loss, rel=1e-6)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_the_length_of_a_feature_does_not_matter(factor):
    image, text = features(8, 4, 0.5)
    loss, _ = contrastive_loss(image, text, SCALE_100)
    far, _ = contrastive_loss(image * np.float32(factor), text, SCALE_100)
    assert far == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("impl", FORMS)
@pytest.mark.parametrize(("value", "width"), [(1.0, 1), (0.3, 7), (0.0, 4), (np.nan, 4)])
def test_features_that_are_all_alike_retrieve_nothing(impl, value, width, kind):
    same = np.full((24, width), value, np.float32)
    distinct = np.arange(24)
    bias = np.float32(-100 if value else 0)  # logits of 0
    (loss, metrics), gradients = compiled(mesh_of(8), impl=impl, kind=kind)(
        same, same, SCALE_100, bias, distinct, distinct
    )
    assert metrics == {"image_to_text_r1": 0, "text_to_image_r1": 0}
    if np.isnan(value):
        assert np.isnan(loss)
    else:
        assert loss == pytest.approx(np.log(24) if kind == "softmax" else 24 * np.log(2), abs=1e-4)
        assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_one_pair_has_no_negatives(duplicates):
    one = np.ones((1, 3), np.float32)
    (loss, _), gradients = compiled(None, duplicates=duplicates)(one, -one, SCALE_100, 0.0, np.arange(1), np.arange(1))
    assert loss == 0
    assert all((np.asarray(g) == 0).all() for g in gradients)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"impl": "ring"}, "impl='ring' needs a mesh: give one, or choose impl='dense'"),
        ({"impl": "sparse"}, "no contrastive loss of impl='sparse': choose dense, chunked, ring"),
        ({"kind": "tanh"}, "no contrastive loss of kind='tanh': choose softmax, sigmoid"),
        ({"duplicates": "drop"}, "no contrastive loss of duplicates='drop': choose mask, positives, ignore"),
        ({"kind": "sigmoid"}, "kind='sigmoid' needs a logit bias: give the model a logit_bias_init"),
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
