"""The import engine: what is kept and skipped, when an import stops, and resuming after a kill."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from jclip.data.importing import survey
from jclip.data.importing.engine import Plan, import_data
from jclip.data.importing.formats import open_source
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Reading, cut
from jclip.data.importing.survey import Skipped
from jclip.data.importing.workers import in_processes
from jclip.data.sources.folders import PairFolder, ParallelFolder
from jclip.data.sources.kinds import KeepRules
from jclip.errors import JclipError
from jclip.io.files import lasting_folder
from tests.data.importing.sources import CAPTIONS, cn_clip, contents, picture

SMALL = 300  # bytes of the source in a shard: a few images


def imported(source, target, name="cn-clip", **plan):
    plan = {"shard_bytes": SMALL, "limit": Limit(share=0.5), **plan}
    return import_data(open_source(name, source, Reading())[1], target, Plan(name, **plan))


def test_every_picture_comes_back_with_its_captions(tmp_path):
    report = imported(cn_clip(tmp_path / "source"), tmp_path / "folder")
    pairs = list(PairFolder(str(tmp_path / "folder")).open())
    assert [pair.captions for pair in pairs] == [[caption] for caption in CAPTIONS]
    assert [pair.pictures[0] for pair in pairs] == [picture(n) for n in range(12)]
    assert [(*pair.source_image_ids, *pair.source_text_ids) for pair in pairs] == [(100 + n, 7 * n) for n in range(12)]
    assert {pair.languages for pair in pairs} == {("zh",)}
    assert report.splits["train"].shards > 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "source"]
    assert json.loads((tmp_path / "folder" / "report.json").read_text()) == report.as_json()


def test_what_is_skipped_is_counted_once_with_its_reason(tmp_path):
    captions = ["abc", "a", "b" * 9, "  ", "same", "same", "abc", "last"]
    source = cn_clip(
        tmp_path / "source", captions, pictures=lambda n: b"junk" if n == 7 else picture(4 if n == 5 else n)
    )
    report = imported(source, tmp_path / "folder", rules=KeepRules(3, 8), limit=Limit(count=5))
    found = report.as_json()["splits"]["train"]
    assert {reason: skip["count"] for reason, skip in found["skipped"].items()} == {
        "text shorter than 3 characters": 1,
        "text longer than 8 characters": 1,
        "empty text": 1,
        "exact duplicate": 1,
        "the image does not decode": 1,
    }
    assert found["skipped"]["exact duplicate"]["first"] == ["train_imgs.tsv, line 6"]
    assert (found["read"], found["pairs"]) == (8, 3)
    kept = PairFolder(str(tmp_path / "folder")).open()
    assert [pair.captions[0] for pair in kept] == ["abc", "same", "abc"]  # the same text under another image stays


def test_duplicates_are_kept_on_request(tmp_path):
    source = cn_clip(tmp_path / "source", ["same", "same"], pictures=lambda n: picture(0))
    assert imported(source, tmp_path / "folder", rules=KeepRules(skip_duplicates=False)).splits["train"].records == 2


@pytest.mark.parametrize(
    ("limit", "words"),
    [(Limit(count=2), "3 of 5 had to be skipped, more than --max-skipped 2"), (Limit(share=0.2), "--max-skipped 20%")],
)
def test_an_import_stops_at_the_limit_and_leaves_nothing(tmp_path, limit, words):
    source = cn_clip(tmp_path / "source", pictures=lambda n: b"junk" if n < 3 else picture(n))
    with pytest.raises(JclipError, match=words) as caught:
        imported(source, tmp_path / "deep" / "folder", limit=limit)
    assert "first train_imgs.tsv, line 1" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_limit_as_a_share_counts_all_records_and_may_be_reached(tmp_path):
    source = cn_clip(tmp_path / "source", pictures=lambda n: b"junk" if n < 3 else picture(n))
    assert imported(source, tmp_path / "folder", limit=Limit(share=0.25)).splits["train"].records == 9


def skipped(count):
    found = Skipped()
    found.note("line 1", "empty text", count)
    return found


def test_an_import_stops_as_soon_as_its_limit_must_be_passed():
    limit = Limit(share=0.1)
    limit.check(skipped(2000), 2000, expected=20_000)  # the rest may all be good
    with pytest.raises(JclipError, match="2001 of 2001 had to be skipped, more than --max-skipped 10% of about 20,000"):
        limit.check(skipped(2001), 2001, expected=20_000)
    limit.check(skipped(500), 999, expected=1200)  # too few to say how many there will be
    with pytest.raises(JclipError, match="500 of 999 had to be skipped, more than --max-skipped 10%; 500 because"):
        limit.check(skipped(500), 999)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_hopeless_import_does_not_read_to_the_end(tmp_path, monkeypatch, workers):
    monkeypatch.setattr("jclip.data.importing.limits._ENOUGH", 4)
    file = tmp_path / "text.tsv"
    file.write_text("\tb\n" * 100)
    seen = []
    reader = open_source("parallel-tsv", file, Reading())[1]
    plan = Plan("parallel-tsv", shard_bytes=6, limit=Limit(share=0.1), run=in_processes(workers))
    with pytest.raises(JclipError, match="of about 100 in all"):
        import_data(reader, tmp_path / "folder", plan, lambda what, done, parts: seen.append((what, done)))
    assert max(done for what, done in seen if what == "reading") < 20
    assert [path.name for path in tmp_path.iterdir()] == ["text.tsv"]


@pytest.mark.parametrize("text", ["-1", "x", "120%", "", "1.5"])
def test_invalid_limits_are_refused(text):
    with pytest.raises(JclipError, match="such as 500, or a share, such as 2.5%"):
        Limit.read(text)


def test_processes_and_shards_of_any_number_give_the_same(tmp_path):
    source = cn_clip(tmp_path / "source", pictures=lambda n: picture(n % 10))
    imported(source, tmp_path / "one")
    imported(source, tmp_path / "two", run=in_processes(2))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    imported(source, tmp_path / "whole", shard_bytes=1 << 20)
    assert list(PairFolder(str(tmp_path / "one")).open()) == list(PairFolder(str(tmp_path / "whole")).open())


KILLED = """
import os, signal, sys
from pathlib import Path
from jclip.data.importing import survey
from tests.data.importing.test_engine import imported

# The third result of that name is half written when the kill comes.
name, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
replace = Path.replace
count = 0

def deadly(self, other):
    global count
    if Path(other).name.endswith(name):
        count += 1
        if count == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, other)

Path.replace = deadly
imported(source, target)
"""


@pytest.mark.parametrize("name", ["survey.npz", "shard"])
def test_a_killed_import_resumes_and_ends_the_same(tmp_path, name, monkeypatch):
    source = cn_clip(tmp_path / "source")
    imported(source, tmp_path / "whole")
    killed = subprocess.run([sys.executable, "-c", KILLED, name, source, tmp_path / "folder"], env={**os.environ})
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "folder").exists()
    done = {file for file in contents(tmp_path / ".folder.unfinished") if file.endswith(name)}
    assert len(done) == 2
    again = []
    function = {"survey.npz": "survey", "shard": "write"}[name]
    real = getattr(survey, function)
    monkeypatch.setattr(f"jclip.data.importing.engine.{function}", lambda task: (again.append(task.number), real(task)))
    monkeypatch.setattr(
        "jclip.data.importing.cn_clip._index_pictures", pytest.fail
    )  # what was scanned is not scanned again
    imported(source, tmp_path / "folder")
    assert again == list(range(2, len(again) + 2))
    assert contents(tmp_path / "folder") == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "source", "whole"]


def test_unfinished_work_of_another_source_is_not_used(tmp_path, monkeypatch):
    source = cn_clip(tmp_path / "source")

    def stop(task):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("jclip.data.importing.engine.write", stop)
        with pytest.raises(KeyboardInterrupt):
            imported(source, tmp_path / "folder")
    assert (tmp_path / ".folder.unfinished").is_dir()
    cn_clip(tmp_path / "source", [f"蓝色 {n}" for n in range(12)])
    imported(source, tmp_path / "folder")
    assert PairFolder(str(tmp_path / "folder")).open()[0].captions == ["蓝色 0"]


def test_a_file_that_changes_in_a_folder_of_downloads_is_noticed(tmp_path, monkeypatch):
    folder = cn_clip(tmp_path / "down" / "MUGE", split="valid").resolve()
    reader = open_source("muge", tmp_path / "down", Reading(splits=("valid",)))[1]

    def stop(task):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("jclip.data.importing.engine.write", stop)
        with pytest.raises(KeyboardInterrupt):
            import_data(reader, tmp_path / "folder", Plan("muge"))
    time = folder.stat().st_mtime_ns
    cn_clip(folder, [f"蓝色 {n}" for n in range(12)], "valid")
    assert folder.stat().st_mtime_ns == time
    import_data(reader, tmp_path / "folder", Plan("muge"))
    assert PairFolder(str(tmp_path / "folder"), "valid").open()[0].captions == ["蓝色 0"]


def test_an_import_whose_folder_appears_meanwhile_does_no_work(tmp_path, monkeypatch):
    source = cn_clip(tmp_path / "source")

    @contextmanager
    def late(destination):
        destination.mkdir()
        with lasting_folder(destination) as folder:
            yield folder

    monkeypatch.setattr("jclip.data.importing.engine.lasting_folder", late)
    monkeypatch.setattr("jclip.data.importing.engine._start_or_resume", pytest.fail)
    with pytest.raises(JclipError, match="exists already"):
        imported(source, tmp_path / "folder")


def test_a_source_that_changes_meanwhile_is_noticed(tmp_path, monkeypatch):
    file = tmp_path / "text.tsv"
    file.write_text("a\tb\nc\td\n")
    real = survey.write

    def changed(task):
        file.write_text("a\tb\n")
        real(task)

    monkeypatch.setattr("jclip.data.importing.engine.write", changed)
    with pytest.raises(JclipError, match="the source changed while it was imported"):
        imported(file, tmp_path / "folder", "parallel-tsv")


def test_an_existing_folder_is_not_overwritten(tmp_path):
    source = cn_clip(tmp_path / "source")
    (tmp_path / "folder").mkdir()
    (tmp_path / ".folder.unfinished").mkdir()  # left by a kill right after the folder was completed
    with pytest.raises(JclipError, match="exists already"):
        imported(source, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "source"]


def test_the_work_before_a_worker_was_killed_is_kept(tmp_path, monkeypatch):
    source = cn_clip(tmp_path / "source")
    monkeypatch.setattr("jclip.data.importing.engine.write", _dies)
    with pytest.raises(JclipError, match="a worker process was killed"):
        imported(source, tmp_path / "folder", run=in_processes(2))
    monkeypatch.undo()
    assert len(list((tmp_path / ".folder.unfinished").glob("*.survey.npz"))) > 2
    assert imported(source, tmp_path / "folder").splits["train"].records == 12


def _dies(task):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_second_import_to_the_same_folder_is_refused(tmp_path, monkeypatch):
    source = cn_clip(tmp_path / "source")
    with lasting_folder(tmp_path / "folder"), pytest.raises(JclipError, match="another process is writing"):
        imported(source, tmp_path / "folder")


def test_a_source_without_anything_to_keep(tmp_path):
    (tmp_path / "text.tsv").write_text("\t\n")
    with pytest.raises(JclipError, match="nothing of split 'train' can be kept"):
        imported(tmp_path / "text.tsv", tmp_path / "folder", "parallel-tsv", limit=Limit(share=1.0))
    (tmp_path / "text.tsv").write_text("")
    with pytest.raises(JclipError, match="holds nothing to import"):
        imported(tmp_path / "text.tsv", tmp_path / "folder", "parallel-tsv")


def test_a_split_with_nothing_to_keep_is_named(tmp_path):
    cn_clip(tmp_path / "source", ["a", "b"])
    cn_clip(tmp_path / "source", ["c", " "], "valid", lambda n: b"junk" if n == 0 else picture(n))
    with pytest.raises(JclipError) as caught:
        imported(tmp_path / "source", tmp_path / "folder", limit=Limit(share=0.5))
    assert str(caught.value) == (
        "nothing of split 'valid' can be kept (1 x empty text, 1 x the image does not decode): correct the source, "
        "or omit the split with --splits train"
    )


def test_pairs_that_are_equal_only_when_joined_are_not_duplicates(tmp_path):
    (tmp_path / "text.tsv").write_text("ab\tc\na\tbc\nab\tc\n")
    imported(tmp_path / "text.tsv", tmp_path / "folder", "parallel-tsv")
    assert [(t.english, t.other) for t in ParallelFolder(str(tmp_path / "folder")).open()] == [("ab", "c"), ("a", "bc")]


def test_equal_digests_are_found_in_any_number_of_buckets(monkeypatch):
    digests = np.random.default_rng(0).integers(0, 9, (200, 2)).astype(np.uint64)
    seen, expected = set(), []
    for row in digests.tolist():
        expected.append(tuple(row) in seen)
        seen.add(tuple(row))
    for bucket in (1 << 24, 10):
        monkeypatch.setattr(survey, "_BUCKET", bucket)
        assert survey._again(digests).tolist() == expected


def test_cut_covers_every_row_once():
    sizes = np.random.default_rng(0).integers(0, 30, 200)
    stretches = cut(sizes, 50)
    assert [start for start, _ in stretches] == [0, *(stop for _, stop in stretches[:-1])]
    assert stretches[-1][1] == 200
    assert all(sizes[start:stop].sum() <= 50 for start, stop in stretches)


def test_a_shard_that_is_cut_short_is_noticed(tmp_path, monkeypatch):
    real = survey.write_shard

    def cut_short(file, *rest):
        real(file, *rest)
        os.truncate(file, 100)

    monkeypatch.setattr(survey, "write_shard", cut_short)
    source = cn_clip(tmp_path / "source")
    with pytest.raises(JclipError, match="could not be written completely: free some space"):
        imported(source, tmp_path / "folder")
    monkeypatch.undo()
    assert imported(source, tmp_path / "folder").splits["train"].records == 12
