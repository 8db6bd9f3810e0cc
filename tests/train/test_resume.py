"""Runs that are interrupted and resume: killed, moved, or with other names of the same folders."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from jclip.config import kinds_of
from jclip.data.sources.folders import PairFolder
from jclip.data.sources.kinds import StoredPair
from jclip.data.sources.source import Source
from jclip.data.sources.synthetic import caption, write_tokenizer
from jclip.data.sources.writing import write_pairs
from jclip.errors import JclipError
from jclip.train.identity import check_same, fingerprint, identity
from jclip.train.loop import train
from jclip.train.preparing import prepare
from tests.train.runs import assert_same_bundles, losses, png
from tests.train.toy import toy

ROOT = Path(__file__).parents[2]

# Trains the toy run that is pickled in FILE, and kills itself after STEP steps of the first stage.
KILLED = """
import os, pickle, signal, sys, time
from pathlib import Path
from jclip.train.loop import train
from tests.train.runs import Watch

workdir = Path(sys.argv[2])

def act(step):
    if step == int(sys.argv[3]):
        while not (workdir / "checkpoints" / "3").exists():  # it is written while training goes on
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

train(pickle.loads(Path(sys.argv[1]).read_bytes()), workdir, watcher=Watch(act))
"""


def test_killed_between_checkpoints_ends_the_same_to_the_bit(one_stage, tmp_path):
    run, workdir, file = replace(toy(one_stage, steps=8), checkpoint_every=3), tmp_path / "run", tmp_path / "run.pickle"
    file.write_bytes(pickle.dumps(run))
    command = [sys.executable, "-c", KILLED, str(file), str(workdir), "5"]
    killed = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["3"]
    assert [total for total, _ in losses(workdir)] == [1, 2, 3, 4]  # the fifth step was not written any more
    resumed, whole = train(run, workdir), train(run, tmp_path / "whole")
    assert_same_bundles(resumed.bundles, whole.bundles)
    assert losses(workdir) == losses(tmp_path / "whole")


def _renamed(run, old, new):
    """Returns the run with its paths renamed."""

    def moved(place):
        return place.replace(old, new)

    def stage_of(stage):
        (source,), objective = stage.data, stage.objective
        if hasattr(objective, "bundle"):
            return replace(stage, objective=replace(objective, bundle=moved(objective.bundle)))
        return replace(stage, data=(replace(source, folder=moved(source.folder)),)) if stage is run.stages[0] else stage

    return replace(run, tokenizer=moved(run.tokenizer), stages=tuple(map(stage_of, run.stages)))


def test_folders_may_move_and_be_named_otherwise(toy_run, monkeypatch, tmp_path):
    home = tmp_path / "home"
    write_pairs(home / "demo" / "pairs", (StoredPair(png(number), (caption(number),)) for number in range(32)))
    write_tokenizer("wordpiece", home / "demo" / "words")
    first, second = toy_run.stages
    stages = (replace(first, data=(PairFolder("demo/pairs"),)), second)
    run = replace(toy_run, stages=stages, tokenizer="demo/words")
    monkeypatch.chdir(home)
    train(run, Path("demo/run"), stop_after=1)
    # Named from the root.
    train(_renamed(run, "demo/", f"{home}/demo/"), home / "demo" / "run", stop_after=2)
    # Moved.
    shutil.move(home / "demo", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert train(_renamed(run, "demo/", "elsewhere/"), Path("elsewhere/run")).finished


def test_a_teacher_may_move_too(altclip, monkeypatch, tmp_path):
    place = Path(altclip.tokenizer).parent
    run = replace(altclip, stages=altclip.stages[:1])
    before = identity(run, prepare(run, tmp_path / "run")[1])
    shutil.copytree(place, tmp_path / "elsewhere" / "inputs")
    monkeypatch.chdir(tmp_path)
    moved = _renamed(run, f"{place.parent}/", "elsewhere/")
    check_same(before, identity(moved, prepare(moved, Path("run"))[1]), tmp_path)


def test_other_contents_at_the_same_place_are_refused(toy_run, tmp_path):
    words = write_tokenizer("wordpiece", tmp_path / "words")
    run = replace(toy_run, tokenizer=str(tmp_path / "words"))
    train(run, tmp_path / "run", stop_after=1)
    shutil.rmtree(run.tokenizer)
    write_tokenizer("wordpiece", tmp_path / "words")
    assert train(run, tmp_path / "run", stop_after=2).position.total == 2  # the same again
    vocabulary = tmp_path / "words" / "vocab.txt"
    vocabulary.write_text("\n".join([*words.tokens[:-1], "##changed"]) + "\n", encoding="utf-8")
    with pytest.raises(JclipError, match=r"another configuration \(tokenizer: .* which holds something else\)"):
        train(run, tmp_path / "run")


def test_what_is_compared_of_a_place(chinese_clip, tmp_path):
    words = write_tokenizer("wordpiece", tmp_path / "words")
    folders = [tmp_path / name for name in ("one", "same", "other")]
    for folder, text in zip(folders, ("a", "a", "b"), strict=True):
        folder.mkdir()
        (folder / "config.json").write_text(text)
    one, same, other = (
        identity(replace(chinese_clip, starts_from=((".*", str(folder)),)), words) for folder in folders
    )
    fresh = identity(chinese_clip, words)
    check_same(one, one, tmp_path)
    check_same(one, same, tmp_path)
    for before, now in ((one, other), (one, fresh), (fresh, one)):
        with pytest.raises(JclipError, match=r"starts_from\.0\.1: .* which holds something else\): choose another"):
            check_same(before, now, tmp_path)
    # A starting point may be deleted once the run has started.
    shutil.rmtree(folders[0])
    check_same(one, identity(replace(chinese_clip, starts_from=((".*", str(folders[0])),)), words), tmp_path)
    assert fingerprint(tmp_path / "nowhere") is None
    with pytest.raises(JclipError, match=r"\(seed: 0, now 1\)"):
        check_same(fresh, identity(replace(chinese_clip, seed=1), words), tmp_path)


def test_every_folder_of_a_source_is_marked():
    """A string field of a source is a `Folder`, or decides what is read. Whoever adds one must say which."""
    strings = {field.name for kind in kinds_of(Source) for field in fields(kind) if field.type in (str, "str")}
    assert strings == {"split"}
