"""Every family equals its PyTorch model on texts of every length, padded or not, and on images, in odd batch sizes."""

import functools

import jax
import numpy as np
import pytest

from jclip.conversion.parity.comparison import EMBEDDINGS_WITHIN
from jclip.images.preprocess import normalise, to_array
from jclip.tokenizers.text import pad
from tests.conversion import checkpoints
from tests.models.parity import unit

SIZES = (1, 2, 3, 5, 7, 13)
FAMILIES = ["altclip_v4", "chinese_clip_hf", "cn_clip_released", "clip_hf"]


def quick(*names):
    """Returns all families as parameters; those that are not named are slow."""
    every = [*FAMILIES, "cn_clip_resnet"] if "cn_clip_resnet" in names else FAMILIES
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in every]


WORDS = ["red", "apple", "blue", "castle", "violet", "dragon", "绿", "苹果", "城堡", "龙", "7", "10"]


class Converted:
    """A converted model, the PyTorch model it came from, and our two towers as functions."""

    def __init__(self, name, theirs, model):
        self.theirs, self.model = theirs, model
        self.tokenizer, self.context = model.bundle.tokenizer, model.bundle.context_length
        self.ends_in_largest = name == "clip_hf"
        preprocessing = model.bundle.preprocessing
        self.pictures = checkpoints.images(preprocessing.size, max(SIZES))
        arrays = np.stack([to_array(preprocessing, picture) for picture in self.pictures])
        self.pixels = np.asarray(normalise(preprocessing, arrays))
        towers = (functools.partial(model.apply, method=f"encode_{tower}") for tower in ("text", "image"))
        self.text, self.image = (functools.partial(jax.jit(tower), model.variables) for tower in towers)

    def ids(self, length, count=SIZES[-1]):
        """Returns random ids of one length, without padding."""
        vocabulary = self.model.bundle.config.text.vocab_size
        ids = np.random.default_rng(length).integers(4, vocabulary - 2, (count, length), np.int32)
        if self.ends_in_largest:
            ids[:, -1] = vocabulary - 1
        return ids


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly():
    """Compiles without most optimisations, because each of the many shapes runs only a few times."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def converted(checkpoint_of, model_of):
    return functools.cache(lambda name: Converted(name, checkpoint_of(name)[2], model_of(name)))


def agree(ours, theirs):
    np.testing.assert_allclose(unit(ours), unit(theirs), rtol=0, atol=EMBEDDINGS_WITHIN)


def check_rows_differ(rows):
    """Checks that rows are not all equal, because agreement would then prove nothing."""
    rows = unit(rows)
    assert np.abs(rows - rows[0]).max() > 0.01


def check_strings(there, sizes):
    draw, of_length = np.random.default_rng(0), {}
    lengths = [*range(2, there.context + 1)]  # the two special tokens are always there
    while len(of_length) < len(lengths):
        text = " ".join(draw.choice(WORDS, draw.integers(0, there.context)))
        (ids,) = there.tokenizer.encode([text], there.context)
        of_length.setdefault(len(ids), (text, ids))
    assert sorted(of_length) == lengths
    texts = np.array([text for text, _ in of_length.values()])
    theirs = np.concatenate([there.theirs.text(np.array([ids])) for _, ids in of_length.values()])  # alone, not padded
    check_rows_differ(theirs)
    for size in sizes:
        order = draw.permutation(len(texts))
        for rows in np.split(order, range(size, len(order), size)):
            agree(there.model.encode_text(list(texts[rows])), theirs[rows])


def check_padded(there, sizes):
    of_length = {length: there.ids(length) for length in range(1, there.context + 1)}
    padded = {length: pad(ids, there.context, there.tokenizer.pad_id) for length, ids in of_length.items()}
    theirs = np.split(there.theirs.text(np.concatenate([*padded.values()])), len(padded))
    for rows, (length, ids) in zip(theirs, of_length.items(), strict=True):
        if length > 1:  # the end of text alone is always the same
            check_rows_differ(rows)
        agree(there.theirs.text(ids), rows)
        for size in sizes:
            agree(there.text(padded[length][:size]), rows[:size])


def check_unpadded(there, shapes):
    for number, (length, size) in enumerate(shapes):
        ids = there.ids(length, size)
        agree(there.text(ids), there.theirs.text(ids))
        if number % 100 == 99:
            jax.clear_caches()  # or the process runs out of memory maps, of which each program takes many


def check_pictures(there, sizes):
    theirs = there.theirs.image(there.pixels)
    check_rows_differ(theirs)
    for size in sizes:
        agree(there.theirs.image(there.pixels[:size]), theirs[:size])
        agree(there.model.encode_image(there.pictures[-size:]), theirs[-size:])
    agree(there.image(there.pixels), theirs)


@pytest.mark.parametrize("name", quick("altclip_v4", "cn_clip_released", "clip_hf"))
def test_strings_of_every_length(name, converted):
    check_strings(converted(name), (100,))  # in one batch


@pytest.mark.parametrize("name", quick("altclip_v4", "clip_hf"))
def test_ids_of_every_length_padded_and_of_some_unpadded(name, converted):
    check_padded(converted(name), (13,))
    check_unpadded(converted(name), [(7, 3)])


@pytest.mark.parametrize("name", quick("altclip_v4", "cn_clip_resnet"))
def test_pictures(name, converted):
    check_pictures(converted(name), (3,))  # as many as test_families', so that nothing more is compiled


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_length_in_every_batch_size(name, converted):
    there = converted(name)
    check_strings(there, SIZES)
    check_padded(there, SIZES)
    check_unpadded(there, [(length, size) for length in range(1, there.context + 1) for size in SIZES])


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAMILIES, "cn_clip_resnet"])
def test_pictures_in_every_batch_size(name, converted):
    check_pictures(converted(name), SIZES)
