"""CLIP's text tower against Hugging Face's; the pooled token is the one with the largest id."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from jclip.errors import JclipError
from jclip.models.clip_text import ClipText, ClipTextConfig
from tests.models.parity import (
    assert_same_rows,
    assert_same_tree,
    assert_same_values,
    ragged_ids,
    random_variables,
    run,
    to_torch,
)
from tests.models.torch_weights import Weights, hf_clip_text, randomise

CONFIG = ClipTextConfig(vocab_size=99, context_length=17, width=48, layers=3, heads=4)


def captions(lengths, width=None):
    """Returns ids that end in end-of-text, the largest id, and are padded with 0."""
    ids = ragged_ids(lengths, CONFIG.vocab_size, 0, width=width)
    ids[np.arange(len(lengths)), np.array(lengths) - 1] = CONFIG.vocab_size - 1
    return ids


@pytest.fixture(params=["quick_gelu", pytest.param("gelu", marks=pytest.mark.slow)])
def pair(request):
    """Reference model, and our model with its weights."""
    hf_config = transformers.CLIPTextConfig(
        vocab_size=CONFIG.vocab_size,
        hidden_size=CONFIG.width,
        intermediate_size=4 * CONFIG.width,
        projection_dim=11,
        num_hidden_layers=CONFIG.layers,
        num_attention_heads=CONFIG.heads,
        max_position_embeddings=CONFIG.context_length,
        hidden_act=request.param,
        eos_token_id=2,  # as in the published configurations; it makes transformers pool at the largest id
    )
    reference = randomise(transformers.CLIPTextModelWithProjection(hf_config))
    weights = Weights(reference)
    model = ClipText(replace(CONFIG, activation=request.param), 11)
    params = hf_clip_text(weights)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"])
    assert_same_tree(weights, params, shapes)
    return reference, partial(run, model, {"params": params})


@pytest.mark.parametrize("lengths", [[17] * 3, [17, 2, 9]])  # of one shape
def test_tower_is_that_of_transformers(pair, lengths):
    reference, model = pair
    ids = captions(lengths)
    theirs = reference(to_torch(ids))
    assert_same_values(model(ids, method="states"), theirs.last_hidden_state)
    assert_same_values(model(ids, method="state"), reference.text_model(to_torch(ids)).pooler_output)
    assert_same_values(model(ids), theirs.text_embeds)
    if len(lengths) > 1:
        assert_same_rows(model(ids), theirs.text_embeds)


def test_padding_never_matters():
    model = ClipText(CONFIG, 11)
    tight, loose = captions([3, 11, 6]), captions([3, 11, 6], width=17)
    variables = random_variables(model, tight)
    np.testing.assert_allclose(run(model, variables, loose), run(model, variables, tight), atol=1e-5)


def test_nothing_looks_ahead():
    model, ids = ClipText(CONFIG, 11), captions([9, 9])
    variables = random_variables(model, ids)
    other = ids.copy()
    other[:, 6] = 50
    before, after = (run(model, variables, x, method="states") for x in (ids, other))
    np.testing.assert_array_equal(before[:, :6], after[:, :6])
    assert np.abs(before[:, 6:] - after[:, 6:]).max() > 1e-3


def test_end_of_text_is_the_largest_id():
    model, ids = ClipText(CONFIG, 11), jnp.array([[5, 98, 7, 0], [5, 6, 7, 98]])
    variables = random_variables(model, ids)
    states = run(model, variables, ids, method="states")
    np.testing.assert_allclose(run(model, variables, ids, method="state"), [states[0, 1], states[1, 3]], atol=1e-6)


def test_too_long_a_text_says_so():
    with pytest.raises(JclipError, match="18 tokens long, but this tower reads at most 17"):
        ClipText(CONFIG, 11).init(jax.random.key(0), jnp.zeros((1, 18), jnp.int32))


def test_layers_are_stacked():
    params = random_variables(ClipText(CONFIG, 11), jnp.zeros((1, 4), jnp.int32))["params"]
    assert {leaf.shape[0] for leaf in jax.tree.leaves(params["layers"])} == {CONFIG.layers}
