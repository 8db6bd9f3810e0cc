"""cn_clip's own programs read our files, and we read theirs; both compute the same figures."""

import json

import numpy as np
import pytest

from jclip.evaluate import cn_clip_files
from jclip.evaluate.cn_clip_files import json_lines, read_predictions, score_predictions
from jclip.evaluate.datasets.captions import open_captions
from jclip.evaluate.tasks.cn_clip import read_cn_clip_features, write_cn_clip
from jclip.evaluate.tasks.retrieval import Encoded, score
from tests.evaluate.cn_clip_data import many_to_many, program, their_score, write_texts


def repeated(folder):
    """Writes data in which three images have a second id, and every other caption is repeated."""
    _, texts = many_to_many(folder, pictures=14)
    lines = (folder / "test_imgs.tsv").read_text().splitlines()
    again = [f"{500 + row}\t{lines[row].split()[1]}" for row in (2, 3, 5)]
    (folder / "test_imgs.tsv").write_text("\n".join([*again[:1], *lines, *again[1:]]) + "\n")
    more = [(2000 + i, f"{text} \u3000", [505, ids[0]]) for i, (_, text, ids) in enumerate(texts[::2])]
    write_texts(folder / "test_texts.jsonl", [*texts[:9], *more, *texts[9:]])


@pytest.fixture(scope="module", params=["plain", "repeated"])
def place(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    if request.param == "plain":
        many_to_many(folder, pictures=14)
    else:
        repeated(folder)
    task = open_captions(folder).task("")
    assert (len(task.pictures), len(task.captions)) == (14, 28)
    draw = np.random.default_rng(0)
    images = draw.normal(size=(14, 8)).astype(np.float32)
    # Near enough to their images that some are found first and some are not.
    own = images[task.positives.pairs_p2[np.unique(task.positives.pairs_p2[:, 0], return_index=True)[1], 1]]
    texts = (own + draw.normal(size=own.shape)).astype(np.float32)
    images, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, texts))
    write_cn_clip(folder, "test", task, images, texts, features_too=True)
    return folder, task, images, texts


@pytest.mark.parametrize(("way", "scorer", "ending"), [("t2i", "evaluation", ""), ("i2t", "evaluation_tr", ".tr")])
def test_their_scorers_find_our_figures(place, tmp_path, way, scorer, ending):
    folder, task, images, texts = place
    ours = score(Encoded(task, images, texts), resamples=0).figures
    answers, predictions = folder / f"test_answers{ending}.jsonl", folder / f"test_predictions{ending}.jsonl"
    theirs = their_score(scorer, answers, predictions, tmp_path / "out.json")
    assert theirs["success"]
    assert 0.1 < ours[f"{way}_r1"] < 0.9
    for k in (1, 5, 10):
        assert theirs["scoreJson"][f"r{k}"] == pytest.approx(100 * ours[f"{way}_r{k}"])
    assert theirs["score"] == pytest.approx(100 * np.mean([ours[f"{way}_r{k}"] for k in (1, 5, 10)]))

    # We score such files as they do, whichever program wrote them.
    asked, answered = ("text", "image") if way == "t2i" else ("image", "text")
    right = {line[f"{asked}_id"]: line[f"{answered}_ids"] for _, line in json_lines(answers)}
    scored = score_predictions(right, read_predictions(predictions, asked))
    assert {name: 100 * value for name, value in scored.items()} == pytest.approx(
        {name: value for name, value in theirs["scoreJson"].items() if name != "score"}
    )


@pytest.mark.parametrize(("search", "ending"), [("make_topk_predictions", ""), ("make_topk_predictions_tr", ".tr")])
def test_their_search_finds_in_our_features_what_ours_found(place, tmp_path, search, ending):
    folder, *_ = place
    program(
        search,
        *("--image-feats", folder / "test_imgs.img_feat.jsonl"),
        *("--text-feats", folder / "test_texts.txt_feat.jsonl"),
        *("--eval-batch-size", "5", "--output", tmp_path / "theirs.jsonl"),
    )
    ours = (folder / f"test_predictions{ending}.jsonl").read_text()
    assert (tmp_path / "theirs.jsonl").read_text() == ours


def test_their_answers_from_the_images_are_ours(tmp_path):
    folder = tmp_path
    many_to_many(folder, pictures=14)
    task = open_captions(folder).task("")
    write_cn_clip(folder, "test", task, np.ones((14, 2)), np.ones((28, 2)), features_too=False)
    program("transform_ir_annotation_to_tr", "--input", folder / "test_texts.jsonl")
    theirs = {line["image_id"]: set(line["text_ids"]) for _, line in json_lines(folder / "test_texts.tr.jsonl")}
    ours = {line["image_id"]: set(line["text_ids"]) for _, line in json_lines(folder / "test_answers.tr.jsonl")}
    assert ours == theirs
    assert open_captions(folder).task("").text_ids == [
        1000 + i for i in range(28)
    ]  # and the new file is not taken for captions


def test_features_round_trip_exactly_in_any_order(place, tmp_path):
    folder, task, images, texts = place
    for name in ("test_imgs.img_feat.jsonl", "test_texts.txt_feat.jsonl"):
        lines = (folder / name).read_text().splitlines()
        (tmp_path / name).write_text("\n".join([*reversed(lines), lines[0]]) + "\n")  # one line twice
    read = read_cn_clip_features(tmp_path, "test", task)
    np.testing.assert_array_equal(read[0], images)
    np.testing.assert_array_equal(read[1], texts)


def test_a_gallery_smaller_than_ten_is_scored_by_us_and_refused_by_cn_clip(tmp_path):
    many_to_many(tmp_path, pictures=4)
    task = open_captions(tmp_path).task("")
    images, texts = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[np.arange(8) % 4]
    figures = score(Encoded(task, images, texts), resamples=0).figures
    assert (figures["t2i_r1"], figures["t2i_r10"], figures["t2i_chance_r10"]) == (1, 1, 1)
    write_cn_clip(tmp_path, "test", task, images, texts, features_too=False)
    assert not list(tmp_path.glob("*_feat.jsonl"))
    predictions = read_predictions(tmp_path / "test_predictions.jsonl", "text")
    assert all(sorted(ids) == [100, 107, 114, 121] for ids in predictions.values())
    assert predictions[1001] == [107, 100, 114, 121]  # ties in the gallery's order, as by cn_clip's stable sort
    theirs = their_score(
        "evaluation", tmp_path / "test_answers.jsonl", tmp_path / "test_predictions.jsonl", tmp_path / "o"
    )
    assert not theirs["success"]
    assert "Require 10, but 4" in theirs["errorMsg"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"image_id": "7.5", "feature": [1]}'], "line 1: image_id is '7.5', but ids must be 64-bit integers"),
        (['{"image_id": true, "feature": [1]}'], "line 1: image_id is True"),
        (
            ['{"image_id": 99999999999999999999, "feature": [1]}'],
            "line 1: image_id is 99999999999999999999, but ids must",
        ),
        (['{"image_id": 1, "feature": [1' + "0" * 400 + "]}"], "line 1: 'feature' must be a list of numbers"),
        (['{"feature": [1]}'], "line 1 has no 'image_id'"),
        (
            ['{"image_id": 1, "feature": [1, 2]}', '{"image_id": 2, "feature": [1]}'],
            r"line 2: this feature has the shape \(1,\)",
        ),
        (['{"image_id": 1, "feature": [1]}', '{"image_id": 1, "feature": [2]}'], "line 2: image_id 1 has another"),
        (['{"image_id": 1, "feature": "x"}'], "line 1: 'feature' must be a list of numbers"),
        (['{"image_id": 1'], "line 1: it is not JSON"),
        (['{"image_id": 1, "feature": ' + "[" * 100_000], r"line 1: it is not JSON \(it is nested too deep\)"),
        (["3"], "line 1: expected a JSON object"),
        ([], "holds no image feature: the gallery would be empty"),
    ],
)
def test_bad_feature_files_are_named_with_the_line(tmp_path, lines, message):
    file = tmp_path / "x.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(ValueError, match=message):
        cn_clip_files.read_features(file, "image")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text_id": 1, "image_ids": [3, 3]}, "line 2: the image_ids of text_id 1 repeat an id"),
        ({"text_id": 1, "image_ids": [3, "x4"]}, "line 2: image_ids is 'x4'"),
        ({"text_id": 1, "image_ids": 3}, "line 2: image_ids is 3, but must be a list"),
        ({"text_id": 0, "image_ids": [3]}, "line 2: text_id 0 has other predictions above"),
    ],
)
def test_bad_prediction_files_are_named_with_the_line(tmp_path, line, message):
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({"text_id": 0, "image_ids": [1, 2]}) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=message):
        read_predictions(file, "text")


def test_ids_of_features_and_predictions_are_read_as_by_the_import(tmp_path):
    (tmp_path / "f.jsonl").write_text('{"image_id": "007", "feature": [1]}\n{"image_id": 7, "feature": [1]}\n')
    assert cn_clip_files.read_features(tmp_path / "f.jsonl", "image")[0].tolist() == [7]
    (tmp_path / "p.jsonl").write_text('{"text_id": "01", "image_ids": ["7", 8]}\n')
    assert read_predictions(tmp_path / "p.jsonl", "text") == {1: [7, 8]}
    (tmp_path / "p.jsonl").write_text('{"text_id": "01", "image_ids": ["7", "007"]}\n')
    with pytest.raises(ValueError, match="the image_ids of text_id 1 repeat an id"):
        read_predictions(tmp_path / "p.jsonl", "text")


def test_scores_of_predictions_by_hand_and_a_missing_query():
    with pytest.raises(ValueError, match="1 queries have no predictions, such as 5"):
        score_predictions({4: [1], 5: [2]}, {4: [1]})
    # By hand: of three queries the answer is first, third, and nowhere.
    figures = score_predictions({1: [10], 2: [20, 21], 3: []}, {1: [10, 11], 2: [1, 2, 21], 3: [1, 2]})
    assert figures == pytest.approx({"r1": 1 / 3, "r5": 2 / 3, "r10": 2 / 3, "mean_recall": 5 / 9})
