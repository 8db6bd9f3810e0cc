"""Facts on which the choices are based, counted by hand."""

import os

import jax
import pytest

from jclip.bundle import Bundle, open_bundle
from jclip.data.sources.folders import Shard
from jclip.data.sources.kinds import PAIRS, StoredPair
from jclip.data.sources.writing import gather_shards, write_shard
from jclip.demo.practice import _shape
from jclip.errors import JclipError
from jclip.finetune import facts
from jclip.finetune.facts import read_data, read_machine, read_model
from jclip.models.towers import transformer_bytes
from jclip.tokenizers.text import wordpiece
from tests.cli.small_bundle import write_bundle

WORDS = wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"红色的圆形左手写着字"])


def folder(place, **splits):
    """Writes a data folder of noise images, with a tuple of captions each."""
    import numpy as np

    draw, shards = np.random.default_rng(0), {}
    (place / "parts").mkdir(parents=True)
    for split, captions in splits.items():
        file = place / "parts" / f"{split}.shard"
        some = [StoredPair(_shape("红", "圆形", draw), texts, ("zh",) * len(texts)) for texts in captions]
        write_shard(file, PAIRS, some)
        shards[split] = [Shard(file, len(some))]
    gather_shards(place, PAIRS, shards)
    return place


def test_facts_of_a_folder(tmp_path):
    place = folder(
        tmp_path / "data",
        train=[("红色的圆形",), ("红色", " 红色 "), ("左手",), ("写着字",)],
        valid=[("圆",), ("形",)],
    )
    found = read_data(place, WORDS, 16)
    assert (found.train, found.valid, found.pairs, found.distinct) == (4, 2, 5, 4)
    assert (found.longest, found.usual) == (7, 7)  # five characters and two special tokens
    assert found.one_way == pytest.approx(2 / 5) and found.colours == pytest.approx(3 / 5)


def test_a_large_folder_is_read_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "MOST_READ", 3)
    place = folder(tmp_path / "data", train=[("红",), ("色", "的")] * 4, valid=[("圆",), ("形",)])
    found = read_data(place, WORDS, 16)
    assert found.train == 8
    assert found.pairs == 13  # of records 0, 3, 7: (1 + 2 + 2) / 3 captions each, times 8


@pytest.mark.parametrize(
    ("train", "valid", "message"),
    [
        ([("红",)], [("圆",), ("形",)], "1 image\\(s\\) to train on"),
        ([("红",), ("红 ",)], [("圆",), ("形",)], "all captions to train on are equal"),
        ([("红",), ("色",)], [("圆",)], "split valid has 1 image"),
        ([("红",), ("色",)], [("圆",), ("圆",)], "split valid has one caption"),
    ],
)
def test_too_little_data_is_refused(tmp_path, train, valid, message):
    with pytest.raises(JclipError, match=message):
        read_data(folder(tmp_path / "data", train=train, valid=valid), WORDS, 16)


def test_a_folder_without_a_validation_split(tmp_path):
    with pytest.raises(JclipError, match="has no split 'valid'"):
        read_data(folder(tmp_path / "data", train=[("红",), ("色",)]), WORDS, 16)


def test_facts_of_a_model(tmp_path):
    bundle = open_bundle(write_bundle(tmp_path / "bundle"))
    found = read_model(bundle)
    total = sum(leaf.size for leaf in jax.tree.leaves(jax.tree.map(lambda lazy: lazy.read(), bundle.params)))
    assert found.parameters == total - 1  # the logit scale belongs to neither tower
    assert found.image.tokens == 17 and found.image.layers == 2 and not found.has_statistics and not found.white
    assert found.image.kept == 2 * 17 * (34 * 64 + 5 * 2 * 17) == transformer_bytes(17, 64, 2, 2)
    vocabulary, width = bundle.tokenizer.vocab_size, 64
    assert found.text.parameters - found.text.worked >= vocabulary * width  # the token embeddings
    with pytest.raises(JclipError, match="only a text encoder"):
        read_model(Bundle(bundle.config.text, bundle.params, bundle.tokenizer, None, 16))


def test_facts_of_this_machine():
    found = read_machine()
    assert (found.platform, found.devices) == ("cpu", jax.device_count())
    assert found.cores == len(os.sched_getaffinity(0))
    assert 2**20 < found.memory < 2**45 and "free" in found.memory_from
    assert 1e8 < found.rate < 1e15
