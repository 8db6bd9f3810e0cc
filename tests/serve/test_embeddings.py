import base64

import numpy as np
import pytest

from tests.serve.services import TOLERANCE, drawn, encoded, error_of, image_uri, uri


def vectors_of(response):
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [entry["index"] for entry in data] == list(range(len(data)))
    return np.array([entry["embedding"] for entry in data], np.float32)


def decoded(embedding):
    return np.frombuffer(base64.b64decode(embedding), "<f4")


def test_texts_and_images_are_those_of_the_model(client, model):
    inputs = ["红色的猫", image_uri(1), "狗", image_uri(2)]
    response = client.post("/v1/embeddings", json={"input": inputs, "model": model.name})
    direct = model.encode_text(["红色的猫", "狗"]), model.encode_image([drawn(1), drawn(2)])
    wanted = np.stack([direct[0][0], direct[1][0], direct[0][1], direct[1][1]])
    np.testing.assert_allclose(vectors_of(response), wanted, atol=TOLERANCE)
    found = response.json()
    assert found["object"] == "list" and found["model"] == model.name
    assert found["usage"] == {"prompt_tokens": 6 + 3, "total_tokens": 9}  # [CLS] 红 色 的 猫 [SEP], [CLS] 狗 [SEP]


def test_base64_holds_the_same_numbers(client):
    numbers, packed = (
        client.post("/v1/embeddings", json={"input": ["狗"], "encoding_format": form}).json()["data"][0]["embedding"]
        for form in ("float", "base64")
    )
    np.testing.assert_allclose(decoded(packed), np.array(numbers, np.float32), atol=TOLERANCE)


@pytest.mark.parametrize("size", [1, 3, 9])
def test_a_batch_equals_its_items(client, size):
    texts = [each * 2 for each in "红色的猫狗红色的猫"[:size]]
    apart = [vectors_of(client.post("/v1/embeddings", json={"input": text}))[0] for text in texts]
    together = vectors_of(client.post("/v1/embeddings", json={"input": texts}))
    np.testing.assert_allclose(together, apart, atol=TOLERANCE)


def test_the_modality_decides(client, model):
    data = image_uri(3)
    as_text = vectors_of(client.post("/v1/embeddings", json={"input": data, "modality": "text"}))
    np.testing.assert_allclose(as_text, model.encode_text([data]), atol=TOLERANCE)
    as_image = vectors_of(client.post("/v1/embeddings", json={"input": data, "modality": "image"}))
    np.testing.assert_allclose(as_image, model.encode_image([drawn(3)]), atol=TOLERANCE)
    assert error_of(client.post("/v1/embeddings", json={"input": "猫", "modality": "image"}), 422) == {
        "message": "it is not an image: send data:image/jpeg;base64,…",
        "type": "invalid_request_error",
        "code": "invalid_image",
    }


@pytest.mark.parametrize("part", ["object", "string"])
def test_messages_in_vllms_form(client, model, part):
    url = image_uri(4)
    content = {"type": "image_url", "image_url": {"url": url} if part == "object" else url}
    response = client.post("/v1/embeddings", json={"messages": [{"role": "user", "content": [content]}]})
    np.testing.assert_allclose(vectors_of(response), model.encode_image([drawn(4)]), atol=TOLERANCE)
    for content in ("狗", [{"type": "text", "text": "狗"}]):
        response = client.post("/v1/embeddings", json={"messages": [{"role": "user", "content": content}]})
        np.testing.assert_allclose(vectors_of(response), model.encode_text(["狗"]), atol=TOLERANCE)
    lacks = {"messages": [{"content": [{"type": "image_url", "text": "a"}]}]}
    message = error_of(client.post("/v1/embeddings", json=lacks), 422)["message"]
    assert message == "messages[0].content[0].image_url is missing"


def test_a_damaged_image_costs_no_other_item(client, model):
    whole = encoded(drawn(5))
    response = client.post("/v1/embeddings", json={"input": ["狗", uri(whole[:-40]), uri(whole), uri(b"")]})
    assert response.status_code == 200
    data = response.json()["data"]
    np.testing.assert_allclose(data[0]["embedding"], model.encode_text(["狗"])[0], atol=TOLERANCE)
    np.testing.assert_allclose(data[2]["embedding"], model.encode_image([drawn(5)])[0], atol=TOLERANCE)
    for number, reason in ((1, "image file is truncated"), (3, "it is empty")):
        error = data[number]["error"]
        assert data[number]["embedding"] is None and error["code"] == "invalid_image"
        assert error["message"].startswith(f"input[{number}]: it cannot be read as an image (") and reason in str(error)
    assert "error" not in data[0]


def test_if_nothing_can_be_encoded_the_request_is_an_error(client):
    for inputs, place in (([uri(b"a"), uri(b"b")], "input[0]: "), (uri(b"a"), "")):
        error = error_of(client.post("/v1/embeddings", json={"input": inputs}), 422)
        assert error["message"] == f"{place}it cannot be read as an image (no known image format)"


def test_the_orientation_is_applied(client, model):
    turned = drawn(6).getexif()
    turned[0x0112] = 6
    data = encoded(drawn(6), "JPEG", exif=turned)
    found = vectors_of(client.post("/v1/embeddings", json={"input": uri(data, "jpeg")}))
    np.testing.assert_allclose(found, model.encode_image([data], orientation="apply"), atol=TOLERANCE)
    assert np.abs(found - model.encode_image([data])).max() > 1e-3


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"input": ""}, 400, "input: it is empty"),
        ({"input": []}, 400, "input: the list is empty"),
        ({"input": ["a", ""]}, 400, "input[1]: it is empty"),
        ({"input": [1, 2]}, 422, "input[0]: 1 is not a string"),
        ({"input": "a", "messages": [{"content": "a"}]}, 422, "give exactly one of input, messages"),
        ({"input": "a", "model": "gpt"}, 404, "model: this service has only '"),
        ({"input": "a", "dimensions": 32}, 422, "dimensions: 32 is not possible: the vectors have 64"),
        ({"input": "a", "encoding_format": "hex"}, 422, "encoding_format: 'hex' is not one of float, base64"),
        ({"input": "\ud800"}, 422, "input: it has an unpaired surrogate"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(client, body, status, message):
    import json

    headers = {"Content-Type": "application/json"}
    response = client.post("/v1/embeddings", content=json.dumps(body), headers=headers)
    assert error_of(response, status)["message"].startswith(message)


def test_dimensions_of_the_model_are_accepted(client, model):
    found = vectors_of(client.post("/v1/embeddings", json={"input": "a", "dimensions": 64, "unknown": 1}))
    np.testing.assert_allclose(found, model.encode_text(["a"]), atol=TOLERANCE)


def test_teis_form(client, model):
    for inputs in ("狗", ["狗", "猫" * 99]):
        found = client.post("/embed", json={"inputs": inputs, "normalize": True}).json()
        wanted = model.encode_text([inputs] if isinstance(inputs, str) else inputs)
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE)
    error = error_of(client.post("/embed", json={"inputs": ["狗", "猫" * 15], "truncate": False}), 413)
    assert error["message"] == "inputs[1]: more than 16 tokens: set truncate"
    assert client.post("/embed", json={"inputs": "猫" * 14, "truncate": False}).status_code == 200
    error = error_of(client.post("/embed", json={"inputs": "狗", "normalize": False}), 422)
    assert error["message"].startswith("normalize: false is not possible")
