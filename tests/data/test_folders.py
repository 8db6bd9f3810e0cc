"""Data folders round-trip through tensorflow-datasets, without TensorFlow."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jclip.data.batches.features import FeatureCache
from jclip.data.identity import picture_identity, text_identity
from jclip.data.sources.folders import LabelledFolder, PairFolder, ParallelFolder
from jclip.data.sources.kinds import StoredPair
from jclip.data.sources.records import Translation
from jclip.data.sources.synthetic import write_tokenizer
from jclip.data.sources.writing import write_pairs, write_parallel
from jclip.demo.emoji.sources import EmojiPairs
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing
from tests.data.loading import make_batches


def png(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 5, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


PAIRS = [StoredPair(png(n // 2), (f"red {n}", "红")[: 1 + n % 2], (), n // 2, (n, -1)[: 1 + n % 2]) for n in range(6)]
SENTENCES = [Translation("red apple", "红苹果"), Translation("blue dragon", "blauer Drache")]


def test_pairs_and_parallel_text_round_trip(tmp_path, capsys):
    write_pairs(tmp_path / "pairs", PAIRS)
    write_parallel(tmp_path / "text", SENTENCES, split="valid")
    read = PairFolder(str(tmp_path / "pairs")).open()
    back = [StoredPair(p.pictures[0], tuple(p.captions), (), *p.source_image_ids, p.source_text_ids) for p in read]
    assert back == PAIRS
    assert [p.image_ids for p in read] == [(picture_identity(p.pictures[0]),) for p in read]
    assert [p.text_ids for p in read] == [tuple(map(text_identity, p.captions)) for p in read]
    assert [p.text_id for p in read] == [p.text_ids[0] for p in read]
    assert read[1:3] == [read[1], read[2]]
    assert list(ParallelFolder(str(tmp_path / "text"), split="valid").open()) == SENTENCES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs", "text"]
    assert "tensorflow" not in sys.modules
    printed = capsys.readouterr()
    assert "%" not in printed.out + printed.err  # no progress bars


@pytest.mark.parametrize(
    "name", ["~", "run[1]", "a*b", "{a,b}", "{DATASET}", "100%25", "new\nline", "gs:", "back\\slash"]
)
def test_a_folder_may_have_any_name(name, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for folder in (f"{name}/pairs", str(tmp_path / name / "whole")):
        write_pairs(Path(folder), PAIRS)
        assert [pair.captions[0] for pair in PairFolder(folder).open()] == [pair.captions[0] for pair in PAIRS]
    assert sorted(os.listdir(name)) == ["pairs", "whole"] and not os.listdir("home")


def test_a_name_that_is_not_utf8_is_refused_by_all_readers_and_writers(tmp_path):
    folder = tmp_path / os.fsdecode(b"x\xff") / "data"
    for act in (
        lambda: write_pairs(folder, PAIRS),
        lambda: write_parallel(folder, SENTENCES),
        lambda: PairFolder(str(folder)).open(),
        lambda: EmojiPairs(str(folder)).open(),
        lambda: FeatureCache(folder, 5, 4, "float32", 2),
    ):
        with pytest.raises(JclipError, match=r"data is not valid UTF-8, which array_record requires"):
            act()
    assert not os.listdir(tmp_path)


def test_pairs_make_batches(tmp_path):
    write_pairs(tmp_path / "pairs", PAIRS)
    words = write_tokenizer("wordpiece", tmp_path / "words")
    source = PairFolder(str(tmp_path / "pairs"))
    batch = make_batches(source, batch_size=6, tokenizer=words, preprocessing=Preprocessing(size=4))[0]
    for value, number in zip(batch["image"][:, 0, 0, 0].tolist(), batch["image_id"].tolist(), strict=True):
        assert number == picture_identity(png(value)) % 2**31
    assert len(set(batch["image_id"].tolist())) == 3


def test_errors_name_the_folder(tmp_path):
    with pytest.raises(JclipError, match="holds no data set"):
        PairFolder(str(tmp_path / "nowhere")).open()
    write_parallel(tmp_path / "text", SENTENCES)
    with pytest.raises(JclipError, match="has no split 'test': it has train; name one of them"):
        ParallelFolder(str(tmp_path / "text"), split="test").open()
    for source, what in ((PairFolder, "images with captions"), (LabelledFolder, "images with classes")):
        with pytest.raises(JclipError, match=rf"text holds no {what} \(its records have no image\): name another"):
            source(str(tmp_path / "text"), "train").open()
    (shard,) = (tmp_path / "text").glob("*array_record*")
    shard.write_bytes(shard.read_bytes()[:20])
    with pytest.raises(JclipError, match=r"cannot be read \(.*\): import it again, or copy that file again"):
        ParallelFolder(str(tmp_path / "text")).open()[0]
    with pytest.raises(JclipError, match="exists already"):
        write_parallel(tmp_path / "text", SENTENCES)


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_description_is_refused(tmp_path, file, text):
    write_parallel(tmp_path / "text", SENTENCES)
    (tmp_path / "text" / file).write_text(text)
    with pytest.raises(JclipError, match=r"text: its dataset_info.json or features.json is damaged \(.+\): import it"):
        ParallelFolder(str(tmp_path / "text")).open()


@pytest.mark.parametrize("change", [{"shardLengths": []}, {"shardLengths": ["-2"]}, {"filepathTemplate": "{X}"}, None])
def test_invalid_splits_are_refused(tmp_path, change):
    write_parallel(tmp_path / "text", SENTENCES)
    file = tmp_path / "text" / "dataset_info.json"
    info = json.loads(file.read_text())
    info["splits"] = [{**info["splits"][0], **change}] if change else []
    file.write_text(json.dumps(info))
    with pytest.raises(JclipError, match=r"text(: its dataset_info.json .*| has no splits): import it again"):
        ParallelFolder(str(tmp_path / "text")).open()
