"""Checkpoints and bundles that are made once and only read, copies of them to break, and commands that must fail."""

import functools
import re
import shutil

import pytest

import jclip
from jclip.cli import main
from jclip.conversion import convert
from tests.conversion import broken
from tests.conversion.broken import listing


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory):
    """Returns the checkpoint of a layout by name, written once: (path, options, PyTorch model). Read only."""
    from tests.conversion import layouts

    return functools.cache(lambda name: getattr(layouts, name)(tmp_path_factory.mktemp(name) / "source"))


@pytest.fixture(scope="session")
def bundle_of(checkpoint_of, tmp_path_factory):
    """Returns the bundle of a layout by name, converted once. Read only."""

    def convert_once(name):
        source, options, _ = checkpoint_of(name)
        bundle = tmp_path_factory.mktemp(f"{name}-bundle") / "bundle"
        convert(str(source), bundle, options, lambda what: None)
        return bundle

    return functools.cache(convert_once)


@pytest.fixture(scope="session")
def model_of(bundle_of):
    """Returns the loaded model of a layout by name."""
    return functools.cache(lambda name: jclip.load(bundle_of(name)))


@pytest.fixture(scope="session")
def tensors():
    return broken.state("chinese-clip", broken.CHINESE_CLIP)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A checkpoint without a fault. Read only."""
    return broken.write_checkpoint(tmp_path_factory.mktemp("whole") / "source", "chinese-clip", broken.CHINESE_CLIP)


@pytest.fixture(scope="session")
def converted(whole):
    """The bundle of `whole`. Read only."""
    bundle = whole.parent / "bundle"
    assert main(["convert", str(whole), str(bundle), "--json"]) == 0
    return bundle


@pytest.fixture
def source(whole, tmp_path):
    """A copy of `whole`, to break."""
    shutil.copytree(whole, tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs a command that must fail with a short error that matches `says`, without changing the disk."""

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

    def convert_refused(source, *options, says, names=""):
        """Runs a conversion that must fail; the error names its source, or a file in it."""
        error = run("convert", source, tmp_path / "new" / "dst", *options, "--json", says=says)
        assert f"{source}{names}" in error
        return error

    run.convert = convert_refused
    return run
