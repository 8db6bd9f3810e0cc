"""CLIP's vision transformer against cn_clip's and Hugging Face's, at sizes other than the libraries' defaults."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from cn_clip.clip.model import VisualTransformer

from jclip.errors import JclipError
from jclip.models.vit import Vit, VitConfig
from tests.models.parity import (
    assert_same_rows,
    assert_same_tree,
    assert_same_values,
    random_images,
    run,
    to_torch,
)
from tests.models.torch_weights import Weights, hf_vit, openai_vit, randomise

CONFIG = VitConfig(image_size=42, patch_size=14, width=160, layers=3, heads=2)  # heads 80 wide, as in H/14
NARROW = VitConfig(image_size=25, patch_size=5, width=24, layers=2, heads=3)


def shapes(config: VitConfig, embed_dim: int):
    images = jnp.zeros((1, config.image_size, config.image_size, 3))
    return jax.eval_shape(lambda: Vit(config, embed_dim).init(jax.random.key(0), images)["params"])


@pytest.mark.parametrize(("config", "batch"), [(CONFIG, 5), (NARROW, 1)])
def test_embeddings_are_those_of_cn_clip(config, batch):
    reference = randomise(
        VisualTransformer(config.image_size, config.patch_size, config.width, config.layers, config.heads, 11)
    )
    weights = Weights(reference)
    params = openai_vit(weights)
    assert_same_tree(weights, params, shapes(config, 11))
    images = random_images(batch, config.image_size)
    theirs, ours = reference(to_torch(images)), run(Vit(config, 11), {"params": params}, images)
    assert_same_values(ours, theirs)
    if batch > 1:
        assert_same_rows(ours, theirs)


@pytest.mark.parametrize("activation", [pytest.param("quick_gelu", marks=pytest.mark.slow), "gelu"])
def test_embeddings_are_those_of_transformers(activation):
    config = replace(NARROW, activation=activation, mlp_ratio=2)
    hf_config = transformers.CLIPVisionConfig(
        hidden_size=config.width,
        intermediate_size=config.mlp_ratio * config.width,
        projection_dim=11,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_act=activation,
    )
    reference = randomise(transformers.CLIPVisionModelWithProjection(hf_config))
    weights = Weights(reference)
    params = hf_vit(weights)
    assert_same_tree(weights, params, shapes(config, 11))
    images = random_images(3, config.image_size)
    assert_same_rows(run(Vit(config, 11), {"params": params}, images), reference(to_torch(images)).image_embeds)


def test_the_layers_are_one_scan():
    def equations(config):
        images = jnp.zeros((1, config.image_size, config.image_size, 3))
        jaxpr = jax.make_jaxpr(lambda params: Vit(config, 11).apply({"params": params}, images))(shapes(config, 11))
        return str(jaxpr).count("dot_general")

    assert equations(replace(NARROW, layers=5)) == equations(replace(NARROW, layers=20))
    layers = shapes(replace(NARROW, layers=20), 11)["layers"]
    assert {leaf.shape[0] for leaf in jax.tree.leaves(layers)} == {20}


def test_initialisation():
    width, depth = CONFIG.width, 8
    model = Vit(replace(CONFIG, layers=depth), 512)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 42, 42, 3)))["params"]
    expected = {
        ("projection", "kernel"): width**-0.5,
        ("position_embedding",): width**-0.5,
        ("class_embedding",): width**-0.5,
        ("patch", "kernel"): (3 * 14 * 14) ** -0.5 / 3**0.5,  # uniform within ± (inputs)^-1/2
        ("layers", "attention", "query", "kernel"): width**-0.5,
        ("layers", "attention", "output", "kernel"): width**-0.5 * (2 * depth) ** -0.5,
        ("layers", "mlp", "fc1", "kernel"): (2 * width) ** -0.5,
        ("layers", "mlp", "fc2", "kernel"): width**-0.5 * (2 * depth) ** -0.5,
    }
    for path, std in expected.items():
        leaf = params
        for key in path:
            leaf = leaf[key]
        np.testing.assert_allclose(leaf.std(), std, rtol=0.15 if leaf.size < 1000 else 0.05, err_msg=str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 26}, "image_size 26 is not a multiple of patch_size 5"),
        ({"heads": 5}, "5 heads do not divide a width of 24"),
        ({"activation": "relu"}, "choose one of quick_gelu, gelu"),
    ],
)
def test_a_wrong_configuration_says_so(change, message):
    with pytest.raises(JclipError, match=message):
        replace(NARROW, **change)


def test_wrong_images_say_so():
    with pytest.raises(JclipError, match=r"\(2, 32, 32, 3\), but this tower reads \(batch, 25, 25, 3\)"):
        Vit(NARROW, 11).init(jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
