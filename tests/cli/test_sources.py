"""Commands take another library's checkpoint in place of a bundle, with the same results."""

import json

import numpy as np
import pytest
from PIL import Image

from jclip import conversion
from jclip.cli import main
from jclip.data.sources.kinds import StoredPair
from jclip.data.sources.writing import write_pairs
from tests.conversion import broken
from tests.conversion.broken import listing

CLASSES = ("red", "green")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JCLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint, its bundle, a table of pairs and images by class. Read only."""
    place = tmp_path_factory.mktemp("sources")
    broken.write_checkpoint(place / "checkpoint", "chinese-clip", broken.CHINESE_CLIP)
    conversion.convert(str(place / "checkpoint"), place / "bundle", report=lambda what: None)
    draw, rows = np.random.default_rng(0), []
    for split in ("train", "test"):
        for number, name in enumerate(CLASSES * 3):
            file = place / "classes" / split / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (30, 30, 3), np.uint8)).save(file)
            rows.append(f"{file.relative_to(place)}\t{name} {number} {split}\n")
    (place / "pairs.tsv").write_text("".join(rows))
    write_pairs(place / "pairs", [StoredPair(file.read_bytes(), ("a red one",), (), 0, (0,))])
    return place


def printed(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


@pytest.mark.parametrize(
    "command",
    [
        ["eval", "retrieval", "BUNDLE", "pairs.tsv", "--resamples", "0"],
        ["eval", "classify", "BUNDLE", "classes/test", "--resamples", "0"],
        ["eval", "probe", "BUNDLE", "classes", "--shots", "1", "--seeds", "1"],
    ],
    ids=lambda words: words[1],
)
def test_evaluations_are_those_of_the_bundle(command, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    found = []
    for source in ("bundle", "checkpoint"):
        results, err = printed(capsys, *(source if word == "BUNDLE" else word for word in command), "--json")
        assert ("converting checkpoint, once" in err) == (source == "checkpoint")
        assert results["model"] == source
        found.append(results["tests"])
    assert found[0] == found[1]


def test_it_is_written_for_another_library(place, tmp_path, capsys):
    for source in ("bundle", "checkpoint"):
        printed(capsys, "convert", place / source, tmp_path / source, "--to", "hf", "--json")
    assert listing(tmp_path / "bundle") == listing(tmp_path / "checkpoint") != {}


def test_its_conversion_in_the_cache_is_verified(place, capsys):
    checks, _ = printed(capsys, "verify", place / "checkpoint", place / "checkpoint", "--json")
    assert len(checks) > 5 and all(check["holds"] for check in checks)


def test_tokens_are_counted_with_its_tokenizer(place, capsys):
    found = [
        printed(capsys, "data", "inspect", place / "pairs", "--tokenizer", place / source, "--json")[0]
        for source in ("bundle", "checkpoint")
    ]
    assert found[0] == found[1] and "tokens" in json.dumps(found[0])


@pytest.mark.parametrize("source", ["missing", "hf://a/b/c", "note.txt"])
@pytest.mark.parametrize(
    "command",
    [
        ["eval", "retrieval", "BUNDLE", "pairs.tsv"],
        ["finetune", "BUNDLE", "pairs.tsv", "OUT"],
        ["convert", "BUNDLE", "OUT", "--to", "hf"],
        ["verify", "BUNDLE", "checkpoint"],
        ["eval", "benchmark", "BUNDLE"],
        ["embed", "classes", "OUT", "--model", "BUNDLE"],
        ["serve", "BUNDLE", "--port", "0"],
        ["classify", "BUNDLE", "classes/test", "--labels", "red,green"],
        ["export", "BUNDLE", "OUT"],
        ["data", "inspect", "pairs", "--tokenizer", "BUNDLE"],
    ],
    ids=" ".join,
)
def test_a_bad_source_is_one_line(command, source, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    (place / "note.txt").write_text("not a model")
    out = tmp_path / "out"
    assert main([source if word == "BUNDLE" else str(out) if word == "OUT" else word for word in command]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and source in err and not out.exists()
