"""Models of the three families against Hugging Face's and cn_clip's with the same random weights."""

import math
from dataclasses import replace
from functools import partial

import cn_clip.clip.model
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from jclip.errors import JclipError
from jclip.models.bert import BertConfig
from jclip.models.clip_text import ClipTextConfig
from jclip.models.compute import Compute
from jclip.models.dual_encoder import DualEncoder, DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.vit import VitConfig
from tests.models import torch_weights
from tests.models.parity import (
    assert_same_rows,
    assert_same_tree,
    assert_same_values,
    ragged_ids,
    random_images,
    random_variables,
    run,
    to_torch,
    unit,
)

VOCAB = 90
IMAGE = VitConfig(image_size=30, patch_size=10, width=40, layers=2, heads=5)
WWM = BertConfig(
    vocab_size=VOCAB,
    width=36,
    layers=2,
    heads=3,
    intermediate=60,
    max_positions=24,
    type_vocab_size=2,
    pad_id=0,
    layer_norm_eps=1e-12,
)
XLM_R = replace(WWM, type_vocab_size=1, pad_id=1, layer_norm_eps=1e-5, position_offset="after_padding")
CLIP_TEXT = ClipTextConfig(vocab_size=VOCAB, context_length=20, width=28, layers=2, heads=2)

CLIP = DualEncoderConfig(IMAGE, CLIP_TEXT, embed_dim=13)
CHINESE_CLIP = DualEncoderConfig(IMAGE, WWM, embed_dim=13)
CHINESE_CLIP_RESNET = DualEncoderConfig(ResNetConfig(64, (1, 2, 1, 1), width=8, heads=4), WWM, embed_dim=13)
ALTCLIP = DualEncoderConfig(IMAGE, XLM_R, embed_dim=13, head_width=22)
FAMILIES = {
    "clip": CLIP,
    "chinese-clip": CHINESE_CLIP,
    "chinese-clip-resnet": CHINESE_CLIP_RESNET,
    "altclip": ALTCLIP,
}
LENGTHS = [[18] * 5, [3, 18, 7, 11, 2]]  # without and with padding, of one shape: one program


def hf_vision(config: VitConfig) -> dict:
    return {
        "hidden_size": config.width,
        "intermediate_size": 4 * config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "hidden_act": config.activation,
    }


def hf_bert(config: BertConfig) -> dict:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.intermediate,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.type_vocab_size,
        "pad_token_id": config.pad_id,
        "layer_norm_eps": config.layer_norm_eps,
    }


def hf_clip():
    text = {
        "vocab_size": VOCAB,
        "hidden_size": CLIP_TEXT.width,
        "intermediate_size": 4 * CLIP_TEXT.width,
        "num_hidden_layers": CLIP_TEXT.layers,
        "num_attention_heads": CLIP_TEXT.heads,
        "max_position_embeddings": CLIP_TEXT.context_length,
        "eos_token_id": 2,
    }
    config = transformers.CLIPConfig(text_config=text, vision_config=hf_vision(IMAGE), projection_dim=13)
    return transformers.CLIPModel(config), torch_weights.hf_clip


def hf_chinese_clip():
    config = transformers.ChineseCLIPConfig(text_config=hf_bert(WWM), vision_config=hf_vision(IMAGE), projection_dim=13)
    return transformers.ChineseCLIPModel(config), torch_weights.hf_chinese_clip


def hf_altclip():
    text = hf_bert(XLM_R) | {"project_dim": 22}
    config = transformers.AltCLIPConfig(text_config=text, vision_config=hf_vision(IMAGE), projection_dim=13)
    return transformers.AltCLIPModel(config), torch_weights.hf_altclip


def ids_for(config: DualEncoderConfig, lengths: list[int]) -> np.ndarray:
    ids = ragged_ids(lengths, VOCAB, config.text.pad_id or 0)
    if isinstance(config.text, ClipTextConfig):
        ids[np.arange(len(lengths)), np.array(lengths) - 1] = VOCAB - 1
    return ids


def shapes(config: DualEncoderConfig):
    images = jnp.zeros((1, config.image.image_size, config.image.image_size, 3))
    return jax.eval_shape(lambda: DualEncoder(config).init(jax.random.key(0), images, jnp.zeros((1, 4), jnp.int32)))


@pytest.mark.parametrize(
    ("config", "build"),
    [(CLIP, hf_clip), (CHINESE_CLIP, hf_chinese_clip), (ALTCLIP, hf_altclip)],
    ids=["clip", "chinese-clip", "altclip"],
)
def test_transformers_computes_the_same(config, build):
    reference, copy = build()
    weights = torch_weights.Weights(torch_weights.randomise(reference))
    params = copy(weights)
    assert_same_tree(weights, params, shapes(config)["params"])
    model = partial(run, DualEncoder(config), {"params": params})
    for lengths in LENGTHS:
        images, ids = random_images(len(lengths), IMAGE.image_size), ids_for(config, lengths)
        mask = None if isinstance(config.text, ClipTextConfig) else to_torch(ids) != config.text.pad_id
        theirs = reference(input_ids=to_torch(ids), pixel_values=to_torch(images), attention_mask=mask)
        image, text, logit_scale = model(images, ids)
        assert_same_rows(image, theirs.image_embeds)
        assert_same_rows(text, theirs.text_embeds)
        logits = np.exp(logit_scale) * unit(text) @ unit(image).T
        np.testing.assert_allclose(logits, theirs.logits_per_text.detach().numpy(), atol=1e-4)
        # The states before the projection are compared in AltCLIP's first stage.
        state = reference.text_model(to_torch(ids), attention_mask=mask)
        state = state.last_hidden_state[:, 0] if config is CHINESE_CLIP else state.pooler_output
        assert_same_values(model(ids, method="text_state"), state)
        assert_same_values(text, reference.get_text_features(to_torch(ids), mask).pooler_output)
        assert_same_values(image, reference.get_image_features(to_torch(images)).pooler_output)


@pytest.mark.parametrize("config", [CHINESE_CLIP, CHINESE_CLIP_RESNET], ids=["vit", "resnet"])
def test_cn_clip_computes_the_same(config):
    image, text = config.image, config.text
    is_vit = isinstance(image, VitConfig)
    reference = cn_clip.clip.model.CLIP(
        embed_dim=config.embed_dim,
        image_resolution=image.image_size,
        vision_layers=image.layers,
        vision_width=image.width,
        vision_patch_size=image.patch_size if is_vit else None,
        vision_head_width=image.width * (1 if is_vit else 32) // image.heads,
        vocab_size=text.vocab_size,
        text_attention_probs_dropout_prob=0.1,
        text_hidden_act="gelu",
        text_hidden_dropout_prob=0.1,
        text_hidden_size=text.width,
        text_initializer_range=0.02,
        text_intermediate_size=text.intermediate,
        text_max_position_embeddings=text.max_positions,
        text_num_attention_heads=text.heads,
        text_num_hidden_layers=text.layers,
        text_type_vocab_size=text.type_vocab_size,
    )
    weights = torch_weights.Weights(torch_weights.randomise(reference))
    variables = torch_weights.cn_clip(weights)
    assert_same_tree(weights, variables, shapes(config))
    for lengths in LENGTHS:
        images, ids = random_images(len(lengths), image.image_size), ids_for(config, lengths)
        ours_image, ours_text, logit_scale = run(DualEncoder(config), variables, images, ids)
        theirs_image, theirs_text, scale = reference(to_torch(images), to_torch(ids))
        assert_same_rows(ours_image, theirs_image)
        assert_same_rows(ours_text, theirs_text)
        np.testing.assert_allclose(np.exp(logit_scale), scale.item(), rtol=1e-6)


FEW = [
    name if name in ("chinese-clip-resnet", "altclip") else pytest.param(name, marks=pytest.mark.slow)
    for name in FAMILIES
]


@pytest.mark.parametrize("name", FEW)
def test_interface(name):
    config = FAMILIES[name]
    model = DualEncoder(config)
    images, ids = random_images(3, config.image.image_size), ids_for(config, [5, 2, 9])
    variables = random_variables(model, images, ids)
    image, text, logit_scale = run(model, variables, images, ids)
    assert image.shape == text.shape == (3, 13)
    assert logit_scale == variables["params"]["logit_scale"]
    assert set(variables["params"]) == {"image", "text", "logit_scale"}
    assert ("batch_stats" in variables) == (name == "chinese-clip-resnet")
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes(config)))
    state = run(model, variables, ids, method="text_state")
    assert state.shape == (3, config.head_width or config.text.width)
    np.testing.assert_allclose(state @ variables["params"]["text"]["projection"]["kernel"], text, atol=1e-5)


@pytest.mark.parametrize("name", FEW)
def test_a_tower_needs_its_own_parameters_alone(name):
    # A teacher consists of its text tower only.
    config = FAMILIES[name]
    model = DualEncoder(config)
    images, ids = random_images(3, config.image.image_size), ids_for(config, [5, 2, 9])
    variables = random_variables(model, images, ids)
    image, text, _ = run(model, variables, images, ids)
    text_alone = {"params": {"text": variables["params"]["text"]}}
    image_alone = {**variables, "params": {"image": variables["params"]["image"]}}
    np.testing.assert_allclose(run(model, text_alone, ids, method="encode_text"), text, atol=1e-5)
    np.testing.assert_allclose(run(model, image_alone, images, method="encode_image"), image, atol=1e-5)


def test_the_temperature_begins_at_clips():
    images, ids = random_images(1, IMAGE.image_size), ids_for(CLIP, [5])
    logit_scale = jax.jit(lambda: DualEncoder(CLIP).init(jax.random.key(0), images, ids)["params"]["logit_scale"])()
    assert math.isclose(logit_scale, 2.6592600, rel_tol=1e-6)


@pytest.mark.parametrize("name", [pytest.param("chinese-clip-resnet", marks=pytest.mark.slow), "altclip"])
def test_bfloat16_comes_near(name):
    config = FAMILIES[name]
    images, ids = random_images(3, config.image.image_size), ids_for(config, [5, 2, 9])
    variables = random_variables(DualEncoder(config), images, ids)
    precise = run(DualEncoder(config), variables, images, ids)
    rough = run(DualEncoder(config, Compute(jnp.bfloat16)), variables, images, ids)
    for left, right in zip(precise[:2], rough[:2], strict=True):
        assert right.dtype == jnp.bfloat16
        assert (unit(left) * unit(right)).sum(axis=-1).min() > 0.999
    assert rough[2].dtype == jnp.float32


def test_rows_bring_dropout_in_the_text_tower_only():
    images, ids = random_images(3, IMAGE.image_size), ids_for(ALTCLIP, [5, 2, 9])
    model = DualEncoder(ALTCLIP)
    variables = random_variables(model, images, ids)
    image, text, _ = run(model, variables, images, ids)
    train = jax.jit(lambda key: model.apply(variables, images, ids, rows_b=jnp.arange(3), rngs={"dropout": key}))
    image_in_training, text_in_training, _ = train(jax.random.key(1))
    np.testing.assert_allclose(image_in_training, image, atol=1e-5)
    assert np.abs(text_in_training - text).max() > 1e-3


def test_a_head_on_clips_own_text_tower_says_so():
    with pytest.raises(JclipError, match="head_width: a .* has no head"):
        replace(CLIP, head_width=8)
