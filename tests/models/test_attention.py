import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jclip.models.attention import attend

ONES = jnp.ones((1, 2, 1, 1))


def test_by_hand():
    # Equal logits: the mean of the values. One key masked out: the other value.
    values = jnp.array([2.0, 4.0]).reshape(1, 2, 1, 1)
    np.testing.assert_allclose(attend(ONES, ONES, values).ravel(), [3, 3])
    np.testing.assert_allclose(attend(ONES, ONES, values, jnp.array([True, False])).ravel(), [2, 2])
    # Logits 0 and ln 3 · √4 / √4: weights 1/4 and 3/4.
    queries, keys = jnp.ones((1, 1, 1, 4)), jnp.array([0.0, np.log(3) / 2])[None, :, None, None] * jnp.ones(4)
    weighted = attend(queries, keys, jnp.array([0.0, 8.0]).reshape(1, 2, 1, 1))
    np.testing.assert_allclose(weighted.ravel(), [6], rtol=1e-6)


@settings(max_examples=12)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 7), st.integers(1, 3), st.integers(1, 5), st.booleans())
def test_float64_oracle(batch, queries, keys, heads, channels, masked):
    draw = np.random.default_rng(queries + 10 * keys)
    q, k, v = (draw.normal(size=(batch, length, heads, channels)) for length in (queries, keys, keys))
    mask = draw.random((batch, 1, 1, keys)) < 0.6 if masked else np.ones((1, 1, 1, keys), bool)
    mask[..., 0] = True
    logits = np.einsum("bqhc,bkhc->bhqk", q, k) / np.sqrt(channels)
    weights = np.exp(logits) * mask
    expected = np.einsum("bhqk,bkhc->bqhc", weights / weights.sum(-1, keepdims=True), v)
    actual = attend(*(jnp.asarray(x, jnp.float32) for x in (q, k, v)), mask)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_nowhere_to_look_is_finite():
    out = attend(ONES, ONES, ONES, jnp.zeros((1, 1, 1, 2), bool))
    np.testing.assert_allclose(out, ONES)


def test_softmax_is_float32_in_bfloat16():
    # 257 equal weights of 1/257 would sum to something else if they were added up in bfloat16.
    x = jnp.ones((1, 257, 1, 2), jnp.bfloat16)
    out = attend(x, x, x)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out, np.float32), 1, atol=0.01)
    jaxpr = str(jax.make_jaxpr(attend)(x, x, x))
    assert "f32[1,1,257,257] = exp" in jaxpr
