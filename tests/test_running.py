"""A run's starting points and teachers may be checkpoints of other libraries."""

from dataclasses import replace

import pytest

from jclip import loading
from jclip.bundle import Origin
from jclip.cache import models
from jclip.checkpoint import newest_record
from jclip.configs.altclip import vit_l_14
from jclip.errors import JclipError
from jclip.marks import Mark, marked, replaced
from jclip.running import _with_bundles
from tests.conversion import broken

COMMIT = "a" * 40


@pytest.fixture
def run():
    return vit_l_14.config()


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("JCLIP_CACHE", str(tmp_path / "cache"))
    return broken.write_checkpoint(tmp_path / "checkpoint", "bert", broken.TextEncoderConfig(broken.BERT))


def test_every_bundle_of_a_run_is_found(run):
    assert marked(run, Mark.BUNDLE) == ["stages.0.objective.bundle", "starts_from.0.1"]
    assert replaced(run, Mark.BUNDLE, lambda source: source) is run
    seen = []
    changed = replaced(run, Mark.BUNDLE, lambda source: seen.append(source) or f"{source}!")
    assert seen == [run.stages[0].objective.bundle, run.starts_from[0][1]]
    back = replace(changed.stages[0], objective=run.stages[0].objective)
    assert changed.starts_from == ((run.starts_from[0][0], f"{run.starts_from[0][1]}!"),)
    assert replace(changed, stages=(back, *changed.stages[1:]), starts_from=run.starts_from) == run


def test_a_checkpoint_becomes_its_bundle(run, checkpoint, tmp_path, capsys):
    run = replace(run, starts_from=((r"text/.*", f"{checkpoint}/"), (r"image/.*", "a/bundle/"), (r".*", "")))
    found = _with_bundles(run, {})
    (_, folder), *others = found.starts_from
    assert folder.startswith(f"{tmp_path}/cache/models/files.") and folder.endswith("/bundle")
    assert tuple(others) == run.starts_from[1:] and found.stages == run.stages
    assert "once; the bundle is kept in" in capsys.readouterr().err


def test_a_resumed_run_needs_its_starting_point_no_longer(run):
    run = replace(run, starts_from=((r".*", "hf://nobody/nothing"),))
    assert _with_bundles(run, {"config": {}, "folders": []}) is run
    with pytest.raises(JclipError, match="hf://nobody/nothing cannot be fetched"):
        _with_bundles(run, {})


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """The cache has a conversion of hf://makers/model, whose hub cannot be reached."""
    monkeypatch.setenv("JCLIP_CACHE", str(tmp_path / "cache"))

    def make(place):
        place.mkdir()
        return {"source": "hf://makers/model", "commit": COMMIT, "stamp": Origin.of(place).stamp, "identity": ""}

    return models.made_once(loading._of_commit("hf://makers/model", COMMIT), lambda entry: True, make, lambda: None)


def test_a_resumed_run_keeps_the_commit_that_it_began_with(run, entry, monkeypatch):
    source = "hf://makers/model"
    asked = []
    monkeypatch.setattr(loading, "commit_of", lambda name: asked.append(name) or name.partition("@")[2] or "b" * 40)
    run = replace(run, starts_from=((r".*", source),))
    record = {"folders": ["starts_from.0.1"], "config": {"starts_from": [[".*", str(entry)]]}}
    assert _with_bundles(run, record).starts_from == ((r".*", str(entry)),)
    assert asked[0] == f"{source}@{COMMIT}"
    other = replace(run, starts_from=((r".*", "hf://makers/other"),))  # the user has changed it
    assert _with_bundles(other, record) is other and asked[-1] == "hf://makers/other"


def test_the_newest_record_that_can_be_read_counts(tmp_path):
    assert newest_record(tmp_path / "none") == {}
    for number, record in ((9, '{"a": 1}'), (10, '{"a": 2}'), (11, "{"), (12, None)):
        folder = tmp_path / str(number) / "record"
        folder.mkdir(parents=True)
        if record:
            (folder / "metadata").write_text(record)
    (tmp_path / "13.orbax-checkpoint-tmp" / "record").mkdir(parents=True)
    assert newest_record(tmp_path) == {"a": 2}
