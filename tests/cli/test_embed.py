"""`jclip embed` as a user sees it, with a real model."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jclip.cli import main
from jclip.errors import JclipError
from jclip.images.preprocess import to_array
from jclip.inference import load_model
from jclip.search.index import Index
from tests.cli.small_bundle import write_bundle
from tests.search.embedders import encoded
from tests.search.test_embedding import fill


@pytest.fixture
def bundle(made_once):
    return made_once("embed-bundle", write_bundle)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = {f"{n}.jpg": encoded(n, "JPEG", (40, 30)) for n in range(5)}
    return fill(tmp_path / "photos", images | {"bad\x1b[2J.png": b"", "notes.md": b"x"})


def as_json(capsys):
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


def test_embed_and_update(bundle, photos, capsys):
    assert main(["embed", "photos", "index", "--model", str(bundle), "--workers", "1"]) == 0
    told = capsys.readouterr().out
    assert (
        "index has 5 entries (5 new, 1 skipped, 1 other files); 5 encoded in " in told
        and "1 skipped: the image does not decode" in told
    )
    assert r"bad\x1b[2J.png: it is empty" in told and "\x1b[2J" not in told
    index = Index.open("index")
    assert (index.facts.model_source, len(index)) == (str(bundle), 5)
    model = load_model(bundle)
    how = replace(model.bundle.preprocessing, orientation="apply")
    pixels = np.stack([to_array(how, photos / f"{n}.jpg") for n in range(5)])
    np.testing.assert_array_equal(
        index.vectors_at([entry.vector for entry in index.all_entries()]), np.float16(model.encode_image(pixels))
    )

    (photos / "0.jpg").rename(photos / "zero.jpg")
    (photos / "new.jpg").write_bytes(encoded(9, "JPEG"))
    for arguments in (["--dry-run"], []):
        assert main(["embed", "index", "--update", "--json", "--workers", "0", *arguments]) == 0
        report = as_json(capsys)
        assert (report["dry_run"], report["embedded"]) == (bool(arguments), 1)
        assert [report[name] for name in ("new", "renamed", "unchanged", "gone", "entries")] == [1, 1, 4, 0, 6]
        assert report["skipped"] == [
            {"path": f"{photos}/bad\x1b[2J.png", "reason": "the image does not decode", "detail": "it is empty"}
        ]


def test_a_resumed_command_says_what_was_done(bundle, photos, capsys, monkeypatch):
    def full(*arguments):
        raise JclipError("the disk is full")

    command = ["embed", "photos", "index", "--model", str(bundle), "--workers", "0"]
    with monkeypatch.context() as patch:
        patch.setattr("jclip.search.embedding.write_new", full)
        assert main(command) == 1
    assert "resuming" not in capsys.readouterr().err
    assert main(command) == 0
    captured = capsys.readouterr()
    assert "resuming: 5 of 6 were done before" in captured.err and "0 encoded in" in captured.out
    assert main(command) == 1
    assert "index is an index already: add --update" in capsys.readouterr().err


def test_texts_and_a_list_and_clip_retrieval(bundle, photos, capsys):
    Path("texts.txt").write_text("红色的圆\n狗\n")
    assert main(["embed", "texts.txt", "texts", "--model", str(bundle), "--json"]) == 0
    assert as_json(capsys)["entries"] == 2
    index = Index.open("texts")
    expected_nd = np.float16(load_model(bundle).encode_text(["红色的圆", "狗"]))
    np.testing.assert_array_equal(index.vectors_at([0, 1]), expected_nd)
    assert main(["embed", "texts", "features", "--format", "clip-retrieval", "--json"]) == 0
    assert as_json(capsys)["folder"] == "features"
    np.testing.assert_array_equal(np.load("features/text_emb/text_emb_0.npy"), expected_nd)
    command = [sys.executable, "-m", "jclip.cli", "embed", "-", "index", "--model", str(bundle), "--json"]
    done = subprocess.run(
        command, input=b"photos/1.jpg\0photos/absent.jpg\0", stdout=subprocess.PIPE, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["entries"] == 1 and [each["reason"] for each in report["skipped"]] == ["the image's file is missing"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give SOURCE and OUT"),
        (["photos"], "give SOURCE and OUT"),
        (["photos", "index"], "no model is given: add --model"),
        (["absent", "index", "--model", "BUNDLE"], "absent cannot be read"),
        (["photos", "photos", "--model", "BUNDLE"], "photos exists already"),
        (["photos", "index", "--model", "absent"], "absent"),
        (["index", "--update"], "no model is given"),
        (["index", "--update", "--model", "BUNDLE"], "there is no source"),
        (["photos", "--update"], "photos is not an index"),
        (["photos", "index", "--model", "BUNDLE", "--batch-size", "0"], "batch_size"),
        (["photos", "out", "--update", "--format", "clip-retrieval", "--model", "BUNDLE"], "cannot be updated"),
    ],
)
def test_mistakes(bundle, photos, capsys, arguments, told):
    arguments = [str(bundle) if word == "BUNDLE" else word for word in arguments]
    assert main(["embed", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("jclip embed: ") and told in captured.err and len(captured.err.splitlines()) == 1
    assert os.listdir() == ["photos"]
