"""Patch dropout (Li et al. 2022, FLIP): the patches that stay, their positions, and the arithmetic saved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.models.bert import BertConfig
from jclip.models.dual_encoder import DualEncoder, DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.vit import Vit, VitConfig
from jclip.parallel.mesh import make_mesh
from jclip.parallel.sharding import batch_sharding, replicated
from jclip.train.planning.flops import count_flops
from tests.models.parity import random_images, random_variables, run

CONFIG = VitConfig(image_size=25, patch_size=5, width=24, layers=2, heads=3)
IMAGES, ROWS, KEY = random_images(8, 25), np.arange(40, 48, dtype=np.int32), jax.random.key(5)
WHOLE, HALF = Vit(CONFIG, 11), Vit(CONFIG, 11, patch_dropout=0.5)
VARIABLES = random_variables(WHOLE, IMAGES)


def encode(variables, images, rows, model=HALF):
    return model.apply(variables, images, rows_b=rows, rngs={"dropout": KEY})


ENCODE = jax.jit(encode)


def kept(rows, patch_dropout=0.5, key=KEY):
    model = Vit(CONFIG, 11, patch_dropout=patch_dropout)
    return np.asarray(model.apply(VARIABLES, jnp.asarray(rows), method="_kept", rngs={"dropout": key}))


@pytest.mark.parametrize(("rate", "stay"), [(0.5, 12), (0.75, 6), (0.1, 22), (0.99, 1)])
def test_as_many_of_every_picture_and_each_as_likely(rate, stay):
    places = kept(range(2000), rate)
    assert places.shape == (2000, stay)
    assert (np.diff(places) > 0).all()  # ascending, none twice
    share = np.bincount(places.ravel(), minlength=25) / 2000
    p = stay / 25
    assert np.abs(share - p).max() < 5 * (p * (1 - p) / 2000) ** 0.5


def test_it_depends_on_the_key_and_the_row_alone():
    places = kept([7, 8, 7])
    np.testing.assert_array_equal(places[0], places[2])
    np.testing.assert_array_equal(kept([8]), places[1:2])
    assert (places[0] != places[1]).any()
    assert (kept([7], key=jax.random.key(6)) != places[:1]).any()


def test_an_embedding_is_that_of_the_patches_that_stay():
    """The oracle is the same tower on each image alone, given only the pixels and positions of the kept patches."""
    params = VARIABLES["params"]
    places, ours = kept(ROWS), ENCODE(VARIABLES, IMAGES, ROWS)
    from_tokens = jax.jit(lambda x: WHOLE.apply(VARIABLES, x, method=_from_tokens))
    for image, row, embedding in zip(IMAGES, places, ours, strict=True):
        squares = image.reshape(5, 5, 5, 5, 3).swapaxes(1, 2).reshape(25, 75)[row]
        x = squares @ params["patch"]["kernel"].reshape(75, 24) + params["position_embedding"][1:][row]
        x = np.concatenate([(params["class_embedding"] + params["position_embedding"][0])[None], x])
        np.testing.assert_allclose(embedding, from_tokens(x[None])[0], atol=1e-5)


def _from_tokens(model, x_bld):
    states, _ = model.layers(model.pre_norm(x_bld), None, None)
    return model.projection(model.post_norm(states[:, 0]))


def test_without_rows_and_without_a_rate_all_patches_stay():
    whole = run(WHOLE, VARIABLES, IMAGES)
    np.testing.assert_allclose(run(HALF, VARIABLES, IMAGES), whole, atol=1e-6)
    np.testing.assert_allclose(jax.jit(WHOLE.apply)(VARIABLES, IMAGES, rows_b=ROWS), whole, atol=1e-6)
    assert np.abs(ENCODE(VARIABLES, IMAGES, ROWS) - whole).max() > 1e-2


def test_a_batch_is_its_micro_batches_on_any_mesh():
    whole = np.asarray(ENCODE(VARIABLES, IMAGES, ROWS))
    order = np.random.default_rng(0).permutation(8)
    parts = [ENCODE(VARIABLES, IMAGES[part], ROWS[part]) for part in order.reshape(2, 4)]
    np.testing.assert_allclose(np.concatenate(parts), whole[order], atol=1e-6)
    mesh = make_mesh()
    split = batch_sharding(mesh)
    on_mesh = jax.jit(encode, in_shardings=(replicated(mesh), split, split), out_shardings=split)
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(on_mesh(VARIABLES, IMAGES, ROWS), whole, atol=1e-6)


@pytest.mark.usefixtures("scanned")
@pytest.mark.usefixtures("scanned")
def test_half_the_patches_are_half_the_work():
    """Patches and perceptrons cost 13 / 26, including the class token; attention costs a quarter."""
    half = count_flops(lambda *given: encode(*given), VARIABLES, IMAGES, ROWS)
    whole = count_flops(WHOLE.apply, VARIABLES, IMAGES)
    tokens, width = np.array([13, 26]), 24
    layer = 2 * 12 * width**2 * tokens + 2 * 2 * width * tokens**2
    expected = 8 * (2 * layer + 2 * (tokens - 1) * 75 * width + 2 * width * 11)
    assert [half, whole] == expected.tolist()


@pytest.mark.parametrize("rate", [1.0, -0.5])
def test_a_wrong_rate_says_so(rate):
    with pytest.raises(JclipError, match=f"patch_dropout {rate} is not possible: give 0 or more, and less than 1"):
        random_variables(Vit(CONFIG, 11, patch_dropout=rate), IMAGES)


def test_a_resnet_has_no_patches():
    text = BertConfig(90, 36, 1, 3, 60, 24, 2, 0, 1e-12)
    model = DualEncoder(DualEncoderConfig(ResNetConfig(64, (1, 1, 1, 1), 8, 4), text, 13), patch_dropout=0.5)
    with pytest.raises(JclipError, match="patch_dropout: a ResNetConfig does not support it: set it to 0"):
        random_variables(model, random_images(1, 64), np.zeros((1, 4), np.int32))
