from pathlib import Path

import pytest
from starlette.testclient import TestClient

from jclip.inference import Model
from jclip.loading import load
from tests.serve.services import client_of, write_gallery


@pytest.fixture(scope="session")
def place(made_once) -> Path:
    """Folder with a bundle, images and an index. Tests only read it."""
    return made_once("serve", write_gallery)


@pytest.fixture(scope="session")
def model(place) -> Model:
    return load(place / "bundle")


@pytest.fixture(scope="session")
def client(place) -> TestClient:
    """Client of a service with the usual limits."""
    with client_of(place) as client:
        yield client
