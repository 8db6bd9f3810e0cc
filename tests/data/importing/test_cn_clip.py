"""cn_clip's files and LMDB directories, as its own programs write and read them, whole and damaged."""

import base64
import json
import pickle
import runpy
import shutil
import sys

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.data.importing.cn_clip import decode_base64
from jclip.data.importing.limits import Limit
from jclip.errors import JclipError
from tests.data.importing.sources import cn_clip, imported, pairs, picture


def as_lmdb(home, splits="train"):
    """Converts cn_clip's files with its own script and returns the LMDB folder."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["build", "--data_dir", str(home), "--splits", splits])
        patched.setattr(lmdb, "open", lambda path, map_size, real=lmdb.open: real(path, map_size=1 << 20))
        runpy.run_module("cn_clip.preprocess.build_lmdb_dataset", run_name="__main__")
    return home / "lmdb"


@pytest.fixture(scope="module")
def lmdb_folder(tmp_path_factory):
    return as_lmdb(cn_clip(tmp_path_factory.mktemp("lmdb")))


def test_lmdb_directories_of_cn_clip_give_what_its_files_give(lmdb_folder, tmp_path):
    imported(None, lmdb_folder, tmp_path / "lmdb")
    imported(None, lmdb_folder.parent, tmp_path / "files")
    assert pairs(tmp_path / "lmdb") == pairs(tmp_path / "files")
    # cn_clip's loader reads the same from the directories.
    with lmdb.open(str(lmdb_folder / "train" / "pairs"), readonly=True, lock=False) as texts, texts.begin() as view:
        count = int(view.get(b"num_samples"))
        theirs = [pickle.loads(view.get(str(number).encode())) for number in range(count)]
    with lmdb.open(str(lmdb_folder / "train" / "imgs"), readonly=True, lock=False) as images, images.begin() as view:
        bytes_of = {picture: base64.urlsafe_b64decode(view.get(str(picture).encode())) for picture, _, _ in theirs}
    ours = [(pair.source_image_ids[0], pair.source_text_ids[0], pair.captions[0]) for pair in pairs(tmp_path / "files")]
    assert ours == sorted(theirs)
    assert {pair.source_image_ids[0]: pair.pictures[0] for pair in pairs(tmp_path / "files")} == bytes_of


def one_pair(folder, value):
    """Writes LMDB directories like cn_clip's, with one image and one pickled pair."""
    for name, values in (("imgs", {b"1": b"aGk="}), ("pairs", {b"0": pickle.dumps(value), b"num_samples": b"1"})):
        (folder / "train").mkdir(exist_ok=True)
        with (
            lmdb.open(str(folder / "train" / name), map_size=1 << 20) as environment,
            environment.begin(write=True) as view,
        ):
            for key, value in values.items():
                view.put(key, value)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    one_pair(tmp_path, Evil())
    with pytest.raises(JclipError, match=r"train/pairs, pair 0: it is not a pickled \(image id, text id, text\)"):
        imported("cn-clip-lmdb", tmp_path, tmp_path / "folder")
    assert not (tmp_path / "made").exists()


def test_a_pickle_that_expands_without_end_is_not_printed(tmp_path):
    bomb = ["x"]
    for _ in range(100):
        bomb = [bomb] * 10  # 1,200 bytes of pickle, and a text of 10^100
    one_pair(tmp_path, (bomb, 1, "text"))
    with pytest.raises(JclipError, match="pair 0: image id is a list, but ids must be 64-bit integers"):
        imported("cn-clip-lmdb", tmp_path, tmp_path / "folder")


def cut_off(data):
    return data[: len(data) // 2]


def blank(data):
    """Blanks all but the beginning, like an unfinished download into a preallocated file."""
    return data[:8192] + bytes(len(data) - 8192)


@pytest.mark.parametrize("part", ["imgs", "pairs"])
@pytest.mark.parametrize(
    ("spoil", "words"), [(cut_off, r"data.mdb has [\d,]+ of [\d,]+ bytes"), (blank, "MDB_CORRUPTED")]
)
def test_a_damaged_lmdb_directory_is_named(lmdb_folder, tmp_path, part, spoil, words):
    source = shutil.copytree(lmdb_folder, tmp_path / "lmdb")
    file = source / "train" / part / "data.mdb"
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(
        JclipError, match=rf"^[^\n]*train/{part} is not a complete LMDB directory \([^\n]*{words}[^\n]*copy it"
    ):
        imported("cn-clip-lmdb", source, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["lmdb"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_tuples_of_every_protocol_are_read(tmp_path, protocol):
    from jclip.data.importing.cn_clip_lmdb import _pair

    (tmp_path / "pairs").mkdir()
    with lmdb.open(str(tmp_path / "pairs"), map_size=1 << 20) as environment:
        with environment.begin(write=True) as view:
            view.put(b"0", pickle.dumps((2**40, 7, "红色\n'x'"), protocol))
        assert _pair(environment, tmp_path / "pairs", 0) == (2**40, 7, "红色\n'x'")


@pytest.mark.parametrize("data", [b"a+/=", b"a-_=", b"a-_", b" a+/\n"])
def test_both_alphabets_of_base64_are_read(data):
    assert decode_base64(data) == bytes([0x6B, 0xEF])
    assert decode_base64(data + b"!") is None


CN_CLIP = [
    (
        "train_texts.jsonl",
        '{"text_id": 1, "text": "a", "image_ids": [5]}',
        "jsonl, line 1: image 5 is not in train_imgs.tsv: fetch train_imgs.tsv again, or",
    ),
    (
        "train_texts.jsonl",
        '{"text_id": 1, "text": "a", "image_ids": [5, 6, 7]}',
        "jsonl, line 1: image 5 is not in train_imgs.tsv, nor 2 more: fetch",
    ),
    (
        "train_texts.jsonl",
        '{"text_id": "x", "text": "a", "image_ids": []}',
        "line 1: text_id is 'x', but ids must be",
    ),
    ("train_texts.jsonl", '\n{"text_id": 1, "text": "a", "image_ids": [1.5]}', "line 2: an image id is 1.5, but"),
    ("train_texts.jsonl", '{"text_id": 1, "image_ids": []}', "line 1: it has no 'text'"),
    ("train_texts.jsonl", '{"text_id": 1, "text": 3, "image_ids": []}', 'line 1: "text" must be a string'),
    (
        "train_imgs.tsv",
        "1\taGk=\nb\taGk=\n",
        "line 2: the image's id is 'b', but ids must be",
    ),
    ("train_imgs.tsv", "1\taGk=\n2", "train_imgs.tsv, line 2: expected ID<tab>BASE64, found b'2'"),
    ("train_imgs.tsv", "", "train_imgs.tsv is empty: fetch it again"),
]


@pytest.mark.parametrize(("file", "text", "words"), CN_CLIP)
def test_bad_files_are_named_with_the_line(tmp_path, file, text, words):
    (cn_clip(tmp_path / "source") / file).write_text(text)
    with pytest.raises(JclipError) as caught:
        imported("cn-clip", tmp_path / "source", tmp_path / "folder")
    assert words in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def without_labels(folder, split="test"):
    """Removes the labels of a split, as in MUGE's test split."""
    cn_clip(folder, ["a", "b"], split)
    lines = (json.dumps({"text_id": n, "text": text, "image_ids": []}) for n, text in enumerate("ab"))
    (folder / f"{split}_texts.jsonl").write_text("\n".join(lines))
    return folder


def test_texts_without_an_image_are_counted(tmp_path):
    source = cn_clip(tmp_path / "source", ["a", "b"])
    with (source / "train_texts.jsonl").open("a") as file:
        file.write('{"text_id": 9, "text": "c", "image_ids": []}\n')
    report = imported("cn-clip", source, tmp_path / "folder", Limit(count=1)).as_json()["splits"]["train"]
    assert (report["read"], report["pairs"]) == (3, 2)
    assert report["skipped"] == {"text without an image": {"count": 1, "first": ["train_texts.jsonl, line 3"]}}


@pytest.mark.parametrize("form", ["cn-clip", "cn-clip-lmdb"])
def test_a_split_without_labels_is_left_out_and_reported(tmp_path, form):
    source = without_labels(cn_clip(tmp_path / "source"))
    if form == "cn-clip-lmdb":
        source = as_lmdb(source, "train,test")
    report = imported(form, source, tmp_path / "folder")
    assert list(report.splits) == ["train"]
    assert report.as_json()["left_out"] == {"test": "none of its texts names its images"}
    with pytest.raises(JclipError, match="split 'test' names its .*: omit it, with --splits train$"):
        imported(form, source, tmp_path / "other", splits=("train", "test"))
    with pytest.raises(JclipError, match="split 'test' names its .*: choose another split$"):
        imported(form, source, tmp_path / "other", splits=("test",))


def test_a_repeated_id_takes_its_last_image_as_in_cn_clip(tmp_path):
    source = cn_clip(tmp_path / "source", ["a", "b"])
    lines = (source / "train_imgs.tsv").read_text().splitlines()
    (source / "train_imgs.tsv").write_text("\n".join([lines[0], lines[1], "100\t" + lines[1].split("\t")[1]]))
    imported("cn-clip", source, tmp_path / "folder", Limit(count=1))
    assert {pair.source_image_ids[0]: pair.pictures[0] for pair in pairs(tmp_path / "folder")} == {
        100: picture(1),
        101: picture(1),
    }


@given(st.binary(max_size=40), st.booleans(), st.booleans())
def test_base64_of_any_bytes_is_decoded(data, safe, padded):
    text = (base64.urlsafe_b64encode if safe else base64.b64encode)(data)
    assert decode_base64(text if padded else text.rstrip(b"=")) == data


ODD = [
    ('{"text_id": 1, "text": "a", "image_ids": [[100]]}', "an image id is a list, but ids must be 64-bit integers"),
    (f'{{"text_id": {"1" * 5000}, "text": "a", "image_ids": []}}', "line 1: it is not JSON"),
    (f"{'[' * 100_000}", "line 1: it is not JSON (it is nested too deep)"),
    ('{"text_id": true, "text": "a", "image_ids": []}', "text_id is True, but ids must be 64-bit integers"),
    ("[]", "line 1: expected a JSON object, found []"),
]


@pytest.mark.parametrize(("text", "words"), ODD)
def test_odd_json_is_a_short_error(tmp_path, text, words):
    (cn_clip(tmp_path / "source") / "train_texts.jsonl").write_text(text)
    with pytest.raises(JclipError) as caught:
        imported("cn-clip", tmp_path / "source", tmp_path / "folder")
    assert words in str(caught.value)
