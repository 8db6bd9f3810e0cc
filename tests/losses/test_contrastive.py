"""Contrastive loss: numbers by hand, every form and kind against the float64 oracle, and edge cases."""

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
    loss_value,
    mesh_of,
    relative_errors,
)

BOUNDS = {"loss": 1e-6, "gradient": 1e-5}
FEW_LOGITS = {"loss": 3e-6, "gradient": 2e-5}
"""Bounds if one or two logits dominate the loss. float32 resolves a logit of 100 only to 8e-6, which also limits the
exponential and the gradient. Measured: 2.0e-6 and 1.7e-5."""


def assert_is_the_oracle(found, expected, *, loss=BOUNDS["loss"], gradient=BOUNDS["gradient"]):
    (ours, metrics), gradients = found
    assert ours == pytest.approx(expected.loss, abs=loss, rel=1e-6)
    assert max(relative_errors(gradients, expected)) < gradient
    assert (metrics["image_to_text_r1"], metrics["text_to_image_r1"]) == pytest.approx(expected.recalls, abs=1e-6)


@pytest.mark.parametrize("impl", FORMS)
def test_two_pairs_by_hand(impl):
    # Logits [[3, 0], [0, 3]]: each row and column is log(1 + e^-3).
    loss, metrics = loss_value(2 * jnp.eye(2), 5 * jnp.eye(2), jnp.log(3.0), impl=impl, mesh=mesh_of(2))
    assert loss == pytest.approx(np.log1p(np.exp(-3)), abs=1e-7)
    assert metrics == {"image_to_text_r1": 1, "text_to_image_r1": 1}


@pytest.mark.parametrize("impl", FORMS)
def test_two_pairs_by_hand_with_the_sigmoid(impl):
    # With the bias [[1, -2], [-2, 1]]: two of log(1 + e^-1) and two of log(1 + e^-2), by two pairs.
    loss, metrics = loss_value(
        2 * jnp.eye(2), 5 * jnp.eye(2), jnp.log(3.0), -2.0, kind="sigmoid", impl=impl, mesh=mesh_of(2)
    )
    assert loss == pytest.approx(np.log1p(np.exp(-1)) + np.log1p(np.exp(-2)), abs=1e-7)
    assert metrics == {"image_to_text_r1": 1, "text_to_image_r1": 1}


# Pairs 0 and 1 share an id, and all logits are 0. Masked, rows and columns 0 and 1 have one negative, 2 has two.
# As positives they count in the sum, and their logits are 0 too. Sigmoids are log 2 for each of 7 or 9 pairs.
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
    loss, _ = loss_value(ones, ones, jnp.array(-90.0), 0.0, kind=kind, duplicates=duplicates, **shared)
    assert loss == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("impl", ["dense", pytest.param("chunked", marks=pytest.mark.slow), "ring"])
def test_positives_by_hand(impl):
    # Logits [[2, 0], [0, 2]]. Both texts are positives of both images: log(e^2 + 1) less the mean of 2 and 0.
    image, same = jnp.eye(2), jnp.zeros(2, int)
    given = {"image_ids_b": same, "duplicates": "positives", "impl": impl, "mesh": mesh_of(2)}
    softmax, _ = loss_value(image, image, jnp.log(2.0), **given)
    assert softmax == pytest.approx(np.log(np.exp(2) + 1) - 1, abs=1e-6)
    # Signs are all 1: two pairs of log(1 + e^-2) and two of log 2, by two.
    sigmoid, _ = loss_value(image, image, jnp.log(2.0), 0.0, kind="sigmoid", **given)
    assert sigmoid == pytest.approx(np.log1p(np.exp(-2)) + np.log(2), abs=1e-6)


OTHERS = {("positives", "dense"), ("positives", "ring"), ("ignore", "dense"), ("ignore", "chunked")}
ALL = [  # every pair of settings in the quick tests, every triple in the slow ones
    pytest.param(
        *(kind, duplicates, impl),
        marks=[pytest.mark.slow]
        if duplicates != "mask" and ((duplicates, impl) in OTHERS) == (kind == "sigmoid")
        else [],
    )
    for kind in KINDS
    for duplicates in DUPLICATES
    for impl in FORMS
]
SIZE, WIDTH = 24, 8


def loss_of(kind, duplicates="mask", impl="dense"):
    """Returns the loss on 4 devices, in chunks that do not divide a device's share. Most tests share this program."""
    return compiled(mesh_of(4), kind=kind, duplicates=duplicates, impl=impl, chunk=4 if impl == "ring" else 16)


def check(loss, batch, logit_scale, bias, kind, duplicates):
    """Compares a loss of (image, text, image ids, text ids) with the oracle's."""
    expected = oracle.contrastive(*batch[:2], logit_scale, bias, *batch[2:], kind=kind, duplicates=duplicates)
    found = loss(*batch[:2], np.float32(logit_scale), np.float32(bias), *batch[2:])
    few = kind == "softmax" and np.exp(logit_scale) > 32 and expected.loss < 3
    assert_is_the_oracle(found, expected, **(FEW_LOGITS if few else BOUNDS))


# A softmax of a few well separated pairs has the error of single logits.
@pytest.mark.parametrize(("kind", "duplicates", "impl"), ALL)
@settings(max_examples=8)
@given(
    seed=st.integers(0, 2**32 - 1),
    likeness=st.floats(0, 3),
    logit_scale=st.one_of(st.just(float(SCALE_100)), st.floats(-2, float(SCALE_100), width=32)),
    bias=st.floats(-20, 20, width=32),
    image_ids=st.lists(st.integers(0, 24), min_size=SIZE, max_size=SIZE),
    text_ids=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=SIZE, max_size=SIZE),
)
def test_any_batch_at_any_scale_is_the_oracle(
    impl, duplicates, kind, seed, likeness, logit_scale, bias, image_ids, text_ids
):
    batch = (*features(SIZE, WIDTH, likeness, seed), *np.array([image_ids, text_ids], np.int32))
    check(loss_of(kind, duplicates, impl), batch, logit_scale, bias, kind, duplicates)


# In the first batch the features of a pair are independent, as before training; in the second they are correlated.
@pytest.mark.parametrize(
    ("kind", "duplicates", "impl", "devices", "size", "width", "chunk"),
    [
        pytest.param("softmax", "positives", "chunked", 1, 16, 9, 5, marks=pytest.mark.slow),
        pytest.param("sigmoid", "mask", "chunked", 2, 40, 16, 64, marks=pytest.mark.slow),
        ("softmax", "mask", "chunked", 8, 64, 32, 24),
        pytest.param("sigmoid", "positives", "ring", 1, 16, 9, 5, marks=pytest.mark.slow),
        ("softmax", "ignore", "ring", 2, 40, 16, 3),
        pytest.param("softmax", "mask", "ring", 8, 64, 32, 24, marks=pytest.mark.slow),
        pytest.param("softmax", "mask", "dense", 8, 64, 32, 1, marks=pytest.mark.slow),
    ],
)
def test_other_shapes_and_meshes_are_the_oracle(kind, duplicates, impl, devices, size, width, chunk):
    mesh = mesh_of(devices)
    loss = compiled(mesh, kind=kind, duplicates=duplicates, impl=impl, chunk=chunk)
    for likeness, distinct, bias in ((0.0, 10**6, -10), (0.5, 24, 3)):
        (image, text), some_ids = features(size, width, likeness), ids(size, distinct)
        expected = oracle.contrastive(image, text, SCALE_100, bias, *some_ids, kind=kind, duplicates=duplicates)
        batch = jax.device_put((image, text, *some_ids), batch_sharding(mesh))
        scalars = jax.device_put((SCALE_100, np.float32(bias)), replicated(mesh))
        assert_is_the_oracle(loss(*batch[:2], *scalars, *batch[2:]), expected)


@pytest.mark.slow
@settings(max_examples=60)
@given(data=st.data())
def test_any_size_on_any_mesh_is_the_oracle(data):
    kind, duplicates = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(DUPLICATES))
    mesh = mesh_of(data.draw(st.sampled_from([1, 2, 4, 8])))
    impl, chunk = data.draw(st.sampled_from(FORMS)), data.draw(st.integers(1, 64))
    size, width = 8 * data.draw(st.integers(2, 9)), data.draw(st.integers(8, 48))
    some_ids = [
        np.array(data.draw(st.lists(st.integers(0, most), min_size=size, max_size=size)), np.int32)
        for most in (data.draw(st.integers(0, 2 * size)), data.draw(st.integers(0, 2 * size)))
    ]
    values = features(size, width, data.draw(st.floats(0, 0.5)), data.draw(st.integers(0, 2**32 - 1)))
    loss = compiled(mesh, kind=kind, duplicates=duplicates, impl=impl, chunk=chunk)
    check(loss, (*values, *some_ids), SCALE_100, data.draw(st.floats(-20, 20, width=32)), kind, duplicates)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_bfloat16_features(kind):
    image, text = (jnp.asarray(x, jnp.bfloat16) for x in features(SIZE, WIDTH, 0.5))
    some_ids = ids(SIZE, 24)
    expected = oracle.contrastive(image, text, SCALE_100, -10, *some_ids, kind=kind, duplicates="positives")
    found = compiled(None, kind=kind, duplicates="positives")(image, text, SCALE_100, np.float32(-10), *some_ids)
    (loss, metrics), gradients = found
    assert all(x.dtype == jnp.bfloat16 for x in gradients[:2]) and loss.dtype == jnp.float32
    assert max(relative_errors(gradients, expected)) < 2**-8  # the resolution of 8 bits
    exact = ((loss, metrics), (*expected.gradients[:2], *gradients[2:]))
    assert_is_the_oracle(exact, expected, **FEW_LOGITS)


def test_the_axes_of_a_batch_are_those_of_the_towers():
    mesh = mesh_of(8, data=2, fsdp=2, tensor=2)
    assert _axes("ring", mesh, None, 8) == BATCH_AXES


@pytest.mark.parametrize(
    ("kind", "impl"), [("softmax", "ring"), pytest.param("sigmoid", "chunked", marks=pytest.mark.slow)]
)
def test_the_batch_may_be_split_over_several_axes(impl, kind):
    mesh = mesh_of(8, data=2, fsdp=2, tensor=2)
    batch = (*features(SIZE, WIDTH, 0.5), *ids(SIZE, 16))
    with jax.set_mesh(mesh):
        loss = compiled(mesh, impl=impl, chunk=5, kind=kind, duplicates="positives")
        check(loss, batch, SCALE_100, -3, kind, "positives")


@pytest.mark.parametrize(("impl", "duplicates"), [("dense", "mask"), ("dense", "positives"), ("ring", "mask")])
def test_no_ids_is_distinct_ids(impl, duplicates):
    image, text = features(SIZE, WIDTH, 0.5)
    (same, same_metrics), _ = loss_of("softmax", duplicates, impl)(
        image, text, SCALE_100, np.float32(0), np.arange(SIZE, dtype=np.int32), np.arange(SIZE, dtype=np.int32)
    )
    loss, metrics = loss_value(image, text, SCALE_100, mesh=mesh_of(4), impl=impl, duplicates=duplicates)
    assert loss == pytest.approx(float(same), rel=1e-6)
    assert metrics == same_metrics


@pytest.mark.parametrize("impl", FORMS)
def test_pairs_that_are_all_alike_have_nothing_to_learn(impl):
    same = np.zeros(SIZE, np.int32)
    (loss, metrics), gradients = loss_of("softmax", impl=impl)(
        *features(SIZE, WIDTH, 0.0), SCALE_100, np.float32(0), same, same
    )
    assert loss == 0
    assert metrics == {"image_to_text_r1": 1, "text_to_image_r1": 1}
    assert all((np.asarray(g) == 0).all() for g in gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_features_are_normalised_in_float32(kind):
    image, text = (jnp.asarray(x, jnp.bfloat16) for x in features(16, 8, 0.5))
    scalars = jnp.asarray(SCALE_100, jnp.bfloat16), jnp.asarray(-10.1, jnp.bfloat16)
    loss, _ = loss_value(image, text, *scalars, kind=kind)
    expected = oracle.contrastive(image, text, *map(float, scalars), kind=kind)
    assert loss.dtype == jnp.float32
    assert loss == pytest.approx(expected.loss, rel=1e-6)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_the_length_of_a_feature_does_not_matter(factor):
    image, text = features(8, 4, 0.5)
    loss, _ = loss_value(image, text, SCALE_100)
    far, _ = loss_value(image * np.float32(factor), text, SCALE_100)
    assert far == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("impl", FORMS)
@pytest.mark.parametrize("value", [1.0, 0.3, 0.0, np.nan])
def test_features_that_are_all_alike_retrieve_nothing(impl, value, kind):
    same = np.full((SIZE, WIDTH), value, np.float32)
    distinct = np.arange(SIZE, dtype=np.int32)
    bias = np.float32(-100 if value else 0)  # logits of 0
    (loss, metrics), gradients = loss_of(kind, impl=impl)(same, same, SCALE_100, bias, distinct, distinct)
    assert metrics == {"image_to_text_r1": 0, "text_to_image_r1": 0}
    if np.isnan(value):
        assert np.isnan(loss)
    else:
        assert loss == pytest.approx(np.log(SIZE) if kind == "softmax" else SIZE * np.log(2), abs=1e-4)
        assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize(("value", "width"), [(1.0, 1), (0.3, 7)])
def test_equal_features_whose_length_is_rounded_retrieve_nothing(value, width):
    same = np.full((SIZE, width), value, np.float32)
    _, metrics = loss_value(same, same, SCALE_100)
    assert metrics == {"image_to_text_r1": 0, "text_to_image_r1": 0}


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
        ({"impl": "sparse"}, "impl='sparse' is unknown: choose one of dense, chunked, ring"),
        ({"kind": "tanh"}, "kind='tanh' is unknown: choose one of softmax, sigmoid"),
        ({"duplicates": "drop"}, "duplicates='drop' is unknown: choose one of mask, positives, ignore"),
        ({"kind": "sigmoid"}, "kind='sigmoid' needs a logit bias: give the model a logit_bias_init"),
        ({"impl": "ring", "axis": "dta", "mesh": 8}, "the mesh has the axes data, fsdp, tensor, but not 'dta'"),
        ({"impl": "chunked", "mesh": 8}, "a batch of 12 is not divisible by the 8 devices of data×fsdp: change"),
        ({"impl": "ring", "mesh": 4, "chunk": 0}, "a chunk of 0 columns"),
        ({"image_ids_b": np.zeros(3, int)}, r"ids of shape \(3,\) do not fit a batch of 12 pairs"),
        ({"text_bd": np.zeros((4, 3))}, r"features \(12, 3\) and text features \(4, 3\) must have the same shape, \("),
    ],
)
def test_errors_say_what_to_do(arguments, message):
    arguments = {"image_bd": np.ones((12, 3)), "text_bd": np.ones((12, 3)), "logit_scale": 0.0, **arguments}
    if "mesh" in arguments:
        arguments["mesh"] = mesh_of(arguments["mesh"])
    with pytest.raises(JclipError, match=message):
        contrastive_loss(**arguments)
