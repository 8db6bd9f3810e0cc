"""A small checkpoint without a fault, to break, and a command that must be refused."""

import re
import shutil

import pytest

from jclip.cli import main
from tests.conversion import broken
from tests.conversion.broken import listing


@pytest.fixture(scope="module")
def tensors():
    return broken.state("chinese-clip", broken.CHINESE_CLIP)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint without a fault."""
    return broken.write_checkpoint(tmp_path_factory.mktemp("whole") / "source", "chinese-clip", broken.CHINESE_CLIP)


@pytest.fixture(scope="module")
def converted(whole):
    """The bundle that it becomes."""
    bundle = whole.parent / "bundle"
    assert main(["convert", str(whole), str(bundle), "--json"]) == 0
    return bundle


@pytest.fixture
def source(whole, tmp_path):
    """A copy, to break."""
    shutil.copytree(whole, tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs a command that must fail: shortly, with these words, and with nothing changed on the disk."""

    def run(*arguments, says, code=1, printed=False):
        before = listing(tmp_path)
        capsys.readouterr()
        found = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        lines = err.splitlines()
        assert found == code and 1 <= len(lines) <= 2 and len(err) < 1200, err
        assert lines[-1].startswith(f"jclip {arguments[0]}: ") and "Traceback" not in err
        assert re.search(says, err), err
        assert bool(out) == printed
        assert listing(tmp_path) == before
        return err

    def convert(source, *options, says, names=""):
        """Its source is named too, or a file in it."""
        error = run("convert", source, tmp_path / "new" / "dst", *options, "--json", says=says)
        assert f"{source}{names}" in error
        return error

    run.convert = convert
    return run
