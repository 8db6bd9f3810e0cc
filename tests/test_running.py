"""A run's starting points and teachers may be checkpoints of other libraries."""

from dataclasses import replace

import pytest

from jclip.configs.altclip import vit_l_14
from jclip.errors import JclipError
from jclip.marks import Mark, marked, replaced
from jclip.running import _with_bundles
from tests.conversion import broken


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
    found = _with_bundles(run, resumes=False)
    (_, folder), *others = found.starts_from
    assert folder.startswith(f"{tmp_path}/cache/models/files.") and folder.endswith("/bundle")
    assert tuple(others) == run.starts_from[1:] and found.stages == run.stages
    assert "once; the bundle is kept in" in capsys.readouterr().err


def test_a_resumed_run_needs_its_starting_point_no_longer(run):
    run = replace(run, starts_from=((r".*", "hf://nobody/nothing"),))
    assert _with_bundles(run, resumes=True) is run
    with pytest.raises(JclipError, match="hf://nobody/nothing cannot be fetched"):
        _with_bundles(run, resumes=False)
