"""Public names of `jclip.models` and `jclip.losses`."""

import subprocess
import sys

import pytest

from jclip import losses, models

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
