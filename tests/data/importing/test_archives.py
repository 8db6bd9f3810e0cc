"""Archives that would write where nothing may be written."""

import tarfile
import zipfile

import pytest

from jclip.errors import JclipError
from tests.data.importing.test_named import imported


def test_members_outside_the_folder_are_refused(tmp_path):
    (tmp_path / "down").mkdir()
    with tarfile.open(tmp_path / "down" / "MUGE.tar", "w") as tar:
        (tmp_path / "evil").write_text("x")
        tar.add(tmp_path / "evil", "../../../escaped")
    with pytest.raises(JclipError, match="a path out of the archive: refusing to unpack it"):
        imported("muge", tmp_path / "down", tmp_path / "folder")
    assert not list(tmp_path.rglob("escaped"))


ODD_NAMES = [
    ([".", "MUGE/a"], "has '.', a path out of the archive"),
    (["MUGE/a", "MUGE/a/b"], "has 'MUGE/a/b', which cannot be written beside the other files"),
    (["MUGE/a/b", "MUGE/a"], "has 'MUGE/a', which cannot be written beside the other files"),
    (["x" * 300], "x', which cannot be written beside the other files"),
]


@pytest.mark.parametrize(("names", "words"), ODD_NAMES)
def test_invalid_member_names_are_refused(tmp_path, names, words):
    (tmp_path / "down").mkdir()
    with zipfile.ZipFile(tmp_path / "down" / "MUGE.zip", "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(JclipError) as caught:
        imported("muge", tmp_path / "down", tmp_path / "folder")
    assert str(caught.value).startswith(f"{tmp_path / 'down' / 'MUGE.zip'} has ") and words in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["down"]
