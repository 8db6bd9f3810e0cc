"""Files and folders are complete or absent, whatever interrupts the writing."""

import fcntl
import os
import shutil

import pytest

from jclip.errors import JclipError
from jclip.io import files
from jclip.io.files import Unfinished, lasting_folder, whole_file, whole_folder


def fail(how, place, error):
    """Writes a part and fails."""
    with how(place) as partial:
        (partial / "x" if partial.is_dir() else partial).write_text("half")
        raise error


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_it_is_whole(tmp_path):
    with whole_folder(tmp_path / "deep" / "model") as partial:
        (partial / "x").write_text("new")
        assert not (tmp_path / "deep" / "model").exists()
    assert (tmp_path / "deep" / "model" / "x").read_text() == "new" and names(tmp_path / "deep") == ["model"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_folder_leaves_nothing(tmp_path, error):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x").write_text("old")
    with pytest.raises(error):
        fail(whole_folder, tmp_path / "model", error)
    assert names(tmp_path) == ["model"] and (tmp_path / "model" / "x").read_text() == "old"


def test_an_older_folder_is_replaced_whole_or_not_at_all(tmp_path):
    for content in ("old", "new"):
        with whole_folder(tmp_path / "model") as partial:
            (partial / content).write_text(content)
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["new"]
    with pytest.raises(JclipError, match="model exists already"), whole_folder(tmp_path / "model", replace=False):
        pass
    assert names(tmp_path) == ["model"]


def test_impossible_places_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for make, place in ((whole_folder, "file"), (whole_file, "file"), (whole_folder, "file/x"), (whole_file, "file/x")):
        with pytest.raises(JclipError, match=r"exists already|cannot be made"), make(tmp_path / place):
            pass
    assert names(tmp_path) == ["file"]


def test_a_file_appears_when_it_is_whole(tmp_path):
    with whole_file(tmp_path / "deep" / "x.pt") as partial:
        partial.write_text("new")
    assert names(tmp_path / "deep") == ["x.pt"]
    with pytest.raises(ValueError):
        fail(whole_file, tmp_path / "y.pt", ValueError)
    assert names(tmp_path) == ["deep"]


def test_of_two_writers_the_first_keeps_the_file_unless_it_may_be_replaced(tmp_path):
    file = tmp_path / "x"

    def write(text, meanwhile=lambda: None):
        with whole_file(file) as partial:
            partial.write_text(text)
            meanwhile()

    with pytest.raises(JclipError, match="x exists already"):
        write("late", meanwhile=lambda: write("first"))
    assert file.read_text() == "first" and names(tmp_path) == ["x"]
    with whole_file(file, replace=True) as partial:
        partial.write_text("new")
    assert file.read_text() == "new" and names(tmp_path) == ["x"]


@pytest.fixture
def killed(tmp_path):
    """Leftovers of a process that was killed after moving the old folder away and before renaming the new one."""
    with whole_folder(tmp_path / "model") as partial:
        (partial / "new").touch()
        shutil.copytree(partial, tmp_path / "kept")
    (tmp_path / "model").rename(tmp_path / partial.with_suffix(".old").name)
    (tmp_path / partial.with_suffix(".old").name / "new").rename(tmp_path / partial.with_suffix(".old").name / "old")
    return (tmp_path / "kept").rename(partial)


def test_a_folder_that_a_killed_process_moved_away_is_restored(killed, tmp_path):
    with pytest.raises(ValueError):
        fail(whole_folder, tmp_path / "model", ValueError)
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["old"]


def test_a_folder_that_a_killed_process_moved_away_counts_as_existing(killed, tmp_path):
    with pytest.raises(JclipError, match="model exists already"), whole_folder(tmp_path / "model", replace=False):
        pass
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["old"]


def test_an_old_folder_that_was_replaced_before_a_kill_is_removed(killed, tmp_path):
    killed.rename(tmp_path / "model")
    with pytest.raises(ValueError):
        fail(whole_folder, tmp_path / "model", ValueError)
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["new"]


def test_a_folder_that_another_process_is_replacing_is_left_alone(killed, tmp_path):
    lock = files._lock(killed)
    before = names(tmp_path)
    with pytest.raises(ValueError):
        fail(whole_folder, tmp_path / "model", ValueError)
    assert names(tmp_path) == before
    os.close(lock)


def test_a_lasting_folder_survives_interrupts_and_disk_errors(tmp_path):
    place = tmp_path / "deep" / "place"
    for error in (KeyboardInterrupt, OSError, Unfinished):
        with pytest.raises(error):
            fail(lasting_folder, place, error)
    assert len(list((tmp_path / "deep" / ".place.unfinished").iterdir())) == 1
    with pytest.raises(JclipError, match="mend it"), lasting_folder(place):
        raise JclipError("mend it")
    assert list((tmp_path / "deep").iterdir()) == []
    with lasting_folder(place) as folder:
        (folder / "work").touch()
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_lasting_folder_belongs_to_one_process(tmp_path):
    with lasting_folder(tmp_path / "place"):
        with pytest.raises(JclipError, match="another process is writing"), lasting_folder(tmp_path / "place"):
            pass
        assert (tmp_path / ".place.unfinished").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(JclipError, match="cannot be made"), lasting_folder(tmp_path / "file" / "place"):
        pass


def test_a_lasting_folder_may_be_removed_while_another_process_waits(tmp_path, monkeypatch):
    place, real = tmp_path / "place", fcntl.flock
    ended = iter([True])

    def late(handle, how):
        if next(ended, False):  # the owner removes the folder after we opened it
            (tmp_path / ".place.unfinished").rmdir()
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with lasting_folder(place) as folder:
        assert folder.is_dir()
        with pytest.raises(JclipError, match="another process is writing"), lasting_folder(place):
            pass
    assert list(tmp_path.iterdir()) == []
