"""Frozen first layers in their own stack: the same numbers, and no backward pass through them."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.models.bert import BertConfig
from jclip.models.clip_text import ClipTextConfig
from jclip.models.compute import Compute
from jclip.models.dual_encoder import DualEncoder, DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.vit import VitConfig
from jclip.train.planning.flops import count_flops
from tests.models.parity import ragged_ids, random_images, random_variables

IMAGE = VitConfig(image_size=30, patch_size=10, width=40, layers=5, heads=5)
BERT = BertConfig(
    vocab_size=90,
    width=36,
    layers=4,
    heads=3,
    intermediate=60,
    max_positions=24,
    type_vocab_size=2,
    pad_id=0,
    layer_norm_eps=1e-12,
)
CLIP_TEXT = ClipTextConfig(vocab_size=90, context_length=20, width=28, layers=4, heads=2)
CONFIGS = {"bert": DualEncoderConfig(IMAGE, BERT, 13), "clip": DualEncoderConfig(IMAGE, CLIP_TEXT, 13)}
IMAGES, IDS, ROWS = random_images(3, 30), ragged_ids([5, 2, 9], 90, 0), jnp.arange(3)
KINDS = {"image": IMAGE, "bert": BERT, "clip": CLIP_TEXT}


def apart(params, first: tuple[int, int]):
    """Returns a whole model's parameters in the structure of a model with `frozen_layers`."""
    split = dict(params)
    for tower, count in zip(("image", "text"), first, strict=True):
        layers = params[tower]["layers"]
        stacks = {
            "first_layers": jax.tree.map(lambda leaf, n=count: leaf[:n], layers),
            "layers": jax.tree.map(lambda leaf, n=count: leaf[n:], layers),
        }
        others = {name: leaf for name, leaf in params[tower].items() if name != "layers"}
        split[tower] = others | {name: stack for name, stack in stacks.items() if len(jax.tree.leaves(stack)[0])}
    return split


@pytest.mark.parametrize(
    ("family", "first"),
    [("bert", (2, 3)), ("bert", (5, 4)), pytest.param("clip", (0, 1), marks=pytest.mark.slow)],
    ids=str,
)
def test_the_same_numbers(family, first):
    config = CONFIGS[family]
    whole, split = DualEncoder(config), DualEncoder(config, frozen_layers=first)
    params = random_variables(whole, IMAGES, IDS)["params"]
    shapes = jax.eval_shape(lambda: split.init(jax.random.key(0), IMAGES, IDS)["params"])
    assert jax.tree.map(np.shape, apart(params, first)) == jax.tree.map(np.shape, shapes)

    def encode(model):  # with dropout, which must not depend on the stacking
        rngs = {"dropout": jax.random.key(1)}
        return jax.jit(lambda params: model.apply({"params": params}, IMAGES, IDS, rows_b=ROWS, rngs=rngs))

    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-5),
        encode(split)(apart(params, first)),
        encode(whole)(params),
    )


@functools.cache
def flops(tower, layers, *, frozen=0, remat="none", gradient=False):
    """Returns the FLOPs of a tower's forward pass, or of its gradient in all layers except the frozen ones."""
    sizes = {**KINDS, tower: replace(KINDS[tower], layers=layers)}
    config = DualEncoderConfig(sizes["image"], sizes["clip" if tower == "clip" else "bert"], 13)
    side, inputs = ("image", IMAGES) if tower == "image" else ("text", IDS)
    model = DualEncoder(config, Compute(remat=remat), frozen_layers=(frozen, 0) if side == "image" else (0, frozen))
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, IDS)["params"][side])

    def loss(trainable, others):
        variables, rngs = {"params": {side: {**others, **trainable}}}, {"dropout": jax.random.key(0)}
        return jnp.square(model.apply(variables, inputs, rows_b=ROWS, method=f"encode_{side}", rngs=rngs)).sum()

    trainable = {name: leaf for name, leaf in params.items() if name in ("layers", "projection")}
    return count_flops(jax.grad(loss) if gradient else loss, trainable, params)


@pytest.mark.usefixtures("scanned")
@pytest.mark.parametrize("tower", KINDS)
def test_frozen_layers_cost_their_forward_pass(tower):
    """The other layers cost three times theirs, for the gradients of matrices and of activations."""
    one_layer = flops(tower, 4) - flops(tower, 3)
    projection = 2 * 3 * KINDS[tower].width * 13
    bound = flops(tower, 4) + 2 * (one_layer + projection)
    np.testing.assert_allclose(flops(tower, 4, frozen=3, gradient=True), bound, rtol=0.01)
    whole = flops(tower, 4, gradient=True)
    assert whole > 1.3 * bound


@pytest.mark.usefixtures("scanned")
@pytest.mark.parametrize(
    ("tower", "remat"),
    [
        *((tower, "none") for tower in KINDS),
        ("bert", "layers"),
        *(pytest.param(tower, "layers", marks=pytest.mark.slow) for tower in KINDS if tower != "bert"),
    ],
)
def test_no_backward_pass_through_frozen_layers(tower, remat):
    """Beyond the forward pass, the cost is that of a tower with only the other layers."""
    below = flops(tower, 5, frozen=3, remat=remat, gradient=True) - flops(tower, 5)
    assert below == flops(tower, 2, remat=remat, gradient=True) - flops(tower, 2)
    assert flops(tower, 3, frozen=3, remat=remat, gradient=True) < 1.1 * flops(tower, 3)


@pytest.mark.parametrize("first", [(6, 0), (-1, 0), (0, 5)], ids=str)
def test_more_layers_than_there_are(first):
    model = DualEncoder(CONFIGS["bert"], frozen_layers=first)
    with pytest.raises(JclipError, match=r"frozen_layers of -?\d is not possible in a tower of [45] layers: give 0 to"):
        jax.eval_shape(model.init, jax.random.key(0), IMAGES, IDS)


def test_a_resnet_has_no_layers_to_set_apart():
    config = DualEncoderConfig(ResNetConfig(64, (1, 1, 1, 1), width=8, heads=4), BERT, 13)
    with pytest.raises(
        JclipError, match=r"frozen_layers: a ResNetConfig has no stack of layers \(image tower\): set it to 0"
    ):
        jax.eval_shape(DualEncoder(config, frozen_layers=(1, 0)).init, jax.random.key(0), random_images(1, 64), IDS)
