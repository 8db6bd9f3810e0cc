"""The `openai` client against a running service."""

import base64

import numpy as np
import openai
import pytest

from tests.serve.services import TOLERANCE, app_of, drawn, encoded, image_uri, serving, uri

KEY = "a-key-of-17-signs"


@pytest.fixture(scope="module")
def url(place):
    with serving(app_of(place, key=KEY)) as url:
        yield url


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_texts_and_images(client, model, form):
    inputs = ["红色的猫", image_uri(1), "狗"]
    found = client.embeddings.create(model=model.name, input=inputs, **form)
    texts = model.encode_text([inputs[0], inputs[2]])
    wanted = [texts[0], model.encode_image([drawn(1)])[0], texts[1]]
    assert [each.index for each in found.data] == [0, 1, 2] and found.usage.prompt_tokens == 9
    vectors = [
        np.frombuffer(base64.b64decode(each.embedding), "<f4") if isinstance(each.embedding, str) else each.embedding
        for each in found.data
    ]
    np.testing.assert_allclose(vectors, wanted, atol=TOLERANCE)


def test_a_damaged_image_is_its_items_error(client, model):
    found = client.embeddings.create(
        model=model.name, input=[uri(encoded(drawn(1))[:99]), "狗"], encoding_format="float"
    ).data
    assert found[0].embedding is None and found[0].error["code"] == "invalid_image"
    np.testing.assert_allclose(found[1].embedding, model.encode_text(["狗"])[0], atol=TOLERANCE)


def test_models(client, model):
    assert [each.id for each in client.models.list()] == [model.name]


@pytest.mark.parametrize(
    ("given", "error", "code"),
    [
        ({"input": ""}, openai.BadRequestError, "empty"),
        ({"input": "a", "model": "gpt"}, openai.NotFoundError, "model_not_found"),
        ({"input": uri(b"x")}, openai.UnprocessableEntityError, "invalid_image"),
        ({"input": ["a"] * 257}, openai.APIStatusError, "items_limit"),
    ],
)
def test_errors_are_the_clients_own(client, model, given, error, code):
    with pytest.raises(error) as raised:
        client.embeddings.create(**{"model": model.name, **given})
    assert raised.value.code == code and raised.value.body["message"] in str(raised.value)


def test_a_wrong_key(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="other", max_retries=0)
    with client, pytest.raises(openai.AuthenticationError, match="the key is missing or wrong"):
        client.models.list()
