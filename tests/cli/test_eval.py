"""`jclip eval` from files to figures, pages and cn_clip's files; a failure leaves nothing."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from jclip.cli import main
from jclip.cli.eval._common import BundleOptions
from jclip.evaluate.datasets.protocols import PROTOCOLS
from jclip.evaluate.metrics import logistic_regression
from tests.evaluate.cn_clip_data import many_to_many, their_score, write_texts
from tests.evaluate.small_bundle import write_small_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_small_bundle(tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path):
    many_to_many(tmp_path / "data")
    return tmp_path / "data"


def run(capsys, *arguments):
    assert main(["eval", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def fails(capsys, *arguments):
    assert main(["eval", *map(str, arguments)]) == 1
    told = capsys.readouterr().err
    assert "Traceback" not in told and len(told.strip().splitlines()) <= 2
    return told


def test_retrieval_from_a_bundle_and_from_its_own_files(bundle, data, tmp_path, capsys):
    out = tmp_path / "out"
    (found,) = run(capsys, "retrieval", bundle, data, "--output", out, "--features")["tests"]
    assert (found["pictures"], found["captions"], found["t2i_queries"]) == (12, 24, 24)
    low, high = found["intervals"]["t2i_r5"]
    assert 0 <= low <= found["t2i_r5"] <= high <= 1
    names = {file.name for file in out.iterdir()}
    assert {"results.json", "report.html", "report.md", "test_predictions.jsonl", "test_predictions.tr.jsonl"} <= names
    assert not list(tmp_path.glob(".out*"))

    theirs = their_score("evaluation", out / "test_answers.jsonl", out / "test_predictions.jsonl", tmp_path / "score")
    assert theirs["scoreJson"]["r5"] == pytest.approx(100 * found["t2i_r5"])
    assert run(capsys, "retrieval", out, data)["tests"] == [found]

    page = (out / "report.html").read_text()
    assert f"{100 * found['t2i_r5']:.1f}" in page and "red apple" in page and page.count("<img") == 36
    assert f"{100 * found['t2i_r5']:.1f}" in (out / "report.md").read_text()
    assert "exists already" in fails(capsys, "retrieval", bundle, data, "--output", out)


def test_the_report_counts_duplicates(bundle, tmp_path, capsys, monkeypatch):
    data, out = tmp_path / "data", tmp_path / "out"
    _, texts = many_to_many(data)
    more = [(5000 + number, f"{text} ", ids) for number, (_, text, ids) in enumerate(texts[:3])]
    write_texts(data / "test_texts.jsonl", [*texts, *more])
    (found,) = run(capsys, "retrieval", bundle, data, "--output", out)["tests"]
    assert (found["counting"], found["captions"], found["joined_captions"]) == ("joined", 24, 3)
    assert (found["pictures"], found["joined_pictures"]) == (12, 0)
    said = "equal images and equal captions count once; duplicates: 0 images, 3 captions."
    assert said in (out / "report.md").read_text()
    assert json.loads((out / "results.json").read_text())["tests"][0]["counting"] == "joined"

    monkeypatch.setitem(PROTOCOLS, "muge", replace(PROTOCOLS["muge"], split="test", pictures=12, captions=(27,)))
    published = tmp_path / "published"
    (found,) = run(capsys, "retrieval", bundle, data, "--protocol", "muge", "--output", published)["tests"]
    assert (found["counting"], found["captions"], found["t2i_queries"]) == ("published", 27, 27)
    assert "joined_captions" not in found
    said = "MUGE: counted as published, equal images and equal captions separately."
    assert said in (published / "report.md").read_text()


def test_languages_of_one_gallery(bundle, data, tmp_path, capsys):
    for language in ("zh", "en"):
        write_texts(data / f"test_texts.{language}.jsonl", [(n, f"{language} {n}", [100 + 7 * n]) for n in range(12)])
    out = tmp_path / "out"
    tests = run(capsys, "retrieval", bundle, data, "--output", out, "--resamples", "0", "--features")["tests"]
    assert [(one["dataset"], one["language"]) for one in tests] == [(f"{data} (test)", one) for one in ("en", "zh")]
    assert (out / "test.zh_predictions.jsonl").is_file()
    (only,) = run(capsys, "retrieval", bundle, data, "--languages", "zh,zh", "--resamples", "0")["tests"]
    assert only["t2i_r1"] == tests[1]["t2i_r1"]
    # Features of two languages can be reused for one of them.
    assert run(capsys, "retrieval", out, data, "--languages", "zh", "--resamples", "0")["tests"] == [only]
    for option in ("--orientation apply", "--context-length 9"):
        told = fails(capsys, "retrieval", out, data, "--languages", "zh", *option.split())
        assert f"{out} holds features, which {option.split()[0]} cannot change: omit it, or name the model" in told
    assert "has no test captions in fr: it has en, zh" in fails(capsys, "retrieval", bundle, data, "--languages", "fr")
    told = fails(capsys, "retrieval", bundle, data, "--protocol", "muge", "--languages", "en")
    assert "MUGE has no captions in en: it has zh" in told


def test_impossible_evaluations_are_refused(bundle, data, tmp_path, capsys):
    out = tmp_path / "out"
    told = fails(capsys, "retrieval", bundle, data, "--context-length", "13", "--output", out)
    assert "reads texts of 12 tokens, so --context-length 13 is not possible: give 3 to 12" in told
    assert "--features needs --output" in fails(capsys, "retrieval", bundle, data, "--features")
    assert "there is no protocol 'flicker30k'" in fails(capsys, "retrieval", bundle, data, "--protocol", "flicker30k")
    told = fails(capsys, "retrieval", bundle, data, "--protocol", "xtd")
    assert "has no test captions by language" in told
    told = fails(capsys, "retrieval", bundle, data, "--protocol", "flickr30k", "--output", out)
    assert "12 images instead of 1000" in told
    assert "is not a bundle" in fails(capsys, "retrieval", data, data)
    (data / "test_imgs.tsv").write_text("\n".join((data / "test_imgs.tsv").read_text().splitlines()[:5]) + "\n")
    told = fails(capsys, "retrieval", bundle, data, "--output", out)
    assert "test_texts.jsonl, line 6: text 1005 belongs to image 135, which is not in" in told
    assert not out.exists() and not list(tmp_path.glob(".out*"))


def test_a_test_whose_answers_are_secret(bundle, data, tmp_path, capsys):
    write_texts(data / "test_texts.jsonl", [(1, "red apple", []), (2, "blue castle", [])])
    assert "has no answers, so nothing can be scored: give --output" in fails(capsys, "retrieval", bundle, data)
    out = tmp_path / "out"
    assert run(capsys, "retrieval", bundle, data, "--output", out)["tests"] == []
    lines = [json.loads(line) for line in (out / "test_predictions.jsonl").read_text().splitlines()]
    page = (out / "report.html").read_text()
    assert "answers are secret" in page and "<table" not in page and "Plots" not in page
    assert [line["text_id"] for line in lines] == [1, 2] and all(len(line["image_ids"]) == 10 for line in lines)
    assert "--resamples -1 is not possible" in fails(capsys, "retrieval", bundle, data, "--resamples", "-1")


def test_a_broken_picture_is_named_by_its_line(bundle, data, capsys):
    lines = (data / "test_imgs.tsv").read_text().splitlines()
    lines[3] = "121\tAAAA"
    (data / "test_imgs.tsv").write_text("\n".join(lines) + "\n")
    told = fails(capsys, "retrieval", bundle, data)
    assert "image 121 (" in told and "test_imgs.tsv, line 4) cannot be read as an image" in told


def test_two_runs_side_by_side(bundle, data, tmp_path, capsys):
    for name, texts in (("a", None), ("b", [(1, "blue castle", [100]), (2, "white castle", [107])])):
        if texts:
            write_texts(data / "test_texts.jsonl", texts)
        run(capsys, "retrieval", bundle, data, "--output", tmp_path / name)
    both = run(capsys, "compare", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "both")
    one, other = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("a", "b"))
    figures = both["tests"][0]["figures"]
    assert figures["t2i_r1"] == [found["tests"][0]["figures"]["t2i_r1"] for found in (one, other)]
    assert "→" in (tmp_path / "both" / "report.html").read_text()
    assert both["tests"][0]["differences"] == {}  # other queries
    run(capsys, "retrieval", bundle, data, "--output", tmp_path / "again")
    same = run(capsys, "compare", tmp_path / "b", tmp_path / "again", "--output", tmp_path / "none")["tests"][0]
    assert same["differences"]["mean_recall"] == [0, 0]
    assert json.loads((tmp_path / "none" / "comparison.json").read_text())["tests"] == [same]
    assert main(["eval", "compare", str(tmp_path / "b"), str(tmp_path / "again")]) == 0
    assert "+0.0 to +0.0" in capsys.readouterr().out
    (tmp_path / "c.json").write_text("{}")
    assert "c.json is not a results.json" in fails(capsys, "compare", tmp_path / "a", tmp_path / "c.json")
    other["tests"][0]["dataset"] = "another"
    (tmp_path / "c.json").write_text(json.dumps(other))
    assert "have no test in common" in fails(capsys, "compare", tmp_path / "a", tmp_path / "c.json")


def test_usage(capsys):
    for arguments, told in (
        (["retrieval"], "jclip eval retrieval: missing: BUNDLE, DATA"),
        (["retrieval", "a", "b", "--protcol", "x"], "did you mean --protocol?"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["eval", *arguments])
        assert stop.value.code == 2
        assert told in capsys.readouterr().err


def test_figures_do_not_depend_on_the_mesh(bundle, data, capsys, monkeypatch):
    many = run(capsys, "retrieval", bundle, data)["tests"]
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    single = run(capsys, "retrieval", bundle, data)["tests"]
    for name, value in many[0].items():
        if isinstance(value, float):
            assert single[0][name] == pytest.approx(value), name
    assert np.isfinite(many[0]["mean_recall"])


def test_probe(bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logistic_regression, "ITERATIONS", 50)  # enough for three colours
    for split, first in (("train", 0), ("test", 100)):
        for number in range(3):
            folder = tmp_path / "data" / split / f"thing_{number}"
            folder.mkdir(parents=True)
            for one in range(6):
                # Each image has one colour, which is nearly the same within a class.
                colour = np.full((16, 16, 3), 80 * number, np.uint8) + np.uint8(one + first // 50)
                Image.fromarray(colour).save(folder / f"{one}.png")
    out = tmp_path / "out"
    tests = run(capsys, "probe", bundle, tmp_path / "data", "--shots", "1,all", "--output", out)["tests"]
    assert [test["variant"] for test in tests] == ["1 a class", "all"]
    assert [test["shared"] for test in tests] == [12, 12]
    assert "12 of 18 test images are in split train or valid too" in (out / "report.md").read_text()
    page = (out / "report.html").read_text()
    assert page.count("<img") == 18 and "confusion matrix" in page and "1 a class" in page
    assert tests[1]["accuracy"] == 1
    assert 0 <= tests[0]["accuracy"] <= 1 and tests[0]["draws"] == 3
    again = run(capsys, "probe", bundle, tmp_path / "data", "--shots", "1")["tests"]
    assert again[0]["accuracy"] == tests[0]["accuracy"]
    for more, message in (
        (["--shots", "7"], "class 0 has 6 training images, fewer than 7 shots"),
        (["--shots", "few"], "--shots 'few' is not possible"),
        (["--shots", "²"], "--shots '²' is not possible"),
        (["--shots", ""], "--shots '' is not possible"),
        (["--seeds", "0"], "--seeds 0 is not possible"),
        (["--dataset", "cifar-10"], "has 3 classes, but the test split of CIFAR-10 has 10"),
    ):
        assert message in fails(capsys, "probe", bundle, tmp_path / "data", *more)
    importing = ["data", "import", "class-folders", str(tmp_path / "data"), str(tmp_path / "set"), "--workers", "1"]
    assert main([*importing, "--json"]) == 0
    capsys.readouterr()
    (imported,) = run(capsys, "probe", bundle, tmp_path / "set", "--shots", "1")["tests"]
    assert imported["accuracy"] == tests[0]["accuracy"]
    (tmp_path / "set" / "labels.json").write_text('{"en": ["only one"]}')
    assert "labels.json, 'en', has 1 names" in fails(capsys, "probe", bundle, tmp_path / "set")
    (tmp_path / "set" / "labels.json").unlink()
    (here,), (there,) = (run(capsys, "classify", bundle, tmp_path / one)["tests"] for one in ("data", "set"))
    assert here["accuracy"] == there["accuracy"] and here["pictures"] == there["pictures"] == 18
    (tmp_path / "data" / "test" / "thing_1").rename(tmp_path / "data" / "test" / "thing_9")
    assert "has other classes than" in fails(capsys, "probe", bundle, tmp_path / "data")


def test_scoring_what_others_predicted(tmp_path, capsys):
    answers, predictions = tmp_path / "answers.jsonl", tmp_path / "predictions.jsonl"
    answers.write_text('{"text_id": 1, "image_ids": [10]}\n{"text_id": 2, "image_ids": [20, 21]}\n')
    predictions.write_text('{"text_id": 1, "image_ids": [10, 11]}\n{"text_id": 2, "image_ids": [1, 2, 21]}\n')
    assert run(capsys, "predictions", answers, predictions) == {
        "queries": 2, "r1": 0.5, "r5": 1.0, "r10": 1.0, "mean_recall": pytest.approx(2.5 / 3)
    }  # fmt: skip
    assert main(["eval", "predictions", str(answers), str(predictions)]) == 0
    assert "83.33" in capsys.readouterr().out
    predictions.write_text('{"text_id": 1, "image_ids": [10, 11]}\n')
    assert "1 queries have no predictions, such as 2" in fails(capsys, "predictions", answers, predictions)
    predictions.write_text('{"image_id": 1, "text_ids": [10]}\n')
    assert "predictions.jsonl, line 1 has no 'text_id'" in fails(capsys, "predictions", answers, predictions)
    answers.write_text('{"image": 1}\n')
    assert "neither 'text_id' nor 'image_id'" in fails(capsys, "predictions", answers, predictions)


def test_the_cameras_orientation_is_the_bundles_unless_it_is_said(bundle, tmp_path, capsys):
    """An image that is rotated by its EXIF alone, and the same image upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    draw = np.random.default_rng(0)
    for name in ("red", "blue"):
        (tmp_path / "sets" / name).mkdir(parents=True)
        noise = Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8))
        noise.save(tmp_path / "sets" / name / "turned.png", exif=exif)
        noise.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "sets" / name / "upright.png")
    both = sorted((tmp_path / "sets" / "red").iterdir())
    for said in (None, "ignore", "apply"):
        turned, upright = BundleOptions(bundle, tmp_path, said, 8).model().encode_image(both)
        assert (abs(turned - upright).max() < 1e-6) == (said == "apply")
        more = ["--orientation", said] if said else []
        out = tmp_path / f"out {said}"
        run(capsys, "classify", bundle, tmp_path / "sets", "--output", out, "--resamples", "0", *more)
        assert json.loads((out / "results.json").read_text())["settings"].get("orientation") == said
