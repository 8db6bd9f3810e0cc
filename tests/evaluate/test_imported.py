"""Imports of the named sets are evaluated with the images and captions of their archives."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from jclip.data.sources.kinds import StoredPair
from jclip.data.sources.writing import write_pairs
from jclip.errors import JclipError
from jclip.evaluate.datasets.captions import open_captions
from jclip.evaluate.datasets.opening import open_retrieval
from jclip.evaluate.datasets.protocols import PROTOCOLS
from jclip.evaluate.tasks.retrieval import encode_tasks
from tests.data.importing import test_named as archives
from tests.data.importing.sources import cn_clip, table
from tests.data.importing.sources import imported as csv_imported
from tests.evaluate.cn_clip_data import many_to_many, png


def both_coco_cn(downloads):
    archives.coco(downloads)
    archives.coco_cn(downloads)


def mscoco(downloads):
    archives.coco(downloads)
    archives.karpathy_coco(downloads)


def xtd(downloads):
    archives.coco(downloads)
    archives.xtd(downloads)


def muge(downloads):
    downloads.mkdir()
    many_to_many(downloads / "MUGE", split="valid")


def flickr30k_cn(downloads):
    cn_clip(downloads / "Flickr30k-CN", ["狗", "狗", "猫"], "test", lambda n: png(n // 2))


SETS = {
    # (function that writes its archives, split, images, captions by language), as published
    "muge": (muge, "valid", 12, {"zh": 24}),  # every third caption belongs to two images
    "flickr30k-cn": (flickr30k_cn, "test", 3, {"zh": 3}),
    "flickr30k": (archives.karpathy, "test", 2, {"en": 10}),
    "mscoco": (mscoco, "test", 1, {"en": 6}),
    "coco-cn": (both_coco_cn, "test", 1, {"zh": 2}),
    "coco-cn-5k": (both_coco_cn, "test", 1, {"zh": 5}),
    "xtd": (xtd, "test", 2, {"de": 2, "en": 2, "ja": 2, "zh": 2}),
    "crossmodal-3600": (archives.crossmodal, "test", 2, {"sw": 4, "zh": 2}),
}


JOINED = {"flickr30k-cn": (2, {"zh": 2})}  # two of its images are equal, and so are their captions


@pytest.mark.parametrize("counting", ["joined", "published"])
@pytest.mark.parametrize("name", SETS)
def test_the_named_sets(tmp_path, name, counting, monkeypatch):
    make, split, pictures, captions = SETS[name]
    make(tmp_path / "down")
    archives.imported(name, tmp_path / "down", tmp_path / "folder", (split,))
    if counting == "published":
        small = {"pictures": pictures, "captions": tuple(captions.values()), "languages": tuple(sorted(captions))}
        monkeypatch.setitem(PROTOCOLS, name, replace(PROTOCOLS[name], **small))
        tests = open_retrieval(tmp_path / "folder", name)
    else:
        pictures, captions = JOINED.get(name, (pictures, captions))
        tests = open_retrieval(tmp_path / "folder", split=split)
    assert {task.counted.how for task in tests.tasks} == {counting}
    assert {task.language: len(task.captions) for task in tests.tasks} == captions
    assert tests.by_language == (len(captions) > 1)
    encodings = []

    def images(some):
        encodings.append(len(some))
        return np.eye(len(some), 8, dtype=np.float32)

    model = SimpleNamespace(encode_image=images, encode_text=lambda some: np.ones((len(some), 8), np.float32))
    for task, images_nd, texts_md in encode_tasks(tests.tasks, model):
        assert len(set(task.text_ids)) == len(task.captions)
        assert task.positives.counts_q.min() == 1
        assert 0 <= task.score(images_nd, texts_md)["mean_recall"] <= 1
    assert encodings == [pictures]  # once for all languages
    title = PROTOCOLS[name].title if counting == "published" else f"{tmp_path / 'folder'} ({split})"
    assert {task.name for task in tests.tasks} == {title}


def test_muge_as_its_files_say(tmp_path):
    muge(tmp_path / "down")
    archives.imported("muge", tmp_path / "down", tmp_path / "folder", ("valid",))
    here, there = (
        open_captions(place, "valid").task("") for place in (tmp_path / "folder", tmp_path / "down" / "MUGE")
    )
    pairs = [
        {(task.text_ids[text], task.image_ids[image]) for text, image in task.positives.pairs_p2}
        for task in (here, there)
    ]
    assert pairs[0] == pairs[1]
    assert dict(zip(here.text_ids, here.captions, strict=True)) == dict(
        zip(there.text_ids, there.captions, strict=True)
    )


def test_a_missing_language_is_named(tmp_path):
    stored = [StoredPair(png(1), ("one", "一", "?"), ("en", "zh", ""), 1, (1, 2, 3))]
    write_pairs(tmp_path / "set", stored, split="test")
    tests = open_retrieval(tmp_path / "set")
    assert [(task.language, list(task.captions)) for task in tests.tasks] == [
        ("en", ["one"]), ("und", ["?"]), ("zh", ["一"])
    ]  # fmt: skip
    assert [list(task.captions) for task in open_retrieval(tmp_path / "set", languages=["zh"]).tasks] == [["一"]]
    with pytest.raises(JclipError, match="set has no test captions in fr: it has en, und, zh"):
        open_retrieval(tmp_path / "set", languages=["fr"])
    write_pairs(tmp_path / "chinese", [stored[0]._replace(languages=("zh",) * 3)], split="test")
    with pytest.raises(JclipError, match="chinese has no test captions in en: it has zh"):
        open_retrieval(tmp_path / "chinese", "flickr30k")
    write_pairs(tmp_path / "unknown", [stored[0]._replace(languages=())], split="test")
    (task,) = open_retrieval(
        tmp_path / "unknown", languages=["fr"]
    ).tasks  # captions without a language get the requested one
    assert (task.language, len(task.captions)) == ("fr", 3)


def test_equal_images_and_captions_of_a_data_folder_are_joined(tmp_path):
    stored = [
        StoredPair(png(1), ("one", "eins"), (), 10, (1, 1)),
        StoredPair(png(2), ("two",), (), 20, (2,)),
        StoredPair(png(1), ("uno", "one"), (), 10, (1, 1)),  # the same image, and a repeated caption
    ]
    write_pairs(tmp_path / "set", stored, split="valid")
    task = open_captions(tmp_path / "set", "valid").task("")
    assert list(task.captions) == ["one", "eins", "two", "uno"]
    assert task.positives.pairs_p2.tolist() == [[0, 0], [1, 0], [2, 1], [3, 0]]
    assert list(task.pictures) == [png(1), png(2)]
    with pytest.raises(JclipError, match="has no split 'test': it has valid"):
        open_captions(tmp_path / "set", "test").task("")
    assert task.text_ids is None  # "one" and "eins" share an id


def test_an_imported_table_is_scored_like_the_table(tmp_path):
    """Two images share a caption, which is one query with two answers in both forms."""
    raw = table(tmp_path / "source", ["狗", "猫", "狗"])
    lines = [f"pictures/{n}.png\t{text}" for n, text in enumerate(["狗", "猫", "狗"])]
    (raw.parent / "raw.tsv").write_text("\n".join(lines), encoding="utf-8")
    options = {"picture": "1", "caption": "2", "splits": ("test",)}
    csv_imported("csv", raw.parent / "raw.tsv", tmp_path / "folder", **options)
    here, there = (open_captions(place).task("") for place in (tmp_path / "folder", raw.parent / "raw.tsv"))
    assert here.captions == there.captions == ["狗", "猫"]
    assert here.positives.pairs_p2.tolist() == there.positives.pairs_p2.tolist()
    images_nd, texts_md = np.eye(3, dtype=np.float32), np.array([[0, 0, 1], [0, 1, 0]], np.float32)
    assert here.score(images_nd, texts_md) == there.score(images_nd, texts_md)
    assert here.score(images_nd, texts_md)["t2i_r1"] == 1
