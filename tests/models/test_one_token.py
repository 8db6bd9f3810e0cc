"""The last layer computed for one token only: the same numbers as whole layers, with less arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip.models import attention, transformer
from jclip.models.bert import BertConfig
from jclip.models.clip_text import ClipTextConfig
from jclip.models.compute import Compute
from jclip.models.vit import VitConfig
from jclip.train.planning.flops import count_flops
from tests.models.parity import ragged_ids, random_images, random_variables

IDS = ragged_ids([5, 2, 9], 90, 0)
BERT = BertConfig(
    vocab_size=90,
    width=24,
    layers=2,
    heads=2,
    intermediate=60,
    max_positions=12,
    type_vocab_size=2,
    pad_id=0,
    layer_norm_eps=1e-12,
)
TOWERS = {
    "image": (VitConfig(image_size=8, patch_size=4, width=24, layers=2, heads=2), random_images(3, 8)),
    "bert": (BERT, IDS),
    "clip": (ClipTextConfig(vocab_size=90, context_length=12, width=24, layers=2, heads=2), IDS),
}


@pytest.mark.parametrize(
    ("tower", "remat"), [("image", "none"), ("image", "layers"), ("bert", "none"), ("clip", "none")]
)
def test_numbers_and_gradients_of_whole_layers(tower, remat, monkeypatch):
    config, inputs = TOWERS[tower]
    model = config.build(7, Compute(remat=remat))
    params = random_variables(model, inputs)["params"]

    def results():
        def loss(params):
            embeddings = model.apply({"params": params}, inputs)
            return jnp.square(embeddings).sum(), embeddings

        found = jax.jit(jax.grad(loss, has_aux=True))
        return found(params), count_flops(jax.grad(loss, has_aux=True), params)

    ours, fewer = results()
    monkeypatch.setattr(transformer, "SHALLOW", 0)
    whole, all_flops = results()
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), ours, whole)
    assert fewer < 0.75 * all_flops


def test_cudnn_computes_the_layers_that_it_can(monkeypatch):
    """cuDNN does not support a single query, which is no reason to refuse the tower."""
    asked = []
    choose = attention._choose

    def note(implementation, queries, keys, drop):
        asked.append((implementation, queries.shape[1]))
        return choose("xla", queries, keys, drop)

    config, images = TOWERS["image"]
    params = jax.eval_shape(config.build(7, Compute()).init, jax.random.key(0), images)
    monkeypatch.setattr(attention, "_choose", note)
    jax.eval_shape(config.build(7, Compute(attention="cudnn")).apply, params, images)
    assert set(asked) == {("cudnn", 5), ("auto", 1)}
