"""Whole or absent, whatever happens in between."""

import pytest

from jclip.errors import JclipError
from jclip.files import whole_file, whole_folder


def fail(how, place, error):
    """Writes a part, and fails."""
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
def test_nothing_stays_of_a_folder_that_failed(tmp_path, error):
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
    with pytest.raises(JclipError, match="model is there already"), whole_folder(tmp_path / "model", replace=False):
        pass
    assert names(tmp_path) == ["model"]


def test_a_place_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("x")
    for make, place in ((whole_folder, "file"), (whole_file, "file"), (whole_folder, "file/x"), (whole_file, "file/x")):
        with pytest.raises(JclipError, match=r"is there already|cannot be made"), make(tmp_path / place):
            pass
    assert names(tmp_path) == ["file"]


def test_a_file_appears_when_it_is_whole(tmp_path):
    with whole_file(tmp_path / "deep" / "x.pt") as partial:
        partial.write_text("new")
    assert names(tmp_path / "deep") == ["x.pt"]
    with pytest.raises(ValueError):
        fail(whole_file, tmp_path / "y.pt", ValueError)
    assert names(tmp_path) == ["deep"]
