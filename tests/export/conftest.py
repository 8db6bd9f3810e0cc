"""A small AltCLIP and its ONNX export."""

import pytest

from tests.export import small_models


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return small_models.model("altclip", tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture(scope="session")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "model"
    small_models.write(model, folder)
    return folder
