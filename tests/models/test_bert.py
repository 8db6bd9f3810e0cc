"""BERT encoders of both families, each against its reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from cn_clip.clip.configuration_bert import BertConfig as CnClipBertConfig
from cn_clip.clip.modeling_bert import BertModel as CnClipBert

from jclip.errors import JclipError
from jclip.models.bert import Bert, BertConfig
from jclip.models.compute import Compute
from tests.models.parity import assert_same_rows, assert_same_values, ragged_ids, random_variables, run, to_torch
from tests.models.torch_weights import Weights, bert, randomise

SIZES = {"vocab_size": 97, "width": 48, "layers": 3, "heads": 4, "intermediate": 112, "max_positions": 40}
WWM = BertConfig(**SIZES, type_vocab_size=2, pad_id=0, layer_norm_eps=1e-12)
XLM_R = BertConfig(**SIZES, type_vocab_size=1, pad_id=1, layer_norm_eps=1e-5, position_offset="after_padding")
BOTH = pytest.mark.parametrize("config", [WWM, XLM_R], ids=["wwm", "xlm-r"])
XLM_R_QUICK = pytest.mark.parametrize(
    "config", [pytest.param(WWM, marks=pytest.mark.slow), XLM_R], ids=["wwm", "xlm-r"]
)
LENGTHS = [[31] * 5, [2, 31, 17, 1, 8]]  # tokens of each row: without and with padding, of one shape


def hf(config: BertConfig) -> torch.nn.Module:
    kinds = {
        "none": (transformers.BertConfig, transformers.BertModel),
        "after_padding": (transformers.XLMRobertaConfig, transformers.XLMRobertaModel),
    }
    kind_of_config, kind_of_model = kinds[config.position_offset]
    hf_config = kind_of_config(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate,
        max_position_embeddings=config.max_positions,
        type_vocab_size=config.type_vocab_size,
        pad_token_id=config.pad_id,
        layer_norm_eps=config.layer_norm_eps,
    )
    return randomise(kind_of_model(hf_config, add_pooling_layer=False))


def with_projection(params):
    width = params["embedding_norm"]["scale"].shape[0]
    return {"params": params | {"projection": {"kernel": np.eye(width, 5)}}}


@BOTH
def test_states_are_those_of_transformers(config):
    reference = hf(config)
    weights = Weights(reference)
    variables = with_projection(bert(weights))
    assert not weights.unread()
    for lengths in LENGTHS:
        ids = ragged_ids(lengths, config.vocab_size, config.pad_id)
        theirs = reference(to_torch(ids), attention_mask=to_torch(ids) != config.pad_id).last_hidden_state
        ours = run(Bert(config, 5), variables, ids, method="states")
        tokens = ids != config.pad_id
        assert_same_rows(ours[tokens], theirs[torch.from_numpy(tokens)])
        assert_same_values(ours[tokens], theirs[torch.from_numpy(tokens)])


def test_wwm_is_also_that_of_cn_clip():
    cn_config = CnClipBertConfig(
        WWM.vocab_size,
        hidden_size=WWM.width,
        num_hidden_layers=WWM.layers,
        num_attention_heads=WWM.heads,
        intermediate_size=WWM.intermediate,
        max_position_embeddings=WWM.max_positions,
        layer_norm_eps=WWM.layer_norm_eps,
    )
    reference = randomise(CnClipBert(cn_config))
    variables = with_projection(bert(Weights(reference)))
    ids = ragged_ids([5, 14, 9], WWM.vocab_size, 0)
    theirs = reference(to_torch(ids), attention_mask=(to_torch(ids) != 0).float())[0][:, 0]
    assert_same_rows(run(Bert(WWM, 5), variables, ids, method="state"), theirs)


@XLM_R_QUICK
def test_padding_never_matters(config):
    model, lengths = Bert(config, 5), [3, 11, 6]
    tight = ragged_ids(lengths, config.vocab_size, config.pad_id)
    loose = ragged_ids(lengths, config.vocab_size, config.pad_id, width=29)
    variables = random_variables(model, tight)
    embeddings = run(model, variables, tight)
    np.testing.assert_allclose(run(model, variables, loose), embeddings, atol=1e-5)
    np.testing.assert_allclose(run(model, variables, tight[2:, :6])[0], embeddings[2], atol=1e-5)  # alone, unpadded


@XLM_R_QUICK
def test_padding_rows_get_no_gradient(config):
    # PyTorch keeps the padding row of an embedding fixed; here the loss does not depend on it.
    model = Bert(config, 5)
    ids = ragged_ids([3, 11], config.vocab_size, config.pad_id)
    loss = jax.jit(jax.grad(lambda variables: jnp.square(model.apply(variables, ids)).sum()))
    gradient = loss(random_variables(model, ids))["params"]
    assert np.abs(gradient["word_embedding"]).max() > 0
    np.testing.assert_array_equal(gradient["word_embedding"][config.pad_id], 0)
    if config.position_offset == "after_padding":
        np.testing.assert_array_equal(gradient["position_embedding"][: config.pad_id + 1], 0)


@pytest.mark.parametrize(("config", "expected"), [(WWM, [[0, 1, 2, 3]]), (XLM_R, [[2, 3, 4, 1], [2, 1, 1, 1]])])
def test_positions_by_hand(config, expected):
    ids = jnp.array([[5, 6, 7, config.pad_id], [5] + 3 * [config.pad_id]])
    np.testing.assert_array_equal(Bert(config, 5)._positions(ids != config.pad_id), expected)


@pytest.mark.slow
def test_dropout_acts_in_training_only():
    model, ids = Bert(WWM, 5), ragged_ids([4, 7], WWM.vocab_size, WWM.pad_id)
    variables = random_variables(model, ids)
    rows = jnp.arange(2)
    draw = jax.jit(lambda keys: jax.vmap(lambda key: model.apply(variables, ids, rows, rngs={"dropout": key}))(keys))
    many = draw(jax.random.split(jax.random.key(0), 200))
    np.testing.assert_array_equal(draw(jax.random.split(jax.random.key(0), 200)), many)
    spread = many.std(axis=0)
    assert spread.min() > 0.01
    # The mean of many draws is near the evaluation, except for the bias of non-linear functions.
    evaluated = run(model, variables, ids)
    assert (np.abs(many.mean(axis=0) - evaluated) / spread).max() < 1


@XLM_R_QUICK
def test_the_longest_text_and_one_more(config):
    model = Bert(config, 5)
    variables = random_variables(model, jnp.full((1, 4), 7))
    longest = run(model, variables, jnp.full((1, config.longest), 7))
    assert np.abs(longest - run(model, variables, jnp.full((1, config.longest - 1), 7))).max() > 1e-3
    with pytest.raises(JclipError, match=f"reads at most {config.longest}"):
        run(model, variables, jnp.full((1, config.longest + 1), 7))


def test_longest():
    assert (WWM.longest, XLM_R.longest) == (40, 38)


def test_nothing_but_padding_is_finite():
    model, ids = Bert(WWM, 5), jnp.zeros((1, 3), jnp.int32)
    assert np.isfinite(run(model, random_variables(model, ids), ids)).all()


def test_an_id_beyond_the_vocabulary_gives_nan():
    model, ids = Bert(WWM, 5), jnp.full((1, 3), 7)
    assert np.isnan(run(model, random_variables(model, ids), ids + WWM.vocab_size)).all()


def test_layers_are_stacked_and_initialised_apart():
    params = jax.jit(Bert(WWM, 5).init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    assert {leaf.shape[0] for leaf in jax.tree.leaves(params["layers"])} == {WWM.layers}
    kernels = params["layers"]["mlp"]["fc1"]["kernel"]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01
    np.testing.assert_allclose(kernels.std(), 0.02, rtol=0.05)


@pytest.mark.slow
def test_bfloat16_comes_near():
    config = WWM
    reference = hf(config)
    variables = with_projection(bert(Weights(reference)))
    ids = ragged_ids([12, 3, 9], config.vocab_size, config.pad_id)
    precise = run(Bert(config, 5), variables, ids, method="state")
    rough = run(Bert(config, 5, compute=Compute(jnp.bfloat16)), variables, ids, method="state")
    assert rough.dtype == jnp.bfloat16
    assert np.abs(rough - precise).max() < 0.02 * np.abs(precise).max()
