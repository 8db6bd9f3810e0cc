"""Public names of `jclip.models` and `jclip.losses`, and the examples of their docstrings."""

import doctest
import subprocess
import sys
from importlib import import_module

import pytest

from jclip import losses, models, rules
from jclip.models import towers

PACKAGES = pytest.mark.parametrize("package", [models, losses], ids=["models", "losses"])


@PACKAGES
def test_every_name_exists_and_is_explained(package):
    for name in package.__all__:
        assert getattr(package, name).__doc__, name
        assert name in package.__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'missing'"):
        _ = package.missing


def test_importing_them_is_light():
    code = "import sys, jclip.models, jclip.losses; assert not {'jax', 'flax', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", [models, towers, rules], ids=lambda module: module.__name__)
def test_examples(module):
    found = doctest.testmod(import_module(module.__name__))
    assert found.attempted and not found.failed
