"""The starting points of both recipes from two checkpoints: what is copied, what is new, and that it is said."""

import numpy as np
import pytest
import torch
import transformers

import jclip
from conversion import passport
from conversion.convert import compose, convert
from conversion.importing import Options
from conversion.verify import verify
from jclip.bundle import load_bundle, open_bundle
from jclip.errors import JclipError
from tests.conversion import checkpoints
from tests.models.torch_weights import randomise


def quiet(what):
    pass


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Folders of a CLIP, an XLM-R and a BERT."""
    place = tmp_path_factory.mktemp("parts")
    checkpoints.save_hf(checkpoints.clip(place / "clip"), place / "clip")
    words = checkpoints.xlm_r_words(checkpoints.vocabulary("xlmr", place / "xlm-r"))
    xlm_r = randomise(transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**words)))
    checkpoints.save_hf(xlm_r, place / "xlm-r")
    words = checkpoints.bert_words(checkpoints.vocabulary("wordpiece", place / "bert"))
    bert = randomise(transformers.BertForMaskedLM(transformers.BertConfig(**words)))
    checkpoints.save_config(bert, place / "bert")
    # As the first converters from TensorFlow named the norms.
    state = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in checkpoints.state(bert).items()
    }
    torch.save(state, place / "bert" / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    return place


def test_altclip_begins_with_clip_and_xlm_r(parts, tmp_path):
    made = compose(str(parts / "clip"), str(parts / "xlm-r"), tmp_path / "start", seed=3, report=quiet)
    start = load_bundle(tmp_path / "start")
    clip = transformers.CLIPModel.from_pretrained(parts / "clip").state_dict()
    encoder = transformers.XLMRobertaModel.from_pretrained(parts / "xlm-r").state_dict()
    np.testing.assert_array_equal(
        start.params["image"]["class_embedding"], clip["vision_model.embeddings.class_embedding"]
    )
    np.testing.assert_array_equal(start.params["text"]["projection"]["kernel"], clip["text_projection.weight"].T)
    np.testing.assert_array_equal(start.params["logit_scale"], clip["logit_scale"])
    np.testing.assert_array_equal(start.params["text"]["word_embedding"], encoder["embeddings.word_embeddings.weight"])
    assert start.config.head_width == 28  # the width of CLIP's text states, which the head imitates
    assert (start.tokenizer.kind, start.preprocessing.resize) == ("xlmr", "crop")
    assert made["new"] == {
        "text/head_norm/scale": "ones",
        "text/head_norm/bias": "zeros",
        "text/head/kernel": "normal, standard deviation 0.02, seed 3",
        "text/head/bias": "zeros",
    }
    kernel = start.params["text"]["head"]["kernel"]
    assert 0.015 < kernel.std() < 0.025 and start.params["text"]["head_norm"]["scale"].tolist() == [1.0] * 36
    assert [source["comparison"]["compared"] for source in made["sources"]] == [True, True]
    assert jclip.load(tmp_path / "start").encode_text(["红苹果"]).shape == (1, 13)


def test_chinese_clip_begins_with_clip_and_a_bert(parts, tmp_path):
    made = compose(str(parts / "clip"), str(parts / "bert"), tmp_path / "start", report=quiet)
    start = load_bundle(tmp_path / "start")
    assert made["new"] == {"text/projection/kernel": f"normal, standard deviation {36**-0.5:g}, seed 0"}
    kernel = start.params["text"]["projection"]["kernel"]
    assert kernel.shape == (36, 13) and 0.1 < kernel.std() < 0.25
    assert (start.config.head_width, start.tokenizer.kind, start.context_length) == (None, "wordpiece", 24)
    dropped = {drop["key"] for drop in made["sources"][1]["tensors"]["dropped"]}
    assert "cls.predictions.bias" in dropped


def test_the_seed_decides_what_is_new(parts, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        compose(str(parts / "clip"), str(parts / "bert"), tmp_path / name, seed=seed, report=quiet)
    a, b, c = (load_bundle(tmp_path / name).params["text"]["projection"]["kernel"] for name in "abc")
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_bundles_compose_like_checkpoints(parts, tmp_path):
    for name in ("clip", "xlm-r"):
        convert(str(parts / name), tmp_path / name, Options(), quiet)
    compose(str(tmp_path / "clip"), str(tmp_path / "xlm-r"), tmp_path / "one", report=quiet)
    compose(str(parts / "clip"), str(parts / "xlm-r"), tmp_path / "two", report=quiet)
    one, two = (open_bundle(tmp_path / name).tensors() for name in ("one", "two"))
    assert all(one[path].read().tobytes() == two[path].read().tobytes() for path in two)
    assert passport.read(tmp_path / "one")["sources"][0]["passport"]["sources"][0]["family"] == "clip"


def test_a_composed_bundle_verifies(parts, tmp_path):
    sources = [str(parts / "clip"), str(parts / "xlm-r")]
    compose(*sources, tmp_path / "start", seed=5, report=quiet)
    checks = verify(tmp_path / "start", sources, Options(), quiet)
    assert all(check.holds for check in checks), checks
    with pytest.raises(JclipError, match="give 2 source"):
        verify(tmp_path / "start", sources[:1], Options(), quiet)


def test_parts_that_do_not_fit_are_named(parts, tmp_path):
    clip, xlm_r = str(parts / "clip"), str(parts / "xlm-r")
    with pytest.raises(JclipError, match="has no image tower: name a CLIP"):
        compose(xlm_r, xlm_r, tmp_path / "x", report=quiet)
    with pytest.raises(JclipError, match="is no text encoder alone"):
        compose(clip, clip, tmp_path / "x", report=quiet)
    assert list(tmp_path.iterdir()) == []
