import pytest

from jclip.cli import main
from jclip.cli.serve import api_key
from jclip.errors import JclipError


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("JCLIP_API_KEY", raising=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "--port", "0"], "nothing"),
        (
            ["b", "--host", "0.0.0.0"],
            "--host 0.0.0.0 can be reached from elsewhere: give a key with --key-file or $JCLIP",
        ),
        (["b", "--embed", "photos"], "--embed has no index to write: give one with --index"),
        (["b", "--port", "-1"], "--port -1 is not possible: give 0 to 65535"),
        (["b", "--key-file", "missing"], "missing"),
        (["b", "--batch", "0", "--port", "0"], "--batch is 0"),
        (["b", "--max-items", "0"], "max_items is 0"),
        (["b", "--max-items", "2000"], "max_items is 2000, but max_queue is 1024: raise max_queue"),
    ],
)
def test_errors_are_one_line(arguments, message, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *arguments]) == 1
    out, error = capfd.readouterr()
    assert out == "" and error.startswith("jclip serve: ") and error.count("\n") == 1 and message in error


def test_keys(tmp_path, monkeypatch):
    assert api_key(None) is None
    monkeypatch.setenv("JCLIP_API_KEY", " from-the-environment \n")
    assert api_key(None) == "from-the-environment"
    file = tmp_path / "key"
    file.write_text("from-a-file\n", encoding="utf-8")
    assert api_key(file) == "from-a-file"
    for wrong in ("", " \n", "two words", "钥匙", "a\nb", "\x00"):
        file.write_text(wrong, encoding="utf-8")
        with pytest.raises(JclipError, match="holds no key"):
            api_key(file)
    file.write_bytes(b"x" * 5000)
    with pytest.raises(JclipError, match="more than"):
        api_key(file)
