"""hf:// sources, fetched from a small local server that answers like the hub and can fail."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jclip.io.safetensors import open_safetensors, write_safetensors
from jclip.models.text_encoder import TextEncoderConfig
from tests.conversion import broken
from tests.conversion.broken import WEIGHTS
from tests.conversion.hubs import Hub, contents, without_hub

NAME = "hf://makers/model"
ROOT = Path(__file__).parents[2]
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Files of a BERT: with other weights at "v1", and in shards at "refs/pr/1"."""
    place = broken.write_checkpoint(tmp_path_factory.mktemp("makers") / "model", "bert", TextEncoderConfig(broken.BERT))
    shutil.rmtree(place / "made-wordpiece")
    weights = {key: tensor.read() for key, tensor in open_safetensors(place / WEIGHTS).items()}
    (place / "README.md").write_text("of no use here")
    (place / "tf_model.h5").write_text("another's weights")
    newest = contents(place)
    write_safetensors(place / WEIGHTS, {key: value / 2 for key, value in weights.items()})
    first = contents(place)
    (place / WEIGHTS).unlink()
    keys = sorted(weights)
    for number, name in enumerate(SHARDS):
        write_safetensors(place / name, {key: weights[key] for key in keys[number::2]})
    places = {key: SHARDS[number] for number in (0, 1) for key in keys[number::2]}
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return {"main": newest, "v1": first, "refs/pr/1": contents(place)}


@pytest.fixture
def hub(checkpoints):
    return Hub(checkpoints)


# Fetches in a process of its own, because the library reads its settings when it is imported.
FETCH = """
import json, sys
from jclip.conversion.hf.hub import fetch
from jclip.errors import JclipError
try:
    snapshot = fetch(sys.argv[1])
    print(json.dumps([str(snapshot.folder), snapshot.commit, snapshot.note]))
except JclipError as error:
    sys.exit(str(error))
"""
IMPORT = """
import json, sys
from jclip.conversion.importing import import_model
print(json.dumps(import_model(sys.argv[1]).facts()))
"""


def fetched(name, environment, program=FETCH):
    """Returns (folder, commit, note) or the error; for another program, what it prints."""
    process = subprocess.run(
        [sys.executable, "-c", program, name], capture_output=True, text=True, env=os.environ | environment, cwd=ROOT
    )
    return json.loads(process.stdout) if process.stdout else process.stderr.strip().splitlines()[-1]


def test_the_hub_is_fetched_and_then_the_cache_is_read(hub, checkpoints, tmp_path):
    with hub.serving(tmp_path / "hub") as environment:
        for revision in ("main", "v1"):
            folder, commit, note = fetched(NAME if revision == "main" else f"{NAME}@v1", environment)
            assert (commit, note) == (hub.commits[revision], None)
            read = contents(Path(folder))
            assert read.keys() == {"config.json", "vocab.txt", WEIGHTS}
            assert all(content == checkpoints[revision][name] for name, content in read.items())
    assert {"README.md", "tf_model.h5"}.isdisjoint(hub.served)

    source = fetched(f"{NAME}@v1", without_hub(tmp_path / "hub"), IMPORT)
    expected = {name: hashlib.sha256(checkpoints["v1"][name]).hexdigest() for name in read}
    assert {file["name"]: file["sha256"] for file in source["files"]} == expected
    (note,) = source["assumed"]
    says = rf"hf://makers/model@v1 was read from the cache, commit {hub.commits['v1']}: it could not be fetched \("
    assert source["commit"] == hub.commits["v1"] and re.match(says, note)


@pytest.mark.parametrize(
    ("revision", "fails", "says"),
    [
        ("", WEIGHTS, ".* holds no weights: expected "),
        ("@refs/pr/1", SHARDS[1], rf".*names the file {SHARDS[1]}, which is missing: fetch it"),
        ("", "config.json", ".*(config.json|no weights)"),
    ],
)
def test_an_incomplete_download_is_refused(revision, fails, says, hub, tmp_path):
    hub.fails.add(fails)
    with hub.serving(tmp_path / "hub") as environment:
        error = fetched(NAME + revision, environment)
    begins = rf"{NAME}{revision} cannot be fetched \("
    assert re.match(rf"{begins}.*\), and its copy in the cache is incomplete: ", error), error
    if fails == "config.json":  # small files come first, so that the cache never holds weights without them
        assert WEIGHTS not in hub.served
    error = fetched(NAME + revision, without_hub(tmp_path / "hub"))
    assert re.match(rf"{begins}.*refused\), and its copy in the cache is incomplete: {says}", error), error


def test_a_missing_repository_or_revision_is_named(hub, tmp_path):
    with hub.serving(tmp_path / "hub") as environment:
        for name in (f"{NAME}@v9", "hf://makers/other"):
            error = fetched(name, environment)
            assert re.match(rf"{name} cannot be fetched \(404.*\): check the name and the network", error), error


def test_without_a_network_the_fetch_fails(tmp_path):
    error = fetched("hf://nobody/nothing", without_hub(tmp_path / "hub"))
    says = r"hf://nobody/nothing cannot be fetched \(.*refused\): check the name and .* folder with a copy"
    assert re.fullmatch(says, error), error


@pytest.mark.parametrize("name", ["a/b/c", "", "a/b@", "a/b@../x", "../x", "a/b@/etc", "a b"])
def test_invalid_names_are_refused(name, tmp_path, refused):
    says = rf"hf://{re.escape(name)} is not a repository: write hf://ORG/NAME or hf://ORG/NAME@REVISION"
    refused("convert", f"hf://{name}", tmp_path / "dst", "--json", says=says)


def test_offline_mode_fetches_nothing(tmp_path, refused):
    says = "hf://nobody/nothing cannot be fetched .*offl"
    refused("convert", "hf://nobody/nothing", tmp_path / "dst", "--json", says=says)
