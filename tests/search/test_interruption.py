"""Interruptions of embedding and of updates, at any point: kills, mistakes, full disks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jclip.errors import JclipError
from jclip.search.embedding import embed
from jclip.search.index import Index
from tests.search.embedders import Cells, encoded
from tests.search.test_embedding import embedded, fill, write_tar
from tests.search.test_updating import contents

ROOT = Path(__file__).parents[2]
KILLED = """
import json, os, signal, sys
from tests.search.embedders import Cells
from jclip.search import applying, embedding, segments, work, writing

where, count = sys.argv[1], int(sys.argv[2])

def killing(function):
    def wrapped(*arguments, **more):
        global count
        count -= 1
        if count < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **more)
    return wrapped

module, name = where.split(":")
owner = {"model": Cells, "work": work.Work, "os": os, "segments": segments, "applying": applying}[module]
setattr(owner, name, killing(getattr(owner, name)))
embedding.embed(
    Cells(), json.loads(sys.argv[3]), sys.argv[4], update=sys.argv[5] == "update", workers=0, batch_size=3
)
"""
PLACES = [
    *((f"model:{name}", count) for name, count in (("encode_image", 0), ("encode_image", 2), ("encode_text", 0))),
    *(("work:finish", count) for count in range(6)),
    *(("os:fsync", count) for count in range(2)),
    ("work:settle", 0),
    ("segments:write_array", 0),
]


def killed(where, count, sources, folder, update):
    """Runs embedding in a process that kills itself; returns the exit code."""
    arguments = [where, str(count), json.dumps([str(each) for each in sources]), str(folder), update]
    return subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, timeout=60).returncode


@pytest.fixture
def sources(tmp_path):
    """Images with a copy and a broken one, a tar and texts."""
    images = {f"{n:02d}.png": encoded(n) for n in range(10)} | {"05 copy.png": encoded(1), "bad.png": b"junk"}
    photos = fill(tmp_path / "photos", images)
    write_tar(photos / "more.tar.gz", {f"{n}.png": encoded(n) for n in (20, 21, 3)}, "w:gz")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join("abcdeb"))
    return [photos, texts]


@pytest.mark.parametrize(("where", "count"), PLACES[1::4])
def test_a_killed_run_goes_on_and_ends_byte_identical(tmp_path, sources, where, count):
    _a_killed_run(tmp_path, sources, where, count)


@pytest.mark.slow
@pytest.mark.parametrize(("where", "count"), PLACES)
def test_a_run_that_is_killed_anywhere_ends_byte_identical(tmp_path, sources, where, count):
    _a_killed_run(tmp_path, sources, where, count)


def _a_killed_run(tmp_path, sources, where, count):
    whole = tmp_path / "whole"
    calls = Cells()
    embed(calls, sources, whole, workers=0, batch_size=3)
    folder = tmp_path / "folder"
    assert killed(where, count, sources, folder, "new") == -9
    assert not folder.exists()
    again = Cells()
    report = embed(again, sources, folder, workers=0, batch_size=3)
    assert (report.entries, len(report.skipped)) == (20, 1)
    assert contents(folder) == contents(whole)
    assert sorted(os.listdir(tmp_path)) == ["folder", "photos", "texts.txt", "whole"]
    assert calls.calls == [3, 3, 3, 3, 3, 2]
    if where == "work:finish":
        stored = count - (count > 4)  # the fifth call stores only what needed no vector
        assert again.calls == calls.calls[stored:], "what was stored is not encoded again"


@pytest.mark.parametrize(("where", "count"), PLACES[3::4])
def test_a_killed_update_leaves_the_index_and_goes_on(tmp_path, sources, where, count):
    _a_killed_update(tmp_path, sources, where, count)


@pytest.mark.slow
@pytest.mark.parametrize(("where", "count"), PLACES)
def test_an_update_that_is_killed_anywhere_leaves_the_index(tmp_path, sources, where, count):
    _a_killed_update(tmp_path, sources, where, count)


def _a_killed_update(tmp_path, sources, where, count):
    photos, texts = sources
    whole, folder = tmp_path / "whole", tmp_path / "folder"
    embed(Cells(), sources, whole, workers=0)
    shutil.copytree(whole, folder)
    before = {(entry.path, entry.hash) for entry in Index.open(folder).all_entries()}
    for n in range(5):
        (photos / f"{n:02d}.png").unlink()
    fill(photos, {f"new {n}.png": encoded(40 + n) for n in range(11)} | {"moved.png": encoded(2)})
    texts.write_text("\n".join("axyzw"))
    embed(Cells(), [], whole, update=True, workers=0, batch_size=3)
    assert killed(where, count, [], folder, "update") == -9
    index = Index.open(folder)
    assert {(entry.path, entry.hash) for entry in index.all_entries()} == before
    index.vectors_at(index.select())
    embed(Cells(), [], folder, update=True, workers=0, batch_size=3)
    assert contents(folder) == contents(whole)
    assert not (tmp_path / ".folder.unfinished").exists()


def test_unfinished_work_survives_mistakes(tmp_path, sources):
    folder = tmp_path / "folder"
    assert killed("work:finish", 3, sources, folder, "new") == -9
    with pytest.raises(JclipError, match="absent cannot be read"):
        embed(Cells(), [*sources, tmp_path / "absent"], folder)
    with pytest.raises(JclipError, match="has unfinished work of another model or orientation"):
        embed(Cells(identity="2" * 64), sources, folder, workers=0)
    model = Cells()
    fill(sources[0], {"00 first.png": encoded(90)})  # meanwhile
    seen = []
    report = embed(model, sources, folder, workers=0, batch_size=3, watch=seen.append)
    assert (report.entries, sum(model.calls)) == (21, 18 - 9)
    assert seen[0].resumed == seen[0].done - seen[0].skipped == seen[-1].resumed > 9  # copies count
    update = []
    embed(model, [], folder, update=True, workers=0, watch=update.append)
    assert update[0].resumed == 0


def test_a_write_that_fails_leaves_the_index(tmp_path, sources, monkeypatch):
    photos, folder = sources[0], tmp_path / "index"
    embedded(photos, folder)
    before = contents(folder)
    fill(photos, {"new.png": encoded(60)})

    def full(*arguments):
        raise OSError(28, "No space left on device", "x")

    with monkeypatch.context() as patch:
        patch.setattr("jclip.search.segments.write_array", full)
        with pytest.raises(JclipError, match="cannot be written .No space left on device"):
            embed(Cells(), [], folder, update=True, workers=0)
    assert contents(folder) == before
    model = Cells()
    embed(model, [], folder, update=True, workers=0)
    assert model.calls == []  # the vector was stored


def test_two_writers_do_not_disturb_each_other(tmp_path, sources):
    from jclip.io.files import lasting_folder

    with lasting_folder(tmp_path / "index"), pytest.raises(JclipError, match="another process is writing"):
        embed(Cells(), sources, tmp_path / "index", workers=0)
