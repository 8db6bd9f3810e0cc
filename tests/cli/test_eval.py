"""`jclip eval` from files to figures, pages and cn_clip's files; nothing is left where it fails."""

import json

import jax
import numpy as np
import pytest

from jclip.bundle import Bundle, save_bundle
from jclip.cli import main
from jclip.data.images import Preprocessing
from jclip.data.synthetic import write_tokenizer
from jclip.models.build import init_variables
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.vit import VitConfig
from tests.evaluate.cn_clip_data import many_to_many, their_score, write_texts


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    tokenizer = write_tokenizer("clip_bpe", place / "words")
    text = ClipTextConfig(vocab_size=tokenizer.vocab_size, context_length=12, width=16, layers=1, heads=2)
    config = DualEncoderConfig(VitConfig(16, 8, 16, 1, 2), text, embed_dim=8)
    params = jax.device_get(init_variables(config, jax.random.key(0)))["params"]
    save_bundle(Bundle(config, params, tokenizer, Preprocessing(16), 12), place / "bundle")
    return place / "bundle"


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
    (found,) = run(capsys, "retrieval", bundle, data, "--output", out)["tests"]
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
    assert "is there already" in fails(capsys, "retrieval", bundle, data, "--output", out)


def test_languages_of_one_gallery(bundle, data, tmp_path, capsys):
    for language in ("zh", "en"):
        write_texts(data / f"test_texts.{language}.jsonl", [(n, f"{language} {n}", [100 + 7 * n]) for n in range(12)])
    out = tmp_path / "out"
    tests = run(capsys, "retrieval", bundle, data, "--output", out, "--resamples", "0")["tests"]
    assert [one["language"] for one in tests] == ["en", "zh"]
    assert (out / "test.zh_predictions.jsonl").is_file()
    (only,) = run(capsys, "retrieval", bundle, data, "--languages", "zh", "--resamples", "0")["tests"]
    assert only["t2i_r1"] == tests[1]["t2i_r1"]
    assert "has no test captions in fr: it has en, zh" in fails(capsys, "retrieval", bundle, data, "--languages", "fr")
    told = fails(capsys, "retrieval", bundle, data, "--protocol", "muge", "--languages", "en")
    assert "MUGE has no captions in en: it has zh" in told


def test_what_cannot_be_evaluated(bundle, data, tmp_path, capsys):
    out = tmp_path / "out"
    told = fails(capsys, "retrieval", bundle, data, "--context-length", "13", "--output", out)
    assert "reads texts of 12 tokens, so --context-length 13 is not possible: give 3 to 12" in told
    assert "there is no protocol 'flicker30k'" in fails(capsys, "retrieval", bundle, data, "--protocol", "flicker30k")
    told = fails(capsys, "retrieval", bundle, data, "--protocol", "xtd")
    assert "has no test captions by language" in told
    told = fails(capsys, "retrieval", bundle, data, "--protocol", "flickr30k", "--output", out)
    assert "12 pictures instead of 1000" in told
    assert "is not a bundle" in fails(capsys, "retrieval", data, data)
    (data / "test_imgs.tsv").write_text("\n".join((data / "test_imgs.tsv").read_text().splitlines()[:5]) + "\n")
    told = fails(capsys, "retrieval", bundle, data, "--output", out)
    assert "test_texts.jsonl, line 6: text 1005 belongs to picture 135, which is not in" in told
    assert not out.exists() and not list(tmp_path.glob(".out*"))


def test_a_broken_picture_is_named_by_its_line(bundle, data, capsys):
    lines = (data / "test_imgs.tsv").read_text().splitlines()
    lines[3] = "121\tAAAA"
    (data / "test_imgs.tsv").write_text("\n".join(lines) + "\n")
    told = fails(capsys, "retrieval", bundle, data)
    assert "picture 121 (" in told and "test_imgs.tsv, line 4) cannot be read as a picture" in told


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
    (tmp_path / "c.json").write_text("{}")
    assert "c.json is no results.json" in fails(capsys, "compare", tmp_path / "a", tmp_path / "c.json")
    other["tests"][0]["dataset"] = "another"
    (tmp_path / "c.json").write_text(json.dumps(other))
    assert "have no test in common" in fails(capsys, "compare", tmp_path / "a", tmp_path / "c.json")


def test_usage(capsys):
    for arguments, code, told in (
        (["--help"], 0, "jclip eval retrieval BUNDLE DATA"),
        ([], 2, "missing: what to evaluate, one of retrieval"),
        (["retrieval"], 2, "jclip eval retrieval: missing: BUNDLE, DATA"),
        (["retrieval", "a", "b", "--protcol", "x"], 2, "did you mean --protocol?"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["eval", *arguments])
        assert stop.value.code == code
        captured = capsys.readouterr()
        assert told in captured.out + captured.err
    assert "there is no evaluation 'retreival': did you mean retrieval?" in fails(capsys, "retreival")


def test_figures_do_not_depend_on_the_mesh(bundle, data, capsys, monkeypatch):
    many = run(capsys, "retrieval", bundle, data)["tests"]
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    single = run(capsys, "retrieval", bundle, data)["tests"]
    for name, value in many[0].items():
        if isinstance(value, float):
            assert single[0][name] == pytest.approx(value), name
    assert np.isfinite(many[0]["mean_recall"])
