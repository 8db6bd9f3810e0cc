"""Updating an index: what changes, and what is kept."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.search.embedding import embed
from jclip.search.index import Index
from jclip.search.originals import read_original
from tests.search.embedders import Cells, encoded, expected_vector
from tests.search.test_embedding import embedded, fill, paths_of, write_tar

COUNTS = ("new", "changed", "renamed", "copied", "unchanged", "gone")


def updated(sources, folder, **more):
    """Returns the counts of an update, after a dry run that must give the same, and the index."""
    dry = embed(Cells(), sources, folder, update=True, dry_run=True, workers=0, **more)
    before = contents(folder)
    assert contents(folder) == before
    report = embed(Cells(), sources, folder, update=True, workers=0, **more)
    assert {**vars(dry), "dry_run": False, "seconds": 0} == {**vars(report), "seconds": 0}
    index = Index.open(folder)
    assert len(index) == report.entries
    for entry in index.all_entries():
        if entry.kind == "image":
            np.testing.assert_array_equal(index.vector(entry.vector), expected_vector(read_original(entry)))
    return {name: count for name in COUNTS if (count := getattr(report, name))}, index


def contents(folder: Path) -> dict:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def age(file: Path, seconds: int = 100) -> None:
    """Makes a file look older, as one that was written again would look newer."""
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns - seconds * 10**9))


@pytest.fixture
def photos(tmp_path):
    return fill(tmp_path / "photos", {f"{n}.png": encoded(n) for n in range(8)})


def test_an_update_embeds_only_what_is_new_or_changed(tmp_path, photos):
    folder = tmp_path / "index"
    _, index = embedded(photos, folder)
    ids = {entry.path.name: entry.id for entry in index.all_entries()}
    (photos / "0.png").unlink()
    (photos / "1.png").write_bytes(encoded(100, size=(13, 10)))
    (photos / "2.png").rename(photos / "renamed.png")
    shutil.copy(photos / "3.png", photos / "copy.png")
    age(photos / "4.png")
    (photos / "new.png").write_bytes(encoded(101))
    (photos / "new too.png").write_bytes(encoded(101))
    model = Cells()
    assert updated([], folder)[0] == {
        "new": 1, "changed": 1, "renamed": 1, "copied": 2, "unchanged": 5, "gone": 1,
    }  # fmt: skip
    index = Index.open(folder)
    now = {entry.path.name: entry for entry in index.all_entries()}
    assert now["renamed.png"].id == ids["2.png"] and now["1.png"].id == ids["1.png"]
    assert now["copy.png"].vector == now["3.png"].vector and now["new.png"].vector == now["new too.png"].vector
    assert now["4.png"].mtime_ns == (photos / "4.png").stat().st_mtime_ns
    report = embed(model, [], folder, update=True, workers=0)  # nothing is left to do
    assert (report.unchanged, report.embedded, model.calls) == (10, 0, [])


def test_an_update_without_changes_neither_writes_vectors_nor_opens_the_model(tmp_path, photos):
    from jclip.search.embedding import ModelSource, Options, embed_with

    folder = tmp_path / "index"
    embedded(photos, folder)
    before = contents(folder)

    def opened():
        raise AssertionError("the model is not needed")

    model = ModelSource(opened, is_chosen=False)
    report = embed_with(model, [], folder, Options(update=True, workers=0))
    assert (report.unchanged, report.entries) == (8, 8)
    after = contents(folder)
    assert after.keys() == before.keys() and all(after[name] == before[name] for name in after if "segments" in name)


def test_the_index_remembers_the_models_present_place(tmp_path, photos):
    folder = tmp_path / "index"
    embed(Cells(source="/old/place"), photos, folder, workers=0)
    assert Index.open(folder).facts.model_source == "/old/place"
    embed(Cells(source="/new/place"), [], folder, update=True, dry_run=True, workers=0)
    assert Index.open(folder).facts.model_source == "/old/place"
    embed(Cells(source="/new/place"), [], folder, update=True, workers=0)
    assert Index.open(folder).facts.model_source == "/new/place"
    embed(Cells(), [], folder, update=True, workers=0)  # a model in memory has no place
    assert Index.open(folder).facts.model_source == "/new/place"


def test_two_files_that_exchange_their_names(tmp_path, photos):
    folder = tmp_path / "index"
    embedded(photos, folder)
    (photos / "0.png").rename(photos / "x")
    (photos / "1.png").rename(photos / "0.png")
    (photos / "x").rename(photos / "1.png")
    for name in ("0.png", "1.png"):
        age(photos / name)
    counts, index = updated([], folder)
    assert counts == {"changed": 2, "unchanged": 6} and index.vectors == 8


def test_a_moved_folder_is_renamed(tmp_path, photos):
    folder = tmp_path / "index"
    embedded(photos, folder)
    (photos / "sub").mkdir()
    for n in range(8):
        (photos / f"{n}.png").rename(photos / f"sub/{n}.png")
    counts, index = updated([], folder)
    assert (counts, index.vectors) == ({"renamed": 8}, 8)


def test_images_that_break_or_heal(tmp_path, photos):
    folder = tmp_path / "index"
    (photos / "bad.png").write_bytes(encoded(50)[:40])
    embedded(photos, folder)
    assert len(Index.open(folder).skipped()) == 1
    (photos / "bad.png").write_bytes(encoded(50))
    (photos / "1.png").write_bytes(b"")
    report = embed(Cells(), [], folder, update=True, workers=0)
    assert (report.new, report.unchanged, report.entries, report.gone) == (1, 7, 8, 0)
    index = Index.open(folder)
    assert [os.path.basename(path) for path, _, _ in index.skipped()] == [b"1.png"]
    assert b"1.png" not in paths_of(index, photos) and b"bad.png" in paths_of(index, photos)


def test_sources_are_added_and_updated_alone(tmp_path, photos):
    folder = tmp_path / "index"
    embedded(photos, folder)
    more = fill(tmp_path / "more", {"a.png": encoded(20), "b.png": encoded(3)})
    (photos / "0.png").unlink()
    report = embed(Cells(), more, folder, update=True, workers=0)
    assert (report.new, report.copied, report.gone, report.entries) == (1, 1, 0, 10)  # 0.png is of another source
    assert updated([], folder)[0] == {"unchanged": 9, "gone": 1}
    report = embed(Cells(), [photos / "3.png"], folder, update=True, workers=0)
    assert (report.unchanged, report.entries) == (1, 9)


def test_a_source_that_is_not_there_loses_nothing(tmp_path, photos):
    folder = tmp_path / "index"
    more = fill(tmp_path / "more", {"a.png": encoded(20)})
    embedded([photos, more], folder)
    before = contents(folder)
    more.rename(tmp_path / "away")
    with pytest.raises(JclipError, match=r"more cannot be read .*; --drop-missing drops its 1 entries"):
        embed(Cells(), [], folder, update=True)
    more.mkdir()  # the empty folder where a disk is mounted
    with pytest.raises(JclipError, match=r"more has no images any more, but the index has 1 entries of it: mount"):
        embed(Cells(), [], folder, update=True)
    assert contents(folder) == before
    assert sorted(os.listdir(tmp_path)) == ["away", "index", "more", "photos"]
    more.rmdir()
    assert updated([more], folder, drop_missing=True)[0] == {"gone": 1}
    assert updated([], folder)[0] == {"unchanged": 8}  # it is forgotten


def test_a_deleted_file_that_was_a_source_is_dropped(tmp_path, photos):
    folder = tmp_path / "index"
    embedded([photos / "0.png", photos / "1.png", photos], folder)
    (photos / "0.png").unlink()
    assert updated([], folder)[0] == {"unchanged": 7, "gone": 1}
    shutil.rmtree(photos)
    with pytest.raises(JclipError, match="1.png cannot be read"):  # its folder is gone: perhaps a disk is not mounted
        embed(Cells(), [], folder, update=True)


def test_entries_of_a_source_that_is_gone_stay_if_another_source_has_them(tmp_path, photos):
    folder, link = tmp_path / "index", tmp_path / "link"
    link.mkdir()
    (link / "0.png").symlink_to(photos / "0.png")
    embedded([link, tmp_path / "*/0.png"], folder)
    (link / "0.png").rename(tmp_path / "photos/x.png")
    link.rmdir()
    counts, index = updated([], folder, drop_missing=True)
    assert counts == {"unchanged": 1, "gone": 1} and len(index) == 1
    assert index.query("SELECT count(*) FROM sources JOIN entries ON entries.source = sources.id") == [(1,)]


def test_an_empty_source_is_noticed_beside_others(tmp_path, photos):
    folder = tmp_path / "index"
    write_tar(tmp_path / "a.tar", {"a.png": encoded(20)})
    embedded([tmp_path / "a.tar", photos], folder)
    shutil.rmtree(photos)
    photos.mkdir()
    with pytest.raises(JclipError, match="photos has no images any more, but the index has 8 entries"):
        embed(Cells(), [], folder, update=True)


def test_folders_that_cannot_be_listed_keep_their_entries(tmp_path, photos, monkeypatch):
    folder = tmp_path / "index"
    fill(photos, {"sub/a.png": encoded(30), "sub/b.png": encoded(31)})
    embedded(photos, folder)
    scandir = os.scandir

    def refusing(place):
        if isinstance(place, bytes) and place.endswith(b"sub"):
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    monkeypatch.setattr("os.scandir", refusing)
    report = embed(Cells(), [], folder, update=True, workers=0)
    assert (report.unchanged, report.gone, len(report.skipped), report.entries) == (10, 0, 1, 10)


def test_tars_are_listed_again_only_if_they_changed(tmp_path, monkeypatch):
    folder, place = tmp_path / "index", tmp_path / "a.tar"
    write_tar(place, {f"{n}.png": encoded(n) for n in range(4)})
    embedded(place, folder)
    with monkeypatch.context() as patch:
        patch.setattr("jclip.search.sources.tars.Tar.items", lambda tar: 1 / 0)
        assert updated([], folder)[0] == {"unchanged": 4}
    # Another image of the same size and time, which a tar made without times may hold.
    write_tar(place, {**{f"{n}.png": encoded(n) for n in range(3)}, "3.png": encoded(9), "3.txt": b"a cat"})
    age(place, -100)
    counts, index = updated([], folder)
    assert counts == {"changed": 1, "unchanged": 3} and index.entry(4).text == "a cat"


def test_text_files_and_lists(tmp_path, photos, monkeypatch):
    folder, texts = tmp_path / "index", tmp_path / "texts.txt"
    texts.write_text("one\ntwo\nthree\n")
    listed = b"\0".join(os.fsencode(photos / f"{n}.png") for n in (1, 2))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed)))
    embedded([texts, "-"], folder)
    texts.write_text("one\n2\nthree\nfour\n")
    (photos / "1.png").rename(photos / "one.png")
    report = embed(Cells(), [], folder, update=True, workers=0)
    assert (report.unchanged, report.changed, report.new, report.gone, len(report.skipped)) == (3, 1, 1, 1, 1)
    assert [entry.text for entry in Index.open(folder).select_entries()] == ["one", "2", "three", None, "four"]


def test_an_update_of_no_index_makes_one(tmp_path, photos):
    assert embed(Cells(), photos, tmp_path / "index", update=True, workers=0).new == 8


def test_many_dead_vectors_are_removed(tmp_path, photos, monkeypatch):
    monkeypatch.setattr("jclip.search.writing.ROWS", 3)
    monkeypatch.setattr("jclip.search.applying.ROWS", 3)
    folder = tmp_path / "index"
    embedded(photos, folder)
    old = Index.open(folder)
    for n in (1, 5):
        (photos / f"{n}.png").unlink()
    _, index = updated([], folder)
    assert index.vectors == 8  # a quarter is unused
    (photos / "6.png").unlink()
    (photos / "new.png").write_bytes(encoded(70))
    _, index = updated([], folder)
    assert (index.vectors, len(index)) == (6, 6)
    assert [(first, len(block)) for first, block in index.blocks()] == [(0, 3), (3, 3)]
    assert sorted(os.listdir(folder / "segments")) == ["000003.npy", "000004.npy"]
    np.testing.assert_array_equal(old.vector(5), expected_vector(encoded(5)))  # a snapshot
    assert old.entry(6).path.name == "5.png"


def test_a_last_segment_is_filled(tmp_path, photos, monkeypatch):
    monkeypatch.setattr("jclip.search.writing.ROWS", 5)
    monkeypatch.setattr("jclip.search.applying.ROWS", 5)
    folder = tmp_path / "index"
    embedded(photos, folder)
    fill(photos, {"x.png": encoded(80), "y.png": encoded(81), "z.png": encoded(82)})
    _, index = updated([], folder)
    assert [(first, len(block)) for first, block in index.blocks()] == [(0, 5), (5, 5), (10, 1)]
    assert sorted(os.listdir(folder / "segments")) == ["000000.npy", "000002.npy", "000003.npy"]
