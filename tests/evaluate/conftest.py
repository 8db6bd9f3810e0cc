import pytest

from tests.evaluate.small_bundle import write_small_bundle


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory):
    """Small bundle. Tests only read it."""
    return write_small_bundle(tmp_path_factory.mktemp("small_bundle"))
