"""Text encoders: pooling by hand, and equality with the text tower of a dual encoder."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.models.bert import BertConfig, mean_of_tokens
from jclip.models.build import build_model, shapes
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.text_encoder import TextEncoderConfig
from jclip.models.vit import VitConfig
from tests.models.parity import random_variables, run

TEXT = BertConfig(
    vocab_size=20,
    width=8,
    layers=2,
    heads=2,
    intermediate=12,
    max_positions=9,
    type_vocab_size=2,
    pad_id=0,
    layer_norm_eps=1e-12,
)
IDS = jnp.array([[4, 5, 6, 0], [7, 0, 0, 0]])


def test_the_mean_by_hand():
    states = jnp.arange(12.0).reshape(2, 3, 2)
    mask = jnp.array([[True, True, False], [True, False, False]])
    np.testing.assert_allclose(mean_of_tokens(states, mask), [[1, 2], [6, 7]])


def test_the_mean_of_padding_alone_is_no_nan():
    assert mean_of_tokens(jnp.ones((1, 3, 2)), jnp.zeros((1, 3), bool)).tolist() == [[0, 0]]


@pytest.mark.parametrize("pooling", [pytest.param("cls", marks=pytest.mark.slow), "mean"])
def test_padding_never_matters(pooling):
    model = build_model(TextEncoderConfig(TEXT, pooling))
    variables = random_variables(model, IDS)
    padded = run(model, variables, jnp.pad(IDS, [(0, 0), (0, 4)]), method="encode_text")
    np.testing.assert_allclose(padded, run(model, variables, IDS, method="encode_text"), atol=1e-6)


def test_it_is_the_tower_of_a_dual_encoder():
    alone = shapes(TextEncoderConfig(TEXT))["params"]["text"]
    beside = shapes(DualEncoderConfig(VitConfig(8, 4, 8, 1, 1), TEXT, embed_dim=4))["params"]["text"]
    del beside["projection"]
    assert jax.tree.map(lambda x: x.shape, alone) == jax.tree.map(lambda x: x.shape, beside)


@pytest.mark.parametrize(
    ("dropout", "attention_dropout", "acts"),
    [(0.0, None, False), (0.0, 0.5, True), pytest.param(0.5, 0.0, True, marks=pytest.mark.slow)],
)
def test_attention_may_have_its_own_dropout(dropout, attention_dropout, acts):
    model = build_model(TextEncoderConfig(replace(TEXT, dropout=dropout, attention_dropout=attention_dropout)))
    variables = random_variables(model, IDS)
    rngs = {"dropout": jax.random.key(1)}

    @jax.jit
    def difference(variables):
        trained = model.apply(variables, IDS, rows_b=jnp.arange(2), method="encode_text", rngs=rngs)
        return jnp.abs(trained - model.apply(variables, IDS, method="encode_text")).max()

    assert difference(variables) > 1e-3 if acts else difference(variables) == 0


def test_an_unknown_pooling():
    with pytest.raises(JclipError, match="pooling 'max' is unknown: choose cls or mean"):
        TextEncoderConfig(TEXT, "max")
