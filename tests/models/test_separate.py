"""Separate layers: views of the stacks that give the same features, and only where they are of use."""

import pickle
from dataclasses import replace

import jax
import numpy as np
import pytest

from jclip.bundle import Bundle
from jclip.data.sources.synthetic import write_tokenizer
from jclip.images.preprocess import Preprocessing
from jclip.inference import Model
from jclip.models.build import build_model, init_variables
from jclip.models.separate import each_layer, separated
from jclip.models.text_encoder import TextEncoderConfig
from jclip.models.transformer import SHALLOW
from jclip.models.zoo import get_config, get_text_encoder
from jclip.parallel.mesh import make_mesh

SIDE, VOCABULARY, CONTEXT = 32, 60, 12
DEPTH = SHALLOW + 1  # a stack that is scanned unless it is separate


def deep(name):
    """Returns a published model's configuration at a small size, with towers that are deep enough for a scan."""
    config = get_config(name).reduced(SIDE, VOCABULARY, CONTEXT)
    return replace(config, image=replace(config.image, layers=DEPTH), text=replace(config.text, layers=DEPTH))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model of a ViT and a BERT."""
    config = deep("chinese-clip-vit-b-16")
    tokenizer = write_tokenizer("wordpiece", tmp_path_factory.mktemp("words"))
    config = replace(config, text=replace(config.text, vocab_size=tokenizer.vocab_size))
    params = jax.device_get(init_variables(config, jax.random.key(0)))["params"]
    return Model(Bundle(config, params, tokenizer, Preprocessing(size=SIDE), CONTEXT))


@pytest.mark.parametrize("name", ["clip-vit-b-16", "altclip"])
def test_features_are_those_of_the_stacks(name):
    config = deep(name)
    model, params = build_model(config), init_variables(config, jax.random.key(0))["params"]
    draw = np.random.default_rng(0)
    images = draw.normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)
    ids = draw.integers(3, VOCABULARY, (2, CONTEXT)).astype(np.int32)
    for method, inputs in (("encode_image", images), ("encode_text", ids)):
        encode = jax.jit(lambda params, inputs, method=method: model.apply({"params": params}, inputs, method=method))
        whole, apart = (encode(each, inputs) for each in (params, separated(params, config.towers)))
        np.testing.assert_allclose(apart, whole, atol=2e-6)


def test_layers_are_views_of_the_stack(small):
    stack, layers = (
        small.params["text"]["layers"],
        each_layer(separated(small.params, small.bundle.config.towers)["text"]["layers"]),
    )
    assert len(layers) == DEPTH and not each_layer(stack)
    for whole, one in zip(jax.tree.leaves(stack), jax.tree.leaves(layers[2]), strict=True):
        assert one.shape == whole.shape[1:]
        assert one.unsafe_buffer_pointer() == whole.unsafe_buffer_pointer() + 2 * one.nbytes


def test_a_model_scans_on_a_mesh_and_a_text_encoder_always(small, tmp_path):
    assert each_layer(small._arguments["params"]["image"]["layers"])
    assert small._arguments is small._arguments
    with jax.set_mesh(make_mesh()):
        assert small._arguments is small.variables
    text, tokenizer = get_text_encoder("roberta-wwm-base"), write_tokenizer("wordpiece", tmp_path)
    config = TextEncoderConfig(text.reduced(tokenizer.vocab_size, CONTEXT))
    params = jax.device_get(init_variables(config, jax.random.key(0)))["params"]
    encoder = Model(Bundle(config, params, tokenizer, None, CONTEXT))
    assert encoder._arguments is encoder.variables


def test_pickle_stores_parameters_once(small):
    before = len(pickle.dumps(small))
    features = small.encode_text(["一只猫"])
    stored = pickle.dumps(small)
    assert len(stored) < 1.01 * before
    np.testing.assert_array_equal(pickle.loads(stored).encode_text(["一只猫"]), features)
