"""Dropout: share of zeros, independence of bits, and masks that depend only on the key and the example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.models.bert import Bert, BertConfig
from jclip.models.compute import Compute
from jclip.models.dropout import dropout, mixed, random_bits, row_seeds
from jclip.parallel.mesh import MeshShape, make_mesh
from jclip.parallel.sharding import batch_sharding, replicated
from tests.models.parity import ragged_ids, random_variables

KEY = jax.random.key(3)
SHAPE = (40, 50)
SIZES = {"vocab_size": 97, "width": 16, "layers": 2, "heads": 4, "intermediate": 24, "max_positions": 40}
BERT = BertConfig(**SIZES, type_vocab_size=2, pad_id=0, layer_norm_eps=1e-12)
ONLY = {  # dropout at some of BERT's sites only
    "embedding and hidden": {"dropout": 0.3, "attention_dropout": 0.0},
    "attention": {"dropout": 0.0, "attention_dropout": 0.3},
    "all": {"dropout": 0.3},
}


def seeds(rows, place=0, key=KEY):
    return row_seeds(key, jnp.asarray(rows), place + 1)[place]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped(rate):
    out = dropout(jnp.full((100, *SHAPE), 3.0), rate, seeds(range(100)))
    # 200,000 draws: four standard deviations.
    np.testing.assert_allclose((out == 0).mean(), rate, atol=4 * (rate * (1 - rate) / out.size) ** 0.5)
    np.testing.assert_allclose(np.unique(out), [0, 3 / (1 - rate)], rtol=1e-6)
    rows = (out == 0).mean(axis=(1, 2))
    assert np.abs(rows - rate).max() < 5 * (rate * (1 - rate) / 2000) ** 0.5


def test_bits_are_even_and_apart():
    """The 32 bits have mean one half, uncorrelated between bits, positions, rows, sites, places and keys."""
    bits = random_bits(seeds(range(100)), SHAPE)
    signs = _signs(bits)  # (200, 40, 50, 32)
    limit = 5 / signs[..., 0].size ** 0.5
    assert np.abs(signs.mean(axis=(0, 1, 2))).max() < limit
    flat = signs.reshape(-1, 32)
    among = flat.T @ flat / len(flat)
    assert np.abs(among - np.eye(32)).max() < limit
    others = [
        signs[:, :, 1:] * signs[:, :, :-1],
        signs[:, 1:] * signs[:, :-1],
        signs[1:] * signs[:-1],
        signs * _signs(random_bits(seeds(range(100)), SHAPE, 1)),
        signs * _signs(random_bits(seeds(range(100), 1), SHAPE)),
        signs * _signs(random_bits(seeds(range(100), 0, jax.random.key(4)), SHAPE)),
    ]
    for products in others:
        assert np.abs(products.mean(axis=(0, 1, 2))).max() < 1.1 * limit


def test_the_finaliser_by_hand():
    """MurmurHash3's fmix32, from its reference implementation."""
    assert [int(x) for x in mixed(jnp.array([0, 1, 2, 2**32 - 1], jnp.uint32))] == [
        _fmix32(x) for x in (0, 1, 2, 2**32 - 1)
    ]
    assert _fmix32(1) == 0x514E28B7


def _fmix32(x):
    x = (x ^ x >> 16) * 0x85EBCA6B % 2**32
    x = (x ^ x >> 13) * 0xC2B2AE35 % 2**32
    return x ^ x >> 16


def _signs(bits):
    return 2.0 * ((np.asarray(bits)[..., None] >> np.arange(32)) & 1) - 1


def test_a_row_depends_on_its_number_alone():
    whole = random_bits(seeds([5, 9, 5, 2**31 - 1]), SHAPE)
    np.testing.assert_array_equal(whole[0], whole[2])
    assert (whole[0] != whole[1]).mean() > 0.99
    np.testing.assert_array_equal(random_bits(seeds([2**31 - 1]), SHAPE)[0], whole[3])
    np.testing.assert_array_equal(random_bits(row_seeds(KEY, jnp.array([9]), 7)[0], SHAPE)[0], whole[1])


def test_no_seeds_and_no_rate_drop_nothing():
    x = jnp.ones((2, 3))
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, seeds([0, 1])) is x


def test_the_dtype_stays():
    assert dropout(jnp.ones((2, 64), jnp.bfloat16), 0.1, seeds([0, 1])).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("only", "remat", "shape"),
    [
        ("all", "layers", MeshShape(data=2, fsdp=2, tensor=2)),
        pytest.param("all", "none", MeshShape(), marks=pytest.mark.slow),
        pytest.param("embedding and hidden", "none", None, marks=pytest.mark.slow),
        pytest.param("embedding and hidden", "layers", MeshShape(), marks=pytest.mark.slow),
        pytest.param("attention", "layers", MeshShape(data=2, fsdp=2, tensor=2), marks=pytest.mark.slow),
    ],
)
def test_a_batch_is_its_micro_batches_on_any_mesh(only, remat, shape):
    model = Bert(BertConfig(**{**vars(BERT), **ONLY[only]}), 5, compute=Compute(remat=remat))
    ids = ragged_ids([4, 7, 9, 2, 9, 5, 3, 8] * 2, 97, 0)
    rows = np.arange(100, 116, dtype=np.int32)
    variables = random_variables(model, ids)

    def encode(variables, ids, rows):
        return model.apply(variables, ids, rows, rngs={"dropout": KEY})

    compiled = jax.jit(encode)
    whole = np.asarray(compiled(variables, ids, rows))
    assert np.abs(whole - compiled(variables, ids, rows + 1)).max() > 1e-3
    order = np.random.default_rng(0).permutation(16)
    parts = jnp.asarray(ids)[order].reshape(4, 4, -1), jnp.asarray(rows)[order].reshape(4, 4)
    mapped = jax.jit(lambda v, parts: jax.lax.map(lambda part: encode(v, *part), parts))(variables, parts)
    np.testing.assert_allclose(mapped.reshape(16, -1), whole[order], atol=1e-6)
    if shape is not None:
        mesh = make_mesh(shape)
        split = batch_sharding(mesh)
        on_mesh = jax.jit(encode, in_shardings=(replicated(mesh), split, split), out_shardings=split)
        with jax.set_mesh(mesh):
            np.testing.assert_allclose(on_mesh(variables, ids, rows), whole, atol=1e-6)


@pytest.mark.slow
def test_gradients_of_micro_batches_add_up_to_that_of_the_whole():
    model = Bert(BERT, 5)
    ids, rows = jnp.asarray(ragged_ids([4, 7, 9, 2], 97, 0)), jnp.arange(4)
    variables = random_variables(model, ids)
    grad = jax.jit(jax.grad(lambda v, ids, rows: jnp.square(model.apply(v, ids, rows, rngs={"dropout": KEY})).sum()))
    parts = [grad(variables, ids[i : i + 2], rows[i : i + 2]) for i in (0, 2)]
    whole = grad(variables, ids, rows)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(whole))
    jax.tree.map(lambda a, b, c: np.testing.assert_allclose(a + b, c, atol=1e-6 * scale), *parts, whole)


@pytest.mark.parametrize("change", [{"dropout": 1.0}, {"attention_dropout": -0.1}])
def test_a_wrong_rate_says_so(change):
    with pytest.raises(JclipError, match="give 0 or more, and less than 1"):
        BertConfig(**{**vars(BERT), **change})
