"""Layer-wise decay of the learning rate: against timm's groups, by hand, and with multipliers and Muon."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import timm
from timm.optim import param_groups_layer_decay

from jclip import rules
from jclip.errors import JclipError
from jclip.models.bert import BertConfig
from jclip.models.build import shapes
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.vit import VitConfig
from jclip.optimizer import Optimizer, build
from jclip.rules import RuleError

D, DEPTH = 0.7, 3
VIT = VitConfig(image_size=32, patch_size=16, width=16, layers=DEPTH, heads=2)
BERT = BertConfig(
    vocab_size=20,
    width=16,
    layers=2,
    heads=2,
    intermediate=16,
    max_positions=8,
    type_vocab_size=1,
    pad_id=1,
    layer_norm_eps=1e-5,
)
MODEL = DualEncoderConfig(VIT, BERT, 16, head_width=16)

# timm's name of a parameter, and ours; "{i}" is a layer.
TIMM = {
    "cls_token": "image/class_embedding",
    "pos_embed": "image/position_embedding",
    "patch_embed.proj.weight": "image/patch/kernel",
    "norm_pre.weight": "image/pre_norm/scale",
    "norm_pre.bias": "image/pre_norm/bias",
    "blocks.{i}.norm1.weight": "image/layers/attention_norm/scale",
    "blocks.{i}.attn.qkv.weight": "image/layers/attention/query/kernel",
    "blocks.{i}.attn.proj.bias": "image/layers/attention/output/bias",
    "blocks.{i}.norm2.bias": "image/layers/mlp_norm/bias",
    "blocks.{i}.mlp.fc1.weight": "image/layers/mlp/fc1/kernel",
    "blocks.{i}.mlp.fc2.bias": "image/layers/mlp/fc2/bias",
    "norm.weight": "image/post_norm/scale",
    "norm.bias": "image/post_norm/bias",
    "head.weight": "image/projection/kernel",
}


def spec(**changes):
    return Optimizer(**{"learning_rate": 1.0, "schedule": "constant", "weight_decay": 0.0, "eps": 1e-12, **changes})


def leaves_of(model):
    return rules.paths_of(shapes(model)["params"])


def factors(spec, model=MODEL, trainable=None):
    """Returns {path: learning rates}, a row for each layer, measured as the length of Adam's first step."""
    leaves = leaves_of(model)
    params = rules.tree_from_paths(
        {path: jnp.ones(leaf.shape) for path, leaf in (leaves if trainable is None else trainable).items()}
    )
    optimizer = build(spec, 10, leaves, params, model.towers)
    updates, _ = jax.jit(optimizer.update)(params, optimizer.init(params), params)
    return {path: -np.asarray(leaf) for path, leaf in rules.paths_of(updates).items()}


def test_timms_groups():
    vit = timm.models.VisionTransformer(
        img_size=32, patch_size=16, embed_dim=16, depth=DEPTH, num_heads=2, pre_norm=True, num_classes=5
    )
    names = {parameter: name for name, parameter in vit.named_parameters()}
    groups = param_groups_layer_decay(vit, layer_decay=D)
    theirs = {names[parameter]: group["lr_scale"] for group in groups for parameter in group["params"]}
    ours, layers = factors(spec(layer_decay=(("image", D), ("text", 1.0)))), range(DEPTH)
    seen = set()
    for name, path in TIMM.items():
        for layer in layers if "{i}" in name else [None]:
            leaf = ours[path] if layer is None else ours[path][layer]
            np.testing.assert_allclose(leaf, theirs[name.replace("{i}", str(layer))], rtol=1e-5, err_msg=name)
            seen.add(path)
    # Query, key and value are one parameter in timm.
    rest = {path for path in ours if path.startswith("image/")} - seen
    assert all(path.startswith("image/layers/") for path in rest)
    for path in rest:
        np.testing.assert_allclose(ours[path].reshape(DEPTH, -1)[:, 0], [D**3, D**2, D], rtol=1e-5)
    # Text tower and temperature are unchanged.
    assert all(np.allclose(ours[path], 1) for path in ours if not path.startswith("image/"))


def test_a_bert_by_hand():
    ours = factors(spec(layer_decay=(("image", 1.0), ("text", 0.5))))
    first = {path: leaf.reshape(-1)[0] for path, leaf in ours.items() if path.startswith("text/")}
    by_hand = {
        "text/word_embedding": 0.125,
        "text/position_embedding": 0.125,
        "text/token_type_embedding": 0.125,
        "text/embedding_norm/scale": 0.125,
        "text/layers/mlp/fc1/kernel": 0.25,  # the lower of two
        "text/head_norm/scale": 1.0,
        "text/head/kernel": 1.0,
        "text/projection/kernel": 1.0,
    }
    for path, rate in by_hand.items():
        np.testing.assert_allclose(first[path], rate, rtol=1e-5, err_msg=path)
    np.testing.assert_allclose(ours["text/layers/mlp/fc1/kernel"][1], 0.5, rtol=1e-5)


def test_clips_text_tower_ends_in_a_norm():
    text = ClipTextConfig(vocab_size=20, context_length=8, width=16, layers=2, heads=2)
    ours = factors(spec(layer_decay=((".*", 0.5),)), DualEncoderConfig(VIT, text, 16))
    rates = {path: float(ours[f"text/{path}"].reshape(-1)[0]) for path in ("token_embedding", "final_norm/scale")}
    assert rates == pytest.approx({"token_embedding": 0.125, "final_norm/scale": 0.5})


def test_the_last_layers_alone_have_the_rates_of_the_whole_model():
    decay = spec(layer_decay=((".*", D),))
    whole, leaves = factors(decay), leaves_of(MODEL)
    last = {
        path: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype)
        for path, leaf in leaves.items()
        if path.startswith("image/layers/")
    }
    for path, leaf in factors(decay, trainable=last).items():
        np.testing.assert_array_equal(leaf, whole[path][-1:])


def test_with_muon_and_multipliers():
    changes = {"name": "muon", "multipliers": (("text/.*/kernel", 3.0), (".*", 1.0)), "weight_decay": 0.1}
    plain, decayed = factors(spec(**changes)), factors(spec(**changes, layer_decay=((".*", 0.5),)))
    once = factors(spec(**{**changes, "multipliers": ((".*", 1.0),)}))
    path = "text/layers/mlp/fc1/kernel"
    np.testing.assert_allclose(plain[path], 3 * once[path], rtol=1e-6)
    np.testing.assert_allclose(decayed[path], plain[path] * np.array([0.25, 0.5]).reshape(2, 1, 1), rtol=1e-6)


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.5])
def test_an_impossible_decay_is_refused(rate):
    with pytest.raises(JclipError, match=f"^layer_decay.0.1 is {rate}, but must be a number above 0, 1 at most"):
        factors(spec(layer_decay=((".*", rate),)))


def test_a_misspelt_rule_is_refused():
    with pytest.raises(RuleError, match="layer_decay: rule 'imgae'"):
        factors(spec(layer_decay=(("imgae", 0.5), (".*", 1.0))))


def test_the_blocks_of_a_resnet_are_its_layers():
    model = DualEncoderConfig(ResNetConfig(image_size=32, layers=(1, 2, 1, 1), width=8, heads=4), BERT, 16)
    ours = factors(spec(layer_decay=(("image", 0.5), (".*", 1.0))), model)
    rates = {
        "stem/conv_1/kernel": 1 / 64,
        "stage_1_block_1/conv_3/kernel": 1 / 32,
        "stage_2_block_2/norm_3/scale": 1 / 8,
        "stage_4_block_1/shortcut_norm/bias": 1 / 2,
        "attention_pool/position_embedding": 1,
        "attention_pool/attention/query/kernel": 1,
    }
    for path, rate in rates.items():
        np.testing.assert_allclose(ours[f"image/{path}"], rate, rtol=1e-5, err_msg=path)
