"""Retrieval tasks from simple files; errors name the line."""

import base64
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jclip.errors import JclipError
from jclip.evaluate.datasets.captions import TsvPictures, open_captions
from jclip.evaluate.datasets.counting import Counted
from jclip.evaluate.datasets.opening import open_retrieval
from jclip.evaluate.datasets.protocols import PROTOCOLS, get_protocol
from tests.evaluate.cn_clip_data import many_to_many, png, write_images, write_texts


def test_cn_clip_files(tmp_path):
    numbers, texts = many_to_many(tmp_path)
    task = open_captions(tmp_path).task("")
    assert (task.image_ids, task.text_ids) == (numbers, [number for number, *_ in texts])
    assert task.captions[3] == "red apple 3"
    assert task.positives.pairs_p2[:5].tolist() == [[0, 0], [0, 1], [1, 1], [2, 2], [3, 3]]
    assert task.pictures[2] == png(114)
    assert task.pictures[1:3] == [png(107), png(114)]
    assert task.pictures.name_of(2).endswith("test_imgs.tsv, line 3)")


@pytest.mark.parametrize("alphabet", [base64.b64encode, base64.urlsafe_b64encode])
def test_both_alphabets_of_base64_and_repeated_lines_are_read(tmp_path, alphabet):
    file = tmp_path / "x_imgs.tsv"
    write_images(file, [5, 3, 5], alphabet)
    pictures = TsvPictures(file)
    assert pictures.ids == [5, 3]
    assert list(pictures) == [png(5), png(3)]


def test_captions_without_answers_have_no_positives(tmp_path):
    write_images(tmp_path / "test_imgs.tsv", [1, 2])
    write_texts(tmp_path / "test_texts.jsonl", [(1, "a", [2]), (2, "b", [])])
    assert open_captions(tmp_path).task("").positives.counts_q.tolist() == [1, 0]


def test_a_test_without_answers_counts_every_id(tmp_path):
    """Whoever scores the predictions expects a line for each id."""
    picture = base64.b64encode(png(1)).decode()
    (tmp_path / "test_imgs.tsv").write_text(f"1\t{picture}\n2\t{picture}\n")
    write_texts(tmp_path / "test_texts.jsonl", [(1, "a", []), (2, "a", [])])
    task = open_captions(tmp_path).task("")
    assert (task.image_ids, task.text_ids, task.counted) == ([1, 2], [1, 2], Counted("published", 0, 0))
    write_texts(tmp_path / "test_texts.jsonl", [(1, "a", [1]), (2, "a", [])])
    task = open_captions(tmp_path).task("")
    assert (task.image_ids, task.text_ids, task.counted) == ([1], [1], Counted("joined", 1, 1))


def said(texts):
    return {text.strip() for text, _ in texts}


@given(st.lists(st.tuples(st.sampled_from(["a", "a ", "b", "B"]), st.lists(st.integers(0, 4), max_size=3)), min_size=1))
def test_equal_captions_have_the_images_of_all_of_them(texts):
    """Against the pairs of (text, image) that the lines name, by hand."""
    contents = [0, 1, 0, 2, 1]  # of images 0 to 4
    with tempfile.TemporaryDirectory() as name:
        lines = [f"{number}\t{base64.b64encode(png(n)).decode()}\n" for number, n in enumerate(contents)]
        (Path(name) / "test_imgs.tsv").write_text("".join(lines))
        write_texts(Path(name) / "test_texts.jsonl", [(n, text, ids) for n, (text, ids) in enumerate(texts)])
        task = open_captions(Path(name)).task("")
        if not any(ids for _, ids in texts):
            assert task.counted == Counted("published", 0, 0)
            return
        assert list(task.pictures) == [png(n) for n in range(3)]
        assert list(task.captions) == [text for n, (text, _) in enumerate(texts) if text.strip() not in said(texts[:n])]
    named = {(task.captions[text].strip(), picture) for text, picture in task.positives.pairs_p2.tolist()}
    assert named == {(text.strip(), contents[number]) for text, ids in texts for number in ids}
    assert len(task.captions) == len(said(texts))
    assert task.counted == Counted("joined", 2, len(texts) - len(task.captions))


def test_ids_are_read_as_by_the_import(tmp_path):
    for number in (7, 8):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    lines = [f"{name}\t{base64.b64encode(png(int(name))).decode()}\n" for name in ("007", " 8")]
    (tmp_path / "test_imgs.tsv").write_text("".join(lines))
    write_texts(tmp_path / "test_texts.jsonl", [("01", "a", ["7"]), (2, "b", [8, "0007"])])
    task = open_captions(tmp_path).task("")
    assert (task.image_ids, task.text_ids) == ([7, 8], [1, 2])
    assert task.positives.pairs_p2.tolist() == [[0, 0], [1, 0], [1, 1]]
    write_texts(tmp_path / "test_texts.jsonl", [("1", "a", ["7"]), ("01", "b", ["8"])])
    with pytest.raises(JclipError, match="line 2: text_id 1 has another text above: give each its own number"):
        open_captions(tmp_path).task("")


def test_the_protocols_number_of_captions_decides_how_they_count(tmp_path, monkeypatch):
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    file = tmp_path / "pairs.tsv"
    file.write_text("1.png\tone\n2.png\tone\n2.png\ttwo\n")
    for captions, how in ((3, "published"), (2, "joined")):
        monkeypatch.setitem(PROTOCOLS, "muge", replace(PROTOCOLS["muge"], pictures=2, captions=(captions,)))
        (task,) = open_retrieval(file, "muge").tasks
        assert (len(task.captions), task.counted.how) == (captions, how)
    monkeypatch.setitem(PROTOCOLS, "muge", replace(PROTOCOLS["muge"], pictures=2, captions=(4,)))
    with pytest.raises(JclipError, match="has 3 captions instead of 4"):
        open_retrieval(file, "muge")


def test_languages_share_a_gallery_or_have_their_own(tmp_path):
    write_images(tmp_path / "test_imgs.tsv", [1])
    for language in ("zh", "en"):
        write_texts(tmp_path / f"test_texts.{language}.jsonl", [(1, language, [1])])
    many_to_many(tmp_path / "ja")
    # cn_clip's answers for image to text and captions in Turkish have the same file name.
    answers = tmp_path / "test_texts.tr.jsonl"
    answers.write_text('{"image_id": 1, "text_ids": [1]}\n')
    assert open_captions(tmp_path).languages == ["en", "ja", "zh"]
    write_texts(answers, [(1, "elma", [1])])
    assert open_captions(tmp_path).languages == ["en", "ja", "tr", "zh"]
    assert open_captions(tmp_path).task("zh").captions == ["zh"]
    assert len(open_captions(tmp_path).task("ja").captions) == 24


def test_pairs_of_a_text_file(tmp_path):
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    file = tmp_path / "pairs.tsv"
    file.write_text("\ufeff1.png\tone\n\n2.png\ttwo\n1.png\tu\u2028no\n2.png\tone\n", encoding="utf-8")
    task = open_captions(file).task("")
    assert list(task.captions) == ["one", "two", "u\u2028no"]
    assert task.positives.pairs_p2.tolist() == [[0, 0], [0, 1], [1, 1], [2, 0]]
    for line, message in (("1.png one", "line 2: expected PICTURE<tab>CAPTION"), ("9.png\tx", "line 2: there is no")):
        file.write_text(f"1.png\tone\n{line}\n")
        with pytest.raises(JclipError, match=message):
            open_captions(file).task("")
    file.write_text("\n")
    with pytest.raises(JclipError, match="holds no pair"):
        open_captions(file).task("")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            [(1, "a", [1]), ("x2", "b", [1])],
            r"test_texts\.jsonl, line 2: text_id is 'x2', but ids must be 64-bit integers",
        ),
        ([(1, "a", ["1.0"])], "line 1: image_ids is '1.0'"),
        ([(1, "a", None)], "line 1: image_ids is None, but must be a list"),
        ([(1, "a", [1]), (2, "b", [9])], r"line 2: text 2 belongs to image 9, which is not in .*test_imgs\.tsv"),
        ([(1, "a", [1]), (1, "b", [1])], "line 2: text_id 1 has another text above"),
        ([(1, " ", [1])], "line 1: 'text' is ' ', but must be a caption"),
        ([(1, "\ud83d", [1])], r"line 1: 'text' is '\\ud83d', but must be a caption"),
        ([], "holds no caption"),
    ],
)
def test_bad_captions_are_named_with_the_line(tmp_path, texts, message):
    write_images(tmp_path / "test_imgs.tsv", [1, 2])
    write_texts(tmp_path / "test_texts.jsonl", texts)
    with pytest.raises(JclipError, match=message):
        open_captions(tmp_path).task("")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", r"test_imgs\.tsv holds no image, so the gallery is empty"),
        (
            "1\tAAAA\nx7\tAAAA\n",
            "line 2: the image's id is 'x7', but ids must be 64-bit integers: number them again",
        ),
        ("1 AAAA\n", "line 1: expected ID<tab>BASE64"),
        ("1\tAAAA\n1\tBBBB\n", "line 2: image 1 is another one above"),
    ],
)
def test_bad_galleries_are_named_with_the_line(tmp_path, lines, message):
    (tmp_path / "test_imgs.tsv").write_text(lines)
    write_texts(tmp_path / "test_texts.jsonl", [(1, "a", [1])])
    with pytest.raises(JclipError, match=message):
        open_captions(tmp_path).task("")


def test_an_image_that_is_not_base64_is_named_when_it_is_read(tmp_path):
    (tmp_path / "x_imgs.tsv").write_text("3\tA!B\n")
    with pytest.raises(JclipError, match=r"x_imgs\.tsv, line 1: the image is not valid base64"):
        TsvPictures(tmp_path / "x_imgs.tsv")[0]


def test_missing_files_and_splits_are_named(tmp_path):
    with pytest.raises(JclipError, match="nowhere does not exist"):
        open_captions(tmp_path / "nowhere").task("")
    with pytest.raises(JclipError, match="holds neither test_texts.jsonl"):
        open_captions(tmp_path).task("")
    many_to_many(tmp_path, split="valid")
    with pytest.raises(JclipError, match="has no split 'test': it has valid; choose one with --split"):
        open_captions(tmp_path).task("")
    (tmp_path / "valid_imgs.tsv").unlink()
    with pytest.raises(JclipError, match=r"valid_imgs\.tsv cannot be read"):
        open_captions(tmp_path, "valid").task("")


def test_protocols_know_their_splits(tmp_path):
    many_to_many(tmp_path)
    task = open_captions(tmp_path).task("")
    with pytest.raises(
        JclipError, match=r"has 12 images instead of 1000 and 24 captions instead of 5000, so it is not"
    ):
        get_protocol("flickr30k-cn").apply(task)
    assert get_protocol("muge").ways == ("t2i",)
    with pytest.raises(JclipError, match="there is no protocol 'flickr30': did you mean flickr30k"):
        get_protocol("flickr30")
    assert len(PROTOCOLS["crossmodal-3600"].languages) == 36
    assert len(PROTOCOLS["xtd"].languages) == 11


def test_mean_recall_of_one_direction(tmp_path):
    many_to_many(tmp_path)
    task = replace(open_captions(tmp_path).task(""), ways=("t2i",))
    draw = np.random.default_rng(0)
    figures = task.score(draw.normal(size=(12, 4)), draw.normal(size=(24, 4)))
    assert set(figures) == {"mean_recall", *(f"t2i_{kind}r{k}" for kind in ("", "chance_") for k in (1, 5, 10))}
    assert figures["mean_recall"] == pytest.approx(np.mean([figures[f"t2i_r{k}"] for k in (1, 5, 10)]))
