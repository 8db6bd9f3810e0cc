"""Runs that are cut off and go on: killed, moved, or under another name of the same folders."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jclip.checkpoint import Checkpoints, Position
from jclip.data.sources.folders import PairFolder, StoredPair, write_pairs
from jclip.data.sources.synthetic import caption, write_tokenizer
from jclip.errors import JclipError
from jclip.images.on_device import Augmentation
from jclip.images.on_host import HostAugmentation
from jclip.stages import Budget
from jclip.train.identity import check_same, fingerprint, identity
from jclip.train.loop import train
from tests.train.runs import assert_same_bundles, leaves, losses

ROOT = Path(__file__).parents[2]

# Trains what is pickled in FILE, and kills itself as `kill -9` would after STEP steps of the first stage.
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


@pytest.fixture
def lively(chinese_clip):
    """One stage with augmentation and dropout, and a checkpoint every third step."""
    augmentation = Augmentation(scale=0.2, rotate=10.0, translate=0.1, flip=0.5, hue=20.0)
    objective = replace(chinese_clip.stages[0].objective, augmentation=augmentation)
    stage = replace(chinese_clip.stages[0], budget=Budget(steps=8), objective=objective, dropout=True)
    optimizer = replace(stage.optimizer, learning_rate=1e-3, warmup_steps=0)
    return replace(chinese_clip, stages=(replace(stage, optimizer=optimizer),), checkpoint_every=3)


def test_killed_between_checkpoints_ends_the_same_to_the_bit(lively, tmp_path):
    assert lively.model.text.dropout > 0
    workdir, file = tmp_path / "run", tmp_path / "run.pickle"
    file.write_bytes(pickle.dumps(lively))
    command = [sys.executable, "-c", KILLED, str(file), str(workdir), "5"]
    killed = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["3"]
    assert [total for total, _ in losses(workdir)] == [1, 2, 3, 4]  # the fifth step was not written any more
    resumed, whole = train(lively, workdir), train(lively, tmp_path / "whole")
    assert_same_bundles(resumed.bundles, whole.bundles)
    assert losses(workdir) == losses(tmp_path / "whole")
    # Augmentation and dropout do act: without one of them the run ends elsewhere.
    objective = lively.stages[0].objective
    assert objective.host_augmentation.changes
    for change in (
        {"objective": replace(objective, augmentation=Augmentation())},
        {"objective": replace(objective, host_augmentation=HostAugmentation())},
        {"dropout": False},
    ):
        plain = replace(lively, stages=(replace(lively.stages[0], **change),))
        other = leaves(train(plain, tmp_path / "-".join(change)).bundles[0])
        assert any(not np.array_equal(leaf, other[path]) for path, leaf in leaves(whole.bundles[0]).items())


@pytest.fixture
def away(recipe, tmp_path):
    """A recipe all of whose folders lie in one, named from the folder above; its first stage reads a data folder."""
    home = tmp_path / "home"
    (home / "demo").mkdir(parents=True)
    shutil.copytree(tmp_path / "inputs", home / "demo" / "inputs")
    here = {str(tmp_path / "inputs"): "demo/inputs"}
    run = replace(recipe, tokenizer=_renamed(recipe.tokenizer, here))
    if hasattr(recipe.stages[0].objective, "bundle"):
        return home, _everywhere(run, here)
    pictures = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), np.uint8)
    write_pairs(home / "demo" / "pairs", (StoredPair(_png(p), (caption(n),)) for n, p in enumerate(pictures)))
    stages = (replace(run.stages[0], data=(PairFolder("demo/pairs"),)), *run.stages[1:])
    return home, replace(run, stages=stages)


def _png(pixels):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _renamed(place, names):
    for old, new in names.items():
        place = place.replace(old, new)
    return place


def _everywhere(run, names):
    """The run with its places renamed."""

    def objective(old):
        return replace(old, bundle=_renamed(old.bundle, names)) if hasattr(old, "bundle") else old

    stages = tuple(
        replace(
            stage,
            objective=objective(stage.objective),
            data=tuple(replace(d, folder=_renamed(d.folder, names)) if hasattr(d, "folder") else d for d in stage.data),
        )
        for stage in run.stages
    )
    return replace(run, tokenizer=_renamed(run.tokenizer, names), stages=stages)


def test_folders_may_move_and_be_named_otherwise(away, monkeypatch, tmp_path):
    home, run = away
    monkeypatch.chdir(home)
    train(run, Path("demo/run"), stop_after=1)
    # Named from the root.
    absolute = _everywhere(run, {"demo/": f"{home}/demo/"})
    train(absolute, home / "demo" / "run", stop_after=2)
    # Moved.
    shutil.move(home / "demo", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    moved = _everywhere(run, {"demo/": "elsewhere/"})
    assert train(moved, Path("elsewhere/run")).finished


def test_other_contents_at_the_same_place_are_refused(chinese_clip, tmp_path):
    train(chinese_clip, tmp_path / "run", stop_after=1)
    shutil.rmtree(chinese_clip.tokenizer)
    words = write_tokenizer("wordpiece", Path(chinese_clip.tokenizer))
    assert train(chinese_clip, tmp_path / "run", stop_after=2).position.total == 2  # the same again
    vocabulary = Path(chinese_clip.tokenizer) / "vocab.txt"
    vocabulary.write_text("\n".join([*words.tokens[:-1], "##changed"]) + "\n", encoding="utf-8")
    with pytest.raises(JclipError, match=r"another configuration \(tokenizer: .* which holds something else\)"):
        train(chinese_clip, tmp_path / "run")


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


def test_every_place_of_a_source_is_known_as_one():
    """A string field of a source is a place, or it decides what is read: whoever adds one says which."""
    import typing
    from dataclasses import fields

    from jclip.data.sources.any_source import Source

    strings = {field.name for kind in typing.get_args(Source) for field in fields(kind) if field.type in (str, "str")}
    assert strings == {"folder", "split"}


def test_an_older_jclips_checkpoints_are_refused_and_left_alone(chinese_clip, tmp_path):
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    for number in (1, 2):
        checkpoints.save(Position(0, number, number), {"a": jnp.zeros(2)}, {"config": {}})
    checkpoints.close()
    for file in (tmp_path / "run" / "checkpoints").glob("*/record/metadata"):
        record = json.loads(file.read_text())
        file.write_text(json.dumps({name: record[name] for name in ("config", "stage", "step", "total")}))
    with pytest.raises(JclipError, match="was written by an older jclip: choose another --workdir"):
        train(chinese_clip, tmp_path / "run")
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 2
